"""Extract a part of a map, and determine the extent of a map."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import ExportError
from napari_cpnn.geometry import Grid, Mpp, Rect
from napari_cpnn.mapping import DONE, FAILED, CompositionMap
from napari_cpnn.slides import Slide

Area: TypeAlias = Rect | Polygon | MultiPolygon
"""A part of a slide in slide micrometres; shapely geometries are ``(x, y)``, as in :class:`Region`."""

#: Margin of glass around the tissue, as a share of its size.
_MARGIN = 0.04


def part_of(cmap: CompositionMap, area: Area) -> CompositionMap:
    """Return the patches of a map whose centres lie in an area, as a map on the same grid lines.

    Parameters
    ----------
    cmap
        The map, which may still be in progress.
    area
        A rectangle, or the outline of a region.

    Raises
    ------
    ExportError
        If nothing in the area is computed.

    Examples
    --------
    >>> from napari_cpnn.geometry import Rect
    >>> from napari_cpnn.mapping import DONE
    >>> part = nc.part_of(cmap, Rect(1100, 1100, 1300, 1300))
    >>> int((part.state == DONE).sum())
    4
    """
    grid = cmap.grid
    rows, cols = grid.window(rect_of(area))
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    first = (grid.origin_um[0] + rows.start * grid.stride_um, grid.origin_um[1] + cols.start * grid.stride_um)
    small = Grid((max(shape[0], 0), max(shape[1], 0)), grid.stride_um, first)
    inside = contains(area, small.centers_um()).reshape(small.shape)
    state = cmap.state[rows, cols].copy()
    if not (inside & (state == DONE)).any():
        raise ExportError("No patch of this area has been mapped yet; map it first, or choose another area.")
    part = CompositionMap(small, cmap.decoder, inside & cmap.tissue[rows, cols], cmap.provenance, cmap.trust)
    part.hierarchy = cmap.hierarchy
    part.restore(cmap.block((rows, cols)), state)
    part.fail(np.flatnonzero(inside & (state == FAILED)))
    part.marked = {
        name: dataclasses.replace(places, mask=places.mask[rows, cols]) for name, places in cmap.marked.items()
    }
    part.signatures = {
        name: dataclasses.replace(one, values=one.values[rows, cols]) for name, one in cmap.signatures.items()
    }
    return part


def rect_of(area: Area) -> Rect:
    """Return the bounding rectangle of an area."""
    if isinstance(area, Rect):
        return area
    x0, y0, x1, y1 = area.bounds
    return Rect(y0, x0, y1, x1)


def contains(area: Area, points_um: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which points ``(N, 2)``, slide micrometres ``(y, x)``, lie in an area."""
    y, x = points_um[:, 0], points_um[:, 1]
    if isinstance(area, Rect):
        return np.asarray((y >= area.y0) & (y < area.y1) & (x >= area.x0) & (x < area.x1))
    return np.asarray(shapely.contains_xy(_prepared(area), x, y), dtype=bool)


def cells_seen(grid: Grid, area: Area) -> npt.NDArray[np.bool_]:
    """Return which patches of a grid intersect an area, ``(rows, cols)``."""
    seen = np.zeros(grid.shape, dtype=bool)
    window = grid.window(rect_of(area))
    if isinstance(area, Rect):
        seen[window] = True
        return seen
    row, col = (np.arange(part.start, part.stop) for part in window)
    top = grid.origin_um[0] + row[:, None] * grid.stride_um
    left = grid.origin_um[1] + col[None] * grid.stride_um
    squares = shapely.box(left, top, left + grid.stride_um, top + grid.stride_um)
    seen[window] = shapely.intersects(_prepared(area), squares)
    return seen


def merged_patches(index: IntArray) -> Polygon | MultiPolygon:
    """Return the outline of patches ``(n, 2)`` (row, col) in units of the grid, ``(x, y)``."""
    # Merge runs of patches in a row to reduce the number of boxes; corners are integers.
    row, col = index[np.lexsort((index[:, 1], index[:, 0]))].T
    first = np.flatnonzero((np.diff(row, prepend=-2) != 0) | (np.diff(col, prepend=-2) != 1))
    last = np.append(first[1:], len(row)) - 1
    boxes = shapely.box(col[first], row[first], col[last] + 1, row[first] + 1)
    outline: Polygon | MultiPolygon = shapely.simplify(shapely.union_all(boxes), 0)  # no corners on straight lines
    return outline


def outline_um(grid: Grid, mask: npt.NDArray[np.bool_]) -> Polygon | MultiPolygon | None:
    """Return the outline of a mask ``(rows, cols)`` in slide micrometres ``(x, y)``; None if it is empty."""
    if not mask.any():
        return None
    origin = np.array(grid.origin_um)[::-1]
    shape: Polygon | MultiPolygon = shapely.transform(
        merged_patches(np.argwhere(mask)), lambda xy: xy * grid.stride_um + origin
    )
    return shape


def _prepared(area: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    """Return a prepared copy for repeated queries; preparing a geometry used by another thread crashes GEOS."""
    copy: Polygon | MultiPolygon = shapely.from_wkb(area.wkb)
    shapely.prepare(copy)
    return copy


def extent_of(cmap: CompositionMap, slide: Slide | None, mpp: Mpp | None) -> Rect:
    """Return the extent of a map's tissue with a margin, clipped to map and slide."""
    grid = cmap.grid
    ends = [o + n * grid.stride_um for o, n in zip(grid.origin_um, grid.shape, strict=True)]
    if slide is not None and mpp is not None:
        ends = [min(end, n * m) for end, n, m in zip(ends, slide.shape[:2], mpp, strict=True)]
    spans = []
    for axis in (0, 1):
        there = np.flatnonzero(cmap.tissue.any(axis=1 - axis))
        first, last = (there[0], there[-1] + 1) if there.size else (0, grid.shape[axis])
        spans.append((first * grid.stride_um + grid.origin_um[axis], last * grid.stride_um + grid.origin_um[axis]))
    margin = max(grid.stride_um, _MARGIN * max(high - low for low, high in spans))
    (y0, y1), (x0, x1) = (
        (max(low - margin, origin), min(high + margin, end))
        for (low, high), origin, end in zip(spans, grid.origin_um, ends, strict=True)
    )
    return Rect(y0, x0, y1, x1)


def require_area(area: Area) -> None:
    """Validate an area.

    Raises
    ------
    ExportError
        If it is empty.
    """
    rect = rect_of(area)
    if not (all(map(math.isfinite, (rect.y0, rect.x0, rect.y1, rect.x1))) and rect.height > 0 and rect.width > 0):
        raise ExportError("An area must be given as y0 x0 y1 x1 in um, with y0 < y1 and x0 < x1.")
