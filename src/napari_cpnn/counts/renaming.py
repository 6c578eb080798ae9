"""Rename the genes of spots to match those of prototypes or a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_cpnn.counts.genes import named_as

if TYPE_CHECKING:
    from anndata import AnnData

_log = logging.getLogger(__name__)


def name_genes_as(
    spots: AnnData, genes: Sequence[str], gene_ids: Sequence[str] | None = None, ignore_case: bool = False
) -> AnnData:
    """Return the spots with their genes renamed as in ``genes``, matched by Ensembl id.

    Parameters
    ----------
    spots
        Table whose genes are named by symbols or ids; ``var["gene_ids"]`` holds the ids, where known.
    genes, gene_ids
        Target names, and their ids, where known.
    ignore_case
        Whether names that differ only in case denote the same gene.

    Returns
    -------
    AnnData
        The same table if no name changes, else a copy that shares its matrices.
    """
    from anndata import AnnData as Table

    names = [str(name) for name in spots.var_names]
    ids = [str(i) for i in spots.var["gene_ids"]] if "gene_ids" in spots.var else None
    named = named_as(names, ids, genes, gene_ids, ignore_case)
    changed = sum(old != new for old, new in zip(names, named, strict=True))
    if not changed:
        return spots
    _log.info("%d genes of the spots were matched by Ensembl id%s", changed, " or ignoring case" if ignore_case else "")
    return Table(
        X=spots.X,
        obs=spots.obs,
        var=spots.var.set_axis(named, axis=0),
        obsm=dict(spots.obsm),
        layers=dict(spots.layers),
        uns=dict(spots.uns),
    )
