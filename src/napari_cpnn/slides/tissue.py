"""Detect tissue: a mask at low resolution, and the share of tissue in each patch of a grid.

Stained tissue is coloured and, at 16 um per pixel, rough (nuclei, fibres, membranes). Glass, shadows, black backgrounds
and black ink are neutral at any brightness; smears of eosin around a section are coloured but smooth; other inks have
colours that haematoxylin and eosin do not have. A pixel is therefore tissue if it is rough and at least faintly
coloured (which includes pale fat), or strongly coloured. The threshold of roughness adapts to the noise of the glass,
and that of strong colour is Otsu's (IEEE Trans. SMC 9, 62-66, 1979); both are bounded, so that no tissue is found on an
empty slide.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array
from napari_cpnn.errors import NoTissueError, PixelSizeError
from napari_cpnn.geometry import Mpp
from napari_cpnn.settings import TissueSettings
from napari_cpnn.slides.backends.base import Pixels
from napari_cpnn.slides.slide import Slide
from napari_cpnn.slides.tissue_mask import TissueMask

# Bounds of Otsu's colour threshold in multiples of the least saturation: lower includes smears, higher loses pale
# tissue.
_STRONG = (3.0, 4.0)
# Roughness (deviation of green from its surroundings, 0..1): multiple of the roughness of glass, and bounds.
_ROUGH_OVER_GLASS, _ROUGH = 3.0, (0.012, 0.04)
# Minimum share of magenta in the darkness of a structure: eosin has about 1/2, haematoxylin 1/4, dust none.
_MIN_MAGENTA = 0.3
_FINE_UM, _COARSE_UM = 24.0, 32.0
# Membranes of fat cells within this distance are connected.
_CLOSE_UM, _SHRINK_UM = 64.0, 24.0
# Neutral pixels darker than this (0 to 1) are black: background, ink or dirt.
_BLACK = 0.25
# Bare glass in white-balanced light: the darkest channel at least, and the difference of channels at most.
_BARE_LIGHT, _BARE_CHROMA = 0.93, 0.04
_MIN_INK_UM2 = 10_000.0
_INK_RIM_UM = 48.0
# Rows processed at once by a thread: small enough for the CPU cache, and to bound the memory.
_BAND_ROWS = 128
_READ_ROWS = 512
# Filters are truncated at this many standard deviations.
_TRUNCATE = 4.0
_THREADS = min(4, os.cpu_count() or 1)
# Larger pictures take seconds. At 24 um instead of 16, 95 to 99.6 % of the mapped patches of the available slides stay
# the same; at 32 um still 85 (a region of 1 mm) to 99 %.
_MANY_PX = 4_500_000


def find_tissue(slide: Slide, settings: TissueSettings | None = None) -> TissueMask:
    """Detect the tissue of a slide.

    Parameters
    ----------
    slide
        RGB slide, 8 bit, with a pixel size.
    settings
        Resolution (up to twice as coarse on slides longer than about 34 mm), thresholds and areas.

    Raises
    ------
    NoTissueError
        If no tissue is found.
    SlideError, PixelSizeError
        If the slide cannot be mapped, or read.

    Examples
    --------
    >>> from napari_cpnn.slides import find_tissue
    >>> tissue = find_tissue(slide)
    >>> tissue.mask.shape, tissue.um_per_px
    ((375, 375), (16.0, 16.0))
    """
    settings = settings or TissueSettings()
    slide.require_mappable()
    picture, um_per_px = _overview(slide, _target_mpp(slide, settings))
    mask = tissue_of(picture, um_per_px, settings)
    if not mask.any():
        raise NoTissueError(
            f"No stained tissue was found on {slide.label}; if there is some, lower the minimum saturation of tissue "
            f"(now {settings.min_saturation}) or the minimum area ({settings.min_area_um2:,.0f} um2)."
        )
    return TissueMask(mask, um_per_px, _bare_rim(picture, mask))


def _bare_rim(picture: Pixels, mask: BoolArray) -> BoolArray:
    """Return the pixels of a mask that are glass and reach its outside over glass alone; holes stay in the mask."""
    from scipy import ndimage

    planes = np.ascontiguousarray(np.moveaxis(picture, 2, 0))
    light = [table[plane] for table, plane in zip(_white_balance(planes), planes, strict=True)]
    darkest = np.minimum(np.minimum(light[0], light[1]), light[2])
    lightest = np.maximum(np.maximum(light[0], light[1]), light[2])
    glass = (darkest > _BARE_LIGHT) & (lightest - darkest < _BARE_CHROMA)
    outside, edge = ~mask, np.ones(mask.shape, bool)
    edge[1:-1, 1:-1] = False
    reached = ndimage.binary_propagation(outside | (edge & glass), mask=outside | glass)
    return np.asarray(reached & mask)


@dataclass(frozen=True, eq=False)
class Overview:
    """A slide at the resolution of its tissue mask, for quality control.

    Attributes
    ----------
    picture
        ``(rows, cols, 3)`` uint8.
    um_per_px
        Size of its pixels in micrometres, ``(y, x)``.
    tissue, ink
        ``(rows, cols)`` bool: stained tissue, and strokes of coloured pens.
    """

    picture: Pixels
    um_per_px: Mpp
    tissue: BoolArray
    ink: BoolArray


def overview_of(slide: Slide, settings: TissueSettings | None = None) -> Overview:
    """Return a slide at low resolution with its tissue and its pen; errors as of :func:`find_tissue`, if none is found.

    Examples
    --------
    >>> from napari_cpnn.slides import overview_of
    >>> overview = overview_of(slide)
    >>> overview.tissue.shape == overview.picture.shape[:2], bool(overview.ink.any())
    (True, False)
    """
    settings = settings or TissueSettings()
    slide.require_mappable()
    picture, um_per_px = _overview(slide, _target_mpp(slide, settings))
    ink = _signs_of(picture, um_per_px, settings.min_saturation).ink
    ink = _drop_small(ink, _MIN_INK_UM2 / (um_per_px[0] * um_per_px[1]))
    return Overview(picture, um_per_px, tissue_of(picture, um_per_px, settings), ink)


def _target_mpp(slide: Slide, settings: TissueSettings) -> float:
    """Return the pixel size to use: as requested, or up to twice that on very large slides to save time."""
    mpp = slide.require_mappable()
    area_um2 = slide.shape[0] * mpp[0] * slide.shape[1] * mpp[1]
    return min(max(settings.mpp, math.sqrt(area_um2 / _MANY_PX)), 2 * settings.mpp)


def _overview(slide: Slide, target_mpp: float) -> tuple[Pixels, Mpp]:
    """Return the slide as block means of its best level, near ``target_mpp``; read in bands."""
    mpp = slide.mpp
    if mpp is None:
        raise PixelSizeError(f"The pixel size of {slide.label} is unknown, so tissue cannot be detected.")
    fits = [i for i, d in enumerate(slide.downsamples) if max(mpp[0] * d[0], mpp[1] * d[1]) <= target_mpp * 1.05]
    level = fits[-1] if fits else 0
    down = slide.downsamples[level]
    size = mpp[0] * down[0], mpp[1] * down[1]
    factors = tuple(max(1, round(target_mpp / s)) for s in size)
    height, width = slide.level_shapes[level]
    rows, cols = math.ceil(height / factors[0]), math.ceil(width / factors[1])
    out = np.empty((rows, cols, 3), np.uint8)

    def fill(top: int, bottom: int) -> None:
        y0, y1 = top * factors[0], min(bottom * factors[0], height)
        band = slide.read_shown(y0, 0, y1 - y0, width, level)
        # Partial blocks in the last row and column are padded by repeating the edge.
        missing = (bottom - top) * factors[0] - (y1 - y0), cols * factors[1] - width
        band = np.pad(band, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        by_row = band.reshape(bottom - top, factors[0], cols * factors[1], 3).sum(axis=1, dtype=np.uint32)
        total = by_row[:, :: factors[1]].copy()
        for offset in range(1, factors[1]):
            total += by_row[:, offset :: factors[1]]
        out[top:bottom] = np.rint(total / np.float32(factors[0] * factors[1])).astype(np.uint8)

    _in_bands(fill, rows, max(1, _READ_ROWS // factors[0]))
    return out, (size[0] * factors[0], size[1] * factors[1])


def _in_bands(work: Callable[[int, int], None], rows: int, step: int) -> None:
    """Call ``work(top, bottom)`` for bands of ``step`` rows in several threads (filters release the GIL)."""
    tops = range(0, rows, step)
    with ThreadPoolExecutor(min(_THREADS, len(tops)), "napari-cpnn tissue") as pool:
        for done in [pool.submit(work, top, min(rows, top + step)) for top in tops]:
            done.result()


def tissue_of(picture: Pixels, um_per_px: Mpp, settings: TissueSettings) -> BoolArray:
    """Return the tissue mask of a low-resolution RGB picture ``(rows, cols, 3)`` uint8; see the module docstring."""
    signs = _signs_of(picture, um_per_px, settings.min_saturation)
    px_um2 = um_per_px[0] * um_per_px[1]
    # The rim of a stroke is pale ink over white, which resembles tissue.
    ink = _grown(_drop_small(signs.ink, _MIN_INK_UM2 / px_um2), um_per_px, _INK_RIM_UM)
    bare = ink | signs.black
    mask = _coloured(signs, settings.min_saturation) & ~bare
    # Beyond the edge of the slide it goes on as at the edge: else glass between tissue and edge would be filled.
    rows, cols = (math.ceil((_CLOSE_UM + _SHRINK_UM) / um) for um in um_per_px)
    mask = _grown(np.pad(mask, ((rows, rows), (cols, cols)), mode="edge"), um_per_px, _CLOSE_UM)
    mask = ~_grown(~mask, um_per_px, _CLOSE_UM + _SHRINK_UM)[rows:-rows, cols:-cols] & ~bare
    mask = ~_drop_small(~mask, settings.max_hole_um2 / px_um2) & ~ink
    return _drop_small(mask, settings.min_area_um2 / px_um2)


@dataclass(frozen=True)
class _Signs:
    """Local features of each pixel; all ``(rows, cols)``."""

    saturation: Float32Array
    rough: Float32Array
    magenta: BoolArray  # whether dark structures are magenta
    glass: BoolArray
    ink: BoolArray  # ink-coloured pixels, in pieces of any size
    black: BoolArray


def _signs_of(picture: Pixels, um_per_px: Mpp, floor: float) -> _Signs:
    planes = np.ascontiguousarray(np.moveaxis(picture, 2, 0))
    tables = _white_balance(planes)
    shape = picture.shape[:2]
    signs = _Signs(
        saturation=np.empty(shape, np.float32),
        rough=np.empty(shape, np.float32),
        magenta=np.empty(shape, bool),
        glass=np.empty(shape, bool),
        ink=np.empty(shape, bool),
        black=np.empty(shape, bool),
    )
    # Reach of two filters in sequence.
    halo = _reach(_FINE_UM / um_per_px[0]) + _reach(_COARSE_UM / um_per_px[0])

    def fill(top: int, bottom: int) -> None:
        low, high = max(0, top - halo), min(shape[0], bottom + halo)
        light = np.stack([table[plane[low:high]] for table, plane in zip(tables, planes, strict=True)])
        mine = slice(top - low, bottom - low)
        for name, values in _band_signs(light, um_per_px, floor).items():
            getattr(signs, name)[top:bottom] = values[mine]

    _in_bands(fill, shape[0], _BAND_ROWS)
    return signs


def _band_signs(light: Float32Array, um_per_px: Mpp, floor: float) -> dict[str, npt.NDArray[np.generic]]:
    """Compute the fields of :class:`_Signs` for ``light`` ``(3, rows, cols)``, 0..1."""
    calm = _blurred(light, um_per_px, _FINE_UM / 2)
    saturation = _saturation(_blurred(light, um_per_px, _COARSE_UM))
    red, green, blue = light
    deviation = green - _blurred(green, um_per_px, _FINE_UM)
    rough = np.sqrt(_blurred(deviation**2, um_per_px, _COARSE_UM).clip(0))
    # Membranes of fat cells are thin: the mean colour around them is pale, but they are pink themselves.
    darkness = np.maximum(-deviation, 0)
    magenta = (red + blue) / 2 - green
    magenta_share = _blurred(darkness * magenta, um_per_px, _COARSE_UM) / np.maximum(
        _blurred(darkness**2, um_per_px, _COARSE_UM), 1e-6
    )
    return {
        "saturation": saturation,
        "rough": rough,
        "magenta": magenta_share > _MIN_MAGENTA,
        "glass": (saturation < floor / 2) & (green > 0.7),
        "ink": _is_inky(calm),
        "black": (_lightest(calm) < _BLACK) & (_chroma(calm) < 0.12),
    }


def _coloured(signs: _Signs, floor: float) -> BoolArray:
    """Return rough and faintly coloured, or strongly coloured pixels."""
    glass = signs.rough[signs.glass]
    noise = float(np.median(glass)) if glass.size else 0.0
    is_rough = signs.rough > np.clip(_ROUGH_OVER_GLASS * noise, *_ROUGH)
    saturation = signs.saturation
    is_coloured = (saturation > floor) | ((saturation > floor / 2) & signs.magenta)
    strong = float(np.clip(_otsu(saturation), _STRONG[0] * floor, _STRONG[1] * floor))
    coloured: BoolArray = (is_rough & is_coloured) | (saturation > strong)
    return coloured


def _reach(sigma: float) -> int:
    """Return half the width of a Gaussian filter in pixels."""
    return int(_TRUNCATE * sigma + 0.5)


def _blurred(values: Float32Array, um_per_px: Mpp, sigma_um: float) -> Float32Array:
    from scipy import ndimage

    sigma = [0.0] * (values.ndim - 2) + [sigma_um / um for um in um_per_px]
    result: Float32Array = ndimage.gaussian_filter(values, sigma, truncate=_TRUNCATE)
    return result


def _lightest(light: Float32Array) -> Float32Array:
    lightest: Float32Array = np.maximum(np.maximum(light[0], light[1]), light[2])
    return lightest


def _darkest(light: Float32Array) -> Float32Array:
    darkest: Float32Array = np.minimum(np.minimum(light[0], light[1]), light[2])
    return darkest


def _chroma(light: Float32Array) -> Float32Array:
    return _lightest(light) - _darkest(light)


def _saturation(light: Float32Array) -> Float32Array:
    return np.asarray(_chroma(light) / np.maximum(_lightest(light), 1e-3), dtype=np.float32)


def _grown(mask: BoolArray, um_per_px: Mpp, radius_um: float) -> BoolArray:
    """Dilate a mask by a radius, measured between pixel centres."""
    reach = int(radius_um / um_per_px[0] + 1e-9)
    grown, wide, width = mask.copy(), mask.copy(), 0
    # From the disc's upper and lower ends inwards, where it widens.
    for dy in range(reach, -1, -1):
        half = int(math.sqrt(max(0.0, radius_um**2 - (dy * um_per_px[0]) ** 2)) / um_per_px[1] + 1e-9)
        for dx in range(width + 1, half + 1):
            wide[:, dx:] |= mask[:, : -dx or None]
            wide[:, :-dx] |= mask[:, dx:]
        width = half
        if dy:
            grown[dy:] |= wide[:-dy]
            grown[:-dy] |= wide[dy:]
        else:
            grown |= wide
    return grown


def _white_balance(planes: Pixels) -> Float32Array:
    """Return the white-balanced light 0..1 of the 256 values of each channel of ``planes`` (uint8), ``(3, 256)``.

    The colour of bare glass becomes white; nothing changes if the picture shows no glass.
    """
    light = np.tile(np.arange(256, dtype=np.float32) / np.float32(255.0), (3, 1))
    bright = _darkest(planes)
    glass = planes[:, (bright > 0.7 * 255) & (_lightest(planes) - bright < 0.12 * 255)]
    if glass.shape[1] < 0.005 * bright.size:
        return light
    # The brightest half is certainly glass; pale tissue is darker.
    brightness = glass.sum(axis=0, dtype=np.uint16)
    surely = glass[:, brightness >= np.median(brightness)]
    white = np.asarray([np.median(channel) for channel in surely], np.float32) / np.float32(255.0)
    balanced: Float32Array = np.minimum(light / white[:, None], np.float32(1.0))
    return balanced


def _is_inky(light: Float32Array) -> BoolArray:
    """Return pixels with colours of markers that haematoxylin and eosin do not have."""
    red, green, blue = light
    saturation = _saturation(light)
    cold = (green > red + 0.08) & (saturation > 0.15)  # green, cyan, blue: tissue is about equally transparent to red
    violet = (saturation > 0.65) & (blue > red * 1.3)
    warm = (saturation > 0.6) & (blue - green < 0.15 * _chroma(light)) & (red > 0.55)
    inky: BoolArray = cold | violet | warm
    return inky


def _drop_small(mask: BoolArray, min_px: float) -> BoolArray:
    """Remove connected components (8 neighbours) of fewer than ``min_px`` pixels."""
    from scipy import ndimage

    labels, n = ndimage.label(mask, structure=np.ones((3, 3), bool))
    if not n:
        return mask
    keep = np.bincount(labels.ravel()) >= min_px
    keep[0] = False
    kept: BoolArray = keep[labels]
    return kept


def _otsu(values: Float32Array) -> float:
    """Return Otsu's threshold: the split of the histogram with the largest between-class variance."""
    from skimage.filters import threshold_otsu

    if not values.size or float(np.ptp(values)) == 0:
        return float("inf")
    return float(threshold_otsu(values))  # type: ignore[no-untyped-call]
