"""Nuclei on disk: a Zarr group with checksums, written whole or not at all.

The group contains ``centers_um`` (N, 2), ``vertices_um`` (V, 2) and ``starts`` (N + 1) of the outlines, ``classes``
(N), each where there are some, and in its attributes the names of the classes, the source, and a digest. Any Zarr
reader can open it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import NucleiError
from napari_cpnn.spots import check_zarr
from napari_cpnn.storage import restored, staged, target_of
from napari_cpnn.untrusted import read_json, reading, reason_of, to_path

FORMAT = 1
#: Key of our attributes in the group.
MARK = "napari_cpnn_nuclei"
#: Names, types and axes of the arrays.
_ARRAYS = {"centers_um": ("float32", 2), "vertices_um": ("float32", 2), "starts": ("int64", 1), "classes": ("int16", 1)}
_CHUNK = 262_144


def is_store(path: Path) -> bool:
    """Return whether a folder says that it holds nuclei of napari-cpnn."""
    card = path / "zarr.json"
    try:
        return card.is_file() and f'"{MARK}"'.encode() in card.read_bytes()  # a pipe is no file
    except OSError:
        return False


#: Arrays by the names of :data:`_ARRAYS`.
Arrays = dict[str, npt.NDArray[Any]]


def write_store(arrays: Arrays, class_names: tuple[str, ...], source: str, path: Path, *, overwrite: bool) -> Path:
    """Write nuclei to a ``.zarr`` folder; see :meth:`~napari_cpnn.Nuclei.save`."""
    to_path(path, NucleiError)
    if path.suffix.lower() != ".zarr":
        raise NucleiError(f"Nuclei are written to a .zarr folder, not to {path.name}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = target_of(path)
        if restored(path).exists():
            if not (is_store(path) and {item.name for item in path.iterdir()} <= {"zarr.json", *_ARRAYS}):
                raise NucleiError(f"{path} is there and does not hold nuclei of napari-cpnn; choose another name.")
            if not overwrite:
                raise NucleiError(f"{path} exists already; choose another name, or allow to overwrite it.")
        with staged(path) as temporary:
            _create(arrays, {"source": source, "class_names": list(class_names)}, temporary)
    except (OSError, MemoryError) as error:
        raise NucleiError(f"{path} could not be written: {reason_of(error)}.") from error
    return path


def read_store(path: str | Path) -> tuple[Arrays, tuple[str, ...], str]:
    """Read what :func:`write_store` wrote: arrays, names of classes, source; see :meth:`~napari_cpnn.Nuclei.load`."""
    folder = restored(to_path(path, NucleiError))
    if not folder.exists():
        raise NucleiError(f"There are no nuclei at {folder}.")
    if not folder.is_dir() or not is_store(folder):
        raise NucleiError(f"{folder} does not hold nuclei of napari-cpnn.")
    with reading(folder, NucleiError, "it is damaged; write it again."):
        check_zarr(folder, NucleiError, in_memory=tuple(_ARRAYS))
        card = _card(folder)
        arrays = _read_arrays(folder, card["arrays"])
        return arrays, tuple(map(str, card["class_names"])), str(card["source"])


def _create(arrays: Arrays, card: dict[str, Any], path: Path) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group: Any = zarr.open_group(str(path), mode="w", zarr_format=3)
    for name, values in arrays.items():
        group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(max(1, min(_CHUNK, len(values))), *values.shape[1:]),
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )[...] = values
    card = {**card, "format": FORMAT, "arrays": {name: list(values.shape) for name, values in arrays.items()}}
    # Attributes are written last: without them the group holds no nuclei.
    group.attrs[MARK] = {**card, "digest": _digest(card)}


def _card(path: Path) -> dict[str, Any]:
    attributes = read_json(path / "zarr.json", NucleiError).get("attributes")
    card = attributes.get(MARK) if isinstance(attributes, dict) else None
    if not isinstance(card, dict):
        raise NucleiError(f"{path} does not hold nuclei of napari-cpnn.")
    digest, version = card.pop("digest", None), card.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise NucleiError(f"{path} was written by a newer napari-cpnn (format {version}); update it.")
    if digest != _digest(card):
        raise NucleiError(f"{path} is damaged: its attributes are not the ones that were written.")
    return card


def _read_arrays(path: Path, shapes: dict[str, Any]) -> Arrays:
    import zarr

    group: Any = zarr.open_group(str(path), mode="r", zarr_format=3, use_consolidated=False)
    arrays: Arrays = {}
    for name, shape in shapes.items():
        kind, axes = _ARRAYS[name]
        array = group[name]
        if array.dtype != np.dtype(kind) or array.ndim != axes or list(array.shape) != shape:
            raise NucleiError(f"{path} is damaged: {name} is {array.dtype} {array.shape}.")
        if array.nchunks_initialized < array.nchunks and array.size:
            raise NucleiError(f"{path} is damaged: a part of {name} is missing.")
        arrays[name] = np.asarray(array[...])
    return arrays


def _digest(card: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()
