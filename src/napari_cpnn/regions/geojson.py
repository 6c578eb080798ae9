"""Read and write regions as GeoJSON, compatible with QuPath.

Files are read feature by feature: features that are not outlines, or damaged, are skipped and reported.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon, mapping

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, RegionsError
from napari_cpnn.geometry import Mpp, spatial_to_um, um_to_spatial
from napari_cpnn.regions.outlines import LEAST_POINTS, Mending, Region, with_own_names
from napari_cpnn.storage import whole_file
from napari_cpnn.untrusted import read_json, reading, to_path

_AREAS = ("Polygon", "MultiPolygon")
_NO_AREAS = ("Point", "MultiPoint", "LineString", "MultiLineString")

#: Maximum coordinate in level-0 pixels; the largest slides have a few hundred thousand per side.
_FARTHEST_PX = 1e8
#: Number of damaged outlines named in a warning.
_NAMED = 3
_LONGEST_NAME = 200


def read_regions(path: str | Path, mpp: Mpp) -> list[Region]:
    """Read regions from a GeoJSON file with level-0 pixel coordinates, as written by QuPath.

    Parameters
    ----------
    mpp
        Pixel size of the slide at level 0, ``(y, x)``.

    Warns
    -----
    CpnnWarning
        If points, lines, features without geometry or damaged outlines are skipped.

    Raises
    ------
    RegionsError
        If the file cannot be read, is not GeoJSON, or has no usable outline.

    Examples
    --------
    >>> from napari_cpnn.regions import Region, read_regions, write_regions
    >>> region = Region.from_vertices("margin", [(1000, 1000), (1000, 1400), (1400, 1400), (1400, 1000)])
    >>> path = write_regions([region], "margin.geojson", slide.mpp)
    >>> [region.name for region in read_regions(path, slide.mpp)]
    ['margin']
    """
    file = to_path(path, RegionsError)
    content = read_json(file, RegionsError, parse_int=float)  # accept any number of digits, possibly as infinity
    return regions_in(content, file, mpp)


def regions_in(content: Any, file: Path, mpp: Mpp) -> list[Region]:
    """Return the regions of GeoJSON that was read from ``file``; otherwise as :func:`read_regions`."""
    found = _Found()
    with reading(file, RegionsError, "export annotations as GeoJSON in QuPath."):
        for number, feature in enumerate(_features(content, file), 1):
            found.take(feature, number, mpp)
    if not found.regions:
        why = f" that can be used: {found.faults_in_words()}." if found.faults else " in it."
        raise RegionsError(f"{file} has no outlines (polygons){why}")
    for text in found.left_out(file.name):
        warnings.warn(text, CpnnWarning, stacklevel=3)
    return with_own_names(found.regions)


def write_regions(regions: Sequence[Region], path: str | Path, mpp: Mpp) -> Path:
    """Write regions as QuPath annotations in level-0 pixels, atomically.

    Raises
    ------
    RegionsError
        If the file cannot be written.

    Examples
    --------
    >>> from napari_cpnn.regions import Region, write_regions
    >>> region = Region.from_vertices("margin", [(1000, 1000), (1000, 1400), (1400, 1400), (1400, 1000)])
    >>> write_regions([region], "regions.geojson", slide.mpp).name
    'regions.geojson'
    """
    path = Path(path)
    with whole_file(path, RegionsError) as part:
        part.write_text(json.dumps(geojson_of(regions, mpp)), encoding="utf-8")
    return path


def geojson_of(regions: Sequence[Region], mpp: Mpp) -> dict[str, Any]:
    """Return regions as GeoJSON of QuPath annotations, in level-0 pixels."""
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid4()),
            "geometry": mapping(shapely.transform(region.outline, lambda xy: _to_px(xy, mpp))),
            "properties": {"objectType": "annotation", "name": region.name},
        }
        for region in regions
    ]
    return {"type": "FeatureCollection", "features": features}


class _FaultError(RegionsError):
    """Raised with the fault of one outline, as the end of a sentence."""


@dataclass
class _Found:
    """Regions read from a file so far, and what was skipped."""

    regions: list[Region] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    n_lines: int = 0
    n_empty: int = 0
    mending: Mending = field(default_factory=Mending)
    repairs: list[str] = field(default_factory=list)

    def take(self, feature: Any, number: int, mpp: Mpp) -> None:
        """Read one feature; faults are recorded."""
        name = _name(feature) or f"Region {number}"
        try:
            with reading(f"Region {name!r}", RegionsError, "it is damaged."):
                self._take_outlines(feature, name, mpp)
        except _FaultError as error:
            self.faults.append(f"{name!r} {error}")
        except RegionsError as error:
            self.faults.append(str(error).removeprefix("Region ").rstrip("."))

    def _take_outlines(self, feature: Any, name: str, mpp: Mpp) -> None:
        geometry = _geometry(feature)
        if geometry is None:
            self.n_empty += 1
            return
        areas, faults, beyond = [], [], False
        for kind, content in _members(geometry):
            if kind in _NO_AREAS:
                self.n_lines += 1
                continue
            try:
                with reading(f"Region {name!r}", RegionsError, "it is damaged."):
                    area, reaches = self.mending.without_holes(_polygon(kind, content, mpp), name)
            except RegionsError as error:
                faults.append(error)
            else:
                areas.append(area)
                beyond |= reaches
        if not areas:
            if faults:
                raise faults[0]
            return
        self.regions.append(Region(name, self.mending.together(areas, name)))
        if faults:
            why = str(faults[0]).removeprefix(f"Region {name!r} ").rstrip(".")
            self.repairs.append(f"{len(faults)} of {len(areas) + len(faults)} parts of {name!r} left out (one {why})")
        if beyond:
            self.repairs.append(f"holes of {name!r} that reach beyond it cut off at its edge")

    def faults_in_words(self) -> str:
        """Faults as text, such as ``'A' has no area; 'B' has no coordinates; and 4 more``."""
        more = len(self.faults) - _NAMED
        return "; ".join([*self.faults[:_NAMED], *([f"and {more} more"] if more > 0 else [])])

    def left_out(self, file_name: str) -> Iterator[str]:
        """Messages about skipped features, in sentences."""
        parts = [f"{self.n_lines} points or lines"] if self.n_lines else []
        parts += [f"{self.n_empty} features without a geometry"] if self.n_empty else []
        if parts:
            yield f"{' and '.join(parts)} in {file_name} are no regions and are left out."
        if self.faults:
            n, of = len(self.faults), len(self.faults) + len(self.regions)
            yield f"{n} of {of} outlines in {file_name} cannot be used and are left out: {self.faults_in_words()}."
        if self.repairs:
            more = len(self.repairs) - _NAMED
            named = [*self.repairs[:_NAMED], *([f"and {more} more"] if more > 0 else [])]
            yield f"Outlines in {file_name} were repaired: {'; '.join(named)}."


def _features(content: Any, path: Path) -> Iterator[Any]:
    """Features of collections and lists, or a single one, in order; bare geometries are treated as features."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        kind = item.get("type") if isinstance(item, dict) else None
        inner = item if isinstance(item, list) else None
        if kind in ("FeatureCollection", "GeometryCollection"):
            inner = item.get("features" if kind == "FeatureCollection" else "geometries")
        if isinstance(inner, list):
            waiting.extend(reversed(inner))
        elif kind in (*_AREAS, *_NO_AREAS):
            yield {"geometry": item}
        elif kind == "Feature" or item is not content:
            yield item
        else:
            raise RegionsError(f"{path} is not a GeoJSON file of outlines; export annotations as GeoJSON in QuPath.")


def _geometry(feature: Any) -> dict[str, Any] | None:
    if not isinstance(feature, dict) or not ("geometry" in feature or feature.get("type") == "Feature"):
        raise _FaultError("is no feature")
    geometry = feature.get("geometry")
    if geometry is not None and not isinstance(geometry, dict):
        raise _FaultError("has a geometry that is none")
    return geometry


def _members(geometry: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Type and coordinates of a geometry or its members; parts of a MultiPolygon become polygons."""
    waiting: list[Any] = [geometry]
    while waiting:
        item = waiting.pop()
        kind = item.get("type") if isinstance(item, dict) else None
        inside = item.get("geometries" if kind == "GeometryCollection" else "coordinates") if kind else None
        if kind == "GeometryCollection" and isinstance(inside, list) and inside:
            waiting.extend(reversed(inside))
        elif kind == "MultiPolygon" and isinstance(inside, list) and inside:
            yield from (("Polygon", rings) for rings in inside)
        else:
            yield str(kind)[:40], inside


def _list(content: Any, what: str) -> list[Any]:
    if not isinstance(content, list) or not content:
        raise _FaultError(f"has no {what}")
    return content


def _polygon(kind: str, content: Any, mpp: Mpp) -> Polygon:
    """Convert a polygon to slide um; raise a :class:`_FaultError` if it is not one."""
    if kind not in ("GeometryCollection", *_AREAS):
        raise _FaultError(f"has a geometry of an unknown type, {kind!r}")
    rings = _list(content, "geometries" if kind == "GeometryCollection" else "coordinates")
    shell, *holes = [_ring(_list(rings[0], "coordinates")), *(_ring(hole) for hole in rings[1:] if hole != [])]
    if len(shell) < LEAST_POINTS:
        raise _FaultError(f"has {len(shell)} points, too few for an outline")
    # A hole of one or two points has no area.
    return Polygon(_to_um(shell, mpp), [_to_um(hole, mpp) for hole in holes if len(hole) >= LEAST_POINTS])


def _ring(points: Any) -> FloatArray:
    """Points ``(N, 2)`` of a ring as ``(x, y)``, without z coordinates and without the repeated last point."""
    try:
        ring = np.array(points)
        if ring.ndim != 2:  # some points may have a z coordinate
            ring = np.array([point[:2] for point in points])
    except (ValueError, TypeError, IndexError):
        try:
            ring = np.array([point[:2] for point in points])
        except (ValueError, TypeError, IndexError):
            ring = np.empty(0)
    if ring.ndim != 2 or ring.shape[1] < 2 or ring.dtype != np.float64:
        raise _FaultError("is damaged: its coordinates are no pairs of numbers")
    ring = ring[:, :2]
    if not (np.abs(ring) <= _FARTHEST_PX).all():  # NaN neither
        raise _FaultError("has coordinates that no slide has")
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring


def _name(feature: Any) -> str:
    """Name of a feature, or its class; ``Tumor: Positive`` for QuPath's derived classes."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return ""
    kind = properties.get("classification")
    if isinstance(kind, dict):
        names = kind.get("names")
        of_class = kind.get("name") or (": ".join(_text(n) for n in names) if isinstance(names, list) else "")
    else:
        of_class = kind
    return _text(properties.get("name")) or _text(of_class)


def _text(value: Any) -> str:
    """Convert a text or number to a name on one line of limited length; empty for anything else."""
    if isinstance(value, float):
        text = str(int(value)) if value.is_integer() else str(value)
    elif isinstance(value, str):
        text = "".join(c if c.isprintable() else " " for c in value)
    else:
        return ""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."


def _to_um(xy: FloatArray, mpp: Mpp) -> FloatArray:
    return spatial_to_um(xy, mpp)[:, ::-1]


def _to_px(xy: FloatArray, mpp: Mpp) -> FloatArray:
    return um_to_spatial(xy[:, ::-1], mpp)
