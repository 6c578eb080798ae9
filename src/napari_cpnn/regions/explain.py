"""Explain predicted expression as a sum of contributions."""

from __future__ import annotations

from collections.abc import Sequence
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
    ``e_g = sum_c alpha_g w_c T_cg + sum_r z_r V_rg + beta_g``. For a model on the count scale, parts are counts per
    10,000, which sum exactly, and a region is taken as one sample.

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
        predicted expression. ``weight`` is the share of the cell type (NaN for the last two).
        ``attrs["expression"]`` is the sum, and ``attrs["unit"]`` its unit: log1p CP10k, or CP10k on the count scale.

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
    of_types, of_programs, of_shift = cmap.decoder.parts(weights, programs, gene)
    shift = float(of_shift)
    total = float(of_types.sum(dtype=np.float64)) + float(of_programs) + shift
    above = cmap.hierarchy if as_level(level) == "major" else {}
    names = pd.Index([above.get(name, name) for name in cmap.cell_types], name="part")
    table = pd.DataFrame({"value": of_types.astype(np.float64), "weight": weights.astype(np.float64)}, index=names)
    table = table.groupby(level=0, sort=False).sum().sort_values("value", ascending=False, kind="stable")
    rest = pd.DataFrame(
        {"value": [float(of_programs), shift], "weight": np.nan},
        index=pd.Index([PROGRAMS, SHIFT], name="part"),
    )
    table = pd.concat([table, rest])
    table.attrs = {"gene": gene, "expression": total, "unit": cmap.decoder.part_unit}
    return table


def parts_of_genes(cmap: CompositionMap, region: Region, genes: Sequence[str], level: str = "minor") -> pd.DataFrame:
    """Explain several genes in a region, as rows of the table of :func:`summarise_regions` of the kind ``part``."""
    columns = ["region", "kind", "name", "value", "low", "high", "patch_low", "patch_high", "unit"]
    tables = [pd.DataFrame(columns=columns)]
    for gene in genes:
        parts = explain_gene(cmap, gene, region, level)
        names = [f"{gene} from {part}" for part in parts.index]
        rows = {"region": region.name, "kind": "part", "name": names, "value": parts["value"].to_numpy()}
        tables.append(pd.DataFrame({**rows, "unit": parts.attrs["unit"]}).reindex(columns=columns))
    return pd.concat(tables[1:] or tables, ignore_index=True)


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
