"""Cells of Visium HD: the ``segmented_outputs`` folder that Space Ranger leaves since version 4.

Space Ranger outlines nuclei in the image, widens them to cells and adds up the 2 um bins in each. Of a cell we keep
what we keep of a spot: where it is, and its counts. The format is read as spatialdata-io (``visium_hd``) reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.tables import READ_ERRORS, open_text
from napari_cpnn.spots.tenx import mtx_file, read_10x_h5, read_10x_mtx
from napari_cpnn.spots.visium import CELLS, scale_factors, small_images

if TYPE_CHECKING:
    import numpy.typing as npt
    from anndata import AnnData

_OUTLINES = "cell_segmentations.geojson"
_MATRIX = "filtered_feature_cell_matrix"


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
    path = outlines_file(folder)
    if path is None:
        raise SpotsError(f"{folder} has no {_OUTLINES}, which says where its cells are.")
    cells = _read_matrix(folder)
    ids, outlines = _read_outlines(path)
    import pandas as pd
    import shapely

    # As Space Ranger names the cells in its matrix; the outlines say the number alone.
    at = pd.Index([f"cellid_{number:09d}-1" for number in ids]).get_indexer(cells.obs_names)
    known = at >= 0
    if not known.any():
        raise SpotsError(
            f"No cell of the matrix in {folder} is among the outlines in {path.name}; are they of one run?"
        )
    kept, at = cells[known].copy(), at[known]
    kept.obsm["spatial"] = shapely.get_coordinates(shapely.centroid(outlines[at])).astype(np.float64)
    factors = scale_factors(folder)
    factors.pop("bin_size_um", None)  # cells are no bins
    factors["spot_diameter_fullres"] = float(np.median(2 * np.sqrt(shapely.area(outlines[at]) / np.pi)))
    kept.uns["spatial"] = {folder.resolve().name: {"images": small_images(folder), "scalefactors": factors}}
    return kept, {"no_position": int((~known).sum()), "no_counts": len(ids) - len(at)}


def _read_matrix(folder: Path) -> AnnData:
    files = sorted(folder.glob(f"*{_MATRIX}.h5"))
    if files:
        return read_10x_h5(files[0], SpotsError)
    if mtx_file(folder / _MATRIX) is not None:
        return read_10x_mtx(folder / _MATRIX, SpotsError)
    raise SpotsError(f"The count matrix is missing: {folder} has neither {_MATRIX}.h5 nor a {_MATRIX} folder.")


def _read_outlines(path: Path) -> tuple[list[int], npt.NDArray[Any]]:
    """Numbers ``(n,)`` of the cells and their outlines ``(n,)`` in pixels of the full image."""
    import shapely
    from shapely.geometry import shape

    try:
        with open_text(path) as file:
            features = json.load(file)["features"]
        features = [feature for feature in features if feature["geometry"] is not None]
        ids = [int(feature["properties"]["cell_id"]) for feature in features]
        outlines = np.array([shape(feature["geometry"]) for feature in features], dtype=object)
    except (*READ_ERRORS, shapely.errors.ShapelyError, LookupError, TypeError, AttributeError) as exc:
        raise SpotsError(f"{path} cannot be read as Space Ranger's outlines of cells ({exc}).") from exc
    if len(set(ids)) < len(ids):
        raise SpotsError(f"{path} outlines a cell twice; get the file again.")
    usable = shapely.area(outlines) > 0
    return [number for number, ok in zip(ids, usable, strict=True) if ok], outlines[usable]
