"""Where the tissue is: a mask at low resolution, and the share of tissue in each cell of a grid.

Stained tissue is coloured and, at 16 um per pixel, rough: nuclei, fibres, membranes. Glass, shadows, black
backgrounds and black ink are neutral, whatever their brightness; smears of eosin around a section are coloured but
smooth; other inks have colours that haematoxylin and eosin do not have. So a pixel is tissue when it is rough and at
least faintly coloured (which keeps pale fat), or strongly coloured. The threshold of roughness adapts to the noise of
the glass, that of strong colour is Otsu's (IEEE Trans. SMC 9, 62-66, 1979); both are held within bounds, so that a
slide without tissue gets none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import NoTissueError, PixelSizeError
from napari_cpnn.geometry import Grid, Mpp
from napari_cpnn.settings import TissueSettings
from napari_cpnn.slides.backends.base import Pixels
from napari_cpnn.slides.slide import Slide

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

# Bounds of Otsu's threshold of strong colour, in least saturations: below it smears come in, above it pale tissue goes.
_STRONG = (3.0, 4.0)
# Roughness: deviation of green from its surroundings, 0..1. So many times that of the glass, within these bounds.
_ROUGH_OVER_GLASS, _ROUGH = 3.0, (0.012, 0.04)
# How much of a structure's darkness is magenta: eosin about one half, haematoxylin a quarter, dust none.
_MIN_MAGENTA = 0.3
_FINE_UM, _COARSE_UM = 24.0, 32.0
# Membranes of fat cells this far apart still belong together.
_CLOSE_UM, _SHRINK_UM = 64.0, 24.0
# Neutral and darker than this (0 to 1) is black: background, ink or dirt.
_BLACK = 0.25
_MIN_INK_UM2 = 10_000.0
_INK_RIM_UM = 48.0
_BAND_ROWS = 256
# More pixels than this take seconds. At 24 um instead of 16 the mapped patches of the slides at hand are 95 to 99.6 %
# the same; at 32 um still 85 (a region of 1 mm) to 99 %.
_MANY_PX = 4_500_000


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide at low resolution.

    Parameters
    ----------
    mask
        ``(rows, cols)`` bool; pixel ``(0, 0)`` starts at the outer corner of the slide.
    um_per_px
        Size of its pixels in micrometres, ``(y, x)``.
    """

    mask: BoolArray
    um_per_px: Mpp

    @property
    def area_um2(self) -> float:
        """Area of tissue in square micrometres."""
        return float(self.mask.sum()) * self.um_per_px[0] * self.um_per_px[1]

    @property
    def is_empty(self) -> bool:
        return not bool(self.mask.any())

    def coverage(self, grid: Grid) -> Float32Array:
        """Share of each cell of ``grid`` that is tissue, ``(rows, cols)`` float32 in 0..1.

        Exact for the mask's pixels: fractions of pixels count by their area; what lies outside the slide is none.
        """
        rows, cols = (
            _overlaps(
                grid.shape[axis], grid.origin_um[axis], grid.stride_um, self.um_per_px[axis], self.mask.shape[axis]
            )
            for axis in (0, 1)
        )
        # Area of the mask left of and above each grid line, by the two-dimensional cumulative sum.
        cumulative = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        cumulative[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        by_row = _interpolate(cumulative, rows, 0)
        corners = _interpolate(by_row, cols, 1)
        area_px = np.diff(np.diff(corners, axis=0), axis=1)
        share = area_px * (self.um_per_px[0] * self.um_per_px[1]) / grid.stride_um**2
        return share.clip(0, 1).astype(np.float32)


def _overlaps(n: int, origin: float, stride: float, um_per_px: float, size: int) -> npt.NDArray[np.float64]:
    """Grid lines in mask pixels, held inside the mask."""
    return ((origin + np.arange(n + 1) * stride) / um_per_px).clip(0, size)


def _interpolate(values: npt.NDArray[np.float64], at: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    low = np.minimum(np.floor(at).astype(np.intp), values.shape[axis] - 2)
    part = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
    result: npt.NDArray[np.float64] = values.take(low, axis) * (1 - part) + values.take(low + 1, axis) * part
    return result


def find_tissue(slide: Slide, settings: TissueSettings | None = None) -> TissueMask:
    """The tissue of a slide.

    Parameters
    ----------
    slide
        RGB, 8 bit, with a pixel size.
    settings
        Resolution (on slides over some 34 mm a side up to twice as coarse), thresholds and areas.

    Raises
    ------
    NoTissueError
        When there is none.
    SlideError, PixelSizeError
        When the slide cannot be mapped, or read.
    """
    settings = settings or TissueSettings()
    slide.require_mappable()
    picture, um_per_px = _overview(slide, _target_mpp(slide, settings))
    mask = tissue_of(picture, um_per_px, settings)
    if not mask.any():
        raise NoTissueError(
            f"No stained tissue was found on {slide.label}; if there is some, lower the least saturation of tissue "
            f"(now {settings.min_saturation}) or the smallest area ({settings.min_area_um2:,.0f} um2)."
        )
    return TissueMask(mask, um_per_px)


def _target_mpp(slide: Slide, settings: TissueSettings) -> float:
    """The pixel size asked for; on the largest slides up to twice that, since the first picture waits for the mask."""
    mpp = slide.require_mappable()
    area_um2 = slide.shape[0] * mpp[0] * slide.shape[1] * mpp[1]
    return min(max(settings.mpp, math.sqrt(area_um2 / _MANY_PX)), 2 * settings.mpp)


def _overview(slide: Slide, target_mpp: float) -> tuple[Pixels, Mpp]:
    """The slide as means over whole pixels of its best level, near ``target_mpp``; read in bands."""
    mpp = slide.mpp
    if mpp is None:
        raise PixelSizeError(f"The pixel size of {slide.label} is not known, so tissue cannot be measured.")
    fits = [i for i, d in enumerate(slide.downsamples) if max(mpp[0] * d[0], mpp[1] * d[1]) <= target_mpp * 1.05]
    level = fits[-1] if fits else 0
    down = slide.downsamples[level]
    size = mpp[0] * down[0], mpp[1] * down[1]
    factors = tuple(max(1, round(target_mpp / s)) for s in size)
    height, width = slide.level_shapes[level]
    rows, cols = math.ceil(height / factors[0]), math.ceil(width / factors[1])
    out = np.empty((rows, cols, 3), np.uint8)
    step = max(1, _BAND_ROWS // factors[0])
    for top in range(0, rows, step):
        bottom = min(rows, top + step)
        y0, y1 = top * factors[0], min(bottom * factors[0], height)
        band = slide.read_shown(y0, 0, y1 - y0, width, level)
        # The last row and column of blocks may be cut short: they repeat their edge.
        missing = (bottom - top) * factors[0] - (y1 - y0), cols * factors[1] - width
        band = np.pad(band, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        blocks = band.reshape(bottom - top, factors[0], cols, factors[1], 3)
        out[top:bottom] = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    return out, (size[0] * factors[0], size[1] * factors[1])


def tissue_of(picture: Pixels, um_per_px: Mpp, settings: TissueSettings) -> BoolArray:
    """The mask of a low-resolution RGB picture ``(rows, cols, 3)`` uint8; see the module's description."""
    light = _white_balanced(picture)
    calm = _blurred(light, um_per_px, _FINE_UM / 2)
    black = (_lightest(calm) < _BLACK) & (_chroma(calm) < 0.12)
    ink = _ink(calm, um_per_px)
    saturation = _saturation(_blurred(light, um_per_px, _COARSE_UM))
    mask = _coloured(light, saturation, um_per_px, settings.min_saturation) & ~black & ~ink
    mask = _grown(mask, um_per_px, _CLOSE_UM)
    mask = ~_grown(~mask, um_per_px, _CLOSE_UM + _SHRINK_UM) & ~ink & ~black
    px_um2 = um_per_px[0] * um_per_px[1]
    mask = ~_drop_small(~mask, settings.max_hole_um2 / px_um2) & ~ink
    return _drop_small(mask, settings.min_area_um2 / px_um2)


def _coloured(light: Float32Array, saturation: Float32Array, um_per_px: Mpp, floor: float) -> BoolArray:
    """Rough and faintly coloured, or strongly coloured."""
    green = light[..., 1]
    deviation = green - _blurred(green, um_per_px, _FINE_UM)
    rough = np.sqrt(_blurred(deviation**2, um_per_px, _COARSE_UM).clip(0))
    glass = rough[(saturation < floor / 2) & (green > 0.7)]
    noise = float(np.median(glass)) if glass.size else 0.0
    is_rough = rough > np.clip(_ROUGH_OVER_GLASS * noise, *_ROUGH)
    # Membranes of fat cells are thin: the mean colour around them is pale, but they are pink themselves.
    darkness = np.maximum(-deviation, 0)
    magenta = (light[..., 0] + light[..., 2]) / 2 - green
    magenta_share = _blurred(darkness * magenta, um_per_px, _COARSE_UM) / np.maximum(
        _blurred(darkness**2, um_per_px, _COARSE_UM), 1e-6
    )
    is_coloured = (saturation > floor) | ((saturation > floor / 2) & (magenta_share > _MIN_MAGENTA))
    strong = float(np.clip(_otsu(saturation), _STRONG[0] * floor, _STRONG[1] * floor))
    coloured: BoolArray = (is_rough & is_coloured) | (saturation > strong)
    return coloured


def _blurred(values: Float32Array, um_per_px: Mpp, sigma_um: float) -> Float32Array:
    from scipy import ndimage

    sigma = [sigma_um / um for um in um_per_px] + [0.0] * (values.ndim - 2)
    result: Float32Array = ndimage.gaussian_filter(values, sigma)
    return result


# Over an axis of three, NumPy's reductions are many times slower than two element-wise steps.


def _lightest(light: Float32Array) -> Float32Array:
    lightest: Float32Array = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    return lightest


def _darkest(light: Float32Array) -> Float32Array:
    darkest: Float32Array = np.minimum(np.minimum(light[..., 0], light[..., 1]), light[..., 2])
    return darkest


def _chroma(light: Float32Array) -> Float32Array:
    chroma: Float32Array = _lightest(light) - _darkest(light)
    return chroma


def _saturation(light: Float32Array) -> Float32Array:
    return np.asarray(_chroma(light) / np.maximum(_lightest(light), 1e-3), dtype=np.float32)


def _grown(mask: BoolArray, um_per_px: Mpp, radius_um: float) -> BoolArray:
    """All pixels within a radius of the mask."""
    from scipy import ndimage

    if not mask.any():
        return mask
    grown: BoolArray = ndimage.distance_transform_edt(~mask, sampling=um_per_px) <= radius_um
    return grown


def _white_balanced(picture: Pixels) -> Float32Array:
    """0..1, the colour of bare glass made white; unchanged when the picture shows no glass."""
    light = picture.astype(np.float32) / 255.0
    bright, chroma = _darkest(light), _chroma(light)
    glass = light[(bright > 0.7) & (chroma < 0.12)]
    if len(glass) < 0.005 * chroma.size:
        return light
    # The brightest half is surely glass; pale tissue is darker.
    brightness = glass[:, 0] + glass[:, 1] + glass[:, 2]
    white = np.median(glass[brightness >= np.median(brightness)], axis=0).astype(np.float32)
    balanced: Float32Array = np.minimum(light / white, 1.0)
    return balanced


def _ink(light: Float32Array, um_per_px: Mpp) -> BoolArray:
    """Marker strokes: colours that haematoxylin and eosin do not give, in pieces large enough for a pen."""
    red, green, blue = light[..., 0], light[..., 1], light[..., 2]
    saturation = _saturation(light)
    cold = (green > red + 0.08) & (saturation > 0.15)  # green, cyan, blue: tissue lets about as much red through
    violet = (saturation > 0.65) & (blue > red * 1.3)
    warm = (saturation > 0.6) & (blue - green < 0.15 * _chroma(light)) & (red > 0.55)
    ink = _drop_small(cold | violet | warm, _MIN_INK_UM2 / (um_per_px[0] * um_per_px[1]))
    # The rim of a stroke is pale ink over white, which looks like tissue.
    return _grown(ink, um_per_px, _INK_RIM_UM)


def _drop_small(mask: BoolArray, min_px: float) -> BoolArray:
    """Without the connected pieces (8 neighbours) of fewer than ``min_px`` pixels."""
    from scipy import ndimage

    labels, n = ndimage.label(mask, structure=np.ones((3, 3), bool))
    if not n:
        return mask
    keep = np.bincount(labels.ravel()) >= min_px
    keep[0] = False
    kept: BoolArray = keep[labels]
    return kept


def _otsu(values: Float32Array) -> float:
    """Otsu's threshold: the split of the histogram with the largest variance between its parts."""
    from skimage.filters import threshold_otsu

    if not values.size or float(np.ptp(values)) == 0:
        return float("inf")
    return float(threshold_otsu(values))  # type: ignore[no-untyped-call]
