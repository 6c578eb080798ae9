"""Which files of a folder belong together, by what stands before or behind their usual names.

A public archive leaves ``GSM1_A_matrix.mtx.gz``, ``GSM1_A_barcodes.tsv.gz``, ``GSM2_B_matrix.mtx.gz``, ... in a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_MARKS = "_-. ()"

SUFFIX = r"(?P<suffix>[_\-. (].*?)?"
"""What may stand between a usual name and its ending, as in ``tissue_positions_B.csv``."""


def prefix_of(pattern: re.Pattern[str], name: str) -> str:
    """What a pattern finds before and behind the usual part of a name, by its groups ``prefix`` and ``suffix``.

    Marks at the ends are left out; empty: there is nothing but the usual name.
    """
    found = pattern.match(name)
    return "" if found is None else around(found)


def around(found: re.Match[str]) -> str:
    """As :func:`prefix_of`, of a name that was found."""
    groups = found.groupdict()
    parts = [(groups.get(group) or "").strip(_MARKS) for group in ("prefix", "suffix")]
    return "_".join(part for part in parts if part)


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
