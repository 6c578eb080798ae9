"""Read nuclei from an image of labels, in which the pixels of a nucleus have its number and others are 0.

Source: OME-NGFF, image-label, https://ngff.openmicroscopy.org/0.5/; SpatialData writes its labels alike. Segmentation
programs and napari write such images as TIFF.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, NucleiError
from napari_cpnn.geometry import Mpp
from napari_cpnn.nuclei.nuclei import Nuclei
from napari_cpnn.nuclei.outlines import Outlines
from napari_cpnn.nuclei.separation import Labels, separate
from napari_cpnn.slides import Slide, labels_in, open_slide

#: Sides of the blocks that are looked at, and the rim around each; a nucleus larger than the rim may be cut.
_CORE, _RIM = 1536, 256
TIFFS = (".tif", ".tiff", ".ome.tif", ".ome.tiff")


def label_image(folder: Path, element: str | None) -> Path | None:
    """Return the image of labels of a Zarr folder: itself, the one named ``element``, or that of nuclei or cells.

    Raises
    ------
    NucleiError
        If there are several, and none is named.
    """
    found = labels_in(folder)
    if element is not None or not found:
        return found.get(str(element))
    for word in ("nucle", "cell", ""):
        names = [name for name in found if word in name.lower()]
        if len(names) == 1:
            return found[names[0]]
        if names:
            raise NucleiError(f"{folder} has several images of labels; give one as element: {', '.join(names)}.")
    return None


def read_labels(path: Path, mpp: Mpp | None, size_px: tuple[int, int] | None = None) -> Nuclei:
    """Return the nuclei of an image of labels, with outlines.

    Parameters
    ----------
    path
        OME-Zarr or TIFF of whole numbers.
    mpp
        Micrometres per pixel ``(y, x)`` of the image, where it does not say so itself.
    size_px
        Height and width of the slide; an image of another size must say itself how large its pixels are.

    Raises
    ------
    NucleiError
        If it is no image of labels, has no pixel size, or no nucleus.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)  # a pixel size that is not plausible is asked for below
        image = open_slide(path)
    with image:
        if image.shape[2] != 1 or not np.issubdtype(image.dtype, np.integer):
            what = "colours" if image.shape[2] != 1 else f"values of the kind {image.dtype}"
            raise NucleiError(
                f"{path} is no image of labels: it has {what}; the pixels of a nucleus must have its whole number."
            )
        if "planes" in image.properties:
            n = image.properties["planes"].split(",")[0]
            raise NucleiError(f"{path} has {n} planes of labels, and a slide has one; save the one of the slide.")
        size = image.mpp or mpp
        if size is None:
            raise NucleiError(f"{path} has no pixel size; give that of the slide (mpp), or the slide.")
        if image.mpp is None and size_px is not None and size_px != image.shape[:2]:
            given, own = (f"{shape[1]:,} x {shape[0]:,} px" for shape in (size_px, image.shape[:2]))
            raise NucleiError(
                f"{path} has {own} of unknown size, but the slide has {given}; give labels of the whole slide, or of "
                "known pixel size."
            )
        centers, outlines, n_cut = _nuclei(image)
    if n_cut:
        warnings.warn(
            f"{path} has nuclei that are larger than {_RIM} px; {n_cut:,} have been left out.",
            CpnnWarning,
            stacklevel=5,
        )
    if not len(centers):
        raise NucleiError(f"{path} has no nucleus: all its pixels are 0.")
    um = np.array(size, np.float64)
    outlines = Outlines((outlines.vertices_um * um).astype(np.float32), outlines.starts)
    return Nuclei((centers * um).astype(np.float32), outlines, None, (), f"labels {path.name}")


def _nuclei(image: Slide) -> tuple[FloatArray, Outlines, int]:
    """Return centres and outlines in pixels ``(y, x)``, and how many nuclei were too large for a block."""
    height, width = image.shape[:2]
    side = _CORE + 2 * _RIM
    centers, outlines, cut = [np.empty((0, 2))], [], 0
    values, pieces = set[int](), 0
    for top in range(0, height, _CORE):
        for left in range(0, width, _CORE):
            y0, x0 = max(top - _RIM, 0), max(left - _RIM, 0)
            y1, x1 = min(top + _CORE + _RIM, height), min(left + _CORE + _RIM, width)
            pixels = image.read_region(y0, x0, y1 - y0, x1 - x0)
            if not pixels.any():
                continue
            if pixels.dtype.kind == "i" and pixels.min() < 0:
                raise NucleiError(f"{image.label} has negative labels; write 0 where there is no nucleus.")
            least, most = int(pixels[pixels > 0].min()), int(pixels.max())
            values |= {least, most}
            if least == most and len(values) == 1:
                pieces = max(pieces, ndimage.label(pixels)[1])
            block = np.zeros((side, side), pixels.dtype)
            corner = np.array([top - _RIM, left - _RIM])
            block[y0 - corner[0] : y1 - corner[0], x0 - corner[1] : x1 - corner[1]] = pixels
            found = separate(Labels(block), slice(_RIM, _RIM + _CORE), (1, np.inf))
            rings = found.outlines if found.outlines is not None else Outlines.of([])
            inside = ((rings.vertices_um > 1) & (rings.vertices_um < side - 1)).all(axis=1)
            whole = np.minimum.reduceat(inside, rings.starts[:-1]) if len(rings) else np.empty(0, bool)
            kept = rings.subset(np.flatnonzero(whole))
            outlines.append(Outlines((kept.vertices_um + corner).astype(np.float32), kept.starts))
            cut += int((~whole).sum())
            centers.append(found.centers[whole] + corner)
    if len(values) == 1 and pieces > 1:
        raise NucleiError(
            f"{image.label} has the one label {values.pop()} in {pieces} places, so it is a mask of all nuclei; each "
            "nucleus must have a number of its own."
        )
    return np.concatenate(centers), Outlines.joined(outlines), cut
