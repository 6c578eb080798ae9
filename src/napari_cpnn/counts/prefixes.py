"""Which files of a folder belong together, by what stands before their usual names.

A public archive leaves ``GSM1_A_matrix.mtx.gz``, ``GSM1_A_barcodes.tsv.gz``, ``GSM2_B_matrix.mtx.gz``, ... in a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_MARKS = "_-. "


def prefix_of(pattern: re.Pattern[str], name: str) -> str:
    """What the group ``prefix`` of a pattern finds in a name, without the mark at its end; empty: there is none."""
    found = pattern.match(name)
    return "" if found is None else found["prefix"].strip(_MARKS)


def belonging(prefix: str, files: Iterable[tuple[str, Path]], others: Iterable[str]) -> Path | None:
    """Of files with their prefixes the one that belongs to the run of a prefix; None when it may be another's.

    Parameters
    ----------
    prefix
        Of the run; empty for the usual names.
    files
        In the order in which they are preferred.
    others
        Prefixes of the other runs in the folder.
    """
    there, others = list(files), [other for other in others if other != prefix]
    exact = [path for of, path in there if of.casefold() == prefix.casefold()]
    if exact:
        return exact[0]
    related = [(of, path) for of, path in there if _related(of, prefix)]
    if related:
        shared = any(_related(of, other) or of == other for of, _ in related for other in others)
        return None if shared or len({of for of, _ in related}) > 1 else related[0][1]
    if others:
        return None
    plain = [path for of, path in there if not of]
    if plain:
        return plain[0]
    return there[0][1] if not prefix and len({of for of, _ in there}) == 1 else None


def _related(one: str, other: str) -> bool:
    """Whether one prefix is the first or the last words of the other: ``GSM1`` and ``GSM1_A``, ``GSE5_A`` and ``A``."""
    words = [[word for word in re.split(r"[_\-. ]+", name.casefold()) if word] for name in (one, other)]
    short, long = sorted(words, key=len)
    return bool(short) and short in (long[: len(short)], long[-len(short) :])
