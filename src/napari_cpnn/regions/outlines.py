"""Outlines of regions in slide micrometres."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import RegionsError
from napari_cpnn.geometry import Grid

LEAST_POINTS = 3

#: Maximum number of self-intersections of an outline, far above hand-drawn ones; GEOS resolves them in a second.
_MOST_CROSSINGS = 1000
_MOST_WORK = 4 * _MOST_CROSSINGS**2
#: Outlines with more edges are not searched for intersections, which would take seconds.
_MOST_EDGES = 300_000
_PAIRS_AT_ONCE = 200_000
#: Fraction of a hole that may be outside an outline it touches, by rounding.
_TOUCHING = 1e-6


@dataclass(frozen=True, eq=False)
class Region:
    """Named region of a slide.

    Parameters
    ----------
    name
        Name in tables and labels.
    outline
        Outline in slide micrometres, in shapely's order ``(x, y)``; may have holes and several parts.

    Examples
    --------
    >>> from napari_cpnn.regions import Region
    >>> region = Region.from_vertices("margin", [(1000, 1000), (1000, 1400), (1400, 1400), (1400, 1000)])
    >>> round(region.area_mm2, 2)
    0.16
    """

    name: str
    outline: Polygon | MultiPolygon

    @classmethod
    def from_vertices(cls, name: str, vertices_um: npt.ArrayLike) -> Region:
        """Create from a ring of points ``(N, 2)``, slide micrometres ``(y, x)``, as in napari's shapes.

        A ring that revisits one of its points is split into several rings, and a ring inside another is a hole, as
        in the display.

        Raises
        ------
        RegionsError
            If it has no area.
        """
        points = np.asarray(vertices_um, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < LEAST_POINTS or not np.isfinite(points).all():
            raise RegionsError(f"Region {name!r} is not an outline: at least three points are needed.")
        mending = Mending()
        loops = [mending.valid(Polygon(loop), name) for loop in _loops(points[:, ::-1])] or [Polygon()]
        return cls(name, mending.area_of(_symmetric_difference(loops), name))

    @property
    def area_mm2(self) -> float:
        """Area in square millimetres."""
        return float(self.outline.area) / 1e6

    def vertices_um(self) -> FloatArray:
        """Convert to one closed path ``(N, 2)``, slide micrometres ``(y, x)``, for :meth:`from_vertices`.

        Holes and parts are connected by going back and forth along the same cut, which encloses no area.
        """
        parts = getattr(self.outline, "geoms", [self.outline])
        first, *others = [np.asarray(ring.coords)[:, :2] for p in parts for ring in (p.exterior, *p.interiors)]
        path = [first[:-1]] if not others else [first, *[v for ring in others for v in (ring, first[:1])]][:-1]
        return np.concatenate(path)[:, ::-1]

    def prepared(self) -> Polygon | MultiPolygon:
        """Copy of the outline, prepared for repeated queries; preparing one that another thread uses crashes GEOS."""
        outline: Polygon | MultiPolygon = shapely.from_wkb(self.outline.wkb)
        shapely.prepare(outline)
        return outline

    def cells(self, grid: Grid) -> tuple[IntArray, FloatArray]:
        """Patches of a grid that intersect the region: ``(n, 2)`` row and column, and area inside, ``(n,)`` um^2."""
        x0, y0, x1, y1 = self.outline.bounds
        origin_y, origin_x = grid.origin_um
        rows, cols = (
            np.arange(max(0, int((low - o) // grid.stride_um)), min(n, int((high - o) // grid.stride_um) + 1))
            for low, high, o, n in zip((y0, x0), (y1, x1), (origin_y, origin_x), grid.shape, strict=True)
        )
        if not (rows.size and cols.size):
            return np.empty((0, 2), dtype=np.intp), np.empty(0)
        cells = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.intp)
        top = cells[:, 0] * grid.stride_um + origin_y
        left = cells[:, 1] * grid.stride_um + origin_x
        squares = shapely.box(left, top, left + grid.stride_um, top + grid.stride_um)
        outline = self.prepared()
        touched = shapely.intersects(outline, squares)
        areas = shapely.area(shapely.intersection(squares[touched], outline))
        return cells[touched][areas > 0], areas[areas > 0]


def _loops(points: FloatArray) -> list[FloatArray]:
    """Split a path ``(N, 2)`` into closed paths, omitting those of fewer than three points."""
    loops: list[FloatArray] = []
    path: list[tuple[float, float]] = []
    place: dict[tuple[float, float], int] = {}
    for x, y in points.tolist():
        start = place.get((x, y))
        if start is None:
            place[x, y] = len(path)
            path.append((x, y))
            continue
        loops.append(np.array(path[start:]))
        for gone in path[start + 1 :]:
            del place[gone]
        del path[start + 1 :]
    loops.append(np.array(path))
    return [loop for loop in loops if len(loop) >= LEAST_POINTS]


def _symmetric_difference(outlines: list[Any]) -> Any:
    """Symmetric difference of many outlines, computed pairwise so that each takes part in few operations."""
    while len(outlines) > 1:
        pairs = [outlines[i : i + 2] for i in range(0, len(outlines), 2)]
        outlines = [shapely.symmetric_difference(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return outlines[0]


class Mending:
    """Repair self-intersecting rings, with a limit on the total cost for one file.

    Attributes
    ----------
    left
        Remaining cost: GEOS needs time proportional to the square of the intersections of an outline.
    """

    def __init__(self) -> None:
        self.left = _MOST_WORK

    def area_of(self, outline: Any, name: str) -> Polygon | MultiPolygon:
        """Convert to a valid outline with an area.

        Raises
        ------
        RegionsError
            If it has none, or too many self-intersections.
        """
        valid = self.valid(outline, name)
        if valid.geom_type == "Polygon" and valid.area > 0:
            return valid
        polygons = _polygons(valid)
        if not polygons:
            raise RegionsError(f"Region {name!r} has no area.")
        return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)

    def without_holes(self, outline: Polygon, name: str) -> tuple[Polygon | MultiPolygon, bool]:
        """Subtract holes from an outline; also return whether a hole extends beyond it.

        Raises
        ------
        RegionsError
            If nothing is left, or there are too many self-intersections.
        """
        if not outline.interiors or shapely.is_valid(outline):
            return self.area_of(outline, name), False
        self._require_few_crossings(outline, name)
        shell = self.area_of(Polygon(outline.exterior), name)
        holes = shapely.union_all(
            [p for ring in outline.interiors for p in _polygons(shapely.make_valid(Polygon(ring)))]
        )
        left = _polygons(shapely.difference(shell, holes))
        if not left:
            raise RegionsError(f"Region {name!r} has no area, for its holes cover it.")
        beyond = shapely.difference(holes, shell).area > _TOUCHING * holes.area
        return left[0] if len(left) == 1 else MultiPolygon(left), bool(beyond)

    def together(self, areas: Sequence[Polygon | MultiPolygon], name: str) -> Polygon | MultiPolygon:
        """Union of several valid areas."""
        if len(areas) == 1:
            return areas[0]
        whole = MultiPolygon([polygon for area in areas for polygon in _polygons(area)])
        if shapely.is_valid(whole):
            return whole
        self._require_few_crossings(whole, name)
        return self.area_of(shapely.union_all(list(areas)), name)

    def valid(self, outline: Any, name: str) -> Any:
        """Convert to a valid geometry by the even-odd rule."""
        if shapely.is_valid(outline):
            return outline
        self._require_few_crossings(outline, name)
        return shapely.make_valid(outline)

    def _require_few_crossings(self, outline: Any, name: str) -> None:
        if not outline.is_empty:
            edges, most = _edges(outline), int(min(_MOST_CROSSINGS, self.left**0.5))
            crossings = _n_crossings(edges, most) if len(edges) <= _MOST_EDGES else most + 1
            if crossings > most:
                raise RegionsError(f"Region {name!r} crosses itself too often; draw it anew.")
            self.left -= crossings**2


def _polygons(geometry: Any) -> list[Polygon]:
    """All polygons of a valid geometry."""
    parts = getattr(geometry, "geoms", [geometry])
    return [p for part in parts for p in getattr(part, "geoms", [part]) if isinstance(p, Polygon) and p.area > 0]


def _edges(outline: Any) -> npt.NDArray[Any]:
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(shapely.get_parts(outline))]
    ends = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
    return np.asarray(shapely.linestrings(ends))


def _n_crossings(edges: npt.NDArray[Any], at_most: int) -> int:
    """Number of intersecting pairs of non-adjacent edges; any number above ``at_most`` if there are more."""
    tree, met = shapely.STRtree(edges), 0
    step = int(np.clip(_PAIRS_AT_ONCE // len(edges), 4, 1024))
    for first in range(0, len(edges), step):
        met += tree.query(edges[first : first + step], predicate="intersects").shape[1]
        # Each edge intersects itself and its two neighbours, and each pair is counted twice.
        if met > 3 * len(edges) + 2 * at_most:
            return at_most + 1
    return max(0, (met - 3 * len(edges)) // 2)


def with_own_names(regions: Sequence[Region]) -> list[Region]:
    """Make names of regions unique by numbering those of one name (such as a class of annotations)."""
    total = Counter(region.name for region in regions)
    taken, seen = set(total), Counter[str]()
    named = []
    for region in regions:
        name = region.name
        if total[name] > 1:
            while name in taken:
                seen[region.name] += 1
                name = f"{region.name} {seen[region.name]}"
            taken.add(name)
        named.append(region if name == region.name else Region(name, region.outline))
    return named
