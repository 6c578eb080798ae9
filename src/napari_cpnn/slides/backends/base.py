"""Interface of backends: a :class:`Source` of pixels, or the reason why a file is refused."""

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


#: Only damaged files declare longer sides: 75 mm of glass at 0.1 um are 750,000 px.
MAX_SIDE_PX = 2**21

#: Maximum plausible compression ratio. Deflate reaches 1,032, JPEG about 500.
MAX_GROWTH = 2000
#: Images and tiles below this size are not checked, since decoding them is cheap.
SMALL_BYTES = 2**26


class Refused(Exception):  # noqa: N818  (not an error: the next backend is asked)
    """Raised when a backend does not open a file.

    Parameters
    ----------
    reason
        Short clause for the error message.
    then
        Names of the backends that may still try; ``None`` for all.
    """

    def __init__(self, reason: str, then: tuple[str, ...] | None = None) -> None:
        super().__init__(reason)
        self.then = then


@dataclass(frozen=True)
class SourceInfo:
    """Facts about a file that are known without reading pixels.

    Parameters
    ----------
    level_shapes
        ``(height, width)`` of each level, finest first; only downsampled copies of the first.
    channels
        Samples per pixel. With one, the arrays are ``(Y, X)``, otherwise ``(Y, X, channels)``.
    dtype
        Type of the pixels.
    rgb
        Whether the channels are red, green and blue.
    pixel_sizes
        Candidates for the pixel size at level 0, best first: origin in the file, and um per pixel ``(y, x)``.
    properties
        Facts for display. Never anything that may identify a patient (labels, bar codes, file names at the scanner).
    orientation
        TIFF / EXIF orientation, 1 to 8, which is not applied; see :mod:`napari_cpnn.slides.orientation`.
    downsamples
        Level-0 pixels per pixel ``(y, x)`` of each level, if known more precisely than the ratio of the sides.
    view
        Shown part of the file, if not all of it as stored; part of the slide's identity.
    """

    level_shapes: tuple[tuple[int, int], ...]
    channels: int = 3
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    rgb: bool = True
    pixel_sizes: tuple[tuple[str, Mpp], ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    orientation: int = 1
    downsamples: tuple[tuple[float, float], ...] = ()
    view: str = ""


@runtime_checkable
class Source(Protocol):
    """An open file. Implementations are thread-safe and composite alpha over white themselves."""

    info: SourceInfo

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Read a box of pixels inside a level; raise :class:`SlideError` if it cannot be read."""

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        """Return whether a box is known to be background without decoding it."""

    def close(self) -> None:
        """Release the file handles."""


@runtime_checkable
class ReducingSource(Source, Protocol):
    """A source that can decode a level at a half, a quarter or an eighth of its size for less than the whole."""

    def factors(self, level: int) -> tuple[int, ...]:
        """Return the factors by which a level can be shrunk, in ascending order; empty if it cannot."""

    def read_reduced(self, level: int, factor: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Read as :meth:`read`, in pixels of the level that is shrunk by ``factor``."""


class Backend(Protocol):
    """Backend that opens slide files; see :mod:`napari_cpnn.slides.backends`."""

    name: str

    def rank(self, path: Path, head: bytes) -> int:
        """Rate the suitability by file name and first bytes: 0 for unsuitable, the highest is tried first."""

    def open(self, path: Path) -> Source:
        """Open a file; :class:`Refused` lets the next backend try, :class:`SlideError` ends the search."""


def background_value(dtype: np.dtype[Any]) -> int:
    """Return the value of empty pixels: white in 8 bit, zero in fluorescence and other depths."""
    return 255 if dtype == np.uint8 else 0


def over_white(pixels: Pixels, *, premultiplied: bool = False) -> Pixels:
    """Composite ``(h, w, n + 1)`` uint8 with alpha last over white, giving ``(h, w, n)`` uint8.

    Parameters
    ----------
    pixels
        RGB or grey, with alpha.
    premultiplied
        Whether the colours are already multiplied by alpha ("associated alpha").
    """
    alpha = pixels[..., -1:]
    if alpha.size == 0 or alpha.min() == 255:
        return np.ascontiguousarray(pixels[..., :-1])
    a = alpha.astype(np.uint16)
    if premultiplied:
        return np.minimum(pixels[..., :-1] + (255 - a), 255).astype(np.uint8)
    mixed = (pixels[..., :-1] * a + 255 * (255 - a) + 127) // 255
    return mixed.astype(np.uint8)


def can_hold(n_bytes: int, declared_bytes: float, growth: float = MAX_GROWTH) -> bool:
    """Return whether the stored bytes can plausibly decompress to the declared size."""
    return declared_bytes <= SMALL_BYTES or declared_bytes <= n_bytes * growth


class ByteLRU:
    """A thread-safe LRU cache of arrays, bounded in bytes; the newest array is always kept, whatever its size."""

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
