"""From map values to the colours of an overlay; NumPy only.

Overlays are painted as RGBA, not left to napari as scalar fields, for two reasons. A linear texture filter turns
every cell that touches a NaN into NaN, so a smoothed scalar map loses half a cell all along its border. And a cell
that is not computed yet must be fainter than its neighbours, which needs an alpha per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from napari_cpnn.geometry import IntArray

FloatMap = npt.NDArray[np.float32]
Range = tuple[float, float]

COLORMAPS = ("magma", "viridis", "inferno", "cividis", "turbo", "Reds", "Blues")
"""Names of colour maps on offer, in matplotlib's spelling; all but turbo are safe with a colour-vision deficiency."""

FULL_ALPHA_AT = 0.5
"""Where in the colour range the overlay reaches its full opacity; below, it fades to nothing."""

FAINTEST = 0.4
"""Opacity of an area of which almost nothing is computed yet, relative to a finished one."""

FAILED_COLOR = (0.35, 0.35, 0.35, 0.9)
"""A patch that could not be read or computed: dark grey, which no colour map and no cell type has."""


@lru_cache(maxsize=16)
def color_table(name: str) -> FloatMap:
    """``(256, 4)`` RGBA in 0 to 1 of a colour map, with low values fading to transparent."""
    from matplotlib import colormaps

    table = colormaps[name](np.linspace(0.0, 1.0, 256)).astype(np.float32)
    ramp = np.clip(np.linspace(0.0, 1.0, 256) / FULL_ALPHA_AT, 0.0, 1.0)
    table[:, 3] = ramp * ramp * (3 - 2 * ramp)
    table.setflags(write=False)
    return table


def certainty(done: npt.NDArray[np.bool_], tissue: npt.NDArray[np.bool_]) -> FloatMap:
    """How solid each cell is drawn, ``(rows, cols)`` in `FAINTEST` to 1: the computed share of its surroundings.

    The share, rather than a flag per cell, because a half-refined area would otherwise look like a polka-dot
    pattern of solid cells among faint ones.
    """
    if bool(done[tissue].all()):
        return np.ones(done.shape, dtype=np.float32)
    around = [uniform_filter(a.astype(np.float32), size=5, mode="constant") for a in (done & tissue, tissue)]
    share = np.clip(around[0] / np.maximum(around[1], 1e-3), 0.0, 1.0)
    return (FAINTEST + (1 - FAINTEST) * share).astype(np.float32)


def borrowed(values: FloatMap, donors: IntArray) -> FloatMap:
    """``values`` with every cell showing its donor's; NaN where there is none."""
    flat = donors.reshape(-1)
    result = values.reshape(-1)[flat]
    result[flat < 0] = np.nan
    return result.reshape(donors.shape)


def paint_values(values: FloatMap, table: FloatMap, limits: Range, solid: FloatMap) -> FloatMap:
    """``(rows, cols, 4)`` RGBA of scalar values; NaN is transparent.

    Parameters
    ----------
    values
        ``(rows, cols)``.
    table
        ``(256, 4)``, see :func:`color_table`.
    limits
        Values of the first and the last colour.
    solid
        ``(rows, cols)``, see :func:`certainty`.
    """
    low, high = limits
    known = np.isfinite(values)
    scaled = (np.where(known, values, low) - low) * (255.0 / max(high - low, 1e-12))
    rgba = table[np.clip(np.rint(scaled), 0, 255).astype(np.uint8)]
    rgba[..., 3] *= solid * known
    return _bleed(rgba, known)


def paint_dominant(index: IntArray, colors: FloatMap, solid: FloatMap) -> FloatMap:
    """``(rows, cols, 4)`` RGBA of a map of categories; -1 is transparent.

    Parameters
    ----------
    index
        ``(rows, cols)`` position in ``colors``.
    colors
        ``(C, 3)``.
    solid
        ``(rows, cols)``, see :func:`certainty`.
    """
    rgba = np.zeros((*index.shape, 4), dtype=np.float32)
    known = index >= 0
    rgba[known, :3] = colors[index[known]]
    rgba[..., 3] = np.where(known, solid, 0)
    return rgba


def paint_blend(shares: FloatMap, colors: FloatMap, solid: FloatMap) -> FloatMap:
    """``(rows, cols, 4)`` RGBA: the mean colour of the types, weighted by share, as opaque as their sum.

    Parameters
    ----------
    shares
        ``(rows, cols, n)`` of the types to mix; NaN where unknown.
    colors
        ``(n, 3)``.
    solid
        ``(rows, cols)``, see :func:`certainty`.
    """
    known = np.isfinite(shares).all(axis=-1)
    safe = np.where(known[..., None], shares, 0)
    total = safe.sum(axis=-1)
    rgba = np.empty((*known.shape, 4), dtype=np.float32)
    rgba[..., :3] = (safe @ colors) / np.maximum(total, 1e-6)[..., None]
    rgba[..., 3] = np.clip(total, 0, 1) * solid * known
    return _bleed(rgba, known)


def mark_failed(rgba: FloatMap, failed: npt.NDArray[np.bool_]) -> None:
    """Paint failed cells dark grey, in place."""
    rgba[failed] = FAILED_COLOR


def hex_colors(colors: Sequence[str]) -> FloatMap:
    """``#RRGGBB`` strings -> ``(n, 3)`` in 0 to 1."""
    rgb = [[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in colors]
    return np.array(rgb, dtype=np.float32).reshape(len(rgb), 3)


def _bleed(rgba: FloatMap, known: npt.NDArray[np.bool_]) -> FloatMap:
    """Give invisible cells the colour of their visible neighbours, in place.

    A linear texture filter mixes colour and alpha separately, so black in a transparent cell would draw a dark
    fringe around the map.
    """
    if known.all() or not known.any():
        return rgba
    weight = uniform_filter(known.astype(np.float32), size=3, mode="nearest")
    rim = ~known & (weight > 1e-3)
    for channel in range(3):
        smooth = uniform_filter(rgba[..., channel] * known, size=3, mode="nearest")
        rgba[rim, channel] = smooth[rim] / weight[rim]
    return rgba


class AutoRange:
    """The colour range of a map that is still being filled: robust percentiles that hold still.

    The range is taken again only when twice as many cells are known as at the last time, or when the map is at rest
    and the range is off by more than a tenth, so that colours do not flicker at each repaint.

    Parameters
    ----------
    from_zero
        Whether the lower end is always 0 (shares), or the low percentile (expression).
    least
        Smallest width of the range; noise in a flat map is not blown up to full colour.
    """

    LOW, HIGH = 2.0, 99.0

    def __init__(self, *, from_zero: bool, least: float) -> None:
        self._from_zero = from_zero
        self._least = least
        self._n_known = 0
        self.limits: Range = (0.0, least)

    def update(self, values: FloatMap, at_rest: bool) -> Range:
        """The range after seeing all ``values`` that are known now (NaN: unknown)."""
        known = values[np.isfinite(values)]
        if known.size and (known.size >= 2 * self._n_known or (at_rest and known.size != self._n_known)):
            wanted = self._measure(known)
            width = self.limits[1] - self.limits[0]
            off = max(abs(a - b) for a, b in zip(wanted, self.limits, strict=True))
            if self._n_known == 0 or off > 0.1 * width:
                self.limits = wanted
            self._n_known = known.size
        return self.limits

    def _measure(self, known: FloatMap) -> Range:
        low, high = (float(v) for v in np.percentile(known, (self.LOW, self.HIGH)))
        if self._from_zero:
            return 0.0, max(high, self._least)
        middle = (low + high) / 2
        half = max(high - low, self._least) / 2
        return middle - half, middle + half
