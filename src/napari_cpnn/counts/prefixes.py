"""Group the files of a folder by the prefix or suffix around their standard names.

Public archives store ``GSM1_A_matrix.mtx.gz``, ``GSM1_A_barcodes.tsv.gz``, ``GSM2_B_matrix.mtx.gz``, ... in one folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_MARKS = "_-. ()"

SUFFIX = r"(?P<suffix>[_\-. (].*?)?"
"""Optional text between a standard name and its extension, as in ``tissue_positions_B.csv``."""


def prefix_of(pattern: re.Pattern[str], name: str) -> str:
    """Return the text before and after the standard part of a name, from the groups ``prefix`` and ``suffix``.

    Separators at the ends are removed; the result is empty for a standard name.
    """
    found = pattern.match(name)
    return "" if found is None else around(found)


def around(found: re.Match[str]) -> str:
    """Return the prefix as :func:`prefix_of`, from an existing match."""
    groups = found.groupdict()
    parts = [(groups.get(group) or "").strip(_MARKS) for group in ("prefix", "suffix")]
    return "_".join(part for part in parts if part)


def belonging(prefix: str, files: Iterable[tuple[str, Path]], others: Iterable[str]) -> Path | None:
    """Return the file that belongs to a run, by prefix; None if it may belong to another run.

    Parameters
    ----------
    prefix
        Prefix of the run; empty for standard names.
    files
        Prefixes and paths of candidates, in order of preference.
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
    """Return whether one prefix starts or ends the other: ``GSM1`` and ``GSM1_A``, ``GSE5_A`` and ``A``."""
    words = [[word for word in re.split(r"[_\-. ]+", name.casefold()) if word] for name in (one, other)]
    short, long = sorted(words, key=len)
    return bool(short) and short in (long[: len(short)], long[-len(short) :])
