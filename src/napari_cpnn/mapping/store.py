"""Maps on disk: one Zarr layout for saved maps and for the cache of live ones.

A group holds ``state``, ``weights``, ``programs`` and ``out_of_domain`` over the grid, ``decoder/*`` (what turns them
into expression) and, in its attributes, grid, names and provenance. Anyone with a Zarr reader can use it. Chunks carry
a checksum, each is replaced atomically (Zarr writes a temporary file and renames it), and ``state`` is written after
the values it speaks of, so a kill at any moment leaves a map that is merely less complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn._version import __version__
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping.cache import InUse, prune
from napari_cpnn.mapping.composition_map import BACKGROUND, DONE, UNKNOWN, CompositionMap
from napari_cpnn.models.decoder import Decoder
from napari_cpnn.models.prediction import Prediction
from napari_cpnn.samples import cache_folder
from napari_cpnn.settings import MappingSettings

#: Zarr's own types say that any member may be a group or a number; ours are known by name.
Group = Any

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

FORMAT = 1
CHUNK = 64
#: What reading raises when the bytes of a store are wrong: checksums, JSON, names, shapes, missing files.
_DAMAGE = (ValueError, KeyError, IndexError, TypeError, EOFError, FileNotFoundError, MappingError)
_DECODER_ARRAYS = ("prototypes", "alpha", "beta", "programs")

log = logging.getLogger(__name__)


def write_map(cmap: CompositionMap, path: Path) -> None:
    """Write ``cmap`` to ``path``; what stood there stays until the new map is complete."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(cmap, temporary)
        if path.exists():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(path)
    except OSError as error:
        raise MappingError(f"The map could not be written to {path}: {error.strerror or error}.") from error
    finally:  # also after Ctrl-C; there is nothing left to delete when all went well
        shutil.rmtree(temporary, ignore_errors=True)


def read_map(path: Path) -> CompositionMap:
    """Read a map; :class:`MappingError` in one sentence when it is missing, damaged or something else."""
    if not path.exists():
        raise MappingError(f"There is no map at {path}.")
    try:
        group = _open(path, "r")
        card = _card(group)
        decoder = Decoder(
            genes=tuple(card["genes"]),
            cell_types=tuple(card["cell_types"]),
            **{name: np.asarray(group["decoder"][name][...], dtype=np.float32) for name in _DECODER_ARRAYS},
        )
        state = np.asarray(group["state"][...])
        cmap = CompositionMap(Grid.from_dict(card["grid"]), decoder, state != BACKGROUND, card["provenance"])
        cmap.restore(_stored_values(group), state)
    except MappingError:
        raise
    except Exception as error:  # whatever Zarr or its codecs raise on damaged bytes
        raise MappingError(f"{path} is damaged or is not a map of napari-cpnn ({type(error).__name__}).") from error
    return cmap


def _create(cmap: CompositionMap, path: Path) -> None:
    import zarr

    group: Group = zarr.open_group(str(path), mode="w", zarr_format=3)
    for name, array in _arrays(cmap, (slice(None), slice(None)), _stored_state(cmap)):
        _create_array(group, name, array)
    decoder = group.create_group("decoder")
    for name in _DECODER_ARRAYS:
        values = np.asarray(getattr(cmap.decoder, name), dtype=np.float32)
        chunks = tuple(max(1, n) for n in values.shape)
        decoder.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks)[...] = values
    # The attributes come last: without them the group is not a map.
    group.attrs["napari_cpnn"] = {
        "format": FORMAT,
        "grid": cmap.grid.to_dict(),
        "cell_types": list(cmap.cell_types),
        "genes": list(cmap.genes),
        "states": {"unknown": UNKNOWN, "background": BACKGROUND, "done": DONE},
        "provenance": cmap.provenance,
    }


def _arrays(
    cmap: CompositionMap, window: tuple[slice, slice], state: npt.NDArray[np.uint8]
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """What is stored of a window, in the order in which it is written."""
    yield from cmap.block(window)._asdict().items()
    yield "state", state[window]


def _create_array(group: Group, name: str, array: npt.NDArray[Any]) -> None:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(min(CHUNK, array.shape[0]), min(CHUNK, array.shape[1]), *(max(1, n) for n in array.shape[2:])),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value=UNKNOWN if name == "state" else np.float16(np.nan),
        dimension_names=("y", "x", "channel")[: array.ndim],
    )[...] = array


def _stored_values(group: Group) -> Prediction[npt.NDArray[np.float16]]:
    """Maps of earlier versions have no scores."""
    unknown = np.full(group["state"].shape, np.nan, dtype=np.float16)
    scores = group["out_of_domain"][...] if "out_of_domain" in group else unknown
    return Prediction(group["weights"][...], group["programs"][...], scores)


def _stored_state(cmap: CompositionMap) -> npt.NDArray[np.uint8]:
    """Failed cells are stored as unknown, so that they are tried again when the slide is opened next time."""
    state = cmap.state.copy()
    state[cmap.tissue & (state != DONE)] = UNKNOWN
    return state


def _open(path: Path, mode: Any) -> Group:
    import zarr

    return zarr.open_group(str(path), mode=mode)


def _card(group: Group) -> dict[str, Any]:
    card: Any = dict(group.attrs).get("napari_cpnn")
    if not isinstance(card, dict):
        raise MappingError(f"{group.store} is a Zarr group, but not a map of napari-cpnn.")
    if int(card.get("format", 0)) > FORMAT:
        raise MappingError(f"{group.store} was written by a newer napari-cpnn (format {card['format']}); update it.")
    return card


class MapStore:
    """The disk copy of a map that is being computed.

    Opening it puts what is known into the map. After that, :meth:`flush` writes the chunks that changed. A store that
    is damaged is put aside with a warning and begun anew; a disk that is full or read-only ends caching, not mapping.

    Parameters
    ----------
    cmap
        The map to restore and to follow.
    path
        Folder of the Zarr group.

    Attributes
    ----------
    problem
        One sentence when nothing can be stored any more, else ``None``.
    """

    def __init__(self, cmap: CompositionMap, path: Path) -> None:
        self.map = cmap
        self.path = path
        self.problem: str | None = None
        self._dirty: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._in_use: InUse | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._in_use = InUse(path)
            self._group = self._open_or_create()
        except Exception as error:  # noqa: BLE001 -- no cache is worth a failure, and none is deleted for another's fault
            self._stop_storing(error)
        cmap.changed.connect(self._mark)

    def _open_or_create(self) -> Group:
        if self.path.exists():
            try:
                group = _open(self.path, "r+")
                card = _card(group)
                if card["grid"] != self.map.grid.to_dict() or tuple(card["cell_types"]) != self.map.cell_types:
                    raise MappingError("it belongs to another map")
                self.map.restore(_stored_values(group), np.asarray(group["state"][...]))
                if "out_of_domain" not in group:
                    _create_array(group, "out_of_domain", self.map.out_of_domain)
            except _DAMAGE as error:
                self._set_aside(error)
            else:
                self.path.touch()  # in use: the last to be pruned
                return group
        write_map(self.map, self.path)
        return _open(self.path, "r+")

    def _set_aside(self, error: Exception) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        message = f"The cached map {self.path.name} was damaged ({error}) and is computed anew."
        warnings.warn(message, CpnnWarning, stacklevel=4)

    def _mark(self, cells: npt.NDArray[np.intp]) -> None:
        with self._lock:
            self._dirty.update(map(tuple, np.unique(cells // CHUNK, axis=0).tolist()))

    def flush(self) -> None:
        """Write the chunks that changed since the last call."""
        with self._flushing:
            with self._lock:
                dirty, self._dirty = self._dirty, set()
            if not dirty or self.problem:
                return
            # The state is read before the values: what it calls done has its values in what is written.
            state = _stored_state(self.map)
            try:
                for row, col in sorted(dirty):
                    window = (slice(row * CHUNK, (row + 1) * CHUNK), slice(col * CHUNK, (col + 1) * CHUNK))
                    for name, array in _arrays(self.map, window, state):
                        self._group[name][window] = array
            except OSError as error:
                self._stop_storing(error)

    def _stop_storing(self, error: Exception) -> None:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).rstrip(".")
        self.problem = f"Maps are not kept on disk: {self.path.parent}: {reason}."
        log.warning(self.problem)

    def close(self) -> None:
        """Write what is left and stop following the map."""
        with contextlib.suppress(ValueError):  # closed twice
            self.map.changed.disconnect(self._mark)
        self.flush()
        if self._in_use is not None:
            self._in_use.release()
            self._in_use = None


def describe(slide: Slide, model: CPNN, grid: Grid) -> dict[str, Any]:
    """Where a map comes from, as JSON-ready provenance."""
    return {
        "software": f"napari-cpnn {__version__}",
        "slide": slide.name,
        "slide_identity": slide.identity,
        "mpp": slide.mpp,
        "model_fingerprint": model.fingerprint,
        "patch": {"size_px": model.patch.size_px, "mpp": model.patch.mpp},
        "stride_um": grid.stride_um,
    }


def open_cache(cmap: CompositionMap, slide: Slide, model: CPNN, settings: MappingSettings) -> MapStore:
    """The disk copy of a live map in the user's cache, keyed by all that its values depend on."""
    folder = Path(settings.cache_dir) if settings.cache_dir else cache_folder() / "maps"
    parts = {**describe(slide, model, cmap.grid), "grid": cmap.grid.to_dict(), "tissue": settings.tissue.to_dict()}
    del parts["slide"], parts["software"]  # a renamed file and a newer program give the same values
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    store = MapStore(cmap, folder / f"{key}.zarr")
    if not store.problem:
        prune(folder, settings.cache_gb * 2**30)
    return store
