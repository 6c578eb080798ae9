"""Validate the metadata of an untrusted Zarr folder as JSON before any codec is used.

In an untrusted SpatialData, a codec may execute code (pickle), a small folder may declare sizes that exhaust the
memory, and a link may point outside the folder.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CpnnError
from napari_cpnn.untrusted import odd_kind, read_json, reading, require_memory

_FILES = ("zarr.json", ".zarray", ".zmetadata")
_CODECS = {
    "bytes", "transpose", "zstd", "gzip", "zlib", "blosc", "crc32c", "crc32", "vlen-utf8", "vlen-bytes", "lz4", "lzma",
    "bz2", "delta", "shuffle", "fixedscaleoffset", "sharding_indexed", "imagecodecs_jpeg2k", "imagecodecs_jpegxl",
}  # fmt: skip
_MOST_NODES, _MOST_AXES, _MOST_ENTRIES = 20_000, 32, 2_000_000
#: Maximum size of a chunk, and of a table that is read as a whole.
_LARGEST_CHUNK = 2**30
_SMALL, _RATIO = 256 * 2**20, 20_000


def check_zarr(path: Path, error: type[CpnnError], in_memory: tuple[str, ...] = ()) -> None:
    """Raise an error for a Zarr folder that would run code, read other files, or exhaust the memory.

    Parameters
    ----------
    path
        The folder.
    error
        Exception class to raise.
    in_memory
        Subfolders whose arrays are read as a whole.
    """
    with reading(path, error):
        n_bytes = 0
        for folder, file in _metadata_files(path, error):
            content = read_json(folder / file, error)
            whole = folder.relative_to(path).parts[:1] in [(name,) for name in in_memory]
            for array in _arrays(content, file == ".zarray"):
                declared = _check_array(array, folder, error)
                if whole and file != ".zmetadata" and "consolidated_metadata" not in content:
                    _check_stored(declared, folder, error)
                    n_bytes += declared
        require_memory(n_bytes, path, error)


def check_zarr_array(content: Any, label: str, error: type[CpnnError], *, is_array: bool) -> None:
    """Raise an error for the description of an array that would run code or exhaust the memory.

    Parameters
    ----------
    content
        Parsed ``zarr.json`` or ``.zarray``.
    label
        Name of the array in messages.
    error
        Exception class to raise.
    is_array
        Whether it is a ``.zarray``, which does not say what it is.
    """
    with reading(label, error):
        for array in _arrays(content, is_array):
            _check_array(array, label, error)


def _metadata_files(path: Path, error: type[CpnnError]) -> Iterator[tuple[Path, str]]:
    """Yield the metadata files of groups and arrays, after checking the kinds of all entries."""
    root, seen, pending = path.resolve(), 0, [(path, False)]
    while pending:
        folder, is_chunks = pending.pop()
        folders, files = _entries(folder, root, error)
        seen += 0 if is_chunks else len(folders) + len(files)
        if seen > _MOST_ENTRIES:
            raise error(f"{path} has more than {_MOST_ENTRIES:,} files; it is not a table of spots.")
        if not is_chunks:
            yield from ((folder, name) for name in _FILES if name in files)
            is_chunks = ".zarray" in files or ("zarr.json" in files and not _is_group(folder, error))
        pending += [(folder / name, is_chunks) for name in folders]


def _entries(folder: Path, root: Path, error: type[CpnnError]) -> tuple[list[str], set[str]]:
    """Return the names of folders and files, rejecting links out of ``root`` and special files such as pipes.

    Folders behind links are omitted, since they are elsewhere in ``root``.
    """
    folders, files = [], set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                if not Path(entry).resolve().is_relative_to(root):
                    raise error(f"{entry.path} is a link out of the folder, which is not followed for security.")
                if not entry.is_dir():
                    files.add(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                files.add(entry.name)
            else:
                raise error(f"{entry.path} is {odd_kind(Path(entry))}, not a file; get the folder again.")
    return folders, files


def _is_group(folder: Path, error: type[CpnnError]) -> bool:
    content = read_json(folder / "zarr.json", error)
    return isinstance(content, dict) and content.get("node_type") != "array"


def _arrays(content: Any, is_array: bool) -> Iterator[dict[str, Any]]:
    """Yield the array descriptions in a metadata file, including consolidated metadata of a group."""
    if not isinstance(content, dict):
        return
    if is_array or content.get("node_type") == "array" or ("shape" in content and "chunks" in content):
        yield content
    held = content.get("metadata", (content.get("consolidated_metadata") or {}).get("metadata"))
    entries = list(held.values())[:_MOST_NODES] if isinstance(held, dict) else []
    for entry in entries:
        if isinstance(entry, dict) and (entry.get("node_type") == "array" or ("shape" in entry and "chunks" in entry)):
            yield entry


def _check_array(array: dict[str, Any], folder: object, error: type[CpnnError]) -> int:
    """Return the size in bytes that an array declares."""
    grid = array.get("chunk_grid")
    chunks = grid["configuration"]["chunk_shape"] if isinstance(grid, dict) else array.get("chunks", [])
    shape = array["shape"]
    if not all(
        isinstance(sides, list)
        and len(sides) <= _MOST_AXES
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sides)
        for sides in (shape, chunks)
    ):
        raise error(f"{folder} has an invalid shape; get the folder again.")
    used = set(_codecs(array))
    unknown = used - _CODECS
    if unknown:
        raise error(f"{folder} uses the codec {min(unknown)[:40]!r}, which is not allowed since it may run code.")
    size = _item_size(array.get("data_type", array.get("dtype")))
    if size is None and not used & {"vlen-utf8", "vlen-bytes"}:
        raise error(f"{folder} holds Python objects, which are not loaded since they may run code.")
    item = size or 8
    if math.prod(chunks) * item > _LARGEST_CHUNK:
        raise error(f"{folder} declares {math.prod(chunks):,} values per chunk; it is damaged.")
    return int(math.prod(shape)) * item


def _codecs(array: dict[str, Any]) -> Iterator[str]:
    """Yield the names of an array's codecs in Zarr 2 and 3, including those inside shards."""
    pending = [array.get("codecs"), array.get("compressor"), array.get("filters"), array.get("storage_transformers")]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            yield str(part.get("name", part.get("id"))).removeprefix("numcodecs.")
            inside = part.get("configuration")
            if isinstance(inside, dict):
                pending += [inside.get("codecs"), inside.get("index_codecs")]


def _item_size(kind: Any) -> int | None:
    """Return the bytes per value; None for texts or objects of variable length."""
    if isinstance(kind, dict):
        length = (kind.get("configuration") or {}).get("length_bytes")
        return int(length) if isinstance(length, int) else 8
    if isinstance(kind, list):  # fields of a compound type
        return sum((_item_size(field[1]) or 8) for field in kind)
    text = str(kind)
    if text in ("string", "variable_length_utf8", "bytes", "variable_length_bytes") or text.lstrip("|<>=") == "O":
        return None
    old = re.fullmatch(r"[|<>=]?([biufcSUVmM])(\d+)(\[.*\])?", text)
    if old:
        return int(old[2]) * (4 if old[1] == "U" else 1)
    bits = re.fullmatch(r"[a-z]+?(\d+)", text)
    return int(bits[1]) // 8 if bits else 1


def _check_stored(declared: int, folder: Path, error: type[CpnnError]) -> None:
    """Raise an error if the declared size far exceeds what the array's files can hold."""
    if declared <= _SMALL:
        return
    stored = sum((Path(place) / name).stat().st_size for place, _, files in os.walk(folder) for name in files)
    if declared > _RATIO * stored:
        raise error(f"{folder} declares {declared / 2**30:,.1f} GB, far more than its {stored:,} bytes can hold.")
