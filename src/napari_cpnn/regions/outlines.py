"""Outlines of regions, in slide micrometres; GeoJSON as QuPath reads and writes it."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping, shape

from napari_cpnn.errors import CpnnWarning, RegionsError
from napari_cpnn.files import whole_file
from napari_cpnn.geometry import FloatArray, Grid, IntArray, Mpp, spatial_to_um, um_to_spatial

_LEAST_POINTS = 3


@dataclass(frozen=True, eq=False)
class Region:
    """A named part of a slide.

    Parameters
    ----------
    name
        For tables and labels.
    outline
        In slide micrometres, as ``(x, y)`` since that is shapely's order; may have holes and several parts.
    """

    name: str
    outline: Polygon | MultiPolygon

    @classmethod
    def from_vertices(cls, name: str, vertices_um: npt.ArrayLike) -> Region:
        """From a ring of points ``(N, 2)``, slide micrometres ``(y, x)``, as napari's shapes have them.

        A ring that comes back to a point where it has been is several rings, and a ring inside another is a hole; so
        it is drawn, too.

        Raises
        ------
        RegionsError
            When it has no area.
        """
        points = np.asarray(vertices_um, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < _LEAST_POINTS or not np.isfinite(points).all():
            raise RegionsError(f"Region {name!r} is not an outline: at least three points are needed.")
        loops = [shapely.make_valid(Polygon(loop)) for loop in _loops(points[:, ::-1])] or [Polygon()]
        return cls(name, _area_of(reduce(shapely.symmetric_difference, loops), name))

    @property
    def area_mm2(self) -> float:
        """Area in square millimetres."""
        return float(self.outline.area) / 1e6

    def vertices_um(self) -> FloatArray:
        """One closed path ``(N, 2)`` around it all, slide micrometres ``(y, x)``, from which it can be made again.

        Where there are holes or several parts, the path goes there and back along the same cut, which so encloses
        nothing.
        """
        parts = getattr(self.outline, "geoms", [self.outline])
        first, *others = [np.asarray(ring.coords)[:, :2] for p in parts for ring in (p.exterior, *p.interiors)]
        path = [first[:-1]] if not others else [first, *[v for ring in others for v in (ring, first[:1])]][:-1]
        return np.concatenate(path)[:, ::-1]

    def prepared(self) -> Polygon | MultiPolygon:
        """A copy of the outline, prepared for many questions: preparing one that another thread uses crashes GEOS."""
        outline: Polygon | MultiPolygon = shapely.from_wkb(self.outline.wkb)
        shapely.prepare(outline)
        return outline

    def cells(self, grid: Grid) -> tuple[IntArray, FloatArray]:
        """Cells of a grid that the region touches: ``(n, 2)`` row and column, and the area inside, ``(n,)`` um^2."""
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


def read_regions(path: str | Path, mpp: Mpp) -> list[Region]:
    """Regions of a GeoJSON file, in level-0 pixels as QuPath writes them.

    Parameters
    ----------
    mpp
        Pixel size of the slide at level 0, ``(y, x)``.

    Warns
    -----
    CpnnWarning
        When points and lines are left out.

    Raises
    ------
    RegionsError
        When the file cannot be read, is something else, or has no outline.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegionsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise RegionsError(f"{path} is not a GeoJSON file; export annotations as GeoJSON in QuPath.") from error
    regions, n_other = [], 0
    for i, feature in enumerate(_features(content, path)):
        outline = _outline(feature, path)
        if outline is None:
            n_other += 1
            continue
        name = _name(feature) or f"Region {i + 1}"
        regions.append(Region(name, _area_of(shapely.transform(outline, lambda xy: _to_um(xy, mpp)), name)))
    if not regions:
        raise RegionsError(f"{path} has no outlines (polygons) in it.")
    if n_other:
        warnings.warn(f"{n_other} points or lines in {path.name} are no regions and are left out.", CpnnWarning, 2)
    return with_own_names(regions)


def write_regions(regions: Sequence[Region], path: str | Path, mpp: Mpp) -> Path:
    """Write regions as QuPath annotations, in level-0 pixels; the file appears when it is complete.

    Raises
    ------
    RegionsError
        When it cannot be written.
    """
    path = Path(path)
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid4()),
            "geometry": mapping(shapely.transform(region.outline, lambda xy: _to_px(xy, mpp))),
            "properties": {"objectType": "annotation", "name": region.name},
        }
        for region in regions
    ]
    with whole_file(path, RegionsError) as part:
        part.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def _features(content: Any, path: Path) -> Iterator[dict[str, Any]]:
    """The features of a collection, of a list, or a single one; or bare geometries."""
    if isinstance(content, list):
        for item in content:
            yield from _features(item, path)
    elif isinstance(content, dict) and content.get("type") == "FeatureCollection":
        yield from _features(content.get("features"), path)
    elif isinstance(content, dict) and content.get("type") == "GeometryCollection":
        yield from _features(content.get("geometries"), path)
    elif isinstance(content, dict) and content.get("type") == "Feature":
        yield content
    elif isinstance(content, dict) and isinstance(content.get("coordinates"), list):
        yield {"geometry": content}
    else:
        raise RegionsError(f"{path} is not a GeoJSON file of outlines; export annotations as GeoJSON in QuPath.")


def _outline(feature: dict[str, Any], path: Path) -> Polygon | MultiPolygon | None:
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        outline = shape(geometry)
    except (ValueError, TypeError, IndexError, shapely.errors.GEOSException) as error:
        raise RegionsError(f"{path} has an outline that is damaged ({error}).") from error
    return outline if isinstance(outline, (Polygon, MultiPolygon)) else None


def _name(feature: dict[str, Any]) -> str:
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        return ""
    classification = properties.get("classification")
    of_class = classification.get("name") if isinstance(classification, dict) else None
    return str(properties.get("name") or of_class or "")


def _loops(points: FloatArray) -> list[FloatArray]:
    """The closed paths of which a path ``(N, 2)`` consists, without those of fewer than three points."""
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
    return [loop for loop in loops if len(loop) >= _LEAST_POINTS]


def _area_of(outline: Any, name: str) -> Polygon | MultiPolygon:
    """A valid outline with an area: rings that cross themselves are taken apart."""
    valid = shapely.make_valid(outline)
    parts = [part for part in getattr(valid, "geoms", [valid]) if part.area > 0]
    polygons = [p for part in parts for p in getattr(part, "geoms", [part]) if isinstance(p, Polygon)]
    if not polygons:
        raise RegionsError(f"Region {name!r} has no area.")
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def with_own_names(regions: Sequence[Region]) -> list[Region]:
    """Regions of one name (such as a class of annotations) get numbers."""
    counts: dict[str, int] = {}
    named = []
    names = [region.name for region in regions]
    for region in regions:
        counts[region.name] = counts.get(region.name, 0) + 1
        alone = names.count(region.name) == 1
        named.append(region if alone else Region(f"{region.name} {counts[region.name]}", region.outline))
    return named


def _to_um(xy: FloatArray, mpp: Mpp) -> FloatArray:
    return spatial_to_um(xy, mpp)[:, ::-1]


def _to_px(xy: FloatArray, mpp: Mpp) -> FloatArray:
    return um_to_spatial(xy[:, ::-1], mpp)
