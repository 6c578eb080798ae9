"""Where a map may be coloured: on the tissue of its slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.geometry import Grid, Mpp
from napari_cpnn.settings import TissueSettings
from napari_cpnn.slides import Slide, TissueMask

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap

#: Pixels of an overlay along the side of a patch: as many as keep it below the largest size, so that it is painted in
#: some milliseconds.
_PIXELS = (16, 8, 4, 2, 1)
_MOST_PX = 400_000


def pixels_per_patch(grid: Grid) -> int:
    """Number of pixels of an overlay along each side of a patch of its map."""
    return next((n for n in _PIXELS if grid.n_cells * n * n <= _MOST_PX), 1)


def finer(grid: Grid, n: int) -> Grid:
    """Grid with ``n x n`` pixels in each patch."""
    return Grid((grid.shape[0] * n, grid.shape[1] * n), grid.stride_um / n, grid.origin_um)


def paintable_pixels(cmap: CompositionMap, n: int, slide: Slide | None) -> BoolArray:
    """Return which of the ``n x n`` pixels of each patch are on the slide and, where it is known, on its tissue.

    A pixel that is a whole patch (``n = 1``) has tissue where the map has.
    """
    grid, mpp = cmap.grid, None if slide is None else slide.mpp
    y, x = (
        np.asarray(o + (np.arange(n * k) + 0.5) * grid.stride_um / n, dtype=np.float64)
        for o, k in zip(grid.origin_um, grid.shape, strict=True)
    )
    return paintable(grid, y, x, slide, mpp, cmap.tissue_mask if n > 1 else None)


def paintable(
    grid: Grid, y: FloatArray, x: FloatArray, slide: Slide | None, mpp: Mpp | None, tissue: TissueMask | None
) -> BoolArray:
    """Return which places may be coloured: those on the slide and, where it is known, on its tissue.

    Patches in which ``tissue`` finds too little to map them, since other settings did, are kept whole.

    Parameters
    ----------
    grid
        Grid of the map.
    y, x
        Slide um of rows and columns of places.
    slide, mpp
        The slide and its pixel size; None: without bounds.
    tissue
        Its tissue; None: anywhere.

    Returns
    -------
    numpy.ndarray
        ``(len(y), len(x))`` bool.
    """
    allowed = np.ones((len(y), len(x)), dtype=bool)
    if slide is not None and mpp is not None:
        height, width = (n * um for n, um in zip(slide.shape[:2], mpp, strict=True))
        allowed &= ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    if tissue is not None:
        rows, cols = (
            np.clip((um / size).astype(np.intp), 0, n - 1)
            for um, size, n in zip((y, x), tissue.um_per_px, tissue.mask.shape, strict=True)
        )
        unfit = tissue.coverage(grid) < TissueSettings().min_coverage
        allowed &= tissue.drawn[np.ix_(rows, cols)] | on_patches(unfit, grid, y, x)
    return allowed


def on_patches(patches: BoolArray, grid: Grid, y: FloatArray, x: FloatArray) -> BoolArray:
    """Return which places (slide um of rows and columns) lie on some ``patches (rows, cols)`` of a grid."""
    cells = [np.floor((um - o) / grid.stride_um).astype(np.intp) for um, o in zip((y, x), grid.origin_um, strict=True)]
    (row, col), (rows, cols) = cells, grid.shape
    inside = ((row >= 0) & (row < rows))[:, None] & ((col >= 0) & (col < cols))
    return np.asarray(patches[np.ix_(row.clip(0, rows - 1), col.clip(0, cols - 1))] & inside)


def magnified(rgba: Float32Array, n: int, allowed: BoolArray, *, smooth: bool) -> Float32Array:
    """Draw a painted map with ``n x n`` pixels per patch for a canvas, clipped to where it may be coloured.

    Parameters
    ----------
    rgba
        ``(rows, cols, 4)``.
    allowed
        ``(rows n, cols n)`` bool.
    smooth
        Whether colours are interpolated between the centres of patches. Outside, alpha is then the negative of that
        inside, so that a linear texture filter reaches 0 exactly at the edge.

    Returns
    -------
    numpy.ndarray
        ``(rows n, cols n, 4)`` float32.
    """
    if n == 1:
        picture = rgba.copy()
    else:
        picture = _stretched(_stretched(rgba, n, 0), n, 1) if smooth else rgba.repeat(n, axis=0).repeat(n, axis=1)
    picture[..., 3] *= np.where(allowed, np.float32(1), np.float32(-1 if smooth else 0))
    return picture


def _stretched(values: Float32Array, n: int, axis: int) -> Float32Array:
    """Interpolate linearly to ``n`` values per value along an axis; beyond the outer centres they are constant."""
    values = np.moveaxis(values, axis, 0)
    result = np.empty((len(values) * n, *values.shape[1:]), dtype=np.float32)
    before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
    for k in range(n):
        share = np.float32((k + 0.5) / n - 0.5)
        other: npt.NDArray[np.float32] = before if share < 0 else after
        result[k::n] = values + (other - values) * abs(share)
    return np.moveaxis(result, 0, axis)
