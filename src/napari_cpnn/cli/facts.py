"""Facts about maps, gene sets and tables, in the same words from every command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from napari_cpnn.cli.console import Facts

if TYPE_CHECKING:
    import pandas as pd

    from napari_cpnn.mapping import CompositionMap, MarkedPlaces, Signature


def facts_of_map(cmap: CompositionMap) -> Facts:
    """Patches of a map, their distance in um, mean shares over the tissue, and how much is unlike the training."""
    from napari_cpnn.mapping import DONE, FAILED

    report = cmap.domain_report()
    return {
        "shape": cmap.grid.shape,
        "stride_um": cmap.grid.stride_um,
        "n_tissue": int(cmap.tissue.sum()),
        "n_done": int((cmap.state == DONE).sum()),
        "n_failed": int((cmap.state == FAILED).sum()),
        "n_genes": len(cmap.genes),
        "shares": dict(zip(cmap.cell_types, cmap.mean_weights(), strict=True)),
        "unlike_training": {"share": report.unlike, "level": report.level, "trained_on": report.trained_on},
    }


def facts_of_signatures(found: Iterable[Signature]) -> list[Facts]:
    """Genes of each set that were used, and why others were not."""
    return [
        {
            "name": one.name,
            "used": one.used,
            "left_out": {choice.name: choice.reason for choice in one.choices if choice.reason},
            "source": one.gene_set.source,
        }
        for one in found
    ]


def facts_of_places(found: Iterable[MarkedPlaces]) -> list[Facts]:
    """How many patches are marked for each gene, over which scale, and the false discovery rate measured for it."""
    return [
        {
            "gene": one.gene,
            "side": one.side,
            "fdr": one.fdr,
            "scale_um": one.selection.scale_um,
            "held_out_false_share": one.selection.false_share,
            "n_marked": int(one.mask.sum()),
        }
        for one in found
    ]


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, each by column, with a named index among the columns; what is missing is null."""
    whole = table.reset_index() if any(name is not None for name in table.index.names) else table
    plain = whole.astype(object).where(whole.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
