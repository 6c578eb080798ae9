"""Clean cell labels, and recognise texts that stand for a missing label."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: Representations of missing values in text files and other languages.
_MISSING = {
    "", "nan", "na", "n a", "<na>", "none", "null", "nil", "nat", "missing", "not available", "not applicable",
    "no value",
}  # fmt: skip
#: Error values of spreadsheets, which follow a # mark.
_ERRORS = {"ref", "value", "name", "div 0", "num", "n a", "null", "error", "spill", "calc"}
#: Labels used by annotators for cells of unknown type.
_UNKNOWN = {
    "unk", "unkn", "ukn", "unknown", "unknowns", "not known", "unassigned", "unasigned", "not assigned", "undetermined",
    "not determined", "n d", "tbd", "to be determined", "unclassified", "not classified", "undefined", "not defined",
    "unlabeled", "unlabelled", "not labeled", "not labelled", "no label", "unannotated", "not annotated",
    "no annotation", "unidentified", "not identified", "unidentifiable", "indeterminate", "unspecified",
    "not specified", "unresolved", "not resolved", "ambiguous", "uncertain", "unclear", "unsure", "no type",
    "no cell type", "no celltype", "no match", "no call", "no assignment", "no data", "unmapped", "not mapped",
    "unmatched", "empty", "blank", "reject", "rejected",
}  # fmt: skip
#: Labels used by annotators for debris and multiplets.
_NO_CELL = {
    "doublet", "doublets", "multiplet", "multiplets", "low quality", "lowquality", "low qc", "lq", "poor quality",
    "bad quality", "debris", "artifact", "artifacts", "artefact", "artefacts", "filtered", "filtered out", "removed",
    "excluded", "discarded",
}  # fmt: skip
_DOUBLETS, _KEPT = {"doublet", "doublets", "multiplet", "multiplets"}, {"no", "non", "not", "like"}
#: Words ignored at either end: ``unassigned cells``, ``cell type unknown``.
_OF_CELLS = {"cell", "cells", "celltype", "celltypes", "type", "types", "cluster", "clusters", "barcode", "barcodes"}
_TOGETHER = {word.replace(" ", "") for word in _UNKNOWN | _NO_CELL if len(word) > 4}
#: Maximum number of characters of a text that is examined.
_LONGEST = 200


def is_no_label(text: str, *, of_batch: bool = False) -> bool:
    """Return whether a text means a missing label: ``nan``, ``NA``, ``Unassigned``, ``(unknown)``, ``Doublet``, ...

    Case, brackets and punctuation are ignored. More specific texts, such as ``Unknown epithelial``, are labels.

    Parameters
    ----------
    of_batch
        Whether the text is a batch; then ``unknown`` is a valid name, and only missing values are not.

    Examples
    --------
    >>> is_no_label("N/A"), is_no_label("Not_Assigned"), is_no_label("unknown?"), is_no_label("Natural killer")
    (True, True, True, False)
    """
    if len(text) > _LONGEST:
        return False
    # A plus is significant: Na+ is not a missing value.
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[^\w+]|_", " ", folded).split()
    plain = " ".join(words)
    if plain in _MISSING or (folded.lstrip().startswith("#") and plain in _ERRORS):
        return True
    return not of_batch and (_says_unknown(words) or _says_doublet(words))


def clean_label(text: str) -> str:
    """Return a label with normalised white space."""
    return " ".join(text.split())


def texts_of(column: pd.Series[Any], *, of_batch: bool = False) -> pd.Series[Any]:
    """Return the cleaned label of each cell; None if it is missing or means a missing label."""
    names = column.astype(object).where(column.notna(), None)
    kinds = {value: None if value is None else clean_label(str(value)) for value in names.unique()}
    none = {value for value, text in kinds.items() if text is None or is_no_label(text, of_batch=of_batch)}
    return names.map(lambda value: None if value in none else kinds[value]).astype(object)


def without_label(column: pd.Series[Any]) -> dict[str, int]:
    """Return the non-empty texts that mean a missing label and their numbers of cells, most frequent first."""
    counts = column[column.notna()].astype(str).value_counts()
    return {str(text): int(n) for text, n in counts.items() if n and str(text).strip() and is_no_label(str(text))}


def _says_unknown(words: list[str]) -> bool:
    said = {"".join(words)}
    rest = list(words)
    while rest and rest[-1] in _OF_CELLS:
        rest.pop()
    while rest and rest[0] in _OF_CELLS:
        rest.pop(0)
    said.add("".join(rest))
    together = {one.removesuffix("cells").removesuffix("cell").removesuffix("celltype") for one in said} | said
    return " ".join(words) in _UNKNOWN or " ".join(rest) in _UNKNOWN | _NO_CELL or bool(together & _TOGETHER)


def _says_doublet(words: list[str]) -> bool:
    """Return whether the words denote a doublet, possibly numbered or named by its components."""
    words = [word for word in words if not word.isdecimal()]
    return bool(words) and bool({words[0], words[-1]} & _DOUBLETS) and not _KEPT & set(words)
