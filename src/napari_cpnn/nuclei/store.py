"""Arrays with names on disk: a Zarr group with checksums, written whole or not at all.

The group contains arrays with one row per nucleus or vertex, and in its attributes what belongs to them, with a digest.
Any Zarr reader can open it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import CpnnError, NucleiError
from napari_cpnn.storage import check_zarr, restored, staged, target_of
from napari_cpnn.untrusted import read_json, reading, reason_of, to_path

FORMAT = 1
_CHUNK = 262_144
_CHUNK_BYTES = 64 * 2**20

#: Arrays by name.
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ArrayStore:
    """A kind of ``.zarr`` folder.

    Parameters
    ----------
    mark
        Key of our attributes in the group.
    noun
        What messages call its content.
    error
        Exception class to raise.
    arrays
        Types and numbers of axes of all arrays that it may contain, by name.
    """

    mark: str
    noun: str
    error: type[CpnnError]
    arrays: Mapping[str, tuple[str, int]]

    def is_at(self, path: Path) -> bool:
        """Return whether a folder says that it is of this kind."""
        card = path / "zarr.json"
        try:
            return card.is_file() and f'"{self.mark}"'.encode() in card.read_bytes()  # a pipe is no file
        except OSError:
            return False

    def write(self, arrays: Arrays, card: dict[str, Any], path: Path, *, overwrite: bool) -> Path:
        """Write arrays, and a card that JSON can hold, to a ``.zarr`` folder.

        Raises
        ------
        CpnnError
            ``error``, if something else is there, it may not be replaced, or the disk cannot be written.
        """
        to_path(path, self.error)
        noun = self.noun
        if path.suffix.lower() != ".zarr":
            raise self.error(f"{noun.capitalize()} are written to a .zarr folder, not to {path.name}.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path = target_of(path)
            if restored(path).exists():
                if not (self.is_at(path) and {item.name for item in path.iterdir()} <= {"zarr.json", *self.arrays}):
                    raise self.error(f"{path} is there and does not hold {noun} of napari-cpnn; choose another name.")
                if not overwrite:
                    raise self.error(f"{path} exists already; choose another name, or allow to overwrite it.")
            with staged(path) as temporary:
                self._create(arrays, card, temporary)
        except (OSError, MemoryError) as error:
            raise self.error(f"{path} could not be written: {reason_of(error)}.") from error
        return path

    def read(self, path: str | Path) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays and card that :meth:`write` wrote; ``error`` for anything else."""
        folder = restored(to_path(path, self.error))
        if not folder.exists():
            raise self.error(f"There are no {self.noun} at {folder}.")
        if not folder.is_dir() or not self.is_at(folder):
            raise self.error(f"{folder} does not hold {self.noun} of napari-cpnn.")
        with reading(folder, self.error, "it is damaged; write it again."):
            check_zarr(folder, self.error, in_memory=tuple(self.arrays))
            card = self._card(folder)
            return self._read_arrays(folder, card.pop("arrays")), card

    def _create(self, arrays: Arrays, card: dict[str, Any], path: Path) -> None:
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        group: Any = zarr.open_group(str(path), mode="w", zarr_format=3)
        for name, values in arrays.items():
            row_bytes = max(1, values.itemsize * int(np.prod(values.shape[1:])))
            group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(
                    max(1, min(_CHUNK, _CHUNK_BYTES // row_bytes, len(values))),
                    *(max(1, n) for n in values.shape[1:]),
                ),
                compressors=[ZstdCodec(level=3), Crc32cCodec()],
                config={"write_empty_chunks": True},
            )[...] = values
        plain = json.loads(json.dumps(card))
        plain |= {"format": FORMAT, "arrays": {name: list(values.shape) for name, values in arrays.items()}}
        # Attributes are written last: without them the group holds nothing.
        group.attrs[self.mark] = {**plain, "digest": _digest(plain)}

    def _card(self, path: Path) -> dict[str, Any]:
        attributes = read_json(path / "zarr.json", self.error).get("attributes")
        card = attributes.get(self.mark) if isinstance(attributes, dict) else None
        if not isinstance(card, dict):
            raise self.error(f"{path} does not hold {self.noun} of napari-cpnn.")
        digest, version = card.pop("digest", None), card.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise self.error(f"{path} was written by a newer napari-cpnn (format {version}); update it.")
        if digest != _digest(card):
            raise self.error(f"{path} is damaged: its attributes are not the ones that were written.")
        return card

    def _read_arrays(self, path: Path, shapes: dict[str, Any]) -> Arrays:
        import zarr

        group: Any = zarr.open_group(str(path), mode="r", zarr_format=3, use_consolidated=False)
        arrays: Arrays = {}
        for name, shape in shapes.items():
            kind, axes = self.arrays[name]
            array = group[name]
            if array.dtype != np.dtype(kind) or array.ndim != axes or list(array.shape) != shape:
                raise self.error(f"{path} is damaged: {name} is {array.dtype} {array.shape}.")
            if array.nchunks_initialized < array.nchunks and array.size:
                raise self.error(f"{path} is damaged: a part of {name} is missing.")
            arrays[name] = np.asarray(array[...])
        return arrays


def _digest(card: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()


#: Arrays of nuclei: centres, vertices of the outlines and where each begins, classes, where they were looked for; each
#: where there are some.
NUCLEI_ARRAYS = {
    "centers_um": ("float32", 2),
    "vertices_um": ("float32", 2),
    "starts": ("int64", 1),
    "classes": ("int16", 1),
    "searched": ("uint8", 2),
}
NUCLEI = ArrayStore("napari_cpnn_nuclei", "nuclei", NucleiError, NUCLEI_ARRAYS)
