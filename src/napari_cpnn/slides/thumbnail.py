"""Thumbnails of whole slides, read in bands to bound the memory whatever the levels are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_cpnn.slides.backends.base import Pixels

#: Maximum number of level pixels in memory; a scanner's coarsest level usually fits.
_BAND_PX = 2**24


class Levels(Protocol):
    """What is read of a :class:`~napari_cpnn.slides.slide.Slide`."""

    level_shapes: list[tuple[int, int]]
    dtype: np.dtype[np.generic]
    is_rgb: bool

    def read_shown(self, y: int, x: int, height: int, width: int, level: int = 0) -> Pixels: ...


def thumbnail(slide: Levels, max_px: int) -> npt.NDArray[np.uint8]:
    """Return a thumbnail; see :meth:`Slide.thumbnail`."""
    longest = max(slide.level_shapes[0])
    level = [i for i, shape in enumerate(slide.level_shapes) if max(shape) >= min(max_px, longest)][-1]
    height, width = slide.level_shapes[level]
    scale = min(1.0, max_px / max(height, width))
    rows, cols = max(1, round(height * scale)), max(1, round(width * scale))
    step = max(1, int(_BAND_PX / width * rows / height))
    bands = [(top, min(rows, top + step)) for top in range(0, rows, step)]

    def read() -> Iterator[tuple[int, int, float, Pixels]]:
        for top, bottom in bands:
            start, end = top * height / rows, bottom * height / rows
            y0 = math.floor(start)
            yield top, bottom, start - y0, slide.read_shown(y0, 0, math.ceil(end) - y0, width, level)

    brightest = 255.0 if slide.dtype == np.uint8 else max(_brightest(pixels) for *_, pixels in read()) or 1.0
    out = np.empty((rows, cols, 3), np.uint8)
    for top, bottom, start, pixels in read():
        picture = _as_rgb8(pixels, brightest, slide.is_rgb)
        if (rows, cols) != (height, width):
            box = (0, start, width, min(len(picture), start + (bottom - top) * height / rows))
            picture = np.asarray(
                Image.fromarray(picture).resize((cols, bottom - top), Image.Resampling.BOX, box=box), np.uint8
            )
        out[top:bottom] = picture
    return out


def _brightest(pixels: Pixels) -> float:
    """Return the largest finite value, at least 0."""
    return float(pixels.max(initial=0, where=np.isfinite(pixels)))


def _as_rgb8(pixels: Pixels, brightest: float, is_rgb: bool) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        scaled = np.nan_to_num(pixels.astype(np.float32) * np.float32(255.0 / brightest), nan=0.0)
        pixels = scaled.clip(0, 255).astype(np.uint8)
    if is_rgb:
        return pixels
    if pixels.ndim == 3:
        pixels = pixels.max(axis=2)
    return np.repeat(pixels[..., None], 3, axis=2)
