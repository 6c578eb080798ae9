"""Levels of a slide: valid levels of its file, and overviews computed on demand if the file has none."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import ByteLRU, Pixels, ReducingSource, Source, background_value
from napari_cpnn.untrusted import reading

#: Overviews are added until the longer side of the coarsest level is at most this.
COARSEST_SIDE_PX = 2048
#: Chunk side of all levels.
CHUNK_PX = 512
#: Levels whose pixels differ by less than this in size are the same.
_SAME = 1.05
_OVERVIEW_CACHE_BYTES = 32 * 2**20
# Around unreadable places, the readable parts are read in boxes of this side.
_DAMAGE_PX = 128
_DAMAGE_GREY = 128
# Every unreadable place costs time. After this many failures, boxes are no longer searched for readable parts, and if
# nothing was readable so far, the slide is considered unreadable.
_MOST_FAILURES = 64


def true_levels(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the indices of the levels that are smaller copies of level 0, finest first.

    Levels with another aspect ratio (a label, a macro image, a cropped thumbnail) are excluded; any rounding of the
    sides is tolerated.
    """
    kept = [0]
    height, width = shapes[0]
    for index, (h, w) in enumerate(shapes[1:], start=1):
        last_h, last_w = shapes[kept[-1]]
        if min(h, w) < 1 or h >= last_h or w >= last_w:
            continue
        scale = math.sqrt((height / h) * (width / w))
        if abs(height / scale - h) <= max(1.5, 0.005 * h) and abs(width / scale - w) <= max(1.5, 0.005 * w):
            kept.append(index)
    return kept


def downsample_of(base: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float]:
    """Return level-0 pixels per level pixel ``(y, x)``: the integer that explains both sides, else their ratios."""
    ratios = base[0] / shape[0], base[1] / shape[1]
    whole = max(1, round(math.sqrt(ratios[0] * ratios[1])))
    if all(math.floor(b / whole) <= s <= math.ceil(b / whole) for b, s in zip(base, shape, strict=True)):
        return float(whole), float(whole)
    return ratios


class Pyramid:
    """Levels of a source, followed by overviews, each the mean of 2 x 2 pixels of the previous level.

    Overviews are computed chunk by chunk with bounded memory, and each level caches its latest chunks. Unreadable
    places are grey in overviews, so that a damaged tile does not make the overview fail.
    """

    def __init__(self, source: Source, label: object = "the slide") -> None:
        self.source = source
        self._reducing = source if isinstance(source, ReducingSource) else None
        self._label = label
        self.n_file_levels = len(source.info.level_shapes)
        self.shapes = overview_shapes(source.info.level_shapes)
        base = self.shapes[0]
        known = source.info.downsamples
        self.downsamples = [downsample_of(base, shape) for shape in self.shapes]
        if known:
            steps = (2.0**n for n in range(1, 1 + len(self.shapes) - len(known)))
            self.downsamples = [*known, *((known[-1][0] * step, known[-1][1] * step) for step in steps)]
        n_overviews = len(self.shapes) - self.n_file_levels
        self._caches = [ByteLRU(_OVERVIEW_CACHE_BYTES) for _ in range(n_overviews)]
        # Each chunk is computed by one thread. Locks are acquired from coarse to fine, which prevents deadlocks.
        self._locks = [[threading.Lock() for _ in range(16)] for _ in range(n_overviews)]
        self.is_damaged = False
        self._n_read = self._n_failed = 0

    def read(self, level: int, y: int, x: int, height: int, width: int, factor: int = 1) -> Pixels:
        """Read a box of pixels inside a level, shrunk by ``factor``, see :meth:`places`.

        Raises
        ------
        SlideError
            If it cannot be read.
        """
        if level < self.n_file_levels:
            with reading(self._label, SlideError, "the file may be damaged."):
                if factor == 1 or self._reducing is None:
                    pixels = self.source.read(level, y, x, height, width)
                else:
                    pixels = self._reducing.read_reduced(level, factor, y, x, height, width)
            self._n_read += 1
            return pixels
        info = self.source.info
        tail = () if info.channels == 1 else (info.channels,)
        out = np.empty((height, width, *tail), info.dtype)
        for row in range(y // CHUNK_PX, (y + height - 1) // CHUNK_PX + 1):
            for col in range(x // CHUNK_PX, (x + width - 1) // CHUNK_PX + 1):
                chunk = self._overview_chunk(level, row, col)
                top, left = row * CHUNK_PX, col * CHUNK_PX
                y0, y1 = max(y, top), min(y + height, top + chunk.shape[0])
                x0, x1 = max(x, left), min(x + width, left + chunk.shape[1])
                out[y0 - y : y1 - y, x0 - x : x1 - x] = chunk[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def places(self) -> list[tuple[int, int]]:
        """Return level and factor of every level that can be had, finest first, and each in the cheapest way.

        Between levels of the file, and in place of overviews, are levels that are shrunk while they are decoded.
        """
        found = [(level, 1) for level in range(self.n_file_levels)]
        for level in range(self.n_file_levels if self._reducing is not None else 0):
            following = self._down(level + 1, 1) if level + 1 < self.n_file_levels else math.inf
            found += [(level, f) for f in self._factors(level) if self._down(level, f) * _SAME < following]
        coarsest = max(self._down(*place) for place in found)
        found += [(n, 1) for n in range(self.n_file_levels, len(self.shapes)) if self._down(n, 1) > coarsest * _SAME]
        return sorted(found, key=lambda place: self._down(*place))

    def _down(self, level: int, factor: int) -> float:
        return max(self.downsamples[level]) * factor

    def _factors(self, level: int) -> tuple[int, ...]:
        return () if self._reducing is None else self._reducing.factors(level)

    def read_shown(self, level: int, y: int, x: int, height: int, width: int, factor: int = 1) -> Pixels:
        """Read as :meth:`read`, but return grey for unreadable pixels and set :attr:`is_damaged`."""
        try:
            return self.read(level, y, x, height, width, factor)
        except SlideError:
            self._n_failed += 1
            if self._n_failed > _MOST_FAILURES and not self._n_read:
                raise
            if max(height, width) <= _DAMAGE_PX or self._n_failed > _MOST_FAILURES:
                self.is_damaged = True
                return self._filled(_DAMAGE_GREY, height, width)
        if height >= width:
            cut = height // 2
            boxes = ((y, x, cut, width), (y + cut, x, height - cut, width))
        else:
            cut = width // 2
            boxes = ((y, x, height, cut), (y, x + cut, height, width - cut))
        return np.concatenate([self.read_shown(level, *box, factor) for box in boxes], axis=0 if height >= width else 1)

    def _overview_chunk(self, level: int, row: int, col: int) -> Pixels:
        number = level - self.n_file_levels
        with self._locks[number][(row * 4 + col) % 16]:
            return self._locked_chunk(self._caches[number], level, row, col)

    def _locked_chunk(self, cache: ByteLRU, level: int, row: int, col: int) -> Pixels:
        chunk = cache.get((row, col))
        if chunk is None:
            shape, finer = self.shapes[level], self.shapes[level - 1]
            y, x = row * CHUNK_PX, col * CHUNK_PX
            h, w = min(CHUNK_PX, shape[0] - y), min(CHUNK_PX, shape[1] - x)
            box = (2 * y, 2 * x, min(2 * h, finer[0] - 2 * y), min(2 * w, finer[1] - 2 * x))
            blank = self._is_blank(level - 1, *box)
            white = background_value(self.source.info.dtype)
            chunk = self._filled(white, h, w) if blank else halve(self.read_shown(level - 1, *box))
            cache.put((row, col), chunk)
        return chunk

    def _is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        """Return whether a box is background in the finest file level from which it is computed."""
        last = self.n_file_levels - 1
        times = 2 ** max(0, level - last)
        rows, cols = self.shapes[min(level, last)]
        y, x, height, width = y * times, x * times, height * times, width * times
        return self.source.is_blank(min(level, last), y, x, min(height, rows - y), min(width, cols - x))

    def _filled(self, value: int, height: int, width: int) -> Pixels:
        info = self.source.info
        tail = () if info.channels == 1 else (info.channels,)
        if np.issubdtype(info.dtype, np.integer):
            value = min(value, int(np.iinfo(info.dtype).max))
        return np.broadcast_to(np.asarray(value, info.dtype), (height, width, *tail))

    def close(self) -> None:
        for cache in self._caches:
            cache.clear()
        self.source.close()


def overview_shapes(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ``shapes`` and those of the overviews to add, each half the previous one, rounded up."""
    out = list(shapes)
    while max(out[-1]) > COARSEST_SIDE_PX and min(out[-1]) > 1:
        out.append((math.ceil(out[-1][0] / 2), math.ceil(out[-1][1] / 2)))
    return out


def halve(pixels: Pixels) -> Pixels:
    """Return the mean of 2 x 2 pixels, rounded to nearest; a last odd row or column counts twice."""
    odd = (pixels.shape[0] % 2, pixels.shape[1] % 2)
    if any(odd):
        pixels = np.pad(pixels, [(0, odd[0]), (0, odd[1])] + [(0, 0)] * (pixels.ndim - 2), mode="edge")
    exact = np.issubdtype(pixels.dtype, np.integer)
    wide = np.uint16 if pixels.dtype == np.uint8 else np.int64 if exact else pixels.dtype
    rows = np.add(pixels[0::2], pixels[1::2], dtype=wide)
    total = np.add(rows[:, 0::2], rows[:, 1::2], dtype=wide)
    mean: Pixels = ((total + 2) // 4 if exact else total / 4).astype(pixels.dtype)
    return mean
