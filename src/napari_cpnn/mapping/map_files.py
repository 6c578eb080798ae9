"""Maps on disk: a common Zarr layout for saved maps and the cache of live maps.

A group contains ``state``, ``weights``, ``programs`` and ``out_of_domain`` over the grid, ``decoder/*`` (the decoder
to expression), ``trust`` (intervals and trusted scales, where the model has them) and, in its attributes, grid, names
and provenance. Any Zarr reader can open it. All chunks and the attributes have checksums. Each chunk is replaced
atomically (Zarr writes a temporary file and renames it), and ``state`` is written after the values it refers to, so an
interruption at any moment leaves a valid but less complete map.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping.map_layout import DECODER_ARRAYS, FORMAT, MARK, Card, checked_card, is_our_map, sealed
from napari_cpnn.mapping.states import BACKGROUND, DONE, UNKNOWN
from napari_cpnn.models import Decoder, Prediction, implausible, table_values
from napari_cpnn.storage import restored, staged, target_of
from napari_cpnn.untrusted import reading, reason_of, require_memory, to_path

#: Zarr's type hints allow any member to be a group or a scalar; ours are known by name.
Group = Any

CHUNK = 64


class MapContent(NamedTuple):
    """A map as it is stored: arrays shaped as those of :class:`~napari_cpnn.CompositionMap`."""

    grid: Grid
    decoder: Decoder
    state: npt.NDArray[np.uint8]
    values: Prediction[npt.NDArray[np.float16]]
    provenance: dict[str, Any]
    trust: npt.NDArray[np.float32] | None = None


def write_map(content: Callable[[], MapContent], path: Path) -> None:
    """Write a map to ``path``; an existing map is replaced once the new one is complete.

    Raises
    ------
    MappingError
        If ``path`` is something else, or the disk cannot be written.
    """
    to_path(path, MappingError)
    write_store(content, path, whole=True)


def write_store(content: Callable[[], MapContent], path: Path, *, whole: bool) -> None:
    """Write as :func:`write_map`; ``whole``: the complete state is written and will not change."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = target_of(path)
        restored(path)
        if path.exists() and not is_our_map(path) and not _is_empty(path):
            raise MappingError(f"{path} is there and is not a map of napari-cpnn alone; choose another name.")
        with staged(path) as temporary:
            _create(content(), temporary, whole)
    except RecursionError as error:
        raise MappingError(f"The map could not be written to {path}: its provenance is nested too deeply.") from error
    except (OSError, MemoryError) as error:
        raise MappingError(f"The map could not be written to {path}: {reason_of(error)}.") from error


def read_map(path: Path) -> MapContent:
    """Read a map; raise a :class:`MappingError` if it is missing, damaged or not a map."""
    path = restored(to_path(path, MappingError))
    if not path.exists():
        raise MappingError(f"There is no map at {path}.")
    with reading(path, MappingError, "it is damaged, or is no map of napari-cpnn"):
        card = checked_card(path)
        require_memory(card.n_bytes, path, MappingError)
        group = open_group(path, "r")
        decoder = _decoder(path, card, group)
        if card.whole:
            _require_chunks(path, group, ["state"])
        state = np.asarray(group["state"][...])
        if not np.isin(state, (UNKNOWN, BACKGROUND, DONE)).all():
            raise MappingError(f"{path} is damaged: its state has values that mean nothing.")
        values = stored_values(group)
        trust = _trust(path, card, group)
        done = state == DONE
        lost = int((done & ~(_finite(values.weights) & _finite(values.programs))).sum())
        if lost:
            raise MappingError(f"{path} is damaged: it lacks the values of {lost} patches; copy or predict it anew.")
    return MapContent(card.grid, decoder, state, values, card.provenance, trust)


def open_group(path: Path, mode: Literal["r", "r+"]) -> Group:
    """Open the Zarr group of a map that was validated by :func:`~napari_cpnn.mapping.map_layout.checked_card`."""
    import zarr

    # Consolidated metadata have not been validated.
    return zarr.open_group(str(path), mode=mode, zarr_format=3, use_consolidated=False)


def create_array(group: Group, name: str, array: npt.NDArray[Any], *, every_chunk: bool = False) -> None:
    """Create an array over the grid; ``every_chunk``: also write chunks without known values."""
    sides = (min(CHUNK, array.shape[0]), min(CHUNK, array.shape[1]), *(max(1, n) for n in array.shape[2:]))
    fill = UNKNOWN if name == "state" else np.float16(np.nan)
    _create_array(group, name, array, sides, fill, every_chunk, ("y", "x", "channel")[: array.ndim])


def stored_values(group: Group) -> Prediction[npt.NDArray[np.float16]]:
    """Read weights, programs and scores; scores are NaN in maps of earlier versions."""
    unknown = np.full(group["state"].shape, np.nan, dtype=np.float16)
    scores = group["out_of_domain"][...] if "out_of_domain" in group else unknown
    return Prediction(group["weights"][...], group["programs"][...], scores)


def _create(content: MapContent, path: Path, whole: bool) -> None:
    import zarr

    group: Group = zarr.open_group(str(path), mode="w", zarr_format=3)
    for name, array in (*content.values._asdict().items(), ("state", content.state)):
        create_array(group, name, array, every_chunk=whole and name == "state")
    decoder = group.create_group("decoder")
    for name in DECODER_ARRAYS:
        values = np.asarray(getattr(content.decoder, name), dtype=np.float32)
        _create_array(decoder, name, values, tuple(max(1, n) for n in values.shape), np.float32(0), True)
    if content.trust is not None:
        _create_array(group, "trust", content.trust, content.trust.shape, np.float32(0), True)
    # Attributes are written last: without them the group is not a map.
    group.attrs[MARK] = sealed(
        {
            "format": FORMAT if content.decoder.scale == "count" else 1,
            "grid": content.grid.to_dict(),
            "cell_types": list(content.decoder.cell_types),
            "genes": list(content.decoder.genes),
            "states": {"unknown": UNKNOWN, "background": BACKGROUND, "done": DONE},
            "provenance": content.provenance,
            "whole": whole,
            **({"scale": "count"} if content.decoder.scale == "count" else {}),
        }
    )


def _create_array(
    group: Group,
    name: str,
    array: npt.NDArray[Any],
    chunks: tuple[int, ...],
    fill: Any,
    every_chunk: bool,
    axes: tuple[str, ...] | None = None,
) -> None:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunks,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value=fill,
        dimension_names=axes,
        config={"write_empty_chunks": every_chunk},
    )[...] = array


def _decoder(path: Path, card: Card, group: Group) -> Decoder:
    if card.sealed:
        _require_chunks(path, group, [f"decoder/{name}" for name in DECODER_ARRAYS])
    elif card.cell_types:  # earlier versions did not write chunks of zeros, but these two are never zero
        _require_chunks(path, group, ["decoder/prototypes", "decoder/alpha"])
    values = {name: np.asarray(group["decoder"][name][...], dtype=np.float32) for name in DECODER_ARRAYS}
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise MappingError(f"{path} is damaged: decoder/{name} has values that are not numbers.")
    return Decoder(card.genes, card.cell_types, **values, scale=card.scale)


def _trust(path: Path, card: Card, group: Group) -> npt.NDArray[np.float32] | None:
    if "trust" not in group:
        return None
    if card.sealed:
        _require_chunks(path, group, ["trust"])
    table = np.asarray(group["trust"][...], dtype=np.float32)
    if not np.isfinite(table).all():
        raise MappingError(f"{path} is damaged: trust has values that are not numbers.")
    if name := implausible(table_values(table)):
        raise MappingError(f"{path} is damaged: {name} in trust has values that no calibration gives.")
    return table


def _require_chunks(path: Path, group: Group, names: list[str]) -> None:
    """Require all chunks of arrays to be present, since Zarr reads missing chunks as the fill value."""
    for name in names:
        array = group[name]
        if array.size and array.nchunks_initialized < array.nchunks:
            raise MappingError(f"{path} is damaged: a part of {name} is missing; copy or predict it anew.")


def _finite(values: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(values).all(axis=2), dtype=bool)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
