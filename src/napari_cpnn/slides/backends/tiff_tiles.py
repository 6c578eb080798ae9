"""Read tiles or strips of a TIFF by file offset, decode them with imagecodecs, and cache them."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import ByteLRU, Pixels, background_value, can_hold, over_white
from napari_cpnn.slides.backends.codestreams import declared_size, require_jpeg_end
from napari_cpnn.slides.backends.jpeg_reduced import FACTORS, LARGEST_TILE_PX, decode_reduced
from napari_cpnn.untrusted import reason_of

_RGB = 2  # value of the photometric tag
#: Values of the compression tag.
JPEG = frozenset((6, 7))
_NEW_JPEG = 7
_CACHE_BYTES = 64 * 2**20
#: Strips and tiles are decoded as a whole, so they must fit in memory.
MAX_TILE_BYTES = 2**31
#: How often tiles may share the same bytes of the file, as blank tiles do.
_MOST_SHARED = 20
_VIRTUAL_STRIP_BYTES = 2**18


class FileReader:
    """Thread-safe reads at an offset of one open file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        # A viewer may discard a layer without closing the slide.
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._parallel = hasattr(os, "pread")  # not available on Windows, where reads are serialised

    def read(self, offset: int, count: int) -> bytes:
        try:
            if self._parallel:
                return os.pread(self._file.fileno(), count, offset)
            with self._lock:
                self._file.seek(offset)
                return self._file.read(count)
        except (OSError, ValueError) as error:  # ValueError: the file was closed in the meantime
            raise SlideError(f"{self._path} can no longer be read ({error}).") from error

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class PlaneKind:
    """Meaning of the samples of a plane.

    Parameters
    ----------
    inverted
        Whether zero is white.
    colours
        Number of leading samples to show; ``None`` for all.
    alpha
        Index of the alpha sample.
    premultiplied
        Whether the colours are multiplied by alpha.
    """

    inverted: bool = False
    colours: int | None = None
    alpha: int | None = None
    premultiplied: bool = False

    @property
    def joined(self) -> PlaneKind:
        """Return the kind after separate samples are joined as colours followed by alpha."""
        return self if self.alpha is None else replace(self, alpha=self.colours)

    def shown(self, samples: Pixels) -> Pixels:
        """Return the displayed colours over white from all samples of a plane ``(h, w, samples)``."""
        if self.inverted:
            first = slice(0, self.colours)
            samples = samples.copy()
            samples[..., first] = np.iinfo(samples.dtype).max - samples[..., first]
        if self.alpha is not None:
            samples = samples[..., [*range(self.colours or 0), self.alpha]]
            return over_white(samples, premultiplied=self.premultiplied and not self.inverted)
        return samples if self.colours is None else np.ascontiguousarray(samples[..., : self.colours])


class Plane:
    """One page of a TIFF, or one separate sample of it, as a grid of tiles (a strip is a wide tile).

    Parameters
    ----------
    page
        Page of tifffile.
    file_bytes
        Size of the file, against which the declared sizes are checked.
    sample
        Index of the sample if samples are stored in separate planes.
    kind
        Meaning of the samples.
    """

    def __init__(self, page: Any, file_bytes: int, sample: int = 0, kind: PlaneKind | None = None) -> None:
        frame = page.keyframe
        self.kind = kind or PlaneKind()
        self._path = page.parent.filehandle.path
        self.shape = (int(frame.imagelength), int(frame.imagewidth))
        self.dtype = np.dtype(frame.dtype)
        self.tile = (
            (int(frame.tilelength), int(frame.tilewidth))
            if frame.is_tiled
            else (min(int(frame.rowsperstrip), self.shape[0]), self.shape[1])
        )
        if min(self.tile) < 1:
            raise SlideError(f"{self._path} is damaged: its tiles have no pixels.")
        self.samples = int(frame.samplesperpixel) if frame.planarconfig == 1 else 1
        self.separate = frame.planarconfig != 1
        self._grid_to(self.tile)
        count = self.grid[0] * self.grid[1]
        first = sample * count
        offsets, counts = page.dataoffsets[first : first + count], page.databytecounts[first : first + count]
        if len(offsets) < count or len(counts) < count:
            raise SlideError(f"{self._path} is damaged: its table of tiles is incomplete.")
        self._first = first
        self._offsets, self._counts = self._checked(offsets, counts, file_bytes, plain=frame.compression == 1)
        self._jpeg = int(frame.compression) in JPEG
        self._factors = self._jpeg_factors(frame)
        # As tifffile decides: without JFIF, components of an RGB page are not converted.
        self._are_rgb = int(frame.photometric) == _RGB and not frame.is_jfif
        self._decode: Callable[..., Any] = frame.decode
        self._tables = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
        self._raw: np.dtype[Any] | None = None
        self._split_uncompressed(frame)
        self.present = ((self._offsets > 0) & (self._counts > 0)).reshape(self.grid)

    @property
    def channels(self) -> int:
        """Samples per pixel of the result of :meth:`load`."""
        return self.samples if self.separate or self.kind.colours is None else self.kind.colours

    def _checked(
        self, offsets: Sequence[int], counts: Sequence[int], file_bytes: int, *, plain: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return tile offsets and byte counts; raise :class:`SlideError` if they exceed the size of the file."""
        path = self._path
        # Compared as floats, since values in damaged tables may overflow int64.
        places, sizes = np.asarray(offsets, np.float64), np.asarray(counts, np.float64)
        end = (places + sizes).max(initial=0)
        if end > file_bytes:
            raise SlideError(
                f"{path} is incomplete: it has {file_bytes:,} bytes but its tiles extend to "
                f"{end:{',.0f' if end < 2**63 else '.3g'}}; copy it again."
            )
        tile_bytes = self.tile[0] * self.tile[1] * self.samples * self.dtype.itemsize
        if tile_bytes > MAX_TILE_BYTES:
            raise SlideError(f"{path} has tiles of {tile_bytes / 2**30:,.1f} GB, too large to decode.")
        largest = int(sizes.max(initial=0))
        if largest and not (can_hold(2 * largest, tile_bytes, 1) if plain else can_hold(largest, tile_bytes)):
            raise SlideError(f"{path} is damaged: the declared size of its tiles exceeds what they can hold.")
        if sizes.sum() > _MOST_SHARED * file_bytes:
            raise SlideError(f"{path} is damaged: many of its tiles share the same place in the file.")
        return places.astype(np.int64), sizes.astype(np.int64)

    def _grid_to(self, tile: tuple[int, int]) -> None:
        self.tile = tile
        self.grid = (math.ceil(self.shape[0] / tile[0]), math.ceil(self.shape[1] / tile[1]))

    def _split_uncompressed(self, frame: Any) -> None:
        """Split uncompressed strips into bands of rows: a strip may be as large as the image."""
        row_bytes = self.shape[1] * self.samples * self.dtype.itemsize
        strip_rows, rows = self.tile[0], max(1, _VIRTUAL_STRIP_BYTES // row_bytes)
        plain = frame.compression == 1 and frame.predictor == 1 and frame.fillorder == 1
        if frame.is_tiled or not plain or strip_rows <= rows:
            return
        if len(self._offsets) > 1:  # no band may cross strips
            rows = next(r for r in range(rows, 0, -1) if strip_rows % r == 0)
        starts = np.arange(0, self.shape[0], rows)
        strip = starts // strip_rows
        present = (self._offsets[strip] > 0) & (self._counts[strip] > 0)
        self._offsets = np.where(present, self._offsets[strip] + (starts % strip_rows) * row_bytes, 0)
        self._counts = np.where(present, np.minimum(rows, self.shape[0] - starts) * row_bytes, 0)
        self._raw = np.dtype(frame.parent.byteorder + self.dtype.char)
        self._grid_to((rows, self.shape[1]))

    def _jpeg_factors(self, frame: Any) -> tuple[int, ...]:
        """Return the factors by which tiles can be shrunk while they are decoded."""
        plain = self.kind == PlaneKind() and frame.is_tiled and self.dtype == np.uint8 and self.samples == 3
        if not (plain and int(frame.compression) == _NEW_JPEG and self.tile[0] * self.tile[1] <= LARGEST_TILE_PX):
            return ()
        # Without remainder, so that pixels of neighbouring tiles join, and in an image of at least one pixel.
        return tuple(f for f in FACTORS if not any(n % f for n in self.tile) and min(self.shape) >= f)

    @property
    def factors(self) -> tuple[int, ...]:
        """Factors that :meth:`load` takes besides one."""
        return self._factors

    @property
    def end(self) -> int:
        """File offset after the last byte of pixel data."""
        return int((self._offsets + self._counts).max(initial=0))

    def load(self, file: FileReader, row: int, col: int, path: Path, factor: int = 1) -> Pixels:
        """Return the decoded tile ``(h, w, samples)``, shrunk by ``factor``, or background where the file has none."""
        index = row * self.grid[1] + col
        if not self.present[row, col]:
            white = np.asarray(background_value(self.dtype), self.dtype)
            return np.broadcast_to(white, (self.tile[0] // factor, self.tile[1] // factor, self.channels))
        count = int(self._counts[index])
        data = file.read(int(self._offsets[index]), count)
        try:
            tile = self._decoded(data, index, count, factor)
        except Exception as error:  # decoders raise various exceptions on damaged data
            y, x = row * self.tile[0], col * self.tile[1]
            raise SlideError(
                f"{path} cannot be read at row {y}, column {x} of a level with {self.shape[1]} x {self.shape[0]} px "
                f"({reason_of(error)}); the file may be damaged."
            ) from error
        return tile if self.separate else self.kind.shown(tile)

    def _decoded(self, data: bytes, index: int, count: int, factor: int) -> Pixels:
        if len(data) < count:
            raise ValueError("the file is truncated")
        if self._raw is not None:
            values = np.frombuffer(data, self._raw).astype(self.dtype, copy=False)
            return values.reshape(-1, self.shape[1], self.samples)
        if self._jpeg:
            require_jpeg_end(data)
        self._require_size(data)
        if factor > 1:
            small = decode_reduced(data, self._tables["jpegtables"], self.tile, factor, are_rgb=self._are_rgb)
            if small is not None:
                return small
        segment, _, _ = self._decode(data, self._first + index, **self._tables)
        tile: Pixels = segment[0]
        return tile if factor == 1 else _mean(tile, factor)

    def _require_size(self, data: bytes) -> None:
        """Check the declared size of a compressed tile; the last strip may be shorter or padded."""
        size = declared_size(data)
        if size is not None and size[0] * size[1] > 4 * self.tile[0] * self.tile[1] + 2**20:
            raise ValueError(f"a tile declares {size[1]} x {size[0]} px")


def _mean(tile: Pixels, factor: int) -> Pixels:
    """Return the means of ``factor`` x ``factor`` pixels of a tile ``(h, w, samples)`` uint8."""
    rows, cols = (n // factor for n in tile.shape[:2])
    blocks = tile[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor, -1)
    total = blocks.sum(axis=(1, 3), dtype=np.uint32)
    small: Pixels = ((total + factor**2 // 2) // factor**2).astype(tile.dtype)
    return small


class TileReader:
    """Read regions of all levels of a file, assembled from cached tiles.

    Parameters
    ----------
    path
        Path of the file.
    levels
        Planes of each level; their samples are concatenated along the last axis.
    channels
        Samples per pixel of the result.
    """

    def __init__(self, path: Path, levels: list[list[Plane]], channels: int) -> None:
        self._path = path
        self._levels = levels
        self._channels = channels
        self._cache = ByteLRU(_CACHE_BYTES)
        self._file = FileReader(path)

    def factors(self, level: int) -> tuple[int, ...]:
        """Return the factors by which :meth:`read` can shrink a level while it is decoded."""
        planes = self._levels[level]
        return planes[0].factors if len(planes) == 1 else ()

    def read(self, level: int, y: int, x: int, height: int, width: int, factor: int = 1) -> Pixels:
        """Read a box, in pixels of the level that is shrunk by ``factor``, see :meth:`factors`."""
        parts = [
            self._read_plane((level, p, factor), plane, y, x, height, width)
            for p, plane in enumerate(self._levels[level])
        ]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        first = self._levels[level][0]
        if first.separate:
            pixels = first.kind.joined.shown(pixels)
        return pixels[..., 0] if self._channels == 1 else pixels

    def _read_plane(self, key: tuple[int, int, int], plane: Plane, y: int, x: int, height: int, width: int) -> Pixels:
        tile_h, tile_w = plane.tile[0] // key[2], plane.tile[1] // key[2]
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
            raise ValueError("an empty region was requested")
        return out

    def _tile(self, key: tuple[int, int, int], plane: Plane, row: int, col: int) -> Pixels:
        tile = self._cache.get((*key, row, col))
        if tile is None:
            tile = plane.load(self._file, row, col, self._path, key[2])
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
