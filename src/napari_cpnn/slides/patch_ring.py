"""Places for batches of patches, in memory that several processes can share."""

from __future__ import annotations

import contextlib
import os
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Self

import numpy as np

from napari_cpnn.arrays import Picture
from napari_cpnn.errors import SlideError


class _Memory(SharedMemory):
    """Shared memory whose end is silent while an array still looks into it; the array keeps it mapped."""

    def __del__(self) -> None:
        with contextlib.suppress(OSError, BufferError):
            self.close()


class PatchRing:
    """Slots for batches of patches, uint8 ``(n_slots, batch, size_px, size_px, 3)``.

    Readers write patches into a slot, and the device takes them from there: pixels are neither pickled nor copied in
    between. :meth:`close` gives the memory back; call it in any case.

    Parameters
    ----------
    n_slots, batch, size_px
        Number of slots, patches per slot, and side of a patch in pixels.
    shared
        Whether processes can attach to it; else it is ordinary memory.
    name
        :attr:`name` of a ring of this shape to attach to, in a process that does nothing else: its owner remains the
        process that made it.

    Raises
    ------
    SlideError
        If the computer has not enough shared memory; it says what to do.

    Examples
    --------
    >>> from napari_cpnn.slides import PatchRing
    >>> with PatchRing(2, 4, 8, shared=True) as ring:
    ...     ring[1].shape, ring.n_slots
    ((4, 8, 8, 3), 2)
    """

    def __init__(self, n_slots: int, batch: int, size_px: int, *, shared: bool, name: str = "") -> None:
        shape = (n_slots, batch, size_px, size_px, 3)
        size = int(np.prod(shape))
        self.shape, self.n_slots, self.batch = shape, n_slots, batch
        self._memory: SharedMemory | None = None
        if shared:
            self._memory = _attached(name) if name else _reserved(size)
        # Not np.ndarray(buffer=...), under which the memory can be unmapped.
        buffer = None if self._memory is None else self._memory.buf
        flat = np.zeros(size, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)
        self.array: Picture = flat[:size].reshape(shape)

    @property
    def name(self) -> str:
        """Name under which other processes attach; empty for ordinary memory."""
        return "" if self._memory is None else self._memory.name

    def __getitem__(self, slot: int) -> Picture:
        images: Picture = self.array[slot]
        return images

    def close(self) -> None:
        """Delete the memory; arrays that still look into it stay valid until they are gone."""
        memory, self._memory = self._memory, None
        self.array = np.empty((0, *self.shape[1:]), np.uint8)
        if memory is None:
            return
        with contextlib.suppress(OSError):  # gone already
            memory.unlink()
        with contextlib.suppress(BufferError):
            memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _reserved(size: int) -> SharedMemory:
    """Create shared memory of which every page is there: without one, the process would be killed when it writes."""
    try:
        memory = _Memory(create=True, size=size)
    except OSError as error:
        raise SlideError(_too_small(size)) from error
    path = Path("/dev/shm", memory.name)  # noqa: S108 -- where Linux keeps it
    try:
        if hasattr(os, "posix_fallocate") and path.is_file():
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        memory.unlink()
        memory.close()
        raise SlideError(_too_small(size)) from error
    except BaseException:
        memory.unlink()
        raise
    return memory


def _attached(name: str) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return _Memory(name, track=False)
    # Python takes the memory for this process's own, and would delete it when the process ends.
    resource_tracker.register = lambda *_: None
    return _Memory(name)


def _too_small(size: int) -> str:
    return (
        f"There is no shared memory for {size / 2**20:,.0f} MB of patches; let threads read (reader_processes=0), "
        "choose a smaller max_batch, or give a container more of it (docker --shm-size)."
    )
