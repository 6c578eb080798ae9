"""The own tiles or strips of a TIFF file, read by offset, decoded by imagecodecs, kept in a small cache."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import ByteLRU, Pixels, Refused, background_value, over_white, require_jpeg_end

#: Values of the compression tag.
JPEG = frozenset((6, 7))
_CACHE_BYTES = 64 * 2**20
#: A strip or tile is decoded as a whole, so it has to fit in memory.
_MAX_TILE_BYTES = 2**31
_VIRTUAL_STRIP_BYTES = 2**18
# imagecodecs raises RuntimeError and ValueError subclasses; tifffile its own error, and the others on odd data.
_DECODE_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, tifffile.TiffFileError, NotImplementedError)


class FileReader:
    """Bytes at an offset of one open file, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        # A viewer drops a layer without closing the slide behind it.
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._parallel = hasattr(os, "pread")  # not on Windows, where one seek and read at a time has to do

    def read(self, offset: int, count: int) -> bytes:
        try:
            if self._parallel:
                return os.pread(self._file.fileno(), count, offset)
            with self._lock:
                self._file.seek(offset)
                return self._file.read(count)
        except (OSError, ValueError) as error:  # ValueError: the file was closed meanwhile
            raise SlideError(f"{self._path} can no longer be read ({error}).") from error

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class PlaneKind:
    """What the samples of a plane mean."""

    inverted: bool = False
    alpha: bool = False


class Plane:
    """One page of a TIFF, or one separate sample of it, as a grid of tiles (a strip is a wide tile)."""

    def __init__(self, page: Any, sample: int = 0, kind: PlaneKind | None = None) -> None:
        frame = page.keyframe
        self.kind = kind or PlaneKind()
        self.shape = (int(frame.imagelength), int(frame.imagewidth))
        self.dtype = np.dtype(frame.dtype)
        self.tile = (
            (int(frame.tilelength), int(frame.tilewidth))
            if frame.is_tiled
            else (min(int(frame.rowsperstrip), self.shape[0]), self.shape[1])
        )
        self.samples = int(frame.samplesperpixel) if frame.planarconfig == 1 else 1
        if self.tile[0] * self.tile[1] * self.samples * self.dtype.itemsize > _MAX_TILE_BYTES:
            raise Refused("a single strip or tile of it is too large to decode")
        self._grid_to(self.tile)
        count = self.grid[0] * self.grid[1]
        first = sample * count
        offsets = np.asarray(page.dataoffsets[first : first + count], np.int64)
        counts = np.asarray(page.databytecounts[first : first + count], np.int64)
        if len(offsets) < count or len(counts) < count:
            raise Refused("its table of tiles is incomplete")
        self._first = first
        self._offsets, self._counts = offsets, counts
        self._jpeg = int(frame.compression) in JPEG
        self._decode: Callable[..., Any] = frame.decode
        self._tables = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
        self._raw: np.dtype[Any] | None = None
        self._split_uncompressed(frame)
        self.present = ((self._offsets > 0) & (self._counts > 0)).reshape(self.grid)

    def _grid_to(self, tile: tuple[int, int]) -> None:
        self.tile = tile
        self.grid = (math.ceil(self.shape[0] / tile[0]), math.ceil(self.shape[1] / tile[1]))

    def _split_uncompressed(self, frame: Any) -> None:
        """Uncompressed strips are often as large as the image; bands of rows within them can be read one by one."""
        row_bytes = self.shape[1] * self.samples * self.dtype.itemsize
        strip_rows, rows = self.tile[0], max(1, _VIRTUAL_STRIP_BYTES // row_bytes)
        plain = frame.compression == 1 and frame.predictor == 1 and frame.fillorder == 1
        if frame.is_tiled or not plain or strip_rows <= rows:
            return
        if len(self._offsets) > 1:  # no band may cross from one strip into the next
            rows = next(r for r in range(rows, 0, -1) if strip_rows % r == 0)
        starts = np.arange(0, self.shape[0], rows)
        strip = starts // strip_rows
        present = (self._offsets[strip] > 0) & (self._counts[strip] > 0)
        self._offsets = np.where(present, self._offsets[strip] + (starts % strip_rows) * row_bytes, 0)
        self._counts = np.where(present, np.minimum(rows, self.shape[0] - starts) * row_bytes, 0)
        self._raw = np.dtype(frame.parent.byteorder + self.dtype.char)
        self._grid_to((rows, self.shape[1]))

    @property
    def end(self) -> int:
        """Offset after the last byte of pixel data."""
        return int((self._offsets + self._counts).max(initial=0))

    def load(self, file: FileReader, row: int, col: int, path: Path) -> Pixels:
        """The decoded tile ``(h, w, samples)``, background where the file has none."""
        index = row * self.grid[1] + col
        if not self.present[row, col]:
            tail = 3 if self.kind.alpha else self.samples
            white = np.asarray(background_value(self.dtype), self.dtype)
            return np.broadcast_to(white, (*self.tile, tail))
        count = int(self._counts[index])
        data = file.read(int(self._offsets[index]), count)
        try:
            if len(data) < count:
                raise ValueError("the file ends too early")
            if self._raw is not None:
                values = np.frombuffer(data, self._raw).astype(self.dtype, copy=False)
                tile = values.reshape(-1, self.shape[1], self.samples)
            else:
                if self._jpeg:
                    require_jpeg_end(data)
                segment, _, _ = self._decode(data, self._first + index, **self._tables)
                tile = segment[0]
        except _DECODE_ERRORS as error:
            y, x = row * self.tile[0], col * self.tile[1]
            raise SlideError(
                f"{path} cannot be read at row {y}, column {x} of a level with {self.shape[1]} x {self.shape[0]} px "
                f"({error}); the file may be damaged."
            ) from error
        if self.kind.inverted:
            tile = np.iinfo(self.dtype).max - tile
        return over_white(tile) if self.kind.alpha else tile


class TileReader:
    """Regions of all levels of one file, put together from cached tiles.

    Parameters
    ----------
    path
        The file.
    levels
        For each level its planes; their samples are put one after the other along the last axis.
    channels
        Samples per pixel of what is returned.
    """

    def __init__(self, path: Path, levels: list[list[Plane]], channels: int) -> None:
        self._path = path
        self._levels = levels
        self._channels = channels
        self._cache = ByteLRU(_CACHE_BYTES)
        self._file = FileReader(path)

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        parts = [
            self._read_plane((level, p), plane, y, x, height, width) for p, plane in enumerate(self._levels[level])
        ]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return pixels[..., 0] if self._channels == 1 else pixels

    def _read_plane(self, key: tuple[int, int], plane: Plane, y: int, x: int, height: int, width: int) -> Pixels:
        tile_h, tile_w = plane.tile
        out: Pixels | None = None
        for row in range(y // tile_h, (y + height - 1) // tile_h + 1):
            for col in range(x // tile_w, (x + width - 1) // tile_w + 1):
                tile = self._tile(key, plane, row, col)
                top, left = row * tile_h, col * tile_w
                y0, y1 = max(y, top), min(y + height, top + tile_h)
                x0, x1 = max(x, left), min(x + width, left + tile_w)
                if out is None:
                    out = np.empty((height, width, tile.shape[-1]), tile.dtype)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        if out is None:
            raise ValueError("an empty region was asked for")
        return out

    def _tile(self, key: tuple[int, int], plane: Plane, row: int, col: int) -> Pixels:
        tile = self._cache.get((*key, row, col))
        if tile is None:
            tile = plane.load(self._file, row, col, self._path)
            if plane.present[row, col]:
                self._cache.put((*key, row, col), tile)
        return tile

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        for plane in self._levels[level]:
            rows = slice(y // plane.tile[0], (y + height - 1) // plane.tile[0] + 1)
            cols = slice(x // plane.tile[1], (x + width - 1) // plane.tile[1] + 1)
            if plane.present[rows, cols].any():
                return False
        return True

    def close(self) -> None:
        self._cache.clear()
        self._file.close()
