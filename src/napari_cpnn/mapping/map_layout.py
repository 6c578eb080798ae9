"""Validation of a map's folder before Zarr or any codec reads it.

Maps may come from untrusted sources. Names, sizes, types and codecs are therefore read here as plain JSON, and only
known content is opened: no other array, no codec that runs code (pickle), no link out of the folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import MAX_CELLS, Grid
from napari_cpnn.models import TABLE_ROWS, Scale, checked_names
from napari_cpnn.untrusted import read_json, reading

#: Maps of models on the log scale are written as format 1, which older programs read.
FORMAT = 2

#: Key of our attributes in the group.
MARK = "napari_cpnn"

DECODER_ARRAYS = ("prototypes", "alpha", "beta", "programs")
#: Rows of the table of :meth:`napari_cpnn.models.Trust.to_table`; earlier versions have no slope in the last.
TRUST_ROWS = sum(TABLE_ROWS.values())
_OPTIONAL = ("out_of_domain", "trust")  # not in maps of earlier versions, or of models without them
_MEMBERS = {"zarr.json", "state", "weights", "programs", "decoder", *_OPTIONAL}
_CODECS = {"bytes", "transpose", "zstd", "gzip", "blosc", "crc32c"}
_FILL = {"uint8": (0,), "float16": ("NaN", "0x7e00"), "float32": (0, 0.0)}


@dataclass(frozen=True)
class Card:
    """Validated attributes of a map.

    Attributes
    ----------
    sealed
        Whether all content and the card have checksums; maps of earlier versions do not.
    whole
        Whether ``state`` is written completely, including unknown chunks: true for saved maps, not for the cache.
    """

    grid: Grid
    genes: tuple[str, ...]
    cell_types: tuple[str, ...]
    n_programs: int
    provenance: dict[str, Any]
    sealed: bool
    whole: bool
    scale: Scale = "log"

    @property
    def n_bytes(self) -> int:
        """Memory of the map in bytes, and of the arrays read to create it."""
        values = self.grid.n_cells * (len(self.cell_types) + self.n_programs)
        return 6 * values + 16 * self.grid.n_cells


def sealed(card: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digest that :func:`checked_card` verifies to a card."""
    plain = json.loads(json.dumps(card))
    return {**plain, "digest": _digest(plain)}


def is_our_map(path: Path) -> bool:
    """Return whether a folder contains a map and nothing else, so that it may be replaced or deleted."""
    try:
        return has_only_our_files(path) and f'"{MARK}"'.encode() in (path / "zarr.json").read_bytes()
    except OSError:
        return False


def has_only_our_files(path: Path) -> bool:
    """Return whether a folder (not a link) contains only files of a map."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode) and {item.name for item in path.iterdir()} <= _MEMBERS
    except OSError:
        return False


def checked_card(path: Path) -> Card:
    """Read and validate the metadata of the map in a folder.

    Raises
    ------
    MappingError
        If it is not a map of napari-cpnn, is damaged, or has unknown content; the message is one sentence.
    """
    with reading(path, MappingError, "is it a map of napari-cpnn?"):
        if not path.is_dir() or not (path / "zarr.json").is_file():
            raise MappingError(f"{path} is not a map of napari-cpnn: it is no Zarr folder of version 3.")
        _require_plain_files(path)
        root = _metadata(path, "zarr.json", "group")
        attributes = root.get("attributes")
        said = attributes.get(MARK) if isinstance(attributes, dict) else None
        if not isinstance(said, dict):
            raise MappingError(f"{path} is a Zarr group, but not a map of napari-cpnn.")
        card = _card(path, said)
        _metadata(path, "decoder/zarr.json", "group")
        for name, kind, shape in _arrays(card):
            if name in _OPTIONAL and not (path / name).exists():
                continue
            _check_array(path, name, kind, shape, card.sealed)
    return card


def _card(path: Path, said: dict[str, Any]) -> Card:
    version = said.get("format", 0)
    if isinstance(version, int) and version > FORMAT:
        raise MappingError(f"{path} was written by a newer napari-cpnn (format {version}); update it.")
    digest = said.pop("digest", None)
    if digest is not None and digest != _digest(said):
        raise _damaged(path, "its attributes are not the ones that were written")
    provenance = said["provenance"]
    if not isinstance(provenance, dict):
        raise _damaged(path, "its provenance is no table")
    scale = said.get("scale", "log")
    if scale not in ("log", "count"):
        raise _damaged(path, "its expression is on a scale that is not known")
    return Card(
        grid=_grid(path, said["grid"]),
        genes=_names(path, said["genes"], "its genes"),
        cell_types=_names(path, said["cell_types"], "its cell types"),
        n_programs=_n_programs(path),
        provenance=provenance,
        sealed=digest is not None,
        whole=digest is not None and said.get("whole") is True,
        scale=scale,
    )


def _digest(card: Mapping[str, Any]) -> str:
    text = json.dumps({name: value for name, value in card.items() if name != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _grid(path: Path, said: Any) -> Grid:
    shape, origin, stride = said["shape"], said["origin_um"], said["stride_um"]
    numbers = [stride, *origin]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in numbers):
        raise _damaged(path, "its grid has numbers that are not finite")
    if len(origin) != 2 or len(shape) != 2 or not stride > 0:
        raise _damaged(path, f"its grid has a stride of {stride} um")
    if not all(type(n) is int and n > 0 for n in shape) or shape[0] * shape[1] > MAX_CELLS:
        raise _damaged(path, f"its grid has a shape of {shape}")
    return Grid.from_dict(said)


def _names(path: Path, names: Any, what: str) -> tuple[str, ...]:
    try:
        return checked_names(names, what)
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _n_programs(path: Path) -> int:
    shape = _metadata(path, "decoder/programs/zarr.json", "array")["shape"]
    if not isinstance(shape, list) or len(shape) != 2 or type(shape[0]) is not int or not 0 <= shape[0] <= 10_000:
        raise _damaged(path, f"decoder/programs has a shape of {shape}")
    return shape[0]


def _arrays(card: Card) -> Iterator[tuple[str, str, list[int]]]:
    """Names, types and shapes of all arrays of a map."""
    shape, n_genes, n_types, n_programs = list(card.grid.shape), len(card.genes), len(card.cell_types), card.n_programs
    yield "state", "uint8", shape
    yield "weights", "float16", [*shape, n_types]
    yield "programs", "float16", [*shape, n_programs]
    yield "out_of_domain", "float16", shape
    yield "decoder/prototypes", "float32", [n_types, n_genes]
    yield "decoder/alpha", "float32", [n_genes]
    yield "decoder/beta", "float32", [n_genes]
    yield "decoder/programs", "float32", [n_programs, n_genes]
    yield "trust", "float32", [TRUST_ROWS, n_genes + n_types]


def _check_array(path: Path, name: str, kind: str, shape: list[int], with_checksums: bool) -> None:
    found = _metadata(path, f"{name}/zarr.json", "array")
    if name == "trust" and found["shape"] == [TRUST_ROWS - 1, *shape[1:]]:
        shape = found["shape"]
    if found["data_type"] != kind or found["shape"] != shape:
        raise _damaged(path, f"{name} is {found['data_type']} {found['shape']}, not {kind} {shape}"[:200])
    if found["fill_value"] not in _FILL[kind] or found.get("storage_transformers"):
        raise _damaged(path, f"{name} has another layout than ours")
    chunks, keys = found["chunk_grid"], found["chunk_key_encoding"]
    sides = chunks["configuration"]["chunk_shape"]
    if chunks["name"] != "regular" or keys["name"] not in ("default", "v2") or len(sides) != len(shape):
        raise _damaged(path, f"{name} has another layout than ours")
    if not all(type(side) is int and 0 < side <= max(1, n) for side, n in zip(sides, shape, strict=True)):
        raise _damaged(path, f"{name} has chunks of {sides}"[:200])
    codecs = [codec["name"] for codec in found["codecs"]]
    if unknown := sorted(set(codecs) - _CODECS):
        raise MappingError(
            f"{path} is not opened: {name} is stored with {unknown[0][:40]!r}, which no map of napari-cpnn is."
        )
    if with_checksums and "crc32c" not in codecs:
        raise _damaged(path, f"{name} has no checksums")


def _metadata(path: Path, name: str, kind: str) -> dict[str, Any]:
    if not (path / name).is_file():
        raise _damaged(path, f"{name} is missing")
    found = read_json(path / name, MappingError)
    if not isinstance(found, dict) or found.get("zarr_format") != 3 or found.get("node_type") != kind:
        raise _damaged(path, f"{name} is not of a Zarr {kind} of version 3")
    return found


def _require_plain_files(path: Path) -> None:
    """Require plain files and folders: no links out of the folder, no pipes."""
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            mode = (Path(folder) / name).lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                inside = (Path(folder) / name).relative_to(path)
                raise MappingError(f"{path} is not opened: {inside} in it is a link or a device, not a file.")


def _damaged(path: Path, what: str) -> MappingError:
    return MappingError(f"{path} is damaged or is not a map of napari-cpnn: {what}.")
