"""What stands around the barcode in the name of a spot: programs tell libraries apart by it when they join tables.

``AAACAAGTATCTCCCA-1`` becomes ``AAACAAGTATCTCCCA-1-A``, ``A_AAACAAGTATCTCCCA-1`` or ``AAACAAGTATCTCCCA-2``. Two arrays
of one kind have the same barcodes, so one that occurs twice is proof of two libraries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: A sequence, a bin of Visium HD, or a spot of Spatial Transcriptomics.
_BARCODE = re.compile(r"[ACGTN]{8,}|s_\d{3}um_\d{5}_\d{5}|(?<![\d.x])\d+(?:\.\d+)?x\d+(?:\.\d+)?(?![\d.x])")
#: Of no name; pandas takes texts to end at a NUL.
_BETWEEN = "\x1f"
_MARKS = "-_:. #/|"
#: Share of the names that must have a barcode, for all of them to be looked at.
_MOST = 0.9
_LOOKED_AT, _VERY_MANY = 200, 50_000

MOST_LIBRARIES = 200
"""What names more libraries than this names something else."""


@dataclass(frozen=True, eq=False)
class Barcodes:
    """The names of spots, taken apart.

    Attributes
    ----------
    cores
        ``(N,)`` numbers of the barcodes, the same for the same one.
    libraries
        ``(N,)`` what stands around each, without what is the same for all; ``None`` when that does not tell the
        libraries apart.
    """

    cores: np.ndarray[Any, Any]
    libraries: np.ndarray[Any, Any] | None


def barcodes_of(names: Sequence[str]) -> Barcodes | None:
    """The barcodes in the names of spots; None where names are of another kind.

    >>> list(barcodes_of(["ACGTACGT-1-A", "ACGTACGT-1-B", "TTGTACGT-1-A"]).libraries)
    ['A', 'B', 'A']
    """
    import pandas as pd

    texts = [str(name) for name in names]
    some = texts[:: len(texts) // _LOOKED_AT + 1]
    if sum(_BARCODE.search(name) is not None for name in some) < _MOST * len(some):
        return None
    if len(texts) > _VERY_MANY and len({_BARCODE.sub("", name, count=1) for name in some}) == 1:
        return None  # bins of one array: all that stands around is the same
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
        return None  # the names of samples are sequences here, and those of spots are not
    sides = [(before, after) for before, _, after in (text.partition(_BETWEEN) for text in each)]
    if len(sides) < 2 or _are_numbered(sides, codes, numbers):
        return Barcodes(numbers, None)
    called = _called(sides)
    return Barcodes(numbers, None if called is None else np.asarray(called, dtype=object)[codes])


def _are_numbered(sides: Sequence[tuple[str, str]], codes: np.ndarray[Any, Any], cores: np.ndarray[Any, Any]) -> bool:
    """Whether names that occurred twice were given numbers, as anndata does: ``-1`` is then the second of whichever."""
    of = {side: set(cores[codes == i]) for i, side in enumerate(sides)} if len(sides) <= _LOOKED_AT else {}
    for (before, after), there in of.items():
        base = re.sub(r"-\d+$", "", after)
        # All of them and no more: two sections of the same barcodes, whose second ones are all of the second.
        if base != after and (before, base) in of and there < of[before, base]:
            return True
    return False


def _called(sides: Sequence[tuple[str, str]]) -> list[str] | None:
    """Names of libraries from what stands before and after their barcodes; None when two would be called the same."""
    parts = [
        _without_common([side[place] for side in sides]) for place in (0, 1) if len({side[place] for side in sides}) > 1
    ]
    called = ["_".join(one for one in of if one) for of in zip(*parts, strict=True)]
    called = [name or "the rest" for name in called]
    return called if len(set(called)) == len(called) else None


def _without_common(texts: Sequence[str]) -> list[str]:
    """Without the words at the start and at the end that all of them have."""
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
