"""Where the tissue is: a mask at low resolution, and the share of tissue in each cell of a grid.

Stained tissue is coloured: it takes more green out of the light than red or blue. Glass, dust, folds of the cover slip,
black backgrounds and black ink are neutral, whatever their brightness, and other inks have colours that
haematoxylin and eosin do not have. So the mask is a threshold on colour saturation after white balance, found by
Otsu's method (IEEE Trans. SMC 9, 62-66, 1979) but held within bounds, so that a slide without tissue gets none and a
deeply stained one keeps its pale fat.
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

# Otsu's threshold may not rise above this multiple of the least saturation: beyond it he parts dark from pale tissue.
_OTSU_CEILING = 1.6
# Neutral and darker than this (0 to 1) is black: background, ink or dirt.
_BLACK = 0.25
_MIN_INK_UM2 = 10_000.0
_INK_RIM_UM = 48.0
_BAND_ROWS = 256


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
        Resolution, thresholds and areas.

    Raises
    ------
    NoTissueError
        When there is none.
    SlideError, PixelSizeError
        When the slide cannot be mapped, or read.
    """
    settings = settings or TissueSettings()
    slide.require_mappable()
    picture, um_per_px = _overview(slide, settings.mpp)
    mask = tissue_of(picture, um_per_px, settings)
    if not mask.any():
        raise NoTissueError(
            f"No stained tissue was found on {slide.label}; if there is some, lower the least saturation of tissue "
            f"(now {settings.min_saturation}) or the smallest area ({settings.min_area_um2:,.0f} um2)."
        )
    return TissueMask(mask, um_per_px)


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
        band = slide.read_region(y0, 0, y1 - y0, width, level)
        # The last row and column of blocks may be cut short: they repeat their edge.
        missing = (bottom - top) * factors[0] - (y1 - y0), cols * factors[1] - width
        band = np.pad(band, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        blocks = band.reshape(bottom - top, factors[0], cols, factors[1], 3)
        out[top:bottom] = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    return out, (size[0] * factors[0], size[1] * factors[1])


def tissue_of(picture: Pixels, um_per_px: Mpp, settings: TissueSettings) -> BoolArray:
    """The mask of a low-resolution RGB picture ``(rows, cols, 3)`` uint8; see the module's description."""
    from scipy import ndimage

    light = _white_balanced(picture)
    sigma = [12.0 / um for um in um_per_px]  # joins the membranes of fat cells, and calms noise
    light = np.stack([ndimage.gaussian_filter(light[..., c], sigma) for c in range(3)], axis=-1)
    value, chroma = light.max(axis=-1), np.ptp(light, axis=-1)
    saturation = chroma / np.maximum(value, 1e-3)
    black = (value < _BLACK) & (chroma < 0.12)
    ink = _ink(light, saturation, um_per_px)
    candidates = saturation[~black & ~ink]
    floor = settings.min_saturation
    threshold = float(np.clip(_otsu(candidates), floor, floor * _OTSU_CEILING)) if candidates.size else floor
    # Tissue takes out green: against blue it tells from yellow stains and glass, against red from blue ink.
    green_least = light[..., 1] <= np.minimum(light[..., 0], light[..., 2]) + 0.35 * chroma
    mask = (saturation > threshold) & green_least & ~black & ~ink
    px_um2 = um_per_px[0] * um_per_px[1]
    mask = ndimage.binary_closing(np.pad(mask, 2, mode="edge"), iterations=2)[2:-2, 2:-2] & ~ink & ~black
    mask = ~_drop_small(~mask, settings.max_hole_um2 / px_um2) & ~ink
    return _drop_small(mask, settings.min_area_um2 / px_um2)


def _white_balanced(picture: Pixels) -> Float32Array:
    """0..1, the colour of bare glass made white; unchanged when the picture shows no glass."""
    light = picture.astype(np.float32) / 255.0
    bright, chroma = light.min(axis=-1), np.ptp(light, axis=-1)
    glass = light[(bright > 0.7) & (chroma < 0.12)]
    if len(glass) < 0.005 * chroma.size:
        return light
    # The brightest half is surely glass; pale tissue is darker.
    white = np.median(glass[glass.mean(axis=-1) >= np.median(glass.mean(axis=-1))], axis=0)
    balanced: Float32Array = np.minimum(light / white, 1.0)
    return balanced


def _ink(light: Float32Array, saturation: Float32Array, um_per_px: Mpp) -> BoolArray:
    """Marker strokes: colours that haematoxylin and eosin do not give, in pieces large enough for a pen."""
    from scipy import ndimage

    red, green, blue = light[..., 0], light[..., 1], light[..., 2]
    cold = (green > red + 0.05) & (saturation > 0.12)  # green, cyan, blue: tissue lets more red than green through
    violet = (saturation > 0.65) & (blue > red * 1.3)
    warm = (saturation > 0.6) & (blue < green * 1.1) & (red > 0.55)
    ink = _drop_small(cold | violet | warm, _MIN_INK_UM2 / (um_per_px[0] * um_per_px[1]))
    # The rim of a stroke is pale ink over white, which looks like tissue.
    distance = ndimage.distance_transform_edt(~ink, sampling=um_per_px) if ink.any() else np.full(ink.shape, np.inf)
    rim: BoolArray = distance <= _INK_RIM_UM
    return rim


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
