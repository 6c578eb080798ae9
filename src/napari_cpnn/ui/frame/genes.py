"""Look-up of gene names that the user types. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence

from napari_cpnn.counts import match_gene


def find_gene(text: str, genes: Sequence[str]) -> str | None:
    """Return the gene that a typed name means, as spelt in ``genes``; ``None`` for none or several.

    Synonyms such as HER2 are understood; see :func:`napari_cpnn.counts.find_gene`.
    """
    return match_gene(text, genes).gene


def unknown_gene_text(text: str, genes: Sequence[str] = ()) -> str:
    """Tell the user why no gene of the model is meant by a name, or which ones may be."""
    match = match_gene(text, genes, "the model") if genes else None
    if match is None or not match.symbols:
        return f"The model does not predict {text}; choose one from the list."
    return match.note


def other_meaning(text: str, genes: Sequence[str]) -> str:
    """Say so if the name of the gene on screen means another gene in the pathology lab; else empty."""
    match = match_gene(text, genes)
    return match.note if match.gene is not None and match.gene.casefold() == text.strip().casefold() else ""
