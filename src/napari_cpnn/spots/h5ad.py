"""Spots in an ``.h5ad``: positions in ``obsm``, and which of them are in tissue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import counts_of, read_h5ad_table
from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.libraries import spots_of_library
from napari_cpnn.spots.position_columns import xy_of_table
from napari_cpnn.spots.tissue_positions import read_positions

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide

_YES = ("1", "1.0", "true", "yes")


def read_h5ad_spots(
    path: Path, positions: Path | None = None, library: str | None = None, slide: Slide | None = None
) -> tuple[AnnData, dict[str, int]]:
    """Spots of one library that are in tissue, and how many were left out, by reason.

    Parameters
    ----------
    path
        The file.
    positions
        Tissue positions in place of those in the file, by the names of the spots.
    library
        Which is read, of several.
    slide
        That the spots are for.
    """
    table = read_h5ad_table(path, SpotsError)
    spatial = _positions_of(table, path) if positions is None else _given_positions(table, positions, path)
    spots = counts_of(table, str(path), SpotsError)
    if "spatial" in spots.obsm:  # a table would stay one
        del spots.obsm["spatial"]
    spots.obsm["spatial"] = spatial
    spots, dropped = spots_of_library(spots, library, slide, str(path))
    if "in_tissue" in spots.obs:
        # Numbers, booleans or their names, as a table may have been through R or a text file.
        inside = spots.obs["in_tissue"].astype(str).str.strip().str.lower().isin(_YES).to_numpy()
        dropped["not_in_tissue"] = int((~inside).sum())
        spots = spots[inside].copy()
    return spots, dropped


def _positions_of(table: AnnData, path: Path) -> FloatArray:
    """``obsm["spatial"]`` as ``(N, 2)``: of a table the names of its columns decide, of an array the order (x, y)."""
    import pandas as pd

    what = f'obsm["spatial"] of {path}'
    if "spatial" not in table.obsm:
        raise SpotsError(f'{path} has no positions: obsm["spatial"] must hold level-0 pixels (x, y).')
    found: Any = table.obsm["spatial"]
    if sp.issparse(found):
        found = found.toarray()
    if isinstance(found, np.ndarray) and found.dtype.names:
        found = pd.DataFrame({name: found[name] for name in found.dtype.names})
    if isinstance(found, pd.DataFrame):
        return xy_of_table(found, what)
    try:
        spatial = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise SpotsError(f"{what} does not hold numbers ({exc}).") from exc
    if spatial.ndim != 2 or spatial.shape[1] < 2:
        raise SpotsError(f"{what} has the shape {spatial.shape} in place of (spots, 2).")
    return spatial[:, :2]


def _given_positions(table: AnnData, positions: Path, path: Path) -> FloatArray:
    """Of the spots that the table of positions names; the others have none."""
    given = read_positions(positions)
    at = given.index.get_indexer(table.obs_names.astype(str))
    if not (at >= 0).any():
        raise SpotsError(f"No spot of {path} is among the positions in {positions}; are they of one run?")
    pixels = given[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    return np.where((at >= 0)[:, None], pixels[at], np.nan)
