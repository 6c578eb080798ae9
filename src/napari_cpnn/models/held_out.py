"""Held-out scores of genes, and the genes above one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from napari_cpnn.errors import GenesError
from napari_cpnn.models.provenance import usable

if TYPE_CHECKING:
    from napari_cpnn.models.trust import Trust


class Scored(Protocol):
    """A model or map: genes, their calibration, and provenance."""

    @property
    def genes(self) -> Sequence[str]: ...
    @property
    def trust(self) -> Trust | None: ...
    @property
    def provenance(self) -> dict[str, Any]: ...


def held_out_pcc(of: Scored) -> dict[str, float]:
    """Return the held-out PCC of each gene of a model or map: over the spots of its calibration, or else of its card.

    Genes without a score are left out; empty where nothing is known.

    Examples
    --------
    >>> from napari_cpnn.models import held_out_pcc
    >>> set(held_out_pcc(model)) <= set(model.genes)
    True
    """
    if of.trust is not None:
        scores = dict(zip(of.genes, of.trust.pcc.double().cpu().tolist(), strict=False))  # cell types come after
    else:
        held_out = usable(of.provenance).get("metrics", {}).get("held_out", {})
        scores = dict(held_out.get("per_gene_pcc", {}))
    return {gene: float(scores[gene]) for gene in of.genes if not math.isnan(scores.get(gene, math.nan))}


def genes_above(of: Scored, pcc: float) -> list[str]:
    """Return the genes of a model or map whose held-out PCC is at least ``pcc``, in the order of the model.

    Raises
    ------
    GenesError
        If it has no held-out scores, or no gene reaches that.

    Examples
    --------
    >>> from napari_cpnn.models import genes_above, held_out_pcc
    >>> best = max(held_out_pcc(model).values(), default=None)
    >>> best is None or len(genes_above(model, best)) >= 1
    True
    """
    scores = held_out_pcc(of)
    if not scores:
        raise GenesError("The model has no held-out scores of genes; name the genes, or take all.")
    found = [gene for gene, score in scores.items() if score >= pcc]
    if not found:
        raise GenesError(f"No gene has a held-out PCC of {pcc:g} or more; the best has {max(scores.values()):.2f}.")
    return found
