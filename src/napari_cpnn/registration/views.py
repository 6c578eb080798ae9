"""What an automatic registration looks at: tissue and darkness of a picture, at low resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.errors import NoTissueError, RegistrationError
from napari_cpnn.geometry import Mpp, spatial_to_um
from napari_cpnn.slides import Slide, find_tissue, optical_density
from napari_cpnn.spots import estimate_mpp, implied_mpp, picture_of, tissue_of, with_positions

if TYPE_CHECKING:
    from anndata import AnnData

#: Longer side of the pictures that are compared, in pixels.
PICTURE_PX = 800
#: Coarser pictures are enlarged to this pixel size (um) before tissue is looked for, which needs a microscope's.
_FINE_UM = 8.0
#: Spots reach this far, in parts of their distance, so that those of an array touch.
_REACH = 0.75
#: Least number of spots whose outline says something.
_LEAST_SPOTS = 12
#: Longer side in pixels of the outline of spots.
_SPOTS_PX = 256


@dataclass(frozen=True, eq=False)
class View:
    """A picture, or a table of spots, as it is compared.

    Attributes
    ----------
    mask
        ``(rows, cols)``, where the tissue is.
    mask_um
        Size of its pixels ``(y, x)``.
    dark
        ``(rows, cols)`` mean optical density; None without a picture.
    dark_um
        Size of its pixels.
    mpp
        Pixel size that positions are converted with: level-0 pixels to the um of this view.
    is_scaled
        Whether these are really um, so that lengths agree with those of another view.
    origin_um
        Where pixel (0, 0) of both begins, ``(y, x)``.
    """

    name: str
    mask: BoolArray
    mask_um: Mpp
    dark: Float32Array | None
    dark_um: Mpp
    mpp: Mpp
    is_scaled: bool
    origin_um: tuple[float, float] = (0.0, 0.0)


def view_of_slide(slide: Slide) -> View:
    """Return the view of a slide with a pixel size."""
    mpp, tissue = slide.require_mappable(), tissue_of(slide)
    return _of_picture(slide.name, slide.thumbnail(PICTURE_PX), slide.shape[:2], mpp, (tissue.mask, tissue.um_per_px))


def view_of_spots(spots: AnnData, name: str = "spots") -> View:
    """Return the view of spots: of the picture that came with them, or of the outline that they cover.

    Raises
    ------
    RegistrationError
        If there are too few spots.
    """
    spots = with_positions(spots, "The table of spots")
    if "spatial" not in spots.obsm:
        raise RegistrationError('The table of spots has no positions in obsm["spatial"].')
    positions = np.asarray(spots.obsm["spatial"], dtype=np.float64)
    positions = np.unique(positions[np.isfinite(positions).all(axis=1)], axis=0)
    if len(positions) < _LEAST_SPOTS:
        raise RegistrationError(
            f"Spots at {len(positions)} different places are too few to find where they lie on a slide; set landmarks "
            "instead."
        )
    mpp = estimate_mpp(spots) or implied_mpp(spots)
    view = _of_stored_picture(spots, name, mpp)
    return view or _of_outline(positions, name, mpp)


def _of_picture(name: str, small: Any, shape_px: tuple[int, int], mpp: Mpp, tissue: tuple[BoolArray, Mpp]) -> View:
    dark = optical_density(small).mean(axis=2).astype(np.float32)
    dark_um = (shape_px[0] * mpp[0] / dark.shape[0], shape_px[1] * mpp[1] / dark.shape[1])
    return View(name, *tissue, dark, dark_um, mpp, is_scaled=True)


def _of_stored_picture(spots: AnnData, name: str, mpp: Mpp | None) -> View | None:
    """Return the view of the downscaled slide in ``uns["spatial"]``; None if there is none that can be used."""
    picture, factor = picture_of(spots), _factor_of_picture(spots)
    if picture is None or factor is None or mpp is None:
        return None
    pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] < 3 or min(pixels.shape[:2]) < 32:
        return None
    pixels = pixels[..., :3]
    if pixels.dtype.kind == "f":
        pixels = np.rint(np.clip(pixels, 0, 1) * 255)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    size = (mpp[0] / factor, mpp[1] / factor)
    enlarged = max(1.0, max(size) / _FINE_UM)
    shape = [max(1, round(n * enlarged)) for n in pixels.shape[:2]]
    large = np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    um = (pixels.shape[0] * size[0] / shape[0], pixels.shape[1] * size[1] / shape[1])
    try:
        slide = Slide.from_arrays([large], um, name=name)
        tissue = find_tissue(slide)
    except NoTissueError:
        return None
    view = _of_picture(name, slide.thumbnail(PICTURE_PX), slide.shape[:2], um, (tissue.mask, tissue.um_per_px))
    return View(name, view.mask, view.mask_um, view.dark, view.dark_um, mpp, is_scaled=True)


def _factor_of_picture(spots: AnnData) -> float | None:
    """Return the factor from level-0 pixels to those of the largest stored picture."""
    for library in dict(spots.uns.get("spatial", {})).values():
        images, factors = dict(library.get("images", {})), dict(library.get("scalefactors", {}))
        for size in ("hires", "lowres"):
            if size in images:
                factor = factors.get(f"tissue_{size}_scalef")
                return None if factor is None else float(factor)
    return None


def _of_outline(positions: FloatArray, name: str, mpp: Mpp | None) -> View:
    """Return the view of what spots cover: all within three quarters of their distance."""
    from scipy.spatial import cKDTree

    scale = mpp or (1.0, 1.0)
    um = spatial_to_um(positions, scale)
    tree = cKDTree(um)
    pitch = float(np.median(tree.query(um, k=2)[0][:, 1]))
    low, high = um.min(axis=0) - pitch, um.max(axis=0) + pitch
    size = max(float((high - low).max()) / _SPOTS_PX, 1e-9)
    rows, cols = (max(1, int(n)) for n in np.ceil((high - low) / size))
    centres = (np.indices((rows, cols)).reshape(2, -1).T + 0.5) * size + low
    near = tree.query(centres, distance_upper_bound=_REACH * pitch)[0]
    mask = np.isfinite(near).reshape(rows, cols)
    sizes, origin = (size, size), (float(low[0]), float(low[1]))
    return View(name, mask, sizes, None, sizes, scale, is_scaled=mpp is not None, origin_um=origin)
