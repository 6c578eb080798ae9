"""Disk cache of a map that is being computed (layout: :mod:`napari_cpnn.mapping.map_files`)."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn._version import __version__
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping.cache import MAP_NAME, InUse, prune
from napari_cpnn.mapping.composition_map import CompositionMap
from napari_cpnn.mapping.map_files import (
    CHUNK,
    Group,
    create_array,
    open_group,
    stored_values,
    write_store,
)
from napari_cpnn.mapping.map_layout import checked_card, is_our_map
from napari_cpnn.settings import MappingSettings
from napari_cpnn.storage import folder_of, key_of, remove, restored, touch_kept
from napari_cpnn.untrusted import is_end_of_program, reason_of

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

#: Shortest and longest time between writes of a map, and how many times as long as a write it is.
_PAUSES_S, _PAUSE_SHARE = (2.0, 10.0), 100.0
#: Exceptions of reading a damaged store: checksums, JSON, names, shapes, missing files.
_DAMAGE = (ValueError, KeyError, IndexError, TypeError, EOFError, FileNotFoundError, MappingError)

log = logging.getLogger(__name__)


class MapStore:
    """Disk cache of a map that is being computed.

    Opening it restores stored values into the map; :meth:`flush` then writes changed chunks. What is not there yet is
    made by the first flush, since a picture need not wait for it. A damaged store is moved aside with a warning and
    replaced; if the disk is full or read-only, mapping continues without caching.

    Parameters
    ----------
    cmap
        The map to restore and observe.
    path
        Folder of the Zarr group.

    Attributes
    ----------
    problem
        One sentence if nothing can be stored any more, else ``None``.
    pause_s
        Seconds to wait before the next :meth:`flush`: so many that writing takes one percent of the time, between 2
        and 10.
    """

    def __init__(self, cmap: CompositionMap, path: Path) -> None:
        self.map = cmap
        self.path = path
        self.problem: str | None = None
        self.pause_s = _PAUSES_S[0]
        self._dirty: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._in_use: InUse | None = None
        self._group: Group | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._in_use = InUse(path)
            if restored(path).exists():
                self._group = self._open_or_create()
        except Exception as error:  # noqa: BLE001 -- no cache is worth a failure, and none is deleted for another's fault
            self._stop_storing(error)
        cmap.changed.connect(self._mark)

    def _open_or_create(self) -> Group:
        if restored(self.path).exists():
            try:
                card = checked_card(self.path)
                if card.grid != self.map.grid or card.cell_types != self.map.cell_types:
                    raise MappingError("it belongs to another map")
                group = open_group(self.path, "r+")
                self.map.restore(stored_values(group), np.asarray(group["state"][...]))
                if "out_of_domain" not in group:
                    create_array(group, "out_of_domain", self.map.out_of_domain)
            except _DAMAGE as error:
                if _is_no_damage(error.__cause__):
                    raise
                self._set_aside(error)
            else:
                touch_kept(self.path)  # mark as most recently used
                return group
        write_store(self.map.content, self.path, whole=False)
        return open_group(self.path, "r+")

    def _set_aside(self, error: Exception) -> None:
        if not is_our_map(self.path) and not MAP_NAME.fullmatch(self.path.name):
            raise MappingError(f"{self.path.name} is not a map of napari-cpnn") from error
        remove(self.path)
        message = f"The cached map {self.path.name} was damaged ({reason_of(error)}) and is computed anew."
        warnings.warn(message, CpnnWarning, stacklevel=4)

    def _mark(self, patches: npt.NDArray[np.intp]) -> None:
        with self._lock:
            self._dirty.update(map(tuple, np.unique(patches // CHUNK, axis=0).tolist()))

    def flush(self) -> None:
        """Write chunks that changed since the last call."""
        with self._flushing:
            with self._lock:
                dirty, self._dirty = self._dirty, set()
            is_made = self._group is not None
            if self.problem or (is_made and not dirty):
                return
            began = time.monotonic()
            # Read the state before the values, so that values of all patches marked as done are written.
            state = self.map.stored_state()
            try:
                if self._group is None:
                    self._group = self._open_or_create()  # another window may have made it meanwhile
                for row, col in sorted(dirty):
                    window = (slice(row * CHUNK, (row + 1) * CHUNK), slice(col * CHUNK, (col + 1) * CHUNK))
                    for name, array in (*self.map.block(window)._asdict().items(), ("state", state[window])):
                        self._group[name][window] = array
            except Exception as error:  # noqa: BLE001 -- deleted or garbled under our hands: mapping goes on in memory
                self._stop_storing(error)
            if is_made:
                self.pause_s = float(np.clip(_PAUSE_SHARE * (time.monotonic() - began), *_PAUSES_S))

    def _stop_storing(self, error: Exception) -> None:
        reason = reason_of(error.__cause__ if isinstance(error.__cause__, OSError) else error).rstrip(".")
        if self._group is not None and not self.path.exists():
            reason = "the folder of this map has been deleted"
        self.problem = f"Maps are not kept on disk: {self.path.parent}: {reason}."
        if not is_end_of_program(error):
            log.warning(self.problem)

    def close(self) -> None:
        """Write remaining changes and stop observing the map."""
        with contextlib.suppress(ValueError):  # closed twice
            self.map.changed.disconnect(self._mark)
        self.flush()
        if self._in_use is not None:
            self._in_use.release()
            self._in_use = None


def _is_no_damage(cause: BaseException | None) -> bool:
    """Return whether an error is a temporary fault of the computer rather than damage on disk."""
    return isinstance(cause, MemoryError) or (isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError))


def provenance_of(slide: Slide, model: CPNN, arithmetic: str) -> dict[str, Any]:
    """What predictions on a slide depend on, as JSON-ready dictionary."""
    return {
        "software": f"napari-cpnn {__version__}",
        "slide": slide.name,
        "slide_identity": slide.identity,
        "mpp": slide.mpp,
        "model": model.title,
        "model_fingerprint": model.fingerprint,
        "trained_on": model.trained_on,
        "patch": {"size_px": model.patch.size_px, "mpp": model.patch.mpp},
        "arithmetic": arithmetic,
        "hierarchy": model.hierarchy,
    }


def describe(slide: Slide, model: CPNN, grid: Grid, arithmetic: str, *, reduced: bool = False) -> dict[str, Any]:
    """Provenance of a map, as JSON-ready dictionary; ``reduced``: patches are read from reduced levels."""
    facts = {**provenance_of(slide, model, arithmetic), "stride_um": grid.stride_um}
    return {**facts, "reduced_tiles": True} if reduced else facts


def open_cache(cmap: CompositionMap, slide: Slide, model: CPNN, settings: MappingSettings, arithmetic: str) -> MapStore:
    """Open the disk cache of a live map, keyed by everything that its values depend on.

    ``slide``: as its patches are read, since a slide with reduced levels has another identity.
    """
    folder = folder_of("maps", settings.cache_dir or None)
    parts = {
        **describe(slide, model, cmap.grid, arithmetic),
        "grid": cmap.grid.to_dict(),
        "tissue": settings.tissue.to_dict(),
    }
    # A renamed file, a newer program, another description of the training tissue and other major types give the same
    # values.
    del parts["slide"], parts["software"], parts["model"], parts["trained_on"], parts["hierarchy"]
    if "(" not in arithmetic:  # torch's, as in keys of versions that had nothing else; its precisions share a map
        del parts["arithmetic"]
    store = MapStore(cmap, folder / f"{key_of(parts)}.zarr")
    if not store.problem:
        prune(folder, settings.cache_gb * 2**30)
    return store
