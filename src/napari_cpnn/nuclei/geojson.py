"""Write nuclei as detections of QuPath."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Mpp
from napari_cpnn.nuclei.nuclei import Nuclei
from napari_cpnn.storage import whole_file

#: Decimals of coordinates in px.
_DECIMALS = 2


def write_geojson(nuclei: Nuclei, path: str | Path, mpp: Mpp) -> Path:
    """Write nuclei as QuPath detections with their class and area, in pixels of the slide; atomically.

    Nuclei without outline become points. QuPath opens the file with *File > Import objects from file*.

    Parameters
    ----------
    nuclei
        What to write.
    path
        The ``.geojson`` file; it is replaced if it exists.
    mpp
        Pixel size of the slide at level 0 in um, ``(y, x)``.

    Raises
    ------
    NucleiError
        If the file cannot be written.

    Examples
    --------
    >>> from napari_cpnn.nuclei import write_geojson
    >>> nuclei = nc.Nuclei([[10.0, 20.0], [30.0, 45.0]], classes=[0, -1], class_names=["tumour"])
    >>> path = write_geojson(nuclei, "nuclei.geojson", (0.5, 0.5))
    >>> nc.read_nuclei(path, mpp=0.5).centers_um.tolist()
    [[10.0, 20.0], [30.0, 45.0]]
    """
    path = Path(path)
    with whole_file(path, NucleiError) as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(_features(nuclei, mpp)):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")
    return path


def _features(nuclei: Nuclei, mpp: Mpp) -> Iterator[dict[str, Any]]:
    """One feature per nucleus, one at a time, so that memory does not grow with their number."""
    outlines, per_px = nuclei.outlines, np.asarray(mpp)
    areas = None if outlines is None else outlines.areas_um2()
    for number, center in enumerate(nuclei.centers_um):
        properties: dict[str, Any] = {"objectType": "detection"}
        if label := nuclei.class_of(number):
            properties["classification"] = {"name": label}
        geometry: dict[str, Any]
        if outlines is None or areas is None:
            geometry = {"type": "Point", "coordinates": _xy(center[None] / per_px)[0]}
        else:
            ring = _xy(outlines[number] / per_px)
            geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
            properties["measurements"] = {"Area µm^2": round(float(areas[number]), 2)}
        yield {"type": "Feature", "geometry": geometry, "properties": properties}


def _xy(places_px: Any) -> list[list[float]]:
    pairs: list[list[float]] = np.asarray(places_px, np.float64)[:, ::-1].round(_DECIMALS).tolist()
    return pairs
