"""Read nuclei from JSON: GeoJSON of QuPath and Space Ranger, results of CellViT and HoVer-Net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.errors import NucleiError
from napari_cpnn.nuclei.gathering import Gathered
from napari_cpnn.untrusted import read_json

#: Types that CellViT numbers where a file does not name them (PanNuke).
_PANNUKE = {0: "", 1: "Neoplastic", 2: "Inflammatory", 3: "Connective", 4: "Dead", 5: "Epithelial"}
#: A geometry of more parts than this is a layer of nuclei, not one nucleus in pieces.
_MOST_PIECES = 8


def read_json_nuclei(path: Path) -> tuple[Gathered, str]:
    """Return the nuclei of a file in its pixels, and the program whose format it has."""
    content = read_json(path, NucleiError, parse_int=float)
    if isinstance(content, dict) and isinstance(content.get("nuc"), dict):
        return _of_cells(content["nuc"].values(), {}), "HoVer-Net"
    if isinstance(content, dict) and isinstance(content.get("cells"), list):
        return _of_cells(content["cells"], _type_names(content.get("type_map"))), "CellViT"
    found = Gathered()
    for feature in _features(content, path):
        _take_feature(found, feature)
    return found, "GeoJSON"


def _of_cells(cells: Any, names: Mapping[int, str]) -> Gathered:
    """Cells of CellViT and HoVer-Net: ``contour`` and ``centroid`` as ``(x, y)``, and a number as ``type``."""
    found = Gathered()
    for cell in cells:
        if not isinstance(cell, dict):
            found.take(())
            continue
        ring = cell.get("contour")
        if not isinstance(ring, list) or len(ring) < 3:
            center = cell.get("centroid")
            ring = [center] if isinstance(center, list) else ()
        found.take(ring, _type_name(cell.get("type"), names))
    return found


def _type_names(given: Any) -> dict[int, str]:
    """Names by number, of a table in either direction; those of PanNuke where there is none."""
    names: dict[int, str] = {}
    for key, value in given.items() if isinstance(given, dict) else ():
        name = (
            value.get("name") if isinstance(value, dict) else value[0] if isinstance(value, list) and value else value
        )
        number, name = (name, key) if isinstance(name, float) else (key, name)
        if _number(number) is not None and isinstance(name, str):
            names[_number(number) or 0] = "" if name.lower() == "background" else name
    return names or _PANNUKE


def _type_name(value: Any, names: Mapping[int, str]) -> str:
    if isinstance(value, str) and _number(value) is None:
        return value
    number = _number(value)
    if number is None:
        return ""
    return names.get(number, f"type {number}")


def _number(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if np.isfinite(number) and abs(number) < 1e6 else None


def _features(content: Any, path: Path) -> Iterator[Any]:
    """Features of a collection or a list, or a single one."""
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    if isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list):
        raise NucleiError(
            f"{path} is no file of nuclei: it has neither GeoJSON features (QuPath, Space Ranger), nor the cells of "
            "CellViT or HoVer-Net."
        )
    yield from content


def _take_feature(found: Gathered, feature: Any) -> None:
    """Take the nucleus of a feature: of a cell of QuPath the nucleus, not the cell."""
    if not isinstance(feature, dict):
        found.take(())
        return
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    geometry = feature.get("nucleusGeometry") or feature.get("geometry")
    geometry = geometry if isinstance(geometry, dict) else {}
    label = _class(properties)
    kind, content = geometry.get("type"), geometry.get("coordinates")
    parts = content if isinstance(content, list) else []
    if kind == "Point":
        found.take([parts], label)
    elif kind == "MultiPoint":
        for point in parts:
            found.take([point], label)
    elif kind == "Polygon":
        found.take(parts[0] if parts else (), label)
    elif kind == "MultiPolygon":
        rings = [rings[0] if isinstance(rings, list) and rings else () for rings in parts]
        if len(rings) <= _MOST_PIECES and properties.get("objectType") != "annotation":
            rings = [max(rings, key=_extent, default=())]
        for ring in rings:
            found.take(ring, label)
    else:
        found.take((), label)


def _extent(ring: Any) -> float:
    """Area of the bounds of a ring; 0 for what is none."""
    try:
        pairs = np.asarray(ring, dtype=np.float64)
        return float(np.prod(np.ptp(pairs[:, :2], axis=0)))
    except (TypeError, ValueError, IndexError):
        return 0.0


def _class(properties: dict[str, Any]) -> str:
    """Class of a feature of QuPath; derived ones joined, as QuPath shows them."""
    kind = properties.get("classification")
    if isinstance(kind, dict):
        names = kind.get("names")
        kind = kind.get("name") or (": ".join(str(name) for name in names) if isinstance(names, list) else "")
    return kind if isinstance(kind, str) else ""
