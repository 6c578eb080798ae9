"""Write nuclei as detections of QuPath."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Mpp
from napari_cpnn.nuclei.nuclei import Nuclei
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.storage import whole_file

#: Decimals of coordinates in px, and of measurements.
_DECIMALS, _DIGITS = 2, 4
_BLOCK = 4096

Measure = Callable[[slice], Mapping[str, npt.NDArray[Any]]]
"""Returns measurements by name, ``(n,)``, of a slice of the nuclei."""


def write_geojson(
    nuclei: Nuclei,
    path: str | Path,
    mpp: Mpp,
    *,
    measure: Measure | None = None,
    colors: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> Path:
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
    measure
        Further measurements of a slice of the nuclei; those that are not finite are left out.
    colors
        Colours of the classes, such as ``#1f77b4``.
    progress
        Called with the share that is written.

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
        for number, feature in enumerate(_features(nuclei, mpp, measure, colors or {})):
            if number % _BLOCK == 0:
                progress(f"Writing {path.name}", number / len(nuclei))
            file.write(",\n" if number else "\n")
            file.write(json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")
    return path


def _features(nuclei: Nuclei, mpp: Mpp, measure: Measure | None, colors: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One feature per nucleus, one at a time, so that memory does not grow with their number."""
    outlines, per_px = nuclei.outlines, np.asarray(mpp)
    areas = None if outlines is None else outlines.areas_um2()
    rgb = {name: list(bytes.fromhex(color[1:7])) for name, color in colors.items()}
    for start in range(0, len(nuclei), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(nuclei)))
        measured = {} if measure is None else {name: values.tolist() for name, values in measure(part).items()}
        for number in range(part.start, part.stop):
            properties: dict[str, Any] = {"objectType": "detection"}
            if label := nuclei.class_of(number):
                properties["classification"] = {"name": label, **({"color": rgb[label]} if label in rgb else {})}
            values = {name: column[number - start] for name, column in measured.items()}
            geometry: dict[str, Any]
            if outlines is None or areas is None:
                geometry = {"type": "Point", "coordinates": _xy(nuclei.centers_um[number][None] / per_px)[0]}
            else:
                ring = _xy(outlines[number] / per_px)
                geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
                properties["measurements"] = {"Area µm^2": round(float(areas[number]), 2)}
            if values:
                finite = {name: round(value, _DIGITS) for name, value in values.items() if np.isfinite(value)}
                properties["measurements"] = {**properties.get("measurements", {}), **finite}
            yield {"type": "Feature", "geometry": geometry, "properties": properties}


def _xy(places_px: Any) -> list[list[float]]:
    pairs: list[list[float]] = np.asarray(places_px, np.float64)[:, ::-1].round(_DECIMALS).tolist()
    return pairs
