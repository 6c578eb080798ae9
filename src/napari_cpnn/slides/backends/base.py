"""What a backend gives to a slide: a :class:`Source` of pixels, or the reason why it refuses the file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_cpnn.geometry import Mpp

Pixels = npt.NDArray[Any]


class Refused(Exception):  # noqa: N818  (not an error: the next backend is asked)
    """A backend does not open this file; the message is a short clause that says why."""


@dataclass(frozen=True)
class SourceInfo:
    """What is known about a file without reading pixels.

    Parameters
    ----------
    level_shapes
        ``(height, width)`` of each resolution, finest first; only true downsamples of the first.
    channels
        Samples per pixel. With one, the arrays are ``(Y, X)``, otherwise ``(Y, X, channels)``.
    dtype
        Of the pixels.
    rgb
        Whether the channels are red, green and blue.
    pixel_sizes
        Claims about the pixel size at level 0, best first: where it is written, and um per pixel ``(y, x)``.
    properties
        Harmless facts to show. Never anything that may name a patient (labels, bar codes, file names at the scanner).
    orientation
        TIFF / EXIF orientation 1 to 8 that has still to be applied.
    """

    level_shapes: tuple[tuple[int, int], ...]
    channels: int = 3
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    rgb: bool = True
    pixel_sizes: tuple[tuple[str, Mpp], ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    orientation: int = 1


@runtime_checkable
class Source(Protocol):
    """An open file. Implementations are thread-safe and apply alpha over white themselves."""

    info: SourceInfo

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Pixels of a box that lies inside the level; :class:`SlideError` when they cannot be read."""

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        """Whether the box is known to be background without decoding it."""

    def close(self) -> None:
        """Release the file handles."""


class Backend(Protocol):
    """A way to open files; see :mod:`napari_cpnn.slides.backends`."""

    name: str

    def rank(self, path: Path, head: bytes) -> int:
        """How well the file suits, by its name and first bytes: 0 not at all, the highest is asked first."""

    def open(self, path: Path) -> Source:
        """The open file; :class:`Refused` lets the next backend try, :class:`SlideError` ends the search."""


def background_value(dtype: np.dtype[Any]) -> int:
    """What stands for "nothing here": white in 8 bit, zero in fluorescence and other depths."""
    return 255 if dtype == np.uint8 else 0


def over_white(rgba: Pixels) -> Pixels:
    """``(h, w, 4)`` uint8 with straight alpha -> ``(h, w, 3)`` uint8 on white."""
    alpha = rgba[..., 3:]
    if alpha.size == 0 or alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    a = alpha.astype(np.uint16)
    mixed = (rgba[..., :3] * a + 255 * (255 - a) + 127) // 255
    return mixed.astype(np.uint8)


def require_jpeg_end(data: bytes) -> None:
    """Decoders fill what is missing of a JPEG with grey and say nothing; :class:`ValueError` says it instead."""
    if data.startswith(b"\xff\xd8") and data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0:
        raise ValueError("the JPEG data end too early")


class ByteLRU:
    """A thread-safe cache of arrays, bounded in bytes; the newest array is kept even when it alone is larger."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._bytes = 0
        self._items: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Pixels | None:
        with self._lock:
            value = self._items.get(key)
            if value is not None:
                self._items.move_to_end(key)
            return value

    def put(self, key: Hashable, value: Pixels) -> None:
        with self._lock:
            old = self._items.pop(key, None)
            self._bytes += value.nbytes - (0 if old is None else old.nbytes)
            self._items[key] = value
            while self._bytes > self._max and len(self._items) > 1:
                self._bytes -= self._items.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._items.clear()
            self._bytes = 0
