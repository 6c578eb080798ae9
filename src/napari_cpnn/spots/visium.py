"""The ``outs`` folder of Space Ranger, versions 1 to 4: matrix, tissue positions, scale factors, images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.tables import READ_ERRORS, open_text
from napari_cpnn.spots.tenx import mtx_file, read_10x_h5, read_10x_mtx

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
#: Space Ranger >= 2, Space Ranger 1, Visium HD. Files of a public archive carry a prefix or are zipped.
_POSITIONS = (
    "*tissue_positions.csv", "*tissue_positions_list.csv", "*tissue_positions.parquet",
    "*tissue_positions.csv.gz", "*tissue_positions_list.csv.gz",
)  # fmt: skip
CELLS = "segmented_outputs"
"""What Space Ranger 4 calls the folder of the cells of Visium HD."""

_MATRICES = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix")


def read_visium(folder: Path) -> tuple[AnnData, dict[str, int]]:
    """Spots of a Space Ranger folder that are in tissue, and how many were left out, by reason."""
    _refuse_parents(folder)
    spots = _read_matrix(folder)
    positions = _read_positions(folder)
    known = spots.obs_names.isin(positions.index)
    dropped = {"no_position": int((~known).sum())}
    if not known.any():
        raise SpotsError(f"No barcode of the matrix in {folder} is among its tissue positions; are they of one run?")
    in_tissue = positions.index[positions["in_tissue"] == 1]
    dropped["no_counts"] = int((~in_tissue.isin(spots.obs_names)).sum())
    spots = spots[known].copy()
    found = positions.loc[spots.obs_names]
    for name in ("in_tissue", "array_row", "array_col"):
        spots.obs[name] = found[name].to_numpy()
    spots.obsm["spatial"] = found[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    inside = spots.obs["in_tissue"].to_numpy() == 1
    dropped["not_in_tissue"] = int((~inside).sum())
    spots = spots[inside].copy()
    library = {"images": small_images(folder), "scalefactors": scale_factors(folder)}
    spots.uns["spatial"] = {folder.resolve().name: library}
    return spots, dropped


def positions_file(folder: Path) -> Path | None:
    """The tissue positions in the ``spatial`` folder of a run, by any name that they have had."""
    for pattern in _POSITIONS:
        found = sorted((folder / "spatial").glob(pattern))
        if found:
            return found[0]
    return None


def _refuse_parents(folder: Path) -> None:
    """A folder above the one that is meant is refused with the way to it."""
    binned = sorted((folder / "binned_outputs").glob("square_*"))
    if binned:
        raise SpotsError(f"{folder} is a Visium HD run; open one of its bin sizes, for instance {binned[-1]}.")
    if (folder / CELLS).is_dir():
        raise SpotsError(f"{folder} is a Visium HD run; open its cells, {folder / CELLS}.")
    if (folder / "outs").is_dir() and not (folder / "spatial").is_dir():
        raise SpotsError(f"{folder} is a Space Ranger run; open its folder {folder / 'outs'}.")


def _read_matrix(folder: Path) -> AnnData:
    """The filtered matrix, else the raw one (whose spots outside the tissue are then dropped); h5 before mtx."""
    for name in _MATRICES:
        files = sorted(folder.glob(f"*{name}.h5"))
        if files:
            return read_10x_h5(files[0], SpotsError)
        if mtx_file(folder / name) is not None:
            return read_10x_mtx(folder / name, SpotsError)
    raise SpotsError(
        f"The count matrix is missing: {folder} has neither filtered_feature_bc_matrix.h5 nor a "
        "filtered_feature_bc_matrix folder with matrix.mtx.gz."
    )


def _read_positions(folder: Path) -> pd.DataFrame:
    path = positions_file(folder)
    if path is None:
        raise SpotsError(f"{folder / 'spatial'} has no tissue_positions.csv, tissue_positions_list.csv or .parquet.")
    return read_positions(path)


def read_positions(path: Path) -> pd.DataFrame:
    """Tissue positions by barcode: ``.csv`` with a header since Space Ranger 2, without before, parquet for HD.

    Returns
    -------
    DataFrame
        Index: barcodes; columns ``in_tissue``, ``array_row``, ``array_col`` and the pixel of the full image,
        ``pxl_row_in_fullres``, ``pxl_col_in_fullres``.
    """
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            with open_text(path) as file:
                header = 0 if file.readline().startswith("barcode") else None
                file.seek(0)
                table = pd.read_csv(file, header=header)
    except ImportError as exc:
        raise SpotsError(f"Reading {path} needs the package pyarrow: run `pip install pyarrow`.") from exc
    except READ_ERRORS as exc:
        raise SpotsError(f"{path} cannot be read as tissue positions ({exc}).") from exc
    if table.shape[1] < len(_COLUMNS):
        raise SpotsError(f"{path} has {table.shape[1]} columns in place of {', '.join(_COLUMNS)}.")
    if not set(_COLUMNS) <= set(table.columns):
        table = table.iloc[:, : len(_COLUMNS)].set_axis(_COLUMNS, axis=1)
    table = table.astype({"barcode": str}).set_index("barcode")[_COLUMNS[1:]]
    if table.index.has_duplicates:
        raise SpotsError(f"{path} names the barcode {table.index[table.index.duplicated()][0]} twice.")
    try:
        numbers: pd.DataFrame = table.apply(pd.to_numeric)
    except (ValueError, TypeError) as exc:
        raise SpotsError(f"{path} has a value that is not a number ({exc}).") from exc
    return numbers


def scale_factors(folder: Path) -> dict[str, float]:
    """The numbers in ``scalefactors_json.json``; none where there is no such file."""
    path = folder / "spatial" / "scalefactors_json.json"
    if not path.is_file():
        return {}
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        # Newer versions may write more than numbers there.
        return {name: float(value) for name, value in data.items() if isinstance(value, int | float)}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise SpotsError(f"{path} cannot be read as Space Ranger's scale factors ({exc}).") from exc


def small_images(folder: Path) -> dict[str, Any]:
    """The small images that Space Ranger left, uint8 RGB."""
    from PIL import Image

    images = {}
    for name in ("hires", "lowres"):
        path = folder / "spatial" / f"tissue_{name}_image.png"
        if path.is_file():
            try:
                with Image.open(path) as image:
                    images[name] = np.asarray(image.convert("RGB"))
            except OSError as exc:
                raise SpotsError(f"{path} cannot be read as an image ({exc}).") from exc
    return images
