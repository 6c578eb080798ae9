"""Read spots from an ``.h5ad`` with positions in ``obsm``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import counts_of, read_h5ad_table
from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.libraries import spots_of_library
from napari_cpnn.spots.positions import positions_of
from napari_cpnn.spots.tissue_positions import read_positions
from napari_cpnn.spots.truths import truths

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.slides import Slide


def read_h5ad_spots(
    path: Path, positions: Path | None = None, library: str | None = None, slide: Slide | None = None
) -> tuple[AnnData, dict[str, int]]:
    """Return the in-tissue spots of one library, and the number of spots left out by reason.

    Parameters
    ----------
    path
        The file.
    positions
        Tissue positions that replace those in the file, matched by spot name.
    library
        Library to read if there are several.
    slide
        Slide on which the spots were measured.
    """
    table = read_h5ad_table(path, SpotsError)
    spatial = positions_of(table, str(path)) if positions is None else _given_positions(table, positions, path)
    spots = counts_of(table, str(path), SpotsError)
    if "spatial" in spots.obsm:  # assigning over a DataFrame would keep a DataFrame
        del spots.obsm["spatial"]
    spots.obsm["spatial"] = spatial
    spots, dropped = spots_of_library(spots, library, slide, str(path))
    if "in_tissue" in spots.obs:
        inside = truths(spots.obs["in_tissue"], f'The column "in_tissue" of {path}')
        dropped["not_in_tissue"] = int((~inside).sum())
        spots = spots[inside].copy()
    return spots, dropped


def _given_positions(table: AnnData, positions: Path, path: Path) -> FloatArray:
    """Return the positions of the spots in a positions table; NaN for other spots."""
    given = read_positions(positions)
    at = given.index.get_indexer(table.obs_names.astype(str))
    if not (at >= 0).any():
        raise SpotsError(f"No spot of {path} is in the positions table {positions}; are they from the same run?")
    pixels = given[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    return np.where((at >= 0)[:, None], pixels[at], np.nan)
