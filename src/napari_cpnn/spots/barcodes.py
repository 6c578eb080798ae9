"""Split the names of spots into barcodes and the prefixes or suffixes added when tables are joined.

``AAACAAGTATCTCCCA-1`` becomes ``AAACAAGTATCTCCCA-1-A``, ``A_AAACAAGTATCTCCCA-1`` or ``AAACAAGTATCTCCCA-2``. Arrays of
one kind have the same barcodes, so a barcode that occurs twice proves that there are two libraries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: A sequence, a bin of Visium HD, or a spot of Spatial Transcriptomics.
_BARCODE = re.compile(r"[ACGTN]{8,}|s_\d{3}um_\d{5}_\d{5}|(?<![\d.x])\d+(?:\.\d+)?x\d+(?:\.\d+)?(?![\d.x])")
#: Separator that occurs in no name (pandas truncates texts at NUL).
_BETWEEN = "\x1f"
_MARKS = "-_:. #/|"
#: Minimum share of names with a barcode.
_MOST = 0.9
_LOOKED_AT, _VERY_MANY = 200, 50_000

MOST_LIBRARIES = 200
"""Maximum number of libraries; prefixes with more distinct values mean something else."""


@dataclass(frozen=True, eq=False)
class Barcodes:
    """Barcodes and library labels parsed from the names of spots.

    Attributes
    ----------
    cores
        ``(N,)`` integer codes of the barcodes; equal barcodes have equal codes.
    libraries
        ``(N,)`` texts around each barcode, without the parts common to all; ``None`` if they do not distinguish the
        libraries.
    """

    cores: np.ndarray[Any, Any]
    libraries: np.ndarray[Any, Any] | None


def barcodes_of(names: Sequence[str]) -> Barcodes | None:
    """Parse the barcodes in the names of spots; return None if the names have another form.

    >>> list(barcodes_of(["ACGTACGT-1-A", "ACGTACGT-1-B", "TTGTACGT-1-A"]).libraries)
    ['A', 'B', 'A']
    """
    import pandas as pd

    texts = [str(name) for name in names]
    some = texts[:: len(texts) // _LOOKED_AT + 1]
    if sum(_BARCODE.search(name) is not None for name in some) < _MOST * len(some):
        return None
    if len(texts) > _VERY_MANY and len({_BARCODE.sub("", name, count=1) for name in some}) == 1:
        return None  # bins of one array: the text around the barcode is always the same
    found = [_BARCODE.search(name) for name in texts]
    if not found or sum(one is not None for one in found) < _MOST * len(found):
        return None
    cores = [text if one is None else one[0] for text, one in zip(texts, found, strict=True)]
    around = [
        _BETWEEN if one is None else f"{text[: one.start()]}{_BETWEEN}{text[one.end() :]}"
        for text, one in zip(texts, found, strict=True)
    ]
    codes, each = pd.factorize(np.asarray(around, dtype=object))
    numbers, known = pd.factorize(np.asarray(cores, dtype=object))
    if len(each) > MOST_LIBRARIES or len(cores) > MOST_LIBRARIES * len(known):
        return None  # here sequences identify samples rather than spots
    sides = [(before, after) for before, _, after in (text.partition(_BETWEEN) for text in each)]
    if len(sides) < 2 or _are_numbered(sides, codes, numbers):
        return Barcodes(numbers, None)
    called = _called(sides)
    return Barcodes(numbers, None if called is None else np.asarray(called, dtype=object)[codes])


def _are_numbered(sides: Sequence[tuple[str, str]], codes: np.ndarray[Any, Any], cores: np.ndarray[Any, Any]) -> bool:
    """Return whether duplicate names were numbered, as by anndata; ``-1`` then marks the second of any pair."""
    of = {side: set(cores[codes == i]) for i, side in enumerate(sides)} if len(sides) <= _LOOKED_AT else {}
    for (before, after), there in of.items():
        base = re.sub(r"-\d+$", "", after)
        # Exactly all duplicates: with two sections of equal barcodes, all second names belong to the second section.
        if base != after and (before, base) in of and there < of[before, base]:
            return True
    return False


def _called(sides: Sequence[tuple[str, str]]) -> list[str] | None:
    """Return library names from the texts before and after the barcodes; None if two would be equal."""
    parts = [
        _without_common([side[place] for side in sides]) for place in (0, 1) if len({side[place] for side in sides}) > 1
    ]
    called = ["_".join(one for one in of if one) for of in zip(*parts, strict=True)]
    called = [name or "the rest" for name in called]
    return called if len(set(called)) == len(called) else None


def _without_common(texts: Sequence[str]) -> list[str]:
    """Remove the leading and trailing words that all texts have in common."""
    for turn in (1, -1):
        turned = [text[::turn] for text in texts]
        first, last = min(turned), max(turned)
        n_same = next(
            (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
        )
        common = first[:n_same]
        cut = max((common.rfind(mark) for mark in _MARKS), default=-1) + 1
        texts = [text[cut:][::turn] for text in turned]
    return [text.strip(_MARKS) for text in texts]
