"""Summarise what the filters of an estimate left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import PrototypesError
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.untrusted import reading

if TYPE_CHECKING:
    import pandas as pd

#: Descriptions of the reasons for leaving out cells and genes.
REASONS = {
    "no_label": "without a label",
    "no_batch": "without a batch",
    "few_genes": "with fewer than {0.min_genes} genes",
    "mitochondrial": "with more than {0.max_mito:.0%} mitochondrial counts",
    "undetected": "without a count in these cells",
    "few_cells": "in fewer than {0.min_cells} of these cells",
}


#: Beginning of the note on prototypes that lack most of the genes detected in their cells.
MOST_GENES = "Most genes are left out"


def lacking_genes(provenance: dict[str, Any]) -> str:
    """Return a sentence on prototypes that lack most genes of their cells; empty for all others."""
    notes = provenance.get("notes")
    texts = [text for text in notes if isinstance(text, str)] if isinstance(notes, (list, tuple)) else []
    note = next((text for text in texts if text.startswith(MOST_GENES)), "")
    return f"The prototypes lack most genes of their cells{note.removeprefix(MOST_GENES)}" if note else ""


def left_out(provenance: dict[str, Any], n_genes: int) -> pd.DataFrame:
    """Return the table of :meth:`napari_cpnn.Prototypes.left_out`.

    Parameters
    ----------
    provenance
        Provenance of the prototypes, which may be incomplete.
    n_genes
        Number of genes that are left.

    Raises
    ------
    PrototypesError
        If the provenance is damaged.
    """
    with reading("What the filters left out of these prototypes", PrototypesError, "estimate them again."):
        return _table(provenance, n_genes)


def _table(provenance: dict[str, Any], n_genes: int) -> pd.DataFrame:
    import pandas as pd

    settings = PrototypeSettings.from_dict(provenance.get("settings", {}))
    rows = [("cells", REASONS[name].format(settings), n) for name, n in provenance.get("cells_left_out", {}).items()]
    genes = provenance.get("genes_left_out")
    if genes is not None:
        rows += [("genes", REASONS[name].format(settings), n) for name, n in genes.items()]
    elif "n_genes_given" in provenance:  # files of versions that did not store the reasons separately
        reason = f"without a count, or {REASONS['few_cells'].format(settings)}"
        rows.append(("genes", reason, provenance["n_genes_given"] - n_genes))
    if "types_left_out" in provenance:
        rows.append(("cell types", "without a count in these genes", len(provenance["types_left_out"])))
    return pd.DataFrame(rows, columns=["what", "reason", "n"]).astype({"n": int})
