"""Slides as napari layers: the reader of the manifest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_cpnn.geometry import LayerFrame, is_plausible_mpp
from napari_cpnn.slides import SLIDE_SUFFIXES, Slide, open_slide
from napari_cpnn.texts import shown
from napari_cpnn.ui.frame import plain, warn
from napari_cpnn.ui.layers.slide_layers import PATH_KEY

LayerData = tuple[Any, dict[str, Any], str]

#: napari reads plain images itself; offering ours too would ask every user of a .png which reader to take. The
#: Explore dock takes such a layer as it is, and ``napari-cpnn open`` reads them.
PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

#: Endings that all kinds of microscopy share; a look into the file decides.
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")

#: An untiled TIFF that is smaller than this (px, longer side) is a picture, not a slide.
SMALLEST_SLIDE = 4096


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """A reader function, or ``None`` quickly for what is not a slide."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_slides if paths and all(_may_be_slide(Path(p)) for p in paths) else None


def read_slides(path: str | Sequence[str]) -> list[LayerData]:
    """One image layer per slide."""
    paths = [path] if isinstance(path, str) else list(path)
    return [slide_layer(open_slide(p)) for p in paths]


def slide_layer(slide: Slide, name: str | None = None) -> LayerData:
    """Data, keywords and type of the layer that shows a slide.

    In micrometres when the pixel size is known; otherwise in pixels, and the user is told.
    """
    keywords: dict[str, Any] = {
        "name": plain(shown(name or slide.name)),
        "rgb": True,
        "multiscale": True,
        "contrast_limits": (0, 255),
        "cache": False,  # napari's dask cache may take a quarter of the memory; the slide keeps its own
        "metadata": {} if slide.path is None else {PATH_KEY: str(slide.path)},
    }
    if slide.mpp is None:
        warn(
            f"{slide.name} has no believable pixel size, so it opens in pixels; the Explore dock asks for the size "
            "before it maps."
        )
    else:
        frame = LayerFrame.of_slide(slide.mpp)
        keywords |= {"scale": frame.scale, "translate": frame.translate, "units": ("um", "um")}
    return slide.levels, keywords, "image"


def _may_be_slide(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in SLIDE_SUFFIXES or suffix in PLAIN_SUFFIXES:
        return False
    return suffix not in TIFF_SUFFIXES or _is_slide_tiff(path)


def _is_slide_tiff(path: Path) -> bool:
    """Whether a TIFF holds one RGB picture of 8 bits that is tiled or large, by its first page if that is enough.

    A small one is a slide when it has a pixel size, and so is one of OME whose colours lie in planes of their own.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            samples, side = page.samplesperpixel, max(page.imagelength, page.imagewidth)
            may_be = page.dtype == "uint8" and page.imagedepth == 1
            if samples >= 3 and may_be and (page.is_tiled or side >= SMALLEST_SLIDE):
                return True
            return bool((samples >= 3 or file.is_ome) and may_be and _is_measured_rgb(path))
    except Exception:  # noqa: BLE001 -- whatever is wrong with it, napari asks the readers that are left
        return False


def _is_measured_rgb(path: Path) -> bool:
    """Whether a TIFF shows red, green and blue, and says how large its pixels are."""
    from napari_cpnn.slides import TiffBackend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said again when it is opened
        source = TiffBackend().open(path)
    source.close()
    return source.info.rgb and any(is_plausible_mpp(mpp) for _, mpp in source.info.pixel_sizes)
