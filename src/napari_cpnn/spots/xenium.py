"""Read the cells of an output folder of Xenium, at their places on the H&E picture where its alignment is there.

Xenium gives centres of cells in micrometres of its own picture. The H&E picture is taken afterwards, on another
microscope; ``*_he_imagealignment.csv`` has the affine matrix from its pixels to those of Xenium's picture. A cell is
kept like a spot: its position and its counts. File layout: https://www.10xgenomics.com/support/software/
xenium-onboard-analysis/latest/analysis/xoa-output-at-a-glance.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.counts import MatrixFile, matrix_at, read_table
from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.affine import XENIUM_ALIGNMENT
from napari_cpnn.spots.frames import InstrumentFrame, frame_on
from napari_cpnn.spots.quality import OF_CELLS
from napari_cpnn.untrusted import read_json, reading, require_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData

XENIUM_MPP = 0.2125
"""Pixel size of Xenium's pictures in um."""

_EXPERIMENT = "experiment.xenium"
_MATRIX = "cell_feature_matrix"
_CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
_FILES = {_EXPERIMENT, f"{_MATRIX}.h5", _MATRIX, *_CELLS}
#: Columns of the table of cells that are kept; areas are in um2.
_KEPT = ("cell_area", "nucleus_area", "transcript_counts", "segmentation_method")
#: Controls and codewords by their names, for tables that do not give the kinds of features.
_CONTROL = re.compile(
    r"(?:(?:NegControl|Unassigned|Deprecated|Genomic)\w*|BLANK|antisense|Intergenic_Region)_", re.IGNORECASE
)


def xenium_folder(path: Path) -> Path | None:
    """Return the Xenium output folder that a path is, or is a main file of; ``None`` for anything else."""
    folder = path if path.is_dir() and path.name != _MATRIX else path.parent
    if path != folder and path.name not in _FILES:
        return None
    has_counts = (folder / f"{_MATRIX}.h5").is_file() or (folder / _MATRIX).is_dir()
    has_cells = any((folder / name).is_file() for name in _CELLS)
    return folder if (folder / _EXPERIMENT).is_file() or (has_counts and has_cells) else None


def xenium_name(folder: Path) -> str:
    """Return the nearest name of a folder that Xenium did not choose."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "outs" and folder.parent.name else folder.name


def xenium_frame(folder: Path, alignment: Path | None = None) -> InstrumentFrame:
    """Return where a Xenium folder's micrometres lie: on the H&E picture by its alignment, else on Xenium's own.

    Parameters
    ----------
    folder
        Output folder of Xenium.
    alignment
        File of the alignment; ``None``: the one in the folder, or beside it with its name.

    Raises
    ------
    SpotsError
        If there are several alignments, or the file holds no affine matrix, or one to pixels of no microscope.
    """
    mpp = _pixel_size(folder)
    to_xenium = np.array([[1 / mpp, 0.0, 0.0], [0.0, 1 / mpp, 0.0]])
    return frame_on(to_xenium, mpp, alignment or _alignment_of(folder))


def read_xenium(folder: Path, alignment: Path | None = None) -> tuple[AnnData, dict[str, int]]:
    """Return the cells of a Xenium folder that are in both its table and its matrix, and the number left out by reason.

    Returns
    -------
    spots
        One row per cell; ``obsm["spatial"]`` are the centroids in level-0 pixels ``(x, y)`` of the H&E picture, or of
        Xenium's own where there is no alignment. ``spot_diameter_fullres`` is the median diameter of discs with the
        areas of the cells, and ``microns_per_pixel`` the pixel size of that picture. Controls and unassigned codewords
        are no genes.
    dropped
        Number of cells left out, by reason.
    """
    import pandas as pd

    frame, table = xenium_frame(folder, alignment), _cells(folder)
    cells = _matrix(folder).read(SpotsError)
    is_gene = np.array([_CONTROL.match(name) is None for name in cells.var_names], dtype=bool)
    if not is_gene.any():
        raise SpotsError(f"The matrix in {folder} counts controls, but no genes; get the folder again.")
    cells = cells[:, is_gene]
    at = pd.Index(_texts(table["cell_id"])).get_indexer(cells.obs_names)
    known = at >= 0
    if not known.any():
        raise SpotsError(f"No cell of the matrix in {folder} is in its table of cells; are they from the same run?")
    kept, rows = cells[known].copy(), table.iloc[at[known]]
    kept.obsm["spatial"] = frame.to_pixels(rows[["x_centroid", "y_centroid"]].to_numpy(dtype=np.float64))
    for name in _KEPT:
        if name in rows:
            kept.obs[name] = rows[name].to_numpy()
    kept.uns["napari_cpnn"] = {"of": OF_CELLS, "alignment": frame.alignment}
    factors = {"microns_per_pixel": frame.mpp}
    if "cell_area" in rows:
        areas = rows["cell_area"].to_numpy(dtype=np.float64)
        areas = areas[np.isfinite(areas) & (areas > 0)]
        if areas.size:
            factors["spot_diameter_fullres"] = float(np.median(2 * np.sqrt(areas / np.pi) / frame.mpp))
    kept.uns["spatial"] = {xenium_name(folder): {"images": {}, "scalefactors": factors}}
    return kept, {"no_position": int((~known).sum()), "no_counts": len(table) - int(known.sum())}


def _cells(folder: Path) -> pd.DataFrame:
    """Return the table of cells, with numbers in ``x_centroid`` and ``y_centroid``."""
    import pandas as pd

    there = [folder / name for name in _CELLS if (folder / name).is_file()]
    if not there:
        raise SpotsError(f"{folder} has no {_CELLS[0]} or {_CELLS[1]} with the positions of its cells.")
    can_parquet = importlib.util.find_spec("pyarrow") is not None
    path = next((file for file in there if can_parquet or file.suffix != ".parquet"), there[0])
    table = _parquet(path) if path.suffix == ".parquet" else read_table(path, "table of cells", SpotsError)
    missing = [name for name in ("cell_id", "x_centroid", "y_centroid") if name not in table]
    if missing:
        raise SpotsError(f"{path} has no column {missing[0]}; is it the table of cells of Xenium?")
    if table["cell_id"].duplicated().any():
        raise SpotsError(f"{path} has duplicate cells; get the file again.")
    for name in ("x_centroid", "y_centroid", "cell_area"):
        if name in table:
            table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def _parquet(path: Path) -> pd.DataFrame:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise SpotsError(
            f"Reading {path} needs the package pyarrow; run pip install 'napari-cpnn[parquet]', or unpack cells.csv.gz "
            "beside it."
        ) from error
    with reading(path, SpotsError, "is it a Parquet file?"):
        about = pq.ParquetFile(path)
        require_memory(8 * about.metadata.num_rows * about.metadata.num_columns, path, SpotsError)
        names = [name for name in about.schema_arrow.names if name in ("cell_id", "x_centroid", "y_centroid", *_KEPT)]
        table: pd.DataFrame = about.read(columns=names).to_pandas(ignore_metadata=True)
    return table


def _matrix(folder: Path) -> MatrixFile:
    for place in (folder / f"{_MATRIX}.h5", folder / _MATRIX):
        found = matrix_at(place) if place.exists() else None
        if found is not None:
            return found
    packed = next(iter(sorted(folder.glob(f"{_MATRIX}.*"))), None)
    hint = "" if packed is None else f" ({packed.name} is not read)"
    raise SpotsError(f"The count matrix is missing: {folder} has no {_MATRIX}.h5 or folder {_MATRIX}{hint}.")


def _texts(values: pd.Series[Any]) -> list[str]:
    """Names of cells, which are bytes, texts or, of older versions, numbers."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _pixel_size(folder: Path) -> float:
    file = folder / _EXPERIMENT
    if not file.is_file():
        return XENIUM_MPP
    facts = read_json(file, SpotsError)
    size = facts.get("pixel_size") if isinstance(facts, dict) else None
    if size is None:
        return XENIUM_MPP
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0.01 < size < 10:
        raise SpotsError(f"{file} has the pixel size {str(size)[:40]!r}, which is none in um; get the file again.")
    return float(size)


def he_picture(folder: Path) -> Iterator[Path]:
    """Yield the H&E picture that is named like the alignment of a Xenium folder, if it lies beside it."""
    try:
        file = _alignment_of(folder)
    except SpotsError:  # several
        return
    if file is not None:
        yield from sorted(file.parent.glob(f"{file.name.removesuffix('alignment.csv')}.*"))


def _alignment_of(folder: Path) -> Path | None:
    """Return the alignment of the H&E picture in a folder, or beside it with its name."""
    found = sorted(folder.glob(f"*{XENIUM_ALIGNMENT}"))
    if not found:
        outer = folder.resolve()
        names = (outer.name, outer.parent.name) if outer.name == "outs" else (outer.name,)
        beside = sorted(outer.parent.glob(f"*{XENIUM_ALIGNMENT}"))
        prefixes = [(file, file.name[: -len(XENIUM_ALIGNMENT)].rstrip("_-. ")) for file in beside]
        found = [file for file, prefix in prefixes if not prefix or any(name.startswith(prefix) for name in names)]
    if len(found) > 1:
        names_of = ", ".join(file.name for file in found[:4])
        raise SpotsError(f"{folder} has several alignments of H&E pictures ({names_of}); give one as positions.")
    return found[0] if found else None
