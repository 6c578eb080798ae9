"""Blend a painted map with the tissue image, as napari's canvas does."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_cpnn.arrays import Float32Array, FloatArray, IntArray, Picture
from napari_cpnn.geometry import Grid, Mpp, Rect
from napari_cpnn.slides import Slide

#: Rows of the picture, and pixels of the slide, in memory at a time.
_BAND_ROWS = 128
_BAND_PX = 2**24

#: Distance of hatching lines on paper, and their colour: dark grey, which no colour map and no stain uses.
_HATCH_MM = 0.8
_HATCH_COLOR = (70, 70, 70)


def tissue_picture(slide: Slide, mpp: Mpp, rect: Rect, shape: tuple[int, int]) -> Picture:
    """Resample a rectangle of a slide to a picture of any size, white outside the slide.

    It is read from the coarsest level with at least the resolution of the picture, band by band, so that memory is
    bounded whatever the size of the slide.

    Parameters
    ----------
    slide
        An RGB slide of 8 bits.
    mpp
        Micrometres per level-0 pixel ``(y, x)``.
    rect
        Slide micrometres.
    shape
        ``(rows, cols)`` of the picture.

    Returns
    -------
    numpy.ndarray
        ``(rows, cols, 3)`` uint8; pixel ``i`` covers its part of ``rect``, edge to edge.
    """
    rows, cols = shape
    # Level-0 pixels per picture pixel.
    steps = rect.height / rows / mpp[0], rect.width / cols / mpp[1]
    fits = [i for i, down in enumerate(slide.downsamples) if max(down) <= 1.01 * min(steps)]
    level = max(fits, default=0)
    down = slide.downsamples[level]
    left, width = rect.x0 / mpp[1] / down[1], rect.width / mpp[1] / down[1]
    step = steps[0] / down[0]
    top = rect.y0 / mpp[0] / down[0]
    band = max(1, min(rows, int(_BAND_PX / max(width, 1) / step)))
    # Support of the filter beyond the edge of a band.
    margin = math.ceil(max(step, steps[1] / down[1])) + 1
    out = np.empty((rows, cols, 3), dtype=np.uint8)
    x0, x1 = math.floor(left) - margin, math.ceil(left + width) + margin
    for start in range(0, rows, band):
        stop = min(start + band, rows)
        first, last = top + start * step, top + stop * step
        y0, y1 = math.floor(first) - margin, math.ceil(last) + margin
        pixels = slide.read_shown(y0, x0, y1 - y0, x1 - x0, level)[..., :3]
        size, box = (cols, stop - start), (left - x0, first - y0, left + width - x0, last - y0)
        out[start:stop] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=box))
    return out


def lay_over(
    picture: Picture,
    rgba: Float32Array,
    grid: Grid,
    rect: Rect,
    opacity: float,
    *,
    smooth: bool,
    mask: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Blend a painted map into a picture of the tissue, in place.

    Parameters
    ----------
    picture
        ``(rows, cols, 3)`` of ``rect``.
    rgba
        ``(rows, cols, 4)`` in 0 to 1, one pixel per patch of ``grid``.
    grid, rect
        Positions of map and picture, in slide micrometres.
    opacity
        Overall opacity of the map.
    smooth
        Whether colours are interpolated between the centres of patches, as a linear texture filter does.
    mask
        ``(rows, cols)`` bool: where the map is visible.
    """
    n_rows, n_cols = picture.shape[:2]
    y = rect.y0 + (np.arange(n_rows) + 0.5) * rect.height / n_rows
    x = rect.x0 + (np.arange(n_cols) + 0.5) * rect.width / n_cols
    rows, cols = _places(y, grid, 0, smooth), _places(x, grid, 1, smooth)
    for start in range(0, n_rows, _BAND_ROWS):
        part = slice(start, min(start + _BAND_ROWS, n_rows))
        painted = np.zeros((part.stop - start, n_cols, 4), dtype=np.float32)
        for row, row_weight in rows:
            for col, col_weight in cols:
                weight = row_weight[part, None] * col_weight[None]
                painted += rgba[row[part, None], col[None]] * weight[..., None].astype(np.float32)
        alpha = painted[..., 3:] * np.float32(opacity)
        inside = _inside(y[part], grid, 0)[:, None] & _inside(x, grid, 1)[None]
        alpha *= (inside if mask is None else inside & mask[part])[..., None]
        mixed = picture[part] * (1 - alpha) + 255 * np.clip(painted[..., :3], 0, 1) * alpha
        picture[part] = np.rint(mixed).astype(np.uint8)


def hatch(
    picture: Picture,
    marked: npt.NDArray[np.bool_],
    grid: Grid,
    rect: Rect,
    dpi: int,
    mask: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Draw diagonal lines over the marked patches of a picture, in place.

    Parameters
    ----------
    picture, grid, rect, mask
        As for :func:`lay_over`.
    marked
        ``(rows, cols)`` bool, patches of ``grid``.
    dpi
        Pixels per inch of the picture; lines are 0.8 mm apart.
    """
    n_rows, n_cols = picture.shape[:2]
    y = rect.y0 + (np.arange(n_rows) + 0.5) * rect.height / n_rows
    x = rect.x0 + (np.arange(n_cols) + 0.5) * rect.width / n_cols
    ((rows, _),), ((cols, _),) = _places(y, grid, 0, False), _places(x, grid, 1, False)
    period = max(4, round(_HATCH_MM / 25.4 * dpi))
    for start in range(0, n_rows, _BAND_ROWS):
        part = slice(start, min(start + _BAND_ROWS, n_rows))
        line = (np.arange(n_rows)[part, None] + np.arange(n_cols)) % period < max(1, period // 4)
        drawn = line & marked[rows[part, None], cols[None]]
        drawn &= _inside(y[part], grid, 0)[:, None] & _inside(x, grid, 1)[None]
        if mask is not None:
            drawn &= mask[part]
        picture[part][drawn] = _HATCH_COLOR


def _places(um: FloatArray, grid: Grid, axis: int, smooth: bool) -> list[tuple[IntArray, FloatArray]]:
    """Indices of patches along an axis that determine the colour at points, and their weights."""
    cell, last = (um - grid.origin_um[axis]) / grid.stride_um, grid.shape[axis] - 1
    if not smooth:
        return [(np.clip(np.floor(cell), 0, last).astype(np.intp), np.ones(len(um)))]
    centre = np.clip(cell - 0.5, 0, last)
    first = np.floor(centre).astype(np.intp)
    share = centre - first
    return [(first, 1 - share), (np.minimum(first + 1, last), share)]


def _inside(um: FloatArray, grid: Grid, axis: int) -> npt.NDArray[np.bool_]:
    low = grid.origin_um[axis]
    return np.asarray((um >= low) & (um < low + grid.shape[axis] * grid.stride_um))
