"""Table of the names of human genes: approved symbols, Ensembl ids, previous symbols and aliases.

The package contains one table (``tables/gene_aliases.tsv.gz``, whose first line names source and date), and a short one
of the names that pathologists use (``tables/names_in_pathology.tsv``). A table of the user's own, made from HGNC's file
by :func:`napari_cpnn.counts.hgnc.build_hgnc_table`, replaces the first.
"""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from napari_cpnn.errors import GenesError
from napari_cpnn.storage import cache_folder, staged
from napari_cpnn.untrusted import reading

FORMAT = "# napari-cpnn gene aliases 1"
_TABLES = Path(__file__).parent / "tables"
_IGNORED = re.compile(r"[\s\-_./‐‑–]+")  # also the hyphens and dashes of word processors
#: Limits the memory that a damaged file can take; the packaged table has 1.3 MB.
_MOST_BYTES = 64 * 2**20
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Entry:
    """Names of a gene.

    Parameters
    ----------
    symbol
        Approved symbol.
    ids
        Ensembl gene ids, without version.
    previous
        Earlier approved symbols.
    aliases
        Other names.
    """

    symbol: str
    ids: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def folded(name: str) -> str:
    """Return a name without case, blanks, hyphens, dots, slashes and underscores.

    >>> folded("HER-2/neu") == folded("Her2 neu")
    True
    """
    return _IGNORED.sub("", name).casefold()


class AliasTable:
    """Names of genes, searched as text: loading takes some 50 ms, a look-up some ms.

    Parameters
    ----------
    text
        Content of a table as :func:`write_aliases` writes it.
    """

    def __init__(self, text: str) -> None:
        head, _, body = text.partition("\n")
        self.source = head.removeprefix(FORMAT).strip(": ")
        self._lines = body.splitlines()
        text = "\n".join(self._lines)
        for mark in " -_./":
            text = text.replace(mark, "")
        self._text = f"\n{text.casefold()}\n"

    def __len__(self) -> int:
        return len(self._lines)

    def entry(self, symbol: str) -> Entry | None:
        """Return the entry of an approved symbol, ignoring case and separators; None if there is none."""
        found = self._find(symbol, before="\n", after="\t")
        exact = [entry for entry in found if entry.symbol.casefold() == symbol.casefold()]
        return next(iter(exact or found), None)

    def named(self, name: str) -> list[Entry]:
        """Return the genes of which a name is a previous symbol, an alias or an Ensembl id (without version)."""
        return self._find(name, before=";\t", after=";\t\n")

    def _find(self, name: str, before: str, after: str) -> list[Entry]:
        key, lines = folded(name), dict[int, None]()
        place = self._text.find(key) if key else -1
        while place > 0:
            end = place + len(key)
            if self._text[place - 1] in before and self._text[end] in after:
                lines[self._text.count("\n", 0, place) - 1] = None
            place = self._text.find(key, end)
        return [self._entry(line) for line in lines]

    def _entry(self, line: int) -> Entry:
        symbol, *rest = self._lines[line].split("\t")
        ids, previous, aliases = (tuple(filter(None, part.split(";"))) for part in rest)
        return Entry(symbol, ids, previous, aliases)


def write_aliases(path: Path, entries: Iterable[Entry], source: str) -> None:
    """Write a table atomically; equal content gives equal bytes."""
    rows = sorted(f"{e.symbol}\t{';'.join(e.ids)}\t{';'.join(e.previous)}\t{';'.join(e.aliases)}" for e in entries)
    text = "\n".join([f"{FORMAT}: {source}", *rows, ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged(path) as temporary, temporary.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(text.encode())


def read_aliases(path: Path) -> AliasTable:
    """Read a table; :class:`GenesError` if it is damaged."""
    with reading(path, GenesError, "delete it, or fetch it again (napari-cpnn fetch hgnc)."):
        with gzip.open(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise GenesError(f"{path} is too large for a table of gene aliases.")
        text = content.decode()
        if not text.startswith(FORMAT):
            raise GenesError(f"{path} is no table of gene aliases; fetch it again (napari-cpnn fetch hgnc).")
        table = AliasTable(text)
        table.entry("ERBB2")
        return table


def own_table() -> Path:
    """Path of the user's own table, which replaces the packaged one where it exists."""
    return cache_folder() / "genes" / "gene_aliases.tsv.gz"


def load_aliases() -> AliasTable:
    """Return the user's own table, or else the packaged one; read once."""
    own = own_table()
    path = own if own.is_file() else _TABLES / "gene_aliases.tsv.gz"
    with _LOCK:
        return _cached(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _cached(path: Path, changed: int) -> AliasTable:  # noqa: ARG001 -- a new file is read anew
    return read_aliases(path)


@lru_cache(maxsize=1)
def names_in_pathology() -> dict[str, tuple[str, ...]]:
    """Return the approved symbols that a name of the pathology lab stands for, by folded name."""
    return {folded(name): symbols for symbols, names in pathology_rows() for name in names}


@lru_cache(maxsize=1)
def pathology_rows() -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return symbols and names of each line of the table of the pathology lab."""
    lines = (_TABLES / "names_in_pathology.tsv").read_text(encoding="utf-8").splitlines()
    parts = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [
        (
            tuple(one.strip() for one in symbols.split(",")),
            tuple(name for one in ";".join(names).split(";") if (name := one.strip())),
        )
        for symbols, *names in parts
    ]
