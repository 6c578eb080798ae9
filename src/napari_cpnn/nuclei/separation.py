"""From maps of a tile to single nuclei: a peak each, a watershed between them, and their outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, Int64Array, IntArray
from napari_cpnn.nuclei.outlines import Outlines

#: Pixel size in um at which nuclei are looked for, whatever the slide's own.
MPP = 0.5
#: Peaks closer together than this belong to one nucleus, in px.
_APART = 3
#: Deviation of the Gaussians that take noise from peaks, and steps of pixels from outlines, in px.
_SMOOTH_PEAKS, _SMOOTH_OUTLINES = 1.5, 0.8
#: Vertices of an outline that are left of those on pixel edges: one in so many, and at least so many.
_EVERY, _LEAST = 3, 8


@dataclass(frozen=True)
class Maps:
    """What a finder says of a tile ``(H, W)``.

    Attributes
    ----------
    inside
        Whether a pixel is of a nucleus.
    height
        One peak per nucleus.
    least
        Height of the lowest peak that is a nucleus.
    """

    inside: BoolArray
    height: Float32Array
    least: float


@dataclass(frozen=True)
class Labels:
    """What a finder says of a tile that tells nuclei apart itself: ``(H, W)``, 0 where there is none."""

    labels: npt.NDArray[np.int32]


@dataclass(frozen=True)
class TileNuclei:
    """Nuclei of a tile, in its pixels ``(y, x)``, whose origin is the outer corner of the first.

    Attributes
    ----------
    peaks
        ``(n, 2)``: pixels of the peaks, which tell what tile a nucleus belongs to.
    centers
        ``(n, 2)``: centroids.
    areas
        ``(n,)``: pixels of each.
    outlines
        Outlines, if asked for.
    """

    peaks: IntArray
    centers: FloatArray
    areas: Int64Array
    outlines: Outlines | None


def separate(maps: Maps | Labels, keep: slice, limits: tuple[float, float], with_outlines: bool = True) -> TileNuclei:
    """Return the nuclei of a tile whose peak lies in the rows and columns ``keep``.

    Parameters
    ----------
    maps
        What a finder says.
    keep
        Rows, and likewise columns, of peaks that count.
    limits
        Least and largest area in px.
    with_outlines
        Whether outlines are wanted.
    """
    labels, numbers, peaks = _by_labels(maps) if isinstance(maps, Labels) else _by_watershed(maps)
    n = len(numbers)
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    low, high = keep.start, keep.stop
    mine = ((peaks >= low) & (peaks < high)).all(axis=1) & (areas >= limits[0]) & (areas <= limits[1])
    chosen = np.flatnonzero(mine)
    outlines = _outlines(labels, numbers[chosen]) if with_outlines else None
    return TileNuclei(peaks[chosen], _centroids(labels, n)[chosen], areas[chosen], outlines)


def _by_labels(found: Labels) -> tuple[npt.NDArray[np.int32], IntArray, IntArray]:
    """Labels ``1, 2, ...``, these numbers, and the pixel of each centroid."""
    values, at = np.unique(found.labels, return_inverse=True)
    at = at.reshape(found.labels.shape) + (0 if len(values) and values[0] == 0 else 1)
    labels = at.astype(np.int32)
    n = int(labels.max(initial=0))
    return labels, np.arange(1, n + 1), np.floor(_centroids(labels, n)).astype(np.intp)


def _by_watershed(maps: Maps) -> tuple[npt.NDArray[np.int32], IntArray, IntArray]:
    from scipy import ndimage
    from skimage.segmentation import watershed

    height = ndimage.gaussian_filter(maps.height, _SMOOTH_PEAKS)
    markers, _ = ndimage.label(_is_peak(height) & (height > maps.least) & maps.inside, np.ones((3, 3), bool))
    labels: npt.NDArray[np.int32] = watershed(-height, markers, mask=maps.inside).astype(np.int32)  # type: ignore[no-untyped-call]
    # label() numbers in the order of rows, so that the first pixel of each number is its peak
    flat = np.flatnonzero(markers)
    numbers, first = np.unique(markers.ravel()[flat], return_index=True)
    return labels, numbers, np.column_stack(np.divmod(flat[first], markers.shape[1]))


def _is_peak(height: Float32Array) -> BoolArray:
    from scipy import ndimage

    y, x = np.ogrid[-_APART : _APART + 1, -_APART : _APART + 1]
    peak: BoolArray = height == ndimage.maximum_filter(height, footprint=y * y + x * x <= _APART * _APART)
    return peak


def _centroids(labels: npt.NDArray[np.int32], n: int) -> FloatArray:
    flat = np.flatnonzero(labels)
    numbers = labels.ravel()[flat]
    rows, columns = np.divmod(flat, labels.shape[1])
    counts = np.maximum(np.bincount(numbers, minlength=n + 1), 1)
    sums = np.stack([np.bincount(numbers, weights=place, minlength=n + 1) for place in (rows, columns)], axis=1)
    centers: FloatArray = (sums / counts[:, None] + 0.5)[1:]
    return centers


def _outlines(labels: npt.NDArray[np.int32], numbers: IntArray) -> Outlines:
    """Outlines of labels: contours of their smoothed masks, thinned."""
    from scipy import ndimage

    boxes = ndimage.find_objects(labels)
    return Outlines.of([_outline(labels, int(number), boxes[number - 1]) for number in numbers])


def _outline(labels: npt.NDArray[np.int32], number: int, box: tuple[slice, slice]) -> FloatArray:
    from scipy import ndimage
    from skimage.measure import find_contours

    rim = 3
    inner = np.pad((labels[box] == number).astype(np.float32), rim)
    smooth = ndimage.gaussian_filter(inner, _SMOOTH_OUTLINES, mode="constant")
    found = find_contours(smooth, 0.5) or find_contours(inner, 0.5)  # type: ignore[no-untyped-call]
    longest = max(found, key=len)[:-1]
    step = max(1, min(_EVERY, len(longest) // _LEAST))
    # contours run through the centres of pixels, outlines are measured from the corner
    corner = np.array([box[0].start, box[1].start]) - rim + 0.5
    contour: FloatArray = longest[::step] + corner
    return contour
