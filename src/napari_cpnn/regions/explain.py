"""Explain predicted expression as a sum of contributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import RegionsError
from napari_cpnn.palette import as_level
from napari_cpnn.regions.outlines import Region
from napari_cpnn.regions.summary import cells_of

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap

PROGRAMS = "programs (no cell type)"
SHIFT = "shift (the same everywhere)"


def explain_gene(
    cmap: CompositionMap, gene: str, where: Region | tuple[int, int], level: str = "minor"
) -> pd.DataFrame:
    """Decompose the predicted expression of a gene in one patch of the map, or averaged over a region.

    Expression is linear in the network's outputs (eq. 1 of the paper, extended by programs):
    ``e_g = sum_c alpha_g w_c T_cg + sum_r z_r V_rg + beta_g``.

    Parameters
    ----------
    where
        A region, or the ``(row, col)`` of a patch; for a patch that is not computed yet, the coarser one displayed
        there is used.
    level
        ``"minor"`` for the cell types of the model, ``"major"`` for the major types above them, whose contributions are
        the sums of those of their minor types.

    Returns
    -------
    DataFrame
        Index ``part``: the cell types, largest contribution first, then programs and shift. ``value`` sums to the
        predicted expression, log1p CP10k. ``weight`` is the share of the cell type (NaN for the last two).
        ``attrs["expression"]`` is the sum.

    Raises
    ------
    GenesError
        If the model does not predict the gene.
    RegionsError
        If nothing is computed there yet.

    Examples
    --------
    >>> from napari_cpnn.regions import Region, explain_gene
    >>> region = Region.from_vertices("margin", [(1000, 1000), (1000, 1400), (1400, 1400), (1400, 1000)])
    >>> parts = explain_gene(cmap, "ERBB2", region)
    >>> bool(abs(parts["value"].sum() - parts.attrs["expression"]) < 1e-5)
    True
    """
    weights, programs = _values(cmap, where)
    decoder = cmap.decoder
    of_types = [float(decoder.contribution(weights[None], gene, name)[0]) for name in cmap.cell_types]
    total = float(decoder.expression(weights[None], programs[None], [gene])[0, 0])
    shift = float(decoder.expression(np.zeros_like(weights)[None], np.zeros_like(programs)[None], [gene])[0, 0])
    above = cmap.hierarchy if as_level(level) == "major" else {}
    names = pd.Index([above.get(name, name) for name in cmap.cell_types], name="part")
    table = pd.DataFrame({"value": of_types, "weight": weights.astype(np.float64)}, index=names)
    table = table.groupby(level=0, sort=False).sum().sort_values("value", ascending=False, kind="stable")
    rest = pd.DataFrame(
        {"value": [total - sum(of_types) - shift, shift], "weight": np.nan},
        index=pd.Index([PROGRAMS, SHIFT], name="part"),
    )
    table = pd.concat([table, rest])
    table.attrs = {"gene": gene, "expression": total}
    return table


def _values(cmap: CompositionMap, where: Region | tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(where, Region):
        values = cmap.values_at(*where)
        if values is None:
            raise RegionsError("This place is not mapped yet.")
        return values.weights, values.programs
    cells, areas = cells_of(cmap, where)
    block = _rows(cmap, cells)
    share = (areas / areas.sum()).astype(np.float32)
    return share @ block[0], share @ block[1]


def _rows(cmap: CompositionMap, cells: IntArray) -> tuple[np.ndarray, np.ndarray]:
    low, high = cells.min(axis=0), cells.max(axis=0) + 1
    block = cmap.block((slice(low[0], high[0]), slice(low[1], high[1])))
    row, col = (cells - low).T
    return block.weights[row, col].astype(np.float32), block.programs[row, col].astype(np.float32)
