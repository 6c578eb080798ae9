"""The gene set on screen at the compared spots, measured and predicted. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.errors import MappingError

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.evaluation import SignaturePair
    from napari_cpnn.ui.viewer import Shown

_MOST_NAMED = 5


def shown_signature_pair(compared: AnnData, shown: Shown) -> SignaturePair | None:
    """Return the mean z-scores of the genes on screen that were measured; ``None`` if they cannot be compared."""
    from napari_cpnn.evaluation import SignaturePair, mean_z_scores
    from napari_cpnn.mapping import GeneChoice

    there = [gene for gene in shown.names[1:] if gene in compared.var_names]
    if not there:
        return None
    try:
        measured, predicted, constant = mean_z_scores(compared, there)
    except MappingError:  # too few spots
        return None
    if constant.all():
        return None
    why = {gene: "constant here" if flat else "" for gene, flat in zip(there, constant, strict=True)}
    choices = tuple(GeneChoice(gene, gene, why.get(gene, "not measured here")) for gene in shown.names[1:])
    return SignaturePair(shown.name, "mean z-score", measured, predicted, choices)


def signature_text(pair: SignaturePair, noun: str) -> str:
    """Describe how well a gene set is predicted, and which of its genes could not be compared."""
    pcc, scc = pair.correlations()
    scores = f"PCC {pcc:z.2f}, SCC {scc:z.2f}" if np.isfinite(pcc) else "no correlation"
    left = [f"{choice.gene} ({choice.reason})" for choice in pair.choices if choice.reason]
    more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
    without = f" without {', '.join(left[:_MOST_NAMED])}{more}" if left else ""
    number = f"{len(pair.used)} of {len(pair.choices)} genes" if left else f"{len(pair.used)} genes"
    return f"{pair.name}: {scores}, of the mean z-scores of {number}{without}, over {len(pair.measured):,} {noun}"
