"""Look-up of gene names that the user types. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence


def find_gene(text: str, genes: Sequence[str]) -> str | None:
    """Return the spelling of a typed gene name in ``genes``, whatever its case; ``None`` when it is not among them."""
    wanted = text.strip()
    if wanted in genes:
        return wanted
    return next((gene for gene in genes if gene.upper() == wanted.upper()), None)


def unknown_gene_text(text: str) -> str:
    """Tell the user that the model does not predict a gene."""
    return f"The model does not predict {text}; choose one from the list."
