"""Tissue mask of a slide, and the share of tissue in any square."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array
from napari_cpnn.geometry import Grid, Mpp


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide at low resolution.

    Parameters
    ----------
    mask
        ``(rows, cols)`` bool; pixel ``(0, 0)`` starts at the outer corner of the slide.
    um_per_px
        Size of its pixels in micrometres, ``(y, x)``.
    bare
        ``(rows, cols)`` bool: glass at the rim of the mask, which is rounder than the tissue; maps are not drawn there.
        None: not known.

    Examples
    --------
    >>> from napari_cpnn.slides import find_tissue
    >>> tissue = find_tissue(slide)
    >>> tissue.is_empty, tissue.coverage(cmap.grid).shape == cmap.state.shape
    (False, True)
    """

    mask: BoolArray
    um_per_px: Mpp
    bare: BoolArray | None = None

    @property
    def drawn(self) -> BoolArray:
        """``(rows, cols)``, where a map is drawn: the mask without the glass at its rim."""
        return self.mask if self.bare is None else self.mask & ~self.bare

    @property
    def area_um2(self) -> float:
        """Area of tissue in square micrometres."""
        return float(self.mask.sum()) * self.um_per_px[0] * self.um_per_px[1]

    @property
    def is_empty(self) -> bool:
        return not bool(self.mask.any())

    def coverage(self, grid: Grid) -> Float32Array:
        """Return the share of tissue in each patch of ``grid``, ``(rows, cols)`` float32 in 0..1.

        Exact at the mask's resolution: partially covered pixels count by area; outside the slide there is no tissue.
        """
        rows, cols = (
            _overlaps(
                grid.shape[axis], grid.origin_um[axis], grid.stride_um, self.um_per_px[axis], self.mask.shape[axis]
            )
            for axis in (0, 1)
        )
        by_row = _interpolate(self._cumulative, rows, 0)
        corners = _interpolate(by_row, cols, 1)
        area_px = np.diff(np.diff(corners, axis=0), axis=1)
        share = area_px * (self.um_per_px[0] * self.um_per_px[1]) / grid.stride_um**2
        return share.clip(0, 1).astype(np.float32)

    def coverage_at(self, centers_um: npt.ArrayLike, size_um: float) -> Float32Array:
        """Return the share of tissue ``(N,)`` in squares of ``size_um`` around centres ``(N, 2)`` in slide um."""
        centers = np.asarray(centers_um, dtype=np.float64).reshape(-1, 2)
        low, high = (((centers + side * size_um / 2) / self.um_per_px).clip(0, self.mask.shape) for side in (-1, 1))
        area_px = sum(
            sign * _interpolate_at(self._cumulative, y, x)
            for y, x, sign in (
                (high[:, 0], high[:, 1], 1), (low[:, 0], high[:, 1], -1),
                (high[:, 0], low[:, 1], -1), (low[:, 0], low[:, 1], 1),
            )
        )  # fmt: skip
        share = np.asarray(area_px) * (self.um_per_px[0] * self.um_per_px[1]) / size_um**2
        return share.clip(0, 1).astype(np.float32)

    @cached_property
    def _cumulative(self) -> npt.NDArray[np.float64]:
        """Cumulative tissue area left of and above each grid line of the mask."""
        cumulative = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        cumulative[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        return cumulative


def _overlaps(n: int, origin: float, stride: float, um_per_px: float, size: int) -> npt.NDArray[np.float64]:
    """Return the grid lines in mask pixels, clipped to the mask."""
    return ((origin + np.arange(n + 1) * stride) / um_per_px).clip(0, size)


def _interpolate(values: npt.NDArray[np.float64], at: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    low = np.minimum(np.floor(at).astype(np.intp), values.shape[axis] - 2)
    part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
    result: npt.NDArray[np.float64] = values.take(low, axis) * (1 - part) + values.take(low + 1, axis) * part
    return result


def _interpolate_at(
    values: npt.NDArray[np.float64], y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    top, left = (np.minimum(np.floor(v).astype(np.intp), n - 2) for v, n in zip((y, x), values.shape, strict=True))
    down, right = y - top, x - left
    upper = values[top, left] * (1 - right) + values[top, left + 1] * right
    lower = values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right
    result: npt.NDArray[np.float64] = upper * (1 - down) + lower * down
    return result
