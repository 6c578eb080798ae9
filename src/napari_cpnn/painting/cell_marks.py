"""Pictures of single cells: their outlines or dots, in colours of their own, drawn with NumPy only.

A layer of shapes or points takes longer with each cell; a picture of the view takes the same time to move, however many
cells are in it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Int64Array, IntArray, Picture

#: Colour of the margin around lines and dots, which keeps them apart from stain of a like colour.
_MARGIN_RGBA = (255, 255, 255, 130)
_OPAQUE = 255
_OWNER = npt.NDArray[np.int32]


def outline_picture(
    vertices_px: npt.NDArray[np.floating[Any]], starts: Int64Array, colors: Picture, shape: tuple[int, int], width: int
) -> Picture:
    """Draw closed outlines with a light margin.

    Parameters
    ----------
    vertices_px
        ``(V, 2)`` pixels (y, x) of one outline after another; pixel ``i`` covers ``[i, i + 1)``.
    starts
        ``(N + 1,)``: outline ``i`` has the vertices ``starts[i]:starts[i + 1]``.
    colors
        ``(N, 4)`` uint8 RGBA.
    shape
        Height and width of the picture.
    width
        Width of the lines in pixels.

    Returns
    -------
    numpy.ndarray
        ``(height, width, 4)`` uint8, transparent where there is no line.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.painting import outline_picture
    >>> square = np.array([[2.5, 2.5], [2.5, 7.5], [7.5, 7.5], [7.5, 2.5]])
    >>> red = np.array([[255, 0, 0, 255]], np.uint8)
    >>> picture = outline_picture(square, np.array([0, 4]), red, (10, 10), 1)
    >>> picture[2, 5].tolist(), picture[5, 5].tolist()
    ([255, 0, 0, 255], [0, 0, 0, 0])
    """
    owner = np.zeros(shape, dtype=np.int32)
    if len(starts) > 1:
        places, of = _along(np.asarray(vertices_px, dtype=np.float64), starts)
        pixels = np.floor(places - (width - 1) / 2).astype(np.int64)
        for dy in range(width):
            for dx in range(width):
                _put(owner, pixels + np.array([dy, dx]), of)
    return _in_color(owner, colors)


def dot_picture(
    centers_px: npt.NDArray[np.floating[Any]], radius: float, colors: Picture, shape: tuple[int, int]
) -> Picture:
    """Draw discs with a light margin; parameters and result as of :func:`outline_picture`.

    Parameters
    ----------
    centers_px
        ``(N, 2)`` pixels (y, x).
    radius
        Radius of the discs in pixels.
    """
    owner = np.zeros(shape, dtype=np.int32)
    reach = math.ceil(radius)
    pixels = np.floor(np.asarray(centers_px, dtype=np.float64).reshape(-1, 2)).astype(np.int64)
    of = np.arange(1, len(pixels) + 1, dtype=np.int32)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if math.hypot(dy, dx) <= radius:
                _put(owner, pixels + np.array([dy, dx]), of)
    return _in_color(owner, colors)


def _along(vertices: npt.NDArray[np.float64], starts: Int64Array) -> tuple[npt.NDArray[np.float64], _OWNER]:
    """Places along all closed outlines, at most a pixel apart, and the number from 1 of the outline of each."""
    sizes = np.diff(starts)
    following = np.arange(1, len(vertices) + 1)
    following[starts[1:] - 1] = starts[:-1]
    along = vertices[following] - vertices
    steps = np.maximum(np.ceil(np.abs(along).max(axis=1)), 1).astype(np.int64)
    ends = np.cumsum(steps)
    within = np.arange(ends[-1]) - np.repeat(ends - steps, steps)
    share = (within / np.repeat(steps, steps))[:, None]
    of = np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes)
    return np.repeat(vertices, steps, axis=0) + share * np.repeat(along, steps, axis=0), np.repeat(of, steps)


def _put(owner: _OWNER, pixels: IntArray | Int64Array, of: _OWNER) -> None:
    height, width = owner.shape
    y, x = pixels.T
    inside = (y >= 0) & (x >= 0) & (y < height) & (x < width)
    owner.reshape(-1)[y[inside] * width + x[inside]] = of[inside]


def _in_color(owner: _OWNER, colors: Picture) -> Picture:
    """Colour each pixel as what it belongs to, and the pixels beside what is opaque as a margin."""
    table = np.zeros((len(colors) + 2, 4), dtype=np.uint8)
    table[1:-1], table[-1] = colors, _MARGIN_RGBA
    drawn, solid = owner > 0, (table[:, 3] == _OPAQUE)[owner]
    beside = np.zeros_like(drawn)
    beside[1:] |= solid[:-1]
    beside[:-1] |= solid[1:]
    beside[:, 1:] |= solid[:, :-1]
    beside[:, :-1] |= solid[:, 1:]
    owner[beside & ~drawn] = len(colors) + 1
    return table[owner]
