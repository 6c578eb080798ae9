"""Labels of cells, and texts in their place that say there is none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: What missing values become when a table goes through a text file or another language.
_MISSING = {
    "", "nan", "na", "n/a", "n.a.", "<na>", "none", "null", "nat", "#n/a", "missing", "?", "not available",
}  # fmt: skip
#: What annotators write of a cell whose type they do not know.
_UNKNOWN = {
    "unassigned", "not assigned", "unknown", "unknown cell", "unknown cells", "unknown cell type", "unknown celltype",
    "undetermined", "not determined", "unclassified", "not classified", "undefined", "unlabeled", "unlabelled",
    "not labeled", "not labelled", "no label", "unannotated", "not annotated", "unidentified", "indeterminate",
}  # fmt: skip


def is_no_label(text: str, *, of_batch: bool = False) -> bool:
    """Whether a text says that there is no label: ``nan``, ``NA``, ``Unassigned``, ``unknown``, ...

    Parameters
    ----------
    of_batch
        A batch may be called ``unknown``; only what stands for a missing value is none.

    Examples
    --------
    >>> is_no_label("N/A"), is_no_label("Not_Assigned"), is_no_label("Natural killer")
    (True, True, False)
    """
    plain = re.sub(r"[\s_\-]+", " ", text.strip().casefold()).strip()
    return plain in _MISSING or (not of_batch and plain in _UNKNOWN)


def texts_of(column: pd.Series[Any], *, of_batch: bool = False) -> pd.Series[Any]:
    """The label of each cell as text; None where it has none, or one that says so."""
    names = column.astype(object).where(column.notna(), None)
    kinds = {value: None if value is None else str(value) for value in names.unique()}
    none = {value for value, text in kinds.items() if text is None or is_no_label(text, of_batch=of_batch)}
    return names.map(lambda value: None if value in none else kinds[value]).astype(object)


def without_label(column: pd.Series[Any]) -> dict[str, int]:
    """Texts that say there is no label, with their numbers of cells, the most frequent first; empty ones not."""
    counts = column[column.notna()].astype(str).value_counts()
    return {str(text): int(n) for text, n in counts.items() if n and str(text).strip() and is_no_label(str(text))}
