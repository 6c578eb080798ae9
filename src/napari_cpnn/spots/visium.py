"""Read the ``outs`` folder of Space Ranger 1 to 4: matrix, tissue positions, scale factors, images."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.counts import SUFFIX, MatrixFile, belonging, neighbours, only_matrix, prefix_of, runs_in
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.aggregation import library_of_each, run_of_library
from napari_cpnn.spots.libraries import choose, spots_of_library
from napari_cpnn.spots.scale_factors import factors_of
from napari_cpnn.spots.tissue_positions import read_positions
from napari_cpnn.untrusted import read_bytes, read_json, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from napari_cpnn.slides import Slide

CELLS = "segmented_outputs"
"""Space Ranger 4's folder of segmented Visium HD cells."""

#: Space Ranger >= 2, Space Ranger 1, Visium HD. Files in public archives may have a prefix or be gzipped.
_ENDINGS = (
    "tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet", "tissue_positions.csv.gz",
    "tissue_positions_list.csv.gz", "tissue_positions.tsv", "tissue_positions_list.tsv", "tissue_positions.txt",
    "tissue_positions_list.txt",
)  # fmt: skip
_POSITIONS = [
    re.compile(rf"(?P<prefix>.*?){stem}(?!_list){SUFFIX}{re.escape(mark + suffixes)}$")
    for stem, mark, suffixes in (ending.partition(".") for ending in _ENDINGS)
]
_SPATIAL = re.compile(rf"(?P<prefix>.*?)spatial{SUFFIX}$")
_FACTORS = re.compile(rf"(?P<prefix>.*?)scalefactors_json{SUFFIX}\.json(?:\.gz)?$")

#: Space Ranger's images have a few million pixels; larger images are not decoded.
_MOST_PIXELS = 50_000_000
_MOST_BYTES = 4 * _MOST_PIXELS


def read_visium(
    matrix: MatrixFile, positions: Path | None = None, library: str | None = None, slide: Slide | None = None
) -> tuple[AnnData, dict[str, int]]:
    """Return the in-tissue spots of a Space Ranger matrix, and the number left out by reason.

    Parameters
    ----------
    matrix
        Matrix of the run.
    positions
        Tissue positions; None for those in the folder of the run.
    library
        Library to read of those joined by ``spaceranger aggr``.
    slide
        Slide on which the spots were measured.
    """
    spots = matrix.read(SpotsError)
    path = positions or _require_positions(matrix)
    table = read_positions(path)
    known = spots.obs_names.isin(table.index)
    dropped = {"no_position": int((~known).sum())}
    if not known.any():
        raise SpotsError(
            f"No barcode of the matrix {matrix.path} is in the tissue positions {path}; are they from the same run?"
        )
    in_tissue = table.index[table["in_tissue"] == 1]
    dropped["no_counts"] = int((~in_tissue.isin(spots.obs_names)).sum())
    spots = spots[known].copy()
    found = table.loc[spots.obs_names]
    for name in ("in_tissue", "array_row", "array_col"):
        if name in found:
            spots.obs[name] = found[name].to_numpy()
    spots.obsm["spatial"] = found[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    spots, others = _of_library(spots, matrix, library, slide)
    dropped.update(others)
    inside = spots.obs["in_tissue"].to_numpy() == 1
    dropped["not_in_tissue"] = int((~inside).sum())
    spots = spots[inside].copy()
    if "spatial" not in spots.uns:
        spots.uns["spatial"] = {library_name(matrix): pictures_and_factors(matrix)}
    return spots, dropped


def _of_library(
    spots: AnnData, matrix: MatrixFile, library: str | None, slide: Slide | None
) -> tuple[AnnData, dict[str, int]]:
    """Return the spots and description of one library of an aggregated run; all spots of any other run."""
    labels = library_of_each(list(spots.obs_names), matrix.folder)
    if labels is None:
        if library is not None:
            choose([matrix.name], library, None, str(matrix.path))
        return spots, {}
    spots.obs["library_id"] = labels
    spots, others = spots_of_library(spots, library, slide, str(matrix.path))
    name = str(spots.obs["library_id"].iloc[0])
    of_library = run_of_library(matrix, name)
    described = {"images": {}, "scalefactors": {}} if of_library is None else pictures_and_factors(of_library)
    spots.uns["spatial"] = {name: described}
    return spots, others


def visium_matrix(folder: Path) -> MatrixFile:
    """Return the filtered matrix of a run folder, else the raw one (whose spots outside tissue are dropped later)."""
    _refuse_parents(folder)
    found = only_matrix(folder, SpotsError)
    if found is None:
        raise SpotsError(
            f"The count matrix is missing: {folder} has neither filtered_feature_bc_matrix.h5 nor a "
            "filtered_feature_bc_matrix folder with matrix.mtx.gz."
        )
    return found


def library_name(matrix: MatrixFile) -> str:
    """Return the name of the run's folder, or the file prefix where several runs share a folder."""
    return matrix.name if neighbours(matrix) else matrix.folder.resolve().name


def positions_file(folder: Path, matrix: MatrixFile | None = None) -> Path | None:
    """Return the tissue positions file of a run, by any known name; None if missing or of another run.

    Parameters
    ----------
    folder
        Folder of the run.
    matrix
        Matrix of the run; None for the first positions in the folder.
    """
    files = list(_position_files(folder))
    if matrix is None:
        return files[0][1] if files else None
    return belonging(matrix.prefix, files, neighbours(matrix))


def has_positions(folder: Path) -> bool:
    """Return whether the folder holds tissue positions of any run."""
    return positions_file(folder) is not None


def _position_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield tissue positions with their prefix, which may also be that of the folder."""
    places = [("", folder / "spatial")]
    places += [(prefix_of(_SPATIAL, path.name), path) for path in _listed(folder) if _SPATIAL.match(path.name)]
    listed = [(prefix, _listed(place)) for prefix, place in (*dict.fromkeys(places), ("", folder))]
    for pattern in _POSITIONS:
        for prefix, files in listed:
            for file in files:
                if pattern.match(file.name):
                    yield prefix_of(pattern, file.name) or prefix, file


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _require_positions(matrix: MatrixFile) -> Path:
    found = positions_file(matrix.folder, matrix)
    if found is not None:
        return found
    files = [path for _, path in _position_files(matrix.folder)]
    if files:
        names = ", ".join(path.name for path in files[:5])
        others = ", ".join(name or "one without a prefix" for name in neighbours(matrix)[:5])
        raise SpotsError(
            f"No tissue positions next to {matrix.path} clearly belong to this matrix (found: {names}"
            f"{f', and the matrices of other runs: {others}' if others else ''}); give them as positions."
        )
    raise SpotsError(f"{matrix.folder / 'spatial'} has no tissue_positions.csv, tissue_positions_list.csv or .parquet.")


def _refuse_parents(folder: Path) -> None:
    """Raise an error for a folder above or inside the run folder, naming the correct path."""
    binned = sorted((folder / "binned_outputs").glob("square_*"))
    if binned:
        raise SpotsError(f"{folder} is a Visium HD run; open one of its bin sizes, for instance {binned[-1]}.")
    if (folder / CELLS).is_dir():
        raise SpotsError(f"{folder} is a Visium HD run; open its cells, {folder / CELLS}.")
    if (folder / "outs").is_dir() and not (folder / "spatial").is_dir():
        raise SpotsError(f"{folder} is a Space Ranger run; open its folder {folder / 'outs'}.")
    if folder.name == "spatial" and not runs_in(folder):
        raise SpotsError(f"{folder} holds the positions of a run and no counts; open its folder {folder.parent}.")


def pictures_and_factors(matrix: MatrixFile) -> dict[str, Any]:
    """Return the images and scale factors of a matrix's run, in scanpy's layout."""
    return {"images": small_images(matrix), "scalefactors": scale_factors(matrix)}


def _beside_positions(matrix: MatrixFile, pattern: re.Pattern[str]) -> Path | None:
    """Return a file of the run, in ``spatial``, in a prefixed folder or in the run folder."""
    places = [("", matrix.folder / "spatial")]
    places += [(prefix_of(_SPATIAL, p.name), p) for p in _listed(matrix.folder) if _SPATIAL.match(p.name)]
    files = [
        (prefix_of(pattern, file.name) or prefix, file)
        for prefix, place in (*dict.fromkeys(places), ("", matrix.folder))
        for file in _listed(place)
        if pattern.match(file.name)
    ]
    return belonging(matrix.prefix, files, neighbours(matrix))


def scale_factors(matrix: MatrixFile) -> dict[str, float]:
    """Return the numbers in ``scalefactors_json.json``; empty if there is no such file."""
    path = _beside_positions(matrix, _FACTORS)
    if path is None:
        return {}
    try:
        given = read_json(path, SpotsError)
    except SpotsError as exc:
        if exc.__cause__ is None:
            raise
        raise SpotsError(
            f"{path} cannot be read as Space Ranger's scale factors ({reason_of(exc.__cause__)})."
        ) from exc
    if not isinstance(given, dict):
        raise SpotsError(
            f"{path} cannot be read as Space Ranger's scale factors (it is not a mapping of names to numbers)."
        )
    return factors_of(given, str(path))  # newer versions may contain values that are not numbers


def small_images(matrix: MatrixFile) -> dict[str, Any]:
    """Return the downscaled images of Space Ranger as uint8 RGB; unreadable ones are skipped with a warning."""
    images = {}
    for name in ("hires", "lowres"):
        path = _beside_positions(matrix, re.compile(rf"(?P<prefix>.*?)tissue_{name}_image{SUFFIX}\.png(?:\.gz)?$"))
        if path is not None:
            try:
                images[name] = _picture(path)
            except Exception as exc:  # noqa: BLE001 -- whatever Pillow raises; spots are read without it as well
                warnings.warn(
                    f"The image {path} is skipped: {reason_of(exc)}; the spots are read without it.",
                    CpnnWarning,
                    stacklevel=6,
                )
    return images


def _picture(path: Path) -> np.ndarray[Any, Any]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        stored = io.BytesIO(read_bytes(path, _MOST_BYTES, SpotsError))
        with Image.open(stored, formats=("PNG", "JPEG")) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise ValueError(f"it has {width:,} x {height:,} pixels, far more than a downscaled image of a slide")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
