"""Reader of slides for napari."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_cpnn.geometry import LayerFrame, is_plausible_mpp
from napari_cpnn.slides import SLIDE_SUFFIXES, Slide, address_of, open_slide
from napari_cpnn.texts import shown
from napari_cpnn.ui.frame import plain, warn
from napari_cpnn.ui.layers.slide_layers import PATH_KEY, UNSIZED_KEY
from napari_cpnn.ui.layers.slide_switch import current_switch

LayerData = tuple[Any, dict[str, Any], str]

#: Left to napari's own reader: a second one would make napari ask which to use for every .png. The docks accept such
#: layers, of which large ones become pyramids (``large_pictures``), and ``napari-cpnn open`` reads these files.
PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

#: Suffixes that all kinds of microscopy share; the content of the file decides.
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")

#: An untiled TIFF that is smaller than this (px, longer side) is an ordinary image, not a slide.
SMALLEST_SLIDE = 4096


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return a reader function; quickly ``None`` for files that are not slides."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_slides if paths and all(_may_be_slide(Path(p)) for p in paths) else None


def read_slides(path: str | Sequence[str]) -> list[LayerData]:
    """Read one image layer per slide."""
    current_switch()  # from now on, the viewer shows one slide at a time
    paths = [path] if isinstance(path, str) else list(path)
    return [slide_layer(open_slide(p)) for p in paths]


def slide_layer(slide: Slide, name: str | None = None) -> LayerData:
    """Return data, keywords and type of the layer of a slide, in micrometres if the pixel size is known.

    Otherwise it is in pixels, and the user is warned.
    """
    keywords: dict[str, Any] = {
        "name": plain(shown(name or slide.name)),
        "rgb": True,
        "multiscale": True,
        "contrast_limits": (0, 255),
        "cache": False,  # napari's dask cache may use a quarter of the memory; the slide has its own
        "metadata": {} if slide.path is None else {PATH_KEY: str(slide.path)},
    }
    switch = current_switch()
    lengths = switch is not None and switch.use_lengths(slide.mpp is not None)
    if slide.mpp is not None:
        frame = LayerFrame.of_slide(slide.mpp)
        keywords |= {"scale": frame.scale, "translate": frame.translate, "units": ("um", "um")}
    elif lengths:
        keywords["units"] = ("um", "um")
        keywords["metadata"][UNSIZED_KEY] = True
    elif switch is None:  # in a window, the Explore dock asks for it
        warn(f"The pixel size of {slide.name} is not known: it opens in pixels.")
    return slide.levels, keywords, "image"


def _may_be_slide(path: Path) -> bool:
    if path.is_dir() or address_of(path) is not None or path.name.lower().endswith(".zarr.zip"):
        return _is_slide_zarr(path)
    suffix = path.suffix.lower()
    if suffix not in SLIDE_SUFFIXES or suffix in PLAIN_SUFFIXES:
        return False
    return suffix not in TIFF_SUFFIXES or _is_slide_tiff(path)


def is_slide_path(path: Path) -> bool:
    """Return whether a path is that of a slide rather than of spots: a file by its suffix, or an OME-Zarr folder."""
    return _is_slide_zarr(path) if path.is_dir() else path.is_file() and path.suffix.lower() in SLIDE_SUFFIXES


def _is_slide_zarr(path: Path) -> bool:
    """Return whether a path is itself an OME-Zarr image of 8-bit RGB with a pixel size, or of bioformats2raw.

    A SpatialData is left to the reader of spots, and other images to napari's readers of OME-Zarr.
    """
    from napari_cpnn.slides import OmeZarrBackend, open_source, resolve_path

    try:
        address = address_of(path)
        if path.suffix.lower() != ".zarr" and not path.is_file():
            return False
        image = path if address is not None or path.is_file() else resolve_path(path)
        if image not in (path, path / "0"):
            return False
        source = open_source(address or image, OmeZarrBackend.name)[1]
    except Exception:  # noqa: BLE001 -- whatever is wrong with it, napari asks the other readers
        return False
    source.close()
    return source.info.rgb and any(is_plausible_mpp(mpp) for _, mpp in source.info.pixel_sizes)


def _is_slide_tiff(path: Path) -> bool:
    """Return whether a TIFF holds one 8-bit RGB image that is tiled or large, from its first page if possible.

    A small one, or an OME-TIFF with separate colour planes, is a slide if it has a pixel size.
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
    except Exception:  # noqa: BLE001 -- whatever is wrong with it, napari asks the other readers
        return False


def _is_measured_rgb(path: Path) -> bool:
    """Return whether a TIFF is RGB and has a pixel size."""
    from napari_cpnn.slides import TiffBackend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # repeated when it is opened
        source = TiffBackend().open(path)
    source.close()
    return source.info.rgb and any(is_plausible_mpp(mpp) for _, mpp in source.info.pixel_sizes)
