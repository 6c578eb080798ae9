"""Cells of Visium HD: the ``segmented_outputs`` folder that Space Ranger leaves since version 4.

Space Ranger outlines nuclei in the image, widens them to cells and adds up the 2 um bins in each. Of a cell we keep
what we keep of a spot: where it is, and its counts. The format is read as spatialdata-io (``visium_hd``) reads it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.tables import READ_ERRORS, open_text
from napari_cpnn.spots.tenx import mtx_file, read_10x_h5, read_10x_mtx
from napari_cpnn.spots.visium import CELLS, scale_factors, small_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from napari_cpnn.geometry import FloatArray, IntArray

_OUTLINES = "cell_segmentations.geojson"
_MATRIX = "filtered_feature_cell_matrix"
_BETWEEN = re.compile(r"[\s,]*")


def is_segmented(folder: Path) -> bool:
    """Whether a folder is one of cells; one whose outlines are missing is told by its name."""
    return folder.name == CELLS or outlines_file(folder) is not None


def outlines_file(folder: Path) -> Path | None:
    """The outlines of the cells; also zipped or with a prefix, such as the copy with clusters has."""
    plain = folder / _OUTLINES
    return plain if plain.is_file() else next(iter(sorted(folder.glob(f"*{_OUTLINES}*"))), None)


def read_segmented(folder: Path) -> tuple[AnnData, dict[str, int]]:
    """Cells of a ``segmented_outputs`` folder that have an outline, and how many were left out, by reason.

    Returns
    -------
    spots
        A row per cell; ``obsm["spatial"]`` are the centroids of the outlines, level-0 pixels ``(x, y)``, and
        ``spot_diameter_fullres`` is the median diameter of the cells, each a disc of the area of its outline.
    dropped
        Numbers of cells by reason.
    """
    import pandas as pd

    path = outlines_file(folder)
    if path is None:
        raise SpotsError(f"{folder} has no {_OUTLINES}, which says where its cells are.")
    cells = _read_matrix(folder)
    numbers, centers, areas = _read_outlines(path)
    # As Space Ranger names the cells in its matrix; the outlines say the number alone.
    at = pd.Index([f"cellid_{number:09d}-1" for number in numbers]).get_indexer(cells.obs_names)
    known = at >= 0
    if not known.any():
        raise SpotsError(
            f"No cell of the matrix in {folder} is among the outlines in {path.name}; are they of one run?"
        )
    kept, at = cells[known].copy(), at[known]
    kept.obsm["spatial"] = centers[at]
    factors = scale_factors(folder)
    factors.pop("bin_size_um", None)  # cells are no bins
    factors["spot_diameter_fullres"] = float(np.median(2 * np.sqrt(areas[at] / np.pi)))
    kept.uns["spatial"] = {folder.resolve().name: {"images": small_images(folder), "scalefactors": factors}}
    return kept, {"no_position": int((~known).sum()), "no_counts": len(numbers) - len(at)}


def _read_matrix(folder: Path) -> AnnData:
    files = sorted(folder.glob(f"*{_MATRIX}.h5"))
    if files:
        return read_10x_h5(files[0], SpotsError)
    if mtx_file(folder / _MATRIX) is not None:
        return read_10x_mtx(folder / _MATRIX, SpotsError)
    raise SpotsError(f"The count matrix is missing: {folder} has neither {_MATRIX}.h5 nor a {_MATRIX} folder.")


def _read_outlines(path: Path) -> tuple[IntArray, FloatArray, FloatArray]:
    """Of the outlined cells: numbers ``(n,)``, centroids ``(n, 2)`` and areas ``(n,)``, pixels of the full image."""
    import shapely

    numbers: list[int] = []
    rings: list[FloatArray] = []
    cell_of_ring: list[int] = []
    try:
        with open_text(path, longest_line=None) as file:
            text = file.read()
        for feature in _features(text):
            geometry = feature["geometry"]
            if geometry is None:
                continue
            parts = geometry["coordinates"]
            for part in [parts] if geometry["type"] == "Polygon" else parts:
                rings.append(np.asarray(part[0], dtype=np.float64))
                cell_of_ring.append(len(numbers))
            numbers.append(int(feature["properties"]["cell_id"]))
        corners = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
        polygons = shapely.polygons(shapely.linearrings(np.concatenate([np.empty((0, 2)), *rings]), indices=corners))
    except (*READ_ERRORS, shapely.errors.ShapelyError, LookupError, TypeError) as exc:
        raise SpotsError(f"{path} cannot be read as Space Ranger's outlines of cells ({exc}).") from exc
    if len(set(numbers)) < len(numbers):
        raise SpotsError(f"{path} outlines a cell twice; get the file again.")
    areas = shapely.area(polygons)
    moments = np.nan_to_num(shapely.get_coordinates(shapely.centroid(polygons))) * areas[:, None]
    area, x, y = (np.bincount(cell_of_ring, part, len(numbers)).astype(np.float64) for part in (areas, *moments.T))
    usable = area > 0
    return np.array(numbers, dtype=np.intp)[usable], np.column_stack([x, y])[usable] / area[usable, None], area[usable]


def _features(text: str) -> Iterator[Any]:
    """The features of a collection one by one: parsed at once, half a million cells would hold up the screen."""
    decoder = json.JSONDecoder()
    at = text.index("[", text.index('"features"')) + 1
    while True:
        at += len(_BETWEEN.match(text, at)[0])  # type: ignore[index]
        if text[at] == "]":
            return
        feature, at = decoder.raw_decode(text, at)
        yield feature
