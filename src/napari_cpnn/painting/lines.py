"""Lines in place of colours: contours of a quantity and borders of patches, between which the tissue stays visible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.painting.averaging import disc_sums
from napari_cpnn.painting.painter import Range
from napari_cpnn.painting.shown import Shown, scale_of, values_of

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap

#: Contours between the ends of a colour range, about.
_N_LEVELS = 5
#: The border of a patch on each side: step (row, col) to the neighbour, its start and its direction from the centre.
_SIDES = (
    ((-1, 0), (-1.0, -1.0), (0.0, 2.0)),
    ((0, 1), (-1.0, 1.0), (2.0, 0.0)),
    ((1, 0), (1.0, 1.0), (0.0, -2.0)),
    ((0, -1), (1.0, -1.0), (-2.0, 0.0)),
)


def field_of(cmap: CompositionMap, shown: Shown, scale_um: float | None = 0.0) -> Float32Array:
    """Return a scalar quantity as it is displayed.

    Parameters
    ----------
    cmap, shown
        Map and quantity.
    scale_um
        Scale, as in :func:`~napari_cpnn.painting.scale_of`.

    Returns
    -------
    numpy.ndarray
        ``(rows, cols)`` float32, NaN where nothing is displayed.
    """
    donors = cmap.donors()
    known = donors >= 0
    field = np.where(known, values_of(cmap, shown).reshape(-1)[np.maximum(donors, 0)], np.float32(0))
    if scale := scale_of(cmap, shown, scale_um):
        radius = scale / 2 / cmap.grid.stride_um
        field = disc_sums(field, radius) / np.maximum(disc_sums(known, radius), 1)
    return np.where(known, field, np.nan).astype(np.float32)


def contour_levels(limits: Range) -> list[float]:
    """Return round numbers inside a colour range at which to draw contours.

    >>> contour_levels((0.0, 0.43))
    [0.1, 0.2, 0.3, 0.4]
    """
    low, high = limits
    if not high > low:
        return []
    size = 10.0 ** np.floor(np.log10((high - low) / _N_LEVELS))
    step = next(m * size for m in (1, 2, 5, 10) if (high - low) / (m * size) <= _N_LEVELS + 1e-9)
    levels = [round(float(k * step), 12) for k in range(int(np.floor(low / step)), int(np.ceil(high / step)) + 1)]
    return [level for level in levels if low < level < high]


def contour_lines(field: Float32Array, level: float) -> FloatArray:
    """Return the contour of a level (marching squares).

    Parameters
    ----------
    field
        ``(rows, cols)``, NaN where it is not known.
    level
        Value on the contour.

    Returns
    -------
    numpy.ndarray
        ``(N, 2, 2)``, start and vector (row, col) of each straight piece; centres of patches are integers.
    """
    from skimage.measure import find_contours

    if min(field.shape) < 2:
        return np.zeros((0, 2, 2))
    pieces = [
        np.stack([line[:-1], np.diff(line, axis=0)], axis=1)
        for line in find_contours(field.astype(np.float64), level)  # type: ignore[no-untyped-call]
        if len(line) > 1
    ]
    return np.concatenate(pieces) if pieces else np.zeros((0, 2, 2))


def border_lines(groups: npt.NDArray[np.integer], inset: float, *, every: bool = False) -> tuple[FloatArray, IntArray]:
    """Return the borders of groups of patches, each inside the patches of its group and without gaps.

    Parameters
    ----------
    groups
        ``(rows, cols)`` group of each patch, -1 for none.
    inset
        Distance of the lines from the edge of the patch, in patches.
    every
        Draw the border of every patch, also between patches of one group.

    Returns
    -------
    lines, owners
        ``(N, 2, 2)``, start and vector (row, col) of each line; ``(N,)`` flat index of the patch that it belongs to.
    """
    around = np.pad(groups, 2, constant_values=-1)
    rows, cols = groups.shape
    half, lines, owners = 0.5 - inset, [np.zeros((0, 2, 2))], [np.zeros(0, dtype=np.intp)]
    for (down, right), start, along in _SIDES:
        neighbour = around[2 + down : 2 + down + rows, 2 + right : 2 + right + cols]
        at = np.argwhere(_drawn(groups, neighbour, every=every))
        step = np.array(along, dtype=np.intp) // 2  # one patch along the line
        before, after = (
            np.zeros(len(at)) if every else inset * _n_beside(around, at, way, (down, right)) for way in (-step, step)
        )
        begin = at + half * np.array(start) - before[:, None] * step
        lines.append(np.stack([begin, half * np.array(along) + (before + after)[:, None] * step], axis=1))
        owners.append(at[:, 0] * cols + at[:, 1])
    return np.concatenate(lines), np.concatenate(owners)


def _n_beside(
    around: npt.NDArray[np.integer], at: IntArray, way: IntArray, side: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Return by how many insets a line reaches on: 1 along the next patch of its group, 2 around an inner corner."""
    own, ahead = at + 2, at + 2 + way
    beyond = ahead + np.array(side)
    group = around[own[:, 0], own[:, 1]]
    goes_on = around[ahead[:, 0], ahead[:, 1]] == group
    return np.asarray(goes_on * (1.0 + (around[beyond[:, 0], beyond[:, 1]] == group)))


def _drawn(groups: npt.NDArray[np.integer], neighbour: npt.NDArray[np.integer], *, every: bool) -> BoolArray:
    return np.asarray((groups >= 0) & (every | (groups != neighbour)))
