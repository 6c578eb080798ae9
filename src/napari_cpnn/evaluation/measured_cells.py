"""Predicted cells beside measured ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.cells import CellMap
from napari_cpnn.counts import name_genes_as, shared_genes
from napari_cpnn.errors import SpotsError
from napari_cpnn.evaluation.predictions import comparison_table, usable_spots
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.slides import Slide
from napari_cpnn.spots import is_of_cells, on_one_slide

WITHIN_UM = 6.0
"""Farthest distance of a predicted from a measured cell that is taken for the same: about the radius of a cell."""


def compare_cells(
    cells: CellMap, slide: Slide, spots: AnnData, within_um: float = WITHIN_UM, ignore_gene_case: bool = False
) -> AnnData:
    """Put predicted cells beside measured ones, each with the nearest.

    Pairs are mutual: the measured cell is also the nearest of the predicted one, so that no cell counts twice.

    Parameters
    ----------
    cells
        Predicted cells of the slide.
    slide
        The slide of both.
    spots
        Measured cells, such as :func:`~napari_cpnn.read_spots` reads from Xenium and from ``segmented_outputs``.
    within_um
        Farthest distance of the centres of a pair.
    ignore_gene_case
        Whether gene names are compared without regard to case.

    Returns
    -------
    AnnData
        As of :func:`predict_expression`, a row per pair; ``obs["cell"]`` is the number of the predicted cell, and
        ``uns["comparison"]["spots_without_patch"]`` the number of measured cells without a predicted one.

    Raises
    ------
    SpotsError
        If the table holds spots, not cells, or no cell is near a predicted one.
    GenesError, PixelSizeError
        As :func:`~napari_cpnn.evaluate`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.cells import CellMap
    >>> from napari_cpnn.evaluation import compare_cells
    >>> measured = spots.copy()
    >>> measured.uns["napari_cpnn"] = {"of": "cells"}
    >>> places = measured.obsm["spatial"][:3, ::-1] * slide.mpp
    >>> shares = np.full((3, len(model.cell_types)), 1 / len(model.cell_types))
    >>> cells = CellMap(nc.Nuclei(places), model.decoder(), shares, np.zeros((3, model.n_programs)))
    >>> compare_cells(cells, slide, measured).n_obs
    3
    """
    if not is_of_cells(spots):
        raise SpotsError(
            f"The table of {slide.name} holds spots, of many cells each; cells are compared with measured cells "
            "(Xenium, segmented Visium HD)."
        )
    spots = on_one_slide(spots, f"The table of cells of {slide.name}")
    spots = name_genes_as(spots, cells.genes, ignore_case=ignore_gene_case)
    genes = shared_genes(cells.genes, list(spots.var_names), ("The map of cells", f"the cells of {slide.name}"))
    rows, left_out = usable_spots(slide, spots)
    mpp = slide.require_mappable()
    known = np.flatnonzero(cells.known)
    measured_um = spatial_to_um(spots.obsm["spatial"], mpp)[rows]
    first, second = _mutual(measured_um, np.asarray(cells.nuclei.centers_um, dtype=np.float64)[known], within_um)
    if not len(first):
        raise SpotsError(
            f"None of the {len(rows):,} measured cells of {slide.name} is within {within_um:g} um of a predicted one."
        )
    paired, numbers = rows[first], known[second]
    weights = pd.DataFrame(
        cells.weights[numbers].astype(np.float32), index=spots.obs_names[paired], columns=list(cells.cell_types)
    )
    programs = cells.programs[numbers].astype(np.float32)
    facts = {**left_out, "spots_without_patch": len(rows) - len(paired), "n_model_genes": len(cells.genes)}
    table = comparison_table(slide, spots, paired, genes, cells.decoder, weights, programs, facts)
    table.obs["cell"] = numbers
    return table


def _mutual(first: FloatArray, second: FloatArray, within: float) -> tuple[IntArray, IntArray]:
    """Return the rows of points that are each other's nearest, within a distance."""
    from scipy.spatial import KDTree

    nothing = np.empty(0, dtype=np.intp)
    if not len(first) or not len(second):
        return nothing, nothing
    one, other = KDTree(first), KDTree(second)
    away, there = other.query(first)
    back = one.query(second)[1]
    rows = np.flatnonzero((away <= within) & (back[there] == np.arange(len(first))))
    return rows, np.asarray(there, dtype=np.intp)[rows]
