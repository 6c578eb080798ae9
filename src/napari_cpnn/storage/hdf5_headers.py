"""Validate the headers of an HDF5 file before use, in a child process of :mod:`napari_cpnn.storage.hdf5`.

Reading a header of a damaged file can hang or crash the HDF5 library, and a small file can declare sizes that exceed
the memory, or storage in other files. Only headers are read of large files; small ones are read completely.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

#: CPU time in seconds after which the system ends a child whose library hangs; larger for very large files.
CPU_SECONDS = 2
_BYTES_PER_SECOND = 2 * 2**30
#: Seconds after which reading values (not headers) stops.
_VALUES_SECONDS = 0.5
#: Maximum size of files whose values are read.
_SMALL_FILE = 32 * 2**20
#: Bytes in memory at a time.
_PIECE = 8 * 2**20
_MAX_OBJECTS = 100_000
_MAX_DEPTH = 64
#: Data sets below the first size, and together below the second, need not be stored.
_SMALL, _SMALL_TOGETHER = 4 * 2**20, 32 * 2**20
#: Larger data sets are checked against the stricter compression ratio of counts.
_LARGE = 256 * 2**20
#: Maximum compression of the filters of HDF5 and h5py (deflate 1032:1), and a ratio that no large count table reaches.
_RATIO, _LARGE_RATIO = 1100, 800
#: Other filters (Zstandard, Blosc) can compress zeros to almost nothing.
_OTHER_RATIO = 100_000
_KNOWN_FILTERS = {1, 2, 3, 4, 5, 32000}
#: Minimum memory of a variable-length string as a Python object.
_TEXT_BYTES = 64
_COMPRESSED = ("data", "indices", "indptr")


class Refused(Exception):  # noqa: N818 -- a finding, not a fault
    """Raised with the reason for refusing a file, as a clause."""


def main(path: str) -> None:
    """Print the result as JSON: ``{"bytes": ...}`` or ``{"refused": reason}``."""
    _limit_cpu(Path(path).stat().st_size // _BYTES_PER_SECOND)
    try:
        found: dict[str, Any] = {"bytes": _Walk(path).n_bytes()}
    except Refused as refused:
        found = {"refused": str(refused)}
    except MemoryError:
        found = {"refused": "its parts are larger than the file can hold"}
    except Exception as exc:  # noqa: BLE001 -- whatever h5py and numpy raise on damaged headers
        found = {"refused": _reason(exc)}
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()


#: Letters of a library's message that are looked at.
_LONGEST_REASON = 2_000


def _reason(exc: Exception) -> str:
    """What h5py says, without HDF5's own words before it: ``Unable to open file (truncated file: ...)``."""
    text = " ".join(str(exc)[:_LONGEST_REASON].strip("'\"").split())
    inner = re.fullmatch(r"(?:Unable to|Can't) .*\((.+)\)", text)
    return (inner[1] if inner else text)[:200] or type(exc).__name__


def _limit_cpu(more: int) -> None:
    try:
        import resource
    except ImportError:  # Windows; wall time is limited in any case
        return
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = used + CPU_SECONDS + more
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


class _Walk:
    """Walk over all groups and data sets of a file, each once."""

    def __init__(self, path: str) -> None:
        self._file = h5py.File(path, "r")
        self._file_bytes = int(self._file.id.get_filesize())
        self._seen: set[Any] = {h5py.h5o.get_info(self._file["/"].id).addr}
        self._declared = self._stored = self._unstored = 0
        self._until = time.process_time() + (_VALUES_SECONDS if self._file_bytes <= _SMALL_FILE else 0)

    def n_bytes(self) -> int:
        """Bytes of all data sets in memory."""
        pending: list[tuple[str, Any, int]] = [("/", self._file, 0)]
        datasets: list[tuple[str, h5py.Dataset]] = []
        while pending:
            name, item, depth = pending.pop()
            if len(self._seen) > _MAX_OBJECTS:
                raise Refused(f"it has more than {_MAX_OBJECTS:,} parts")
            self._check_attributes(item)
            if isinstance(item, h5py.Dataset):
                datasets.append((name, item))
            elif isinstance(item, h5py.Group):
                if depth > _MAX_DEPTH:
                    raise Refused("its groups are nested too deeply")
                pending += [(child, found, depth + 1) for child, found in self._members(name, item)]
        for name, dataset in datasets:
            self._check_size(name, dataset)
        # Small data sets first: text and annotations before counts, which may not all be read in time.
        for name, dataset in sorted(datasets, key=lambda entry: entry[1].size or 0):
            self._read(name, dataset)
        for group in {name.rpartition("/")[0] for name, _ in datasets if name.endswith("/indptr")}:
            _check_pointers(group, {name.rpartition("/")[2]: d for name, d in datasets if name.startswith(f"{group}/")})
        return self._declared

    def _members(self, name: str, group: h5py.Group) -> Iterator[tuple[str, Any]]:
        for key in group:
            child = f"{name.rstrip('/')}/{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise Refused(f"{_short(child)} lies in another file, and other files are never read through it")
            if not isinstance(link, h5py.HardLink | h5py.SoftLink):
                raise Refused(f"{_short(child)} is a link of an unknown kind")
            try:
                found = group[key]
            except KeyError:
                if isinstance(link, h5py.SoftLink):  # to nothing; whoever needs it will say so
                    continue
                raise
            address = h5py.h5o.get_info(found.id).addr
            if address in self._seen:
                if isinstance(found, h5py.Group):
                    raise Refused(f"its groups form a loop at {_short(child)}")
                if isinstance(link, h5py.SoftLink):
                    continue
            self._seen.add(address)
            yield child, found

    def _check_attributes(self, item: Any) -> None:
        for key in item.attrs:
            item.attrs[key]

    def _check_size(self, name: str, dataset: h5py.Dataset) -> None:
        plan = dataset.id.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
            raise Refused(f"{_short(name)} lies in another file, and other files are never read through it")
        if dataset.shape is None:
            return
        size = dataset.size * dataset.dtype.itemsize
        stored = int(dataset.id.get_storage_size())
        self._stored += stored
        if stored > self._file_bytes or self._stored > self._file_bytes:
            raise Refused(f"{_short(name)} takes more room than the file has")
        filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
        ratio = _OTHER_RATIO if filters - _KNOWN_FILTERS else _LARGE_RATIO if size > _LARGE else _RATIO
        if size > ratio * stored:
            self._unstored += size
            if size > _SMALL or self._unstored > _SMALL_TOGETHER:
                shape = " x ".join(f"{n:,}" for n in dataset.shape)
                raise Refused(f"{_short(name)} says that it holds {shape} values, which {stored:,} bytes cannot")
        self._declared += size + (dataset.size * _TEXT_BYTES if dataset.dtype.hasobject else 0)

    def _read(self, name: str, dataset: h5py.Dataset) -> None:
        """Read as much as time allows; all text together cannot exceed the size of the file."""
        if dataset.shape is None:
            return
        texts = 0
        for piece in _pieces(dataset):
            if time.process_time() > self._until:
                return
            values = dataset[piece] if dataset.shape else dataset[()]
            if dataset.dtype.kind == "O":
                texts += sum(len(v) for v in np.ravel(values) if isinstance(v, bytes | str | np.ndarray))
                if texts > self._file_bytes:
                    raise Refused(f"the texts of {_short(name)} are larger than the file")


def _pieces(dataset: h5py.Dataset) -> Iterator[Any]:
    """Slices of rows that fit into memory one at a time; none if not even one row fits."""
    if not dataset.shape:
        yield ()
        return
    if not dataset.size or (dataset.chunks and np.prod(dataset.chunks) * dataset.dtype.itemsize > 16 * _PIECE):
        return
    row = dataset.size // dataset.shape[0] * dataset.dtype.itemsize
    if row > 16 * _PIECE:
        return
    step = min(max(1, _PIECE // max(1, row)), 10_000 if dataset.dtype.hasobject else dataset.shape[0])
    if dataset.chunks:  # each chunk is decompressed once
        step = max(dataset.chunks[0], step // dataset.chunks[0] * dataset.chunks[0])
    for start in range(0, dataset.shape[0], step):
        yield slice(start, start + step)


def _check_pointers(group: str, parts: dict[str, h5py.Dataset]) -> None:
    """Check the pointers of a compressed sparse matrix: ascending, from 0 to the number of values."""
    if not all(isinstance(parts.get(key), h5py.Dataset) for key in _COMPRESSED):
        return
    data, indices, indptr = (parts[key] for key in _COMPRESSED)
    if any(part.ndim != 1 for part in (data, indices, indptr)) or any(
        part.dtype.kind not in "iu" for part in (indices, indptr)
    ):
        raise Refused(f"{_short(group)} is no sparse matrix: its indices are not lists of whole numbers")
    if data.shape != indices.shape:
        raise Refused(f"{_short(group)} has {data.size:,} values with {indices.size:,} indices")
    last = 0
    for start in range(0, indptr.size, _PIECE // 8):
        values = np.concatenate([[last], indptr[start : start + _PIECE // 8].astype(np.int64)])
        if (values[1:] < values[:-1]).any():
            raise Refused(f"the pointers of the sparse matrix {_short(group)} do not ascend")
        if not start and values[1]:
            raise Refused(f"the pointers of the sparse matrix {_short(group)} do not begin with 0")
        last = int(values[-1])
    if indptr.size == 0 or last != data.size:
        raise Refused(f"the pointers of the sparse matrix {_short(group)} end at {last:,} in place of {data.size:,}")


def _short(name: str) -> str:
    """Shorten a name in the file for messages."""
    text = name.strip("/") or "/"
    text = text if text.isprintable() else ascii(text)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
