"""Make a table of gene aliases from the file of the HUGO Gene Nomenclature Committee (HGNC), CC0."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

from napari_cpnn.counts.alias_table import AliasTable, Entry, folded, own_table, read_aliases, write_aliases
from napari_cpnn.errors import DownloadError
from napari_cpnn.storage import download_or_say, temporary_beside
from napari_cpnn.untrusted import reading, to_path

HGNC_URL = "https://storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt"
_COLUMNS = ("symbol", "status", "alias_symbol", "prev_symbol", "ensembl_gene_id")
#: HGNC has some 45,000 approved genes; a download with fewer is not whole.
_LEAST_DOWNLOADED = 40_000
_MOST_BYTES = 256 * 2**20


def fetch_hgnc(source: str | Path | None = None, sha256: str | None = None) -> Path:
    """Make the user's own table of gene aliases, which replaces that of the package from then on.

    Parameters
    ----------
    source
        HGNC's complete set (``hgnc_complete_set.txt``, tab-separated); None to download it (16 MB).
    sha256
        Checksum that the file must have. HGNC updates the file twice a week, so none is known beforehand; that of the
        file is written into the first line of the table.

    Returns
    -------
    Path
        The table, in the user's cache.

    Raises
    ------
    DownloadError
        If the file cannot be downloaded or read, is not whole, or has another checksum.

    Examples
    --------
    >>> from napari_cpnn.counts import fetch_hgnc
    >>> fetch_hgnc("no_such_file.txt")
    Traceback (most recent call last):
        ...
    napari_cpnn.errors.DownloadError: no_such_file.txt is not a file; get it from https://storage...
    """
    if source is not None:
        path = to_path(source, DownloadError)
        if not path.is_file():
            raise DownloadError(f"{path} is not a file; get it from {HGNC_URL}.")
        return _made(path, str(path), sha256, least=1)
    target = own_table()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        download_or_say(HGNC_URL, temporary)
        return _made(temporary, f"The file from {HGNC_URL}", sha256, least=_LEAST_DOWNLOADED)
    finally:
        temporary.unlink(missing_ok=True)


def _made(path: Path, name: str, sha256: str | None, least: int) -> Path:
    """Make the table from a file, which messages call ``name``; nothing is replaced unless all of it is right."""
    if path.stat().st_size > _MOST_BYTES:
        raise DownloadError(f"{name} is too large to be HGNC's complete set.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise DownloadError(f"{name} is damaged or of another date: its SHA-256 is {found}.")
    with reading(path, DownloadError, f"it must be HGNC's complete set, from {HGNC_URL}."):
        entries = list(_entries(path, name))
    if len(entries) < least:
        raise DownloadError(f"{name} has {len(entries):,} approved genes only; it is not whole.")
    target = own_table()
    write_aliases(target, entries, f"HGNC complete set (CC0), SHA-256 {found}")
    table: AliasTable = read_aliases(target)
    if len(table) != len(entries):
        raise DownloadError(f"{target} could not be written; check the space on its disk.")
    return target


def _entries(path: Path, name: str) -> Iterator[Entry]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise DownloadError(f"{name} has no column {missing[0]}; it must be HGNC's complete set, from {HGNC_URL}.")
        for row in rows:
            if row["status"] == "Approved" and _is_name(row["symbol"]):
                seen = {folded(row["symbol"])}
                previous, aliases = (_names(row[column], seen) for column in ("prev_symbol", "alias_symbol"))
                yield Entry(row["symbol"], _names(row["ensembl_gene_id"], set()), previous, aliases)


def _names(text: str | None, seen: set[str]) -> tuple[str, ...]:
    names = [name.strip() for name in (text or "").split("|")]
    new = []
    for name in filter(_is_name, names):
        if folded(name) not in seen:
            seen.add(folded(name))
            new.append(name)
    return tuple(new)


def _is_name(name: str | None) -> bool:
    return bool(name and folded(name)) and not any(mark in str(name) for mark in "\t\n\r;")
