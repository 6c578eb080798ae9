"""Crop slides to their scanned part, which MRXS, SCN and others declare in ``openslide.bounds-*``.

QuPath shows only that part, and its exported coordinates start at its corner. Slides here do the same throughout. As in
QuPath, levels keep the downsamples of the full slide, and their sides are rounded down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from napari_cpnn.slides.pyramid import downsample_of

_NAMES = tuple(f"openslide.bounds-{name}" for name in ("y", "x", "height", "width"))


@dataclass(frozen=True)
class Crop:
    """A box in level-0 pixels."""

    y: int
    x: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height} px from {self.x}, {self.y}"


def crop_of(properties: Mapping[str, str], shape: tuple[int, int]) -> Crop | None:
    """Return OpenSlide's bounds of a slide of ``shape`` (height, width); ``None`` if they cover all of it.

    >>> names = ("y", "x", "height", "width")
    >>> crop_of({f"openslide.bounds-{n}": v for n, v in zip(names, ("30", "20", "500", "700"))}, (5000, 4000))
    Crop(y=30, x=20, height=500, width=700)
    """
    try:
        y, x, height, width = (int(properties[name]) for name in _NAMES)
    except (KeyError, ValueError):
        return None
    bottom, right = min(y + height, shape[0]), min(x + width, shape[1])
    y, x = max(y, 0), max(x, 0)
    if bottom <= y or right <= x or (y, x, bottom, right) == (0, 0, *shape):
        return None
    return Crop(y, x, bottom - y, right - x)


def cropped_levels(
    crop: Crop, shapes: Sequence[tuple[int, int]]
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[float, float], ...]]:
    """Return shapes and downsamples of a cropped slide's levels, finest first, omitting levels below one pixel.

    Parameters
    ----------
    shapes
        ``(height, width)`` of the levels of the full slide.
    """
    kept_shapes, kept_downsamples = [], []
    for shape in shapes:
        down = downsample_of(shapes[0], shape)
        height, width = math.floor(crop.height / down[0]), math.floor(crop.width / down[1])
        if min(height, width) < 1:
            break
        kept_shapes.append((height, width))
        kept_downsamples.append(down)
    return tuple(kept_shapes), tuple(kept_downsamples)
