"""Slide layers of any reader: which layers qualify, the slide behind a layer, and transforms to its micrometres."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import Grid, LayerFrame, Mpp, Rect, is_plausible_mpp
from napari_cpnn.slides import Slide, open_slide

if TYPE_CHECKING:
    from napari.layers import Layer

PATH_KEY = "slide_path"
"""Path of a slide in ``layer.metadata`` (a sample has no ``layer.source.path``)."""

FILE_KEY = "picture_path"
"""Path of a picture that napari's own reader opened, in ``layer.metadata`` of the pyramid that replaced it."""

OVERLAY_KEY = "napari_cpnn_overlay"
"""Marks the layers of a map in ``layer.metadata``."""

SMALL_KEY = "small_copy_of_slide"
"""Marks Space Ranger's small picture of a slide, which shows where spots lie and is too coarse to map."""

LENS_KEY = "napari_cpnn_lens"
"""Marks the layer of the lens, which is a picture of the slide but not a slide."""

MEASURE_KEY = "napari_cpnn_measurements"
"""Marks the Shapes layer of measured distances and areas, which are not regions."""

BINS_KEY = "napari_cpnn_bins"
"""Marks the layer of a picture of measured bins, a pixel each, which is not a slide; holds their lattice."""

UNSIZED_KEY = "pixel_size_unknown"
"""Marks a slide of unknown pixel size that is in micrometres only to be in one unit with other layers."""

#: A longer side (px) than this is too much for one texture: napari is slow with it, some graphics drivers crash.
LARGEST_TEXTURE = 4096

#: The images of these points determine an affine map.
_FRAME = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))


def is_slide_layer(layer: Layer) -> bool:
    """Return whether a layer can be a slide: a two-dimensional RGB(A) image of integers."""
    if (
        not getattr(layer, "rgb", False)
        or layer.ndim != 2
        or {SMALL_KEY, LENS_KEY, OVERLAY_KEY, BINS_KEY} & set(layer.metadata)
    ):
        return False
    return np.issubdtype(np.dtype(level_arrays(layer)[0].dtype), np.integer)


def level_arrays(layer: Layer) -> list[Any]:
    """Return the levels of a slide layer, finest first; a single image has one level."""
    return list(layer.data) if layer.multiscale else [layer.data]


def path_of(layer: Layer) -> Path | None:
    """Return the file behind a layer if it is known and exists; a folder (of spots, or Zarr) is not a slide file."""
    source = layer.metadata.get(PATH_KEY) or layer.metadata.get(FILE_KEY) or getattr(layer.source, "path", None)
    return Path(source) if source and Path(source).exists() else None


def mpp_of_layer(layer: Layer) -> Mpp | None:
    """Return the pixel size from a layer's scale if its units are lengths and the result is plausible."""
    if UNSIZED_KEY in layer.metadata and np.allclose(layer.scale, 1.0):
        return None
    try:
        factors = [float((1.0 * unit).to("micrometer").magnitude) for unit in layer.units[-2:]]
    except (ValueError, AttributeError, TypeError):  # pint's DimensionalityError is a TypeError: units are pixels
        return None
    scale = np.abs(np.asarray(layer.scale, dtype=float))[-2:] * factors
    mpp = (float(scale[0]), float(scale[1]))
    return mpp if is_plausible_mpp(mpp) else None


def is_in_pixels(layer: Layer) -> bool:
    """Return whether the units of a layer are not lengths."""
    try:
        return not float((1.0 * layer.units[-1]).to("micrometer").magnitude) > 0
    except (ValueError, AttributeError, TypeError):  # as in mpp_of_layer
        return True


def slide_of_layer(layer: Layer, mpp: Mpp | None = None) -> Slide:
    """Return the :class:`~napari_cpnn.slides.Slide` behind a layer; may read from disk, so call it in a worker thread.

    The file is opened if it is known and holds the same image; otherwise pixels are read from the layer's arrays.

    Parameters
    ----------
    mpp
        Pixel size; by default that of the layer, which the scale bar shows, and then that of the file.

    Raises
    ------
    SlideError
        When neither the file nor the layer's arrays can be used.
    """
    levels = level_arrays(layer)
    path = path_of(layer)
    if path is not None:
        try:
            slide = open_slide(path, mpp=mpp or mpp_of_layer(layer))
        except SlideError:
            slide = None  # only another plugin can read the file: use its arrays
        if slide is not None and slide.shape[:2] == tuple(levels[0].shape[:2]):
            return slide
        if slide is not None:
            slide.close()
    arrays = [_opaque(as_dask(level)) for level in levels]
    return Slide.from_arrays(arrays, mpp or mpp_of_layer(layer), name=layer.name)


def over_white(rgba: Any) -> Any:
    """Return the colours ``(..., 3)`` of pixels ``(..., 3 or 4)`` from 0 to 255 over a white ground, as decimals."""
    if rgba.shape[-1] == 3:
        return rgba
    alpha = rgba[..., 3:4].astype(np.float32) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def _opaque(level: da.Array) -> da.Array:
    """Return the three colours of a level of whole numbers; transparent pixels are white, as glass is."""
    if level.shape[-1] == 3 or level.dtype != np.uint8:
        opaque: da.Array = level[..., :3]
        return opaque
    return map_colors(level, lambda block: np.rint(over_white(block)).astype(np.uint8))


def map_colors(level: Any, convert: Callable[[Any], Any]) -> da.Array:
    """Return a level in ``(Y, X, 3)`` bytes by a function of its blocks, with all channels in each."""
    whole = level.rechunk({2: -1})
    made: da.Array = whole.map_blocks(convert, dtype=np.uint8, chunks=(*level.chunks[:2], (3,)))
    return made


def as_dask(level: Any) -> da.Array:
    """Return the array of a level as a dask array, without reading it."""
    if isinstance(level, da.Array):
        return level
    inner = getattr(level, "data", None)  # of an xarray.DataArray, as in napari-spatialdata
    if isinstance(inner, da.Array):
        return inner
    has_colors = level.ndim > 2 and level.shape[-1] in (3, 4)
    tail = (512, 512, -1) if has_colors else (512, 512)
    chunks = (1,) * (level.ndim - len(tail)) + tail
    wrapped: da.Array = da.from_array(level, chunks=chunks)  # type: ignore[no-untyped-call]
    return wrapped


def world_to_um(layer: Layer, mpp: Mpp, world: FloatArray) -> FloatArray:
    """Transform world ``(N, 2)`` to slide micrometres ``(N, 2)``, both (y, x), for any transform of the layer."""
    um: FloatArray = (_through(layer.world_to_data, np.atleast_2d(world)) + 0.5) * np.asarray(mpp)
    return um


def um_to_world(layer: Layer, mpp: Mpp, um: FloatArray) -> FloatArray:
    """Transform slide micrometres ``(N, 2)`` to world ``(N, 2)``, both (y, x)."""
    return _through(layer.data_to_world, np.atleast_2d(um) / np.asarray(mpp) - 0.5)


def _through(transform: Callable[..., Any], points: FloatArray) -> FloatArray:
    """Apply an affine transform to points; many are mapped at once by the matrix that three of them determine."""
    if len(points) <= len(_FRAME):
        return np.array([transform(point)[-2:] for point in points]).reshape(-1, 2)
    origin, down, right = (np.asarray(transform(point))[-2:] for point in _FRAME)
    return np.asarray(points @ np.stack([down - origin, right - origin]) + origin)


def world_bounds_um(layer: Layer, mpp: Mpp, corner: FloatArray, opposite: FloatArray) -> Rect:
    """Return the bounds in slide um of a world rectangle (they differ if the layer is rotated)."""
    corners = np.array([corner, (corner[0], opposite[1]), opposite, (opposite[0], corner[1])])
    um = world_to_um(layer, mpp, corners)
    low, high = um.min(axis=0), um.max(axis=0)
    return Rect(float(low[0]), float(low[1]), float(high[0]), float(high[1]))


def grid_transform(layer: Layer, mpp: Mpp, grid: Grid) -> dict[str, Any]:
    """Return the keywords that place an image with one pixel per patch of ``grid`` over a slide layer.

    These are ``scale`` and ``translate``, or an ``affine`` if the slide layer is rotated or sheared.
    """
    frame = LayerFrame(_pair(layer.scale), _pair(layer.translate), mpp)
    scale, translate = frame.grid_transform(grid)
    if _is_plain(layer):
        return {"scale": scale, "translate": translate, "affine": np.eye(3)}
    first, down, right = um_to_world(layer, mpp, grid.centers_um([(0, 0), (1, 0), (0, 1)]))
    affine = np.eye(3)
    affine[:2, 0], affine[:2, 1], affine[:2, 2] = down - first, right - first, first
    return {"scale": (1.0, 1.0), "translate": (0.0, 0.0), "affine": affine}


def _pair(values: Any) -> tuple[float, float]:
    return float(values[-2]), float(values[-1])


def _is_plain(layer: Layer) -> bool:
    plain = np.diag([*_pair(layer.scale), 1.0])
    plain[:2, 2] = _pair(layer.translate)
    actual = np.array([layer.data_to_world(p)[-2:] for p in _FRAME])
    expected = np.array([(plain @ (*p, 1.0))[:2] for p in _FRAME])
    return bool(np.allclose(actual, expected, rtol=1e-9, atol=1e-9))
