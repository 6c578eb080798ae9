"""Read cells of Visium HD from the ``segmented_outputs`` folder of Space Ranger 4.

Space Ranger segments nuclei in the image, expands them to cells and sums the 2 um bins in each. A cell is kept like a
spot: its position and its counts. The format is read as in spatialdata-io (``visium_hd``).
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.counts import MatrixFile, belonging, open_text, prefix_of, runs_in, several_runs
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.quality import OF_CELLS
from napari_cpnn.spots.visium import CELLS, library_name, pictures_and_factors
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData


_OUTLINES = "cell_segmentations.geojson"
_OUTLINES_NAME = re.compile(rf"(?P<prefix>.*?){re.escape(_OUTLINES)}(\.gz)?$")
_MATRIX = "filtered_feature_cell_matrix"
_BETWEEN = re.compile(r"[\s,]*")
#: Plausible cell diameters in um; other values show that outlines are not in pixels of the full-resolution image.
_CELL_UM = (1.0, 200.0)


def is_segmented(folder: Path) -> bool:
    """Return whether a folder holds segmented cells, by its outlines or its name."""
    return folder.name == CELLS or outlines_file(folder) is not None


def outlines_file(folder: Path, matrix: MatrixFile | None = None) -> Path | None:
    """Return the outlines file of the cells, which may be gzipped or have a prefix, as the copy with clusters has.

    Parameters
    ----------
    folder
        Folder of the cells.
    matrix
        Matrix of the same run; None for the first outlines in the folder.
    """
    plain = folder / _OUTLINES
    if matrix is None:
        return plain if plain.is_file() else next(iter(sorted(folder.glob(f"*{_OUTLINES}*"))), None)
    files = [file for file in sorted(folder.glob(f"*{_OUTLINES}*")) if _OUTLINES_NAME.match(file.name)]
    others = [prefix for prefix in runs_in(folder, of_cells=True) if prefix != matrix.prefix]
    return belonging(matrix.prefix, [(prefix_of(_OUTLINES_NAME, file.name), file) for file in files], others) or (
        # the only outlines may be the copy with clusters
        files[0] if files and not others and not matrix.prefix else None
    )


def cell_matrix(folder: Path) -> MatrixFile:
    """Return the filtered matrix of a folder of cells."""
    runs = runs_in(folder, of_cells=True)
    if len(runs) > 1:
        raise SpotsError(several_runs(folder, runs))
    if not runs:
        if outlines_file(folder) is None:
            raise SpotsError(f"{folder} has no {_OUTLINES} with the positions of its cells.")
        raise SpotsError(f"The count matrix is missing: {folder} has neither {_MATRIX}.h5 nor a {_MATRIX} folder.")
    return next(iter(runs.values()))


def read_segmented(matrix: MatrixFile) -> tuple[AnnData, dict[str, int]]:
    """Return the cells of ``segmented_outputs`` that have an outline, and the number left out by reason.

    Returns
    -------
    spots
        One row per cell; ``obsm["spatial"]`` are the centroids of the outlines, level-0 pixels ``(x, y)``, and
        ``spot_diameter_fullres`` is the median diameter of discs with the areas of the outlines.
    dropped
        Number of cells left out, by reason.
    """
    import pandas as pd

    folder = matrix.folder
    path = outlines_file(folder, matrix)
    if path is None:
        raise SpotsError(f"{folder} has no {_OUTLINES} with the positions of its cells.")
    cells = matrix.read(SpotsError)
    numbers, centers, areas = _read_outlines(path)
    # Space Ranger's cell names in the matrix; the outlines only have the number.
    at = pd.Index([f"cellid_{number:09d}-1" for number in numbers]).get_indexer(cells.obs_names)
    known = at >= 0
    if not known.any():
        raise SpotsError(
            f"No cell of the matrix in {folder} is in the outlines file {path.name}; are they from the same run?"
        )
    kept, at = cells[known].copy(), at[known]
    kept.obsm["spatial"] = centers[at]
    library = pictures_and_factors(matrix)
    factors = library["scalefactors"]
    factors.pop("bin_size_um", None)  # cells are not bins
    factors["spot_diameter_fullres"] = float(np.median(2 * np.sqrt(areas[at] / np.pi)))
    kept.uns["spatial"] = {library_name(matrix): library}
    kept.uns["napari_cpnn"] = {"of": OF_CELLS}
    _check_size(factors, path)
    return kept, {"no_position": int((~known).sum()), "no_counts": len(numbers) - len(at)}


def _check_size(factors: dict[str, float], path: Path) -> None:
    """Detect outlines of another image by the implied size of the cells."""
    um_per_px = factors.get("microns_per_pixel")
    if um_per_px is None:
        return
    um = um_per_px * factors["spot_diameter_fullres"]
    if not _CELL_UM[0] <= um <= _CELL_UM[1]:
        warnings.warn(
            f"The cells that {path} outlines are {um:.2g} um wide at the stated {um_per_px:.3g} um/px; are the "
            "outlines in pixels of another image?",
            CpnnWarning,
            stacklevel=5,
        )


def _read_outlines(path: Path) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return numbers ``(n,)``, centroids ``(n, 2)`` and areas ``(n,)`` of the outlines, in full-resolution pixels."""
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
        ids = np.array(numbers, dtype=np.intp)
        areas = shapely.area(polygons)
        moments = np.nan_to_num(shapely.get_coordinates(shapely.centroid(polygons))) * areas[:, None]
    except Exception as exc:  # any error of JSON, numpy and shapely on damaged outlines
        raise SpotsError(f"{path} cannot be read as Space Ranger's outlines of cells ({reason_of(exc)}).") from exc
    if len(set(numbers)) < len(numbers):
        raise SpotsError(f"{path} has duplicate cells; get the file again.")
    area, x, y = (np.bincount(cell_of_ring, part, len(numbers)).astype(np.float64) for part in (areas, *moments.T))
    usable = np.isfinite(area) & (area > 0)
    return ids[usable], np.column_stack([x, y])[usable] / area[usable, None], area[usable]


def _features(text: str) -> Iterator[Any]:
    """Yield the features of a collection one at a time; parsing half a million cells at once would block the GUI."""
    decoder = json.JSONDecoder()
    at = text.index("[", text.index('"features"')) + 1
    while True:
        at += len(_BETWEEN.match(text, at)[0])  # type: ignore[index]
        if text[at] == "]":
            return
        feature, at = decoder.raw_decode(text, at)
        yield feature
