"""Placements of one tissue on another: by their shape, and by how alike the pictures are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage
from scipy.optimize import minimize

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.errors import NoTissueError
from napari_cpnn.registration.views import View

#: Longer side of the tissue in pixels, when all angles are tried, and when a placement is refined.
COARSE_PX, FINE_PX = 96, 144
#: Angles that are tried, in degrees.
_STEP_DEG = 7.5
#: Placements that differ by less are one.
_APART_DEG = 30.0
#: How many of them are refined.
MOST = 6
#: Largest change of lengths (as a logarithm): of sections of known pixel size, or against the ratio of the areas.
_SCALE = 0.1
#: Least part of the smaller tissue that both must show for a correlation.
_SHARED = 0.3


@dataclass(frozen=True)
class Placement:
    """A similarity from moving to fixed um ``(y, x)``, and how well it does.

    Attributes
    ----------
    matrix
        ``(2, 3)``.
    dice
        Overlap of both tissues.
    correlation
        Of the darkness of both pictures where both show tissue; NaN without pictures, or where too little is shared.
    """

    matrix: FloatArray
    dice: float
    correlation: float = math.nan


def is_other(one: FloatArray, two: FloatArray, degrees: float = 45.0) -> bool:
    """Return whether two similarities differ by mirroring, or by more than so many degrees."""
    between = two[:, :2] @ np.linalg.inv(one[:, :2])
    if np.linalg.det(between) < 0:
        return True
    angle = math.atan2(between[1, 0] - between[0, 1], between[0, 0] + between[1, 1])
    return abs(math.degrees(angle)) > degrees


class Raster:
    """Tissue and darkness of the fixed view on one raster, on which moving views are laid.

    Parameters
    ----------
    px
        Longer side of the tissue in pixels; the raster has a margin of a quarter of it.
    """

    def __init__(self, fixed: View, moving: View, px: int) -> None:
        self.moving, self._is_scaled = moving, fixed.is_scaled and moving.is_scaled
        low, high = _box(fixed)
        longest = max(high - low)
        self.um = float(longest) / px
        margin = longest / 4
        self.origin = low - margin
        self.shape = tuple(int(n) for n in np.ceil((high - low + 2 * margin) / self.um))
        self.mask = self._sampled(fixed.mask.astype(np.float32), fixed.mask_um, fixed.origin_um, np.eye(2, 3))
        self.moving_mask = moving.mask.astype(np.float32)
        self.area = float(self.moving_mask.sum()) * moving.mask_um[0] * moving.mask_um[1] / self.um**2
        self.dark: Float32Array | None = None
        if fixed.dark is not None and moving.dark is not None:
            self.dark = self._sampled(
                _soft(fixed.dark, fixed.dark_um, self.um), fixed.dark_um, fixed.origin_um, np.eye(2, 3)
            )
            self._moving_dark = _soft(moving.dark, moving.dark_um, self.um)

    def _sampled(
        self, values: Float32Array, size: tuple[float, float], origin: tuple[float, float], back: FloatArray
    ) -> Float32Array:
        """Return a picture on this raster; ``back`` leads from the um of this raster to those of the picture."""
        linear = back[:, :2] * self.um / np.asarray(size)[:, None]
        first = back[:, :2] @ (self.origin + self.um / 2) + back[:, 2]
        offset = (first - np.asarray(origin)) / np.asarray(size) - 0.5
        return np.asarray(ndimage.affine_transform(values, linear, offset, self.shape, order=1), dtype=np.float32)

    def laid(self, matrix: FloatArray) -> tuple[Float32Array, float]:
        """Return the moving tissue on this raster, and the overlap (Dice) of both."""
        mask = self._sampled(self.moving_mask, self.moving.mask_um, self.moving.origin_um, _undone(matrix))
        area = self.area * abs(float(np.linalg.det(matrix[:, :2])))
        return mask, float(2 * np.minimum(mask, self.mask).sum() / (self.mask.sum() + area))

    def judged(self, matrix: FloatArray) -> Placement:
        """Return the placement with its overlap and correlation."""
        mask, dice = self.laid(matrix)
        if self.dark is None:
            return Placement(matrix, dice)
        both = (mask > 0.5) & (self.mask > 0.5)
        if both.sum() < _SHARED * min((mask > 0.5).sum(), (self.mask > 0.5).sum()) or both.sum() < 50:
            return Placement(matrix, dice)
        dark = self._sampled(self._moving_dark, self.moving.dark_um, self.moving.origin_um, _undone(matrix))
        return Placement(matrix, dice, _correlation(self.dark[both], dark[both]))

    def likeness(self, matrix: FloatArray) -> float:
        """Return what is maximised: the overlap, and the correlation where there are pictures."""
        one = self.judged(matrix)
        return one.dice + (0.0 if math.isnan(one.correlation) else one.correlation)

    def refined(self, matrix: FloatArray, *, free_scale: bool, most: int) -> FloatArray:
        """Return a placement turned, moved (and scaled) so that it becomes most alike, by Nelder and Mead's simplex.

        It takes ``most`` looks at the raster.
        """
        centre = _centre(self.moving)
        at = matrix[:, :2] @ centre + matrix[:, 2]
        extent = self.um * max(self.shape)
        off = math.log(abs(float(np.linalg.det(matrix[:, :2])))) / 2 if self._is_scaled else 0.0

        def moved(change: FloatArray) -> FloatArray:
            angle, size = change[0], math.exp(change[3]) if free_scale else 1.0
            turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            linear = size * turn @ matrix[:, :2]
            return np.column_stack([linear, at + change[1:3] * extent - linear @ centre])

        def cost(change: FloatArray) -> float:
            beyond = max(0.0, abs(off + change[3]) - _SCALE) if free_scale else 0.0
            return 10 * beyond - self.likeness(moved(change))

        steps = np.diag([math.radians(4), 0.02, 0.02, 0.02][: 4 if free_scale else 3])
        start = np.vstack([np.zeros(len(steps)), steps])
        found = minimize(
            cost, start[0], method="Nelder-Mead",
            options={"initial_simplex": start, "maxfev": most, "xatol": 2e-4, "fatol": 1e-4},
        )  # fmt: skip
        return moved(found.x)


def placements(fixed: View, moving: View) -> list[FloatArray]:
    """Return similarities that lay one tissue well on the other, clearly different ones, the best first.

    All angles are tried, mirrored and not; for each the best shift by the cross-correlation of both masks.
    """
    raster = Raster(fixed, moving, COARSE_PX)
    scale = 1.0
    if not (fixed.is_scaled and moving.is_scaled):
        scale = math.sqrt(float(raster.mask.sum()) / raster.area)
    low, high = _box(moving)
    centre, side = (low + high) / 2, int(np.linalg.norm(high - low) * scale / raster.um) + 3
    shape = [fft.next_fast_len(n + side, real=True) for n in raster.shape]
    fixed_waves = fft.rfft2(raster.mask, shape)
    found: list[tuple[float, FloatArray]] = []
    for mirror in (1.0, -1.0):
        for degrees in np.arange(0, 360, _STEP_DEG):
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            linear = scale * np.array([[c, -s], [s, c]]) @ np.diag([1.0, mirror])
            # The moving tissue, turned, in the middle of a square of its own.
            back = np.linalg.inv(linear) * raster.um / np.asarray(moving.mask_um)[:, None]
            middle = (centre - np.asarray(moving.origin_um)) / np.asarray(moving.mask_um) - 0.5
            offset = middle - back @ np.full(2, (side - 1) / 2)
            mask = ndimage.affine_transform(raster.moving_mask, back, offset, (side, side), order=1)
            overlap = fft.irfft2(fixed_waves * fft.rfft2(mask, shape).conj(), shape)
            at = np.array(np.unravel_index(int(overlap.argmax()), shape))
            shift = np.where(at >= np.array(raster.shape), at - np.array(shape), at)
            dice = 2 * float(overlap.max()) / float(raster.mask.sum() + mask.sum())
            target = raster.origin + (shift + side / 2) * raster.um
            found.append((dice, np.column_stack([linear, target - linear @ centre])))
    found.sort(key=lambda item: -item[0])
    kept: list[FloatArray] = []
    for _, matrix in found:
        if all(is_other(one, matrix, _APART_DEG) for one in kept):
            kept.append(matrix)
    return kept[:MOST]


def _box(view: View) -> tuple[FloatArray, FloatArray]:
    """Return the corners of the tissue, um ``(y, x)``."""
    rows, cols = np.nonzero(view.mask)
    if not len(rows):
        raise NoTissueError(f"No tissue was found on {view.name}.")
    size, origin = np.asarray(view.mask_um), np.asarray(view.origin_um)
    return np.array([rows.min(), cols.min()]) * size + origin, (np.array([rows.max(), cols.max()]) + 1) * size + origin


def _centre(view: View) -> FloatArray:
    rows, cols = np.nonzero(view.mask)
    middle: FloatArray = np.array([rows.mean() + 0.5, cols.mean() + 0.5])
    return np.asarray(middle * view.mask_um + view.origin_um)


def _undone(matrix: FloatArray) -> FloatArray:
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def _soft(dark: Float32Array, size: tuple[float, float], um: float) -> Float32Array:
    """Return darkness without what is finer than the raster."""
    return np.asarray(ndimage.gaussian_filter(dark, [um / one for one in size]), dtype=np.float32)


def _correlation(one: Float32Array, two: Float32Array) -> float:
    if np.ptp(one) < 1e-6 or np.ptp(two) < 1e-6:
        return math.nan
    return float(np.corrcoef(one, two)[0, 1])
