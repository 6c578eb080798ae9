"""Colours of measured spots, like those of the map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.painting.painter import color_table
from napari_cpnn.palette import difference_colors

DIFFERENCE = "difference"
"""Name of the colours of a difference, from blue over white to orange."""

#: Low values fade as on the map, but spots stay visible.
_FAINTEST = 0.2
#: Values that are coloured in one go: a million bins are coloured three times as fast in parts that fit the cache.
_AT_A_TIME = 1 << 15


def spot_colors(values: npt.ArrayLike, limits: tuple[float, float], colormap: str) -> Float32Array:
    """Return colours ``(N, 4)`` of values ``(N,)``: RGBA in 0 to 1, transparent where there is no value.

    Parameters
    ----------
    values
        One per spot; NaN where there is none.
    limits
        Values of the first and the last colour.
    colormap
        A colour map of the map, or :data:`DIFFERENCE`.

    Examples
    --------
    >>> from napari_cpnn.painting import spot_colors
    >>> spot_colors([0.0, 1.0, float("nan")], (0.0, 1.0), "viridis")[:, 3].round(1).tolist()
    [0.2, 1.0, 0.0]
    """
    values = np.asarray(values, dtype=np.float32)
    colors = np.empty((len(values), 4), dtype=np.float32)
    for first in range(0, len(values), _AT_A_TIME):
        part = slice(first, first + _AT_A_TIME)
        colors[part] = _colors(values[part], limits, colormap)
    return colors


def _colors(values: Float32Array, limits: tuple[float, float], colormap: str) -> Float32Array:
    at = np.clip((values - limits[0]) / max(limits[1] - limits[0], 1e-6), 0, 1)
    known = np.isfinite(at)
    if colormap == DIFFERENCE:
        colors = np.asarray(difference_colors(np.where(known, at, 0.5)), dtype=np.float32)
    else:
        table = color_table(colormap).copy()
        table[:, 3] = np.maximum(table[:, 3], _FAINTEST)
        at = np.rint(np.where(known, at, 0) * (len(table) - 1)).astype(np.intp)
        colors = np.asarray(table.take(at, axis=0), dtype=np.float32)
    colors[~known] = 0
    return colors
