"""Convert map values to the colours of an overlay, with NumPy only.

Overlays are painted as RGBA rather than as scalar fields in napari, for two reasons. A linear texture filter turns
every patch next to a NaN into NaN, so a smoothed scalar map loses half a patch along its border. And patches that are
not computed yet are fainter than their neighbours, which needs an alpha value per patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.painting.averaging import disc_sums

Range = tuple[float, float]
Number = TypeVar("Number", bound=np.generic)

COLORMAPS = ("viridis", "magma", "inferno", "cividis", "turbo", "Reds", "Blues")
"""Names of available Matplotlib colour maps; all but turbo are safe for colour vision deficiency."""

FULL_ALPHA_AT = 0.5
"""Position in the colour range at which the overlay reaches full opacity; below, it fades out."""

FAINTEST = 0.4
"""Relative opacity of an area that is hardly computed yet."""

FAILED_COLOR = (0.35, 0.35, 0.35, 0.9)
"""Colour of failed patches: dark grey, which no colour map or cell type uses."""

FULL_MARGIN, PALEST = 0.25, 0.15
"""Margin between the two largest shares at which a dominant type has its full opacity, and that of a tie."""

MUTED, MUTED_SHARE = (0.55, 0.55, 0.55), 0.7
"""Grey, and its share in the colour of a category on tissue that is unlike that of the training."""

TISSUE = (236 / 255, 214 / 255, 226 / 255)
"""Typical tissue colour below a faint overlay, between eosin pink and white."""


@lru_cache(maxsize=16)
def color_table(name: str) -> Float32Array:
    """Colour map as ``(256, 4)`` RGBA in 0 to 1, with low values fading to transparent."""
    from matplotlib import colormaps

    table = colormaps[name](np.linspace(0.0, 1.0, 256)).astype(np.float32)
    ramp = np.clip(np.linspace(0.0, 1.0, 256) / FULL_ALPHA_AT, 0.0, 1.0)
    table[:, 3] = ramp * ramp * (3 - 2 * ramp)
    table.setflags(write=False)
    return table


class Painter:
    """Paint one map: visible patches, the values they display, and their opacity.

    These are computed once per state of the map, so that changing the gene or colour map costs only one table look-up
    per visible patch.

    Parameters
    ----------
    tissue
        ``(rows, cols)`` bool.

    Attributes
    ----------
    rgba
        ``(rows, cols, 4)`` float32, painted in place.
    n_done
        Number of computed patches.
    """

    def __init__(self, tissue: npt.NDArray[np.bool_]) -> None:
        self._tissue = tissue
        self._tissue_around = _around(tissue)
        self._n_tissue = int(tissue.sum())
        self._visible = np.zeros(tissue.shape, dtype=bool)
        self.n_done = 0
        self._cells = self._donors = self._rim = self._rim_from = np.empty(0, dtype=np.intp)
        self._failed = self._cells
        self._hidden = np.zeros(tissue.shape, dtype=bool)
        self._n_around: tuple[float, FloatArray] = (0.0, np.empty(0))
        self._solid = np.empty(0, dtype=np.float32)
        self.rgba = np.zeros((*tissue.shape, 4), dtype=np.float32)

    def update(self, donors: IntArray, done: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_]) -> None:
        """Update to a new state of the map.

        Parameters
        ----------
        donors
            ``(rows, cols)`` flat index of the patch whose value is displayed, -1 for none.
        done, failed
            ``(rows, cols)`` bool.
        """
        visible = donors >= 0
        if not np.array_equal(visible, self._visible):
            self._visible = visible
            self._cells = np.flatnonzero(visible)
            self._rim, self._rim_from = _rim(visible)
            self._n_around = (0.0, np.empty(0))
        self._donors = donors.reshape(-1)[self._cells]
        self._failed = np.flatnonzero(failed)
        self.n_done = int(done.sum())
        self._solid = self._certainty(done | failed).reshape(-1)[self._cells]

    def _certainty(self, done: npt.NDArray[np.bool_]) -> Float32Array:
        """Relative opacity of each patch, from `FAINTEST` to 1: the computed fraction of its neighbourhood.

        A fraction rather than a flag per patch avoids a pattern of opaque patches among faint ones in areas that are
        partially refined.
        """
        done = done & self._tissue
        if int(done.sum()) == self._n_tissue:
            return np.ones(done.shape, dtype=np.float32)
        share = np.clip(_around(done) / np.maximum(self._tissue_around, 1e-3), 0.0, 1.0)
        return np.asarray(FAINTEST + (1 - FAINTEST) * share, dtype=np.float32)

    @property
    def n_visible(self) -> int:
        return len(self._cells)

    def shown(self, values: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Select the displayed values ``(n,)`` of visible patches from values of all patches ``(rows, cols)``."""
        return values.reshape(-1)[self._donors]

    def averaged(self, shown: Float32Array, radius: float) -> Float32Array:
        """Average displayed values ``(n,)`` over the visible patches in a disc around each, radius in patches."""
        values = np.zeros(self._visible.shape)
        values.reshape(-1)[self._cells] = shown
        if self._n_around[0] != radius:
            self._n_around = radius, disc_sums(self._visible, radius).reshape(-1)[self._cells]
        return (disc_sums(values, radius).reshape(-1)[self._cells] / self._n_around[1]).astype(np.float32)

    def hide(self, hidden: BoolArray) -> None:
        """Leave out patches ``(rows, cols)`` of what was painted."""
        self._hidden = hidden
        self.rgba[hidden, 3] = 0

    def mute(self, muted: BoolArray) -> None:
        """Turn the colours of patches ``(rows, cols)`` of what was painted to grey."""
        self.rgba[muted, :3] += (np.array(MUTED, np.float32) - self.rgba[muted, :3]) * np.float32(MUTED_SHARE)

    @property
    def covered(self) -> BoolArray:
        """Painted patches ``(rows, cols)``."""
        covered = self._visible & ~self._hidden
        covered.reshape(-1)[self._failed] = True
        return covered

    def extended(self) -> Float32Array:
        """Return `rgba` with the colours and alpha of visible patches repeated around them.

        Interpolated, they then keep their colour to the edge of :attr:`covered`, to which they are to be clipped.
        """
        rgba = self.rgba.copy()
        flat = rgba.reshape(-1, 4)
        flat[self._rim] = flat[self._rim_from]
        flat[self._failed] = self.rgba.reshape(-1, 4)[self._failed]
        return rgba

    def paint_values(self, shown: Float32Array, table: Float32Array, limits: Range) -> None:
        """Paint scalar values with a colour map.

        Parameters
        ----------
        shown
            ``(n,)``, see :meth:`shown`.
        table
            ``(256, 4)``, see :func:`color_table`.
        limits
            Values of the first and the last colour. The colours are written between them, as
            :class:`~napari_cpnn.ui.explore.overlays.Overlay` explains.
        """
        low, high = limits
        at = shown - np.float32(low)
        at *= np.float32(255.0 / max(high - low, 1e-12))
        np.clip(np.rint(at, out=at), 0, 255, out=at)
        # The table is laid between the limits, not each of the patches.
        self._write(_between(table, limits).take(at.astype(np.uint8), axis=0), limits)

    def paint_dominant(self, shown: npt.NDArray[Any], margins: Float32Array, colors: Float32Array) -> None:
        """Paint categories, the paler the less they are ahead.

        Parameters
        ----------
        shown
            ``(n,)`` indices into ``colors (C, 3)``.
        margins
            ``(n,)``, how far the largest share is above the second; see :func:`strength_of`.
        """
        self._write(np.concatenate([colors[shown], strength_of(margins)[:, None]], axis=1), (0.0, 1.0))

    def paint_blend(self, shares: Float32Array, colors: Float32Array) -> None:
        """Paint the mean colour of types weighted by share, with their total share as opacity.

        Parameters
        ----------
        shares
            ``(n, k)`` shares of the types to blend.
        colors
            ``(k, 3)`` colours of the types.
        """
        total = shares.sum(axis=1)
        painted = np.empty((len(shares), 4), dtype=np.float32)
        painted[:, :3] = (shares @ colors) / np.maximum(total, 1e-6)[:, None]
        painted[:, 3] = np.clip(total, 0, 1)
        self._write(painted, (0.0, 1.0))

    def _write(self, painted: Float32Array, limits: Range) -> None:
        """Write the colours of visible patches, which lie between the limits."""
        self._hidden = np.zeros(self._visible.shape, dtype=bool)
        painted = np.ascontiguousarray(painted, dtype=np.float32)  # as their bits are copied
        painted[:, 3] *= self._solid
        flat = self.rgba.reshape(-1, 4)
        _whole_pixels(flat)[self._cells] = _whole_pixels(painted)
        # A linear texture filter mixes colour and alpha separately: black in a transparent neighbour would draw a
        # dark fringe around the map.
        flat[self._rim, :3] = flat[self._rim_from, :3]
        flat[self._failed] = _between(np.array([FAILED_COLOR], dtype=np.float32), limits)


def _whole_pixels(rgba: Float32Array) -> npt.NDArray[np.complex128]:
    """View RGBA ``(n, 4)`` as ``(n,)`` items of the same bits, which NumPy copies five times as fast as rows."""
    return rgba.view(np.complex128)[:, 0]


def _between(colors: Float32Array, limits: Range) -> Float32Array:
    """Lay RGBA ``(n, 4)`` in 0 to 1 between two values, but for alpha."""
    low, high = limits
    laid = colors.copy()
    laid[:, :3] = low + laid[:, :3] * (high - low)
    return laid


def strength_of(margins: Float32Array) -> Float32Array:
    """Opacity of a dominant type, from `PALEST` for a tie to 1 where the margin is `FULL_MARGIN` or more."""
    return np.asarray(PALEST + (1 - PALEST) * np.clip(margins / FULL_MARGIN, 0.0, 1.0), dtype=np.float32)


def _around(mask: npt.NDArray[np.bool_]) -> Float32Array:
    return np.asarray(uniform_filter(mask.astype(np.float32), size=5, mode="constant"))


def _rim(visible: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Invisible patches next to visible ones, and a visible neighbour of each (flat indices)."""
    source = np.full(visible.shape, -1, dtype=np.intp)
    flat = np.arange(visible.size, dtype=np.intp).reshape(visible.shape)
    rows, cols = visible.shape
    for dy, dx in ((-1, -1), (-1, 1), (1, -1), (1, 1), (-1, 0), (1, 0), (0, -1), (0, 1)):
        here = (slice(max(dy, 0), rows + min(dy, 0)), slice(max(dx, 0), cols + min(dx, 0)))
        there = (slice(max(-dy, 0), rows + min(-dy, 0)), slice(max(-dx, 0), cols + min(-dx, 0)))
        hit = visible[there] & ~visible[here]
        source[here][hit] = flat[there][hit]
    rim = np.flatnonzero(source.reshape(-1) >= 0)
    return rim, source.reshape(-1)[rim]


def on_tissue(colors: Float32Array, opacity: float = 1.0, tissue: Sequence[float] = TISSUE) -> Float32Array:
    """Blend RGBA ``(..., 4)`` in 0 to 1 with a typical tissue colour to RGB ``(..., 3)`` in 0 to 1, for legends."""
    alpha = colors[..., 3:] * np.float32(opacity)
    return np.asarray(colors[..., :3] * alpha + np.array(tissue, np.float32) * (1 - alpha), dtype=np.float32)


def hex_colors(colors: Sequence[str]) -> Float32Array:
    """Convert ``#RRGGBB`` strings to ``(n, 3)`` in 0 to 1."""
    rgb = [[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in colors]
    return np.array(rgb, dtype=np.float32).reshape(len(rgb), 3)


class AutoRange:
    """Automatic colour range of a map being filled: robust percentiles, updated rarely.

    The range is updated only when twice as many patches are known as at the last update, or when the map is complete
    and the range has changed by more than a tenth, so that colours do not flicker.

    Parameters
    ----------
    from_zero
        Whether the lower end is always 0 (shares), or the low percentile (expression).
    least
        Minimum width of the range, so that noise in a flat map is not amplified.
    """

    LOW, HIGH = 2.0, 99.0

    def __init__(self, *, from_zero: bool, least: float) -> None:
        self._from_zero = from_zero
        self._least = least
        self._n_known = 0
        self.limits: Range = (0.0, least)

    def update(self, values: Float32Array, n_known: int, at_rest: bool) -> Range:
        """Update with the displayed values and return the range.

        Parameters
        ----------
        values
            Displayed values; the value of a coarse block is repeated for each patch it covers.
        n_known
            Number of computed patches.
        at_rest
            Whether the computation has finished.
        """
        if values.size and (n_known >= 2 * self._n_known or (at_rest and n_known != self._n_known)):
            wanted = self._measure(values)
            width = self.limits[1] - self.limits[0]
            off = max(abs(a - b) for a, b in zip(wanted, self.limits, strict=True))
            if self._n_known == 0 or off > 0.1 * width:
                self.limits = wanted
            self._n_known = max(n_known, 1)
        return self.limits

    def _measure(self, known: Float32Array) -> Range:
        sample = known[:: max(1, known.size // 20_000)]
        low, high = (float(v) for v in np.percentile(sample, (self.LOW, self.HIGH)))
        if self._from_zero:
            return 0.0, max(high, self._least)
        middle = (low + high) / 2
        half = max(high - low, self._least) / 2
        return middle - half, middle + half
