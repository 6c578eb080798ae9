"""Find the nuclei of a slide, tile by tile."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from napari_cpnn._version import __version__
from napari_cpnn.arrays import BoolArray, FloatArray, IntArray, Picture
from napari_cpnn.errors import CpnnWarning, NucleiError, SlideError
from napari_cpnn.geometry import PatchSpec, Rect
from napari_cpnn.nuclei.classical import ClassicalFinder
from napari_cpnn.nuclei.nuclei import Nuclei
from napari_cpnn.nuclei.others import other_finder, other_source
from napari_cpnn.nuclei.outlines import Outlines
from napari_cpnn.nuclei.searched import Searched
from napari_cpnn.nuclei.separation import MPP, Labels, Maps, separate
from napari_cpnn.nuclei.tiles import CORE, HALO, RIM_UM, Area, Tiling
from napari_cpnn.progress import Reporting, counting
from napari_cpnn.settings import NucleiSettings
from napari_cpnn.slides import PatchReader, Slide, TissueMask, find_tissue
from napari_cpnn.texts import counted

if TYPE_CHECKING:
    from shapely import Geometry

#: Nuclei cannot be told apart on slides with larger pixels, in um.
_COARSEST = 1.05
#: Peaks of neighbouring tiles closer than this are one nucleus at their seam, in um.
_TWIN_UM = 1.5
#: Peaks this near a seam, in px, are taken from both tiles, so that rounding loses none.
_SEAM = 2
#: Tiles from which the classical detector takes the amount of stain.
_SAMPLE = 12
#: Tiles that are read, or cut into nuclei, while the network looks at another.
_AHEAD = 2

T = TypeVar("T")
U = TypeVar("U")


class Finder(Protocol):
    """What tells where nuclei are in a tile at 0.5 um/px."""

    def maps(self, tile: Picture) -> Maps | Labels: ...


def detect_nuclei(
    slide: Slide,
    region: Rect | Sequence[float] | Geometry | None = None,
    settings: NucleiSettings | None = None,
    *,
    method: Literal["network", "classical", "stardist", "instanseg", "cellpose"] | None = None,
    weights: str | Path | None = None,
    tissue: TissueMask | None = None,
    progress: Reporting = True,
) -> Nuclei:
    """Find the nuclei on the tissue of a slide.

    The slide is read at 0.5 um/px in tiles that overlap. A nucleus belongs to the tile in which its peak lies, so that
    none is cut or counted twice. Tiles lie on a lattice of the slide: a region has the same nuclei as the whole.

    Parameters
    ----------
    slide
        RGB slide, 8 bit, with a pixel size of at most about 1 um.
    region
        Part of the slide: a rectangle (``y0, x0, y1, x1`` in um), or a shapely outline with ``(x, y)`` in um; nuclei
        whose centre lies inside. By default all tissue.
    settings
        Detector, sensitivity, sizes.
    method, weights
        In place of those of the settings: a detector of this package, or ``"stardist"``, ``"instanseg"`` or
        ``"cellpose"`` where it is installed, with the path of its weights; nothing is downloaded.
    tissue
        Tissue of the slide; found if not given.
    progress
        Whether progress is shown as a bar, or a function that is called with it; what it raises ends the search.

    Raises
    ------
    NucleiError
        If the pixels are too large, the region is empty or outside of the slide, or the package or the weights of a
        method are not there.
    NoTissueError, SlideError, PixelSizeError
        As of :func:`~napari_cpnn.slides.find_tissue`.

    Warns
    -----
    CpnnWarning
        If tiles cannot be read.

    Examples
    --------
    >>> nuclei = nc.detect_nuclei(slide, region=(1500, 1500, 1600, 1600), progress=False)
    >>> len(nuclei) > 20, nuclei.outlines is not None
    (True, True)
    """
    given = {"method": method, "weights": None if weights is None else str(weights)}
    settings = (settings or NucleiSettings()).replace(**{k: v for k, v in given.items() if v is not None})
    require_visible(slide)
    area = Area.of(region, slide)
    tissue = tissue if tissue is not None else find_tissue(slide, settings.tissue)
    finder = finder_of(slide, tissue, settings)
    return find_in(slide, Tiling.of(tissue, area), finder, settings, tissue=tissue, area=area, progress=progress)


def require_visible(slide: Slide) -> None:
    """Raise a :class:`NucleiError` if the pixels of a slide are too large to see nuclei."""
    mpp = max(slide.require_mappable())
    if mpp > _COARSEST:
        raise NucleiError(
            f"{slide.label} has pixels of {mpp:.3g} um; nuclei can be seen up to about 1 um, so use a finer scan."
        )


@dataclass(frozen=True)
class Part:
    """Nuclei of one tile in slide um; ``seam``: which of them a neighbour may have found, too."""

    tile: tuple[float, float]
    centers: FloatArray
    outlines: Outlines | None
    peaks: FloatArray
    seam: BoolArray


def find_in(
    slide: Slide,
    tiling: Tiling,
    finder: Finder,
    settings: NucleiSettings,
    *,
    tissue: TissueMask,
    area: Area,
    progress: Reporting = False,
) -> Nuclei:
    """Return the nuclei of the tiles of a slide that lie on tissue and in an area; see :func:`detect_nuclei`."""
    parts = list(by_tile(slide, tiling, finder, settings, progress))
    return nuclei_of_parts(parts, settings, tissue=tissue, area=area)


def nuclei_of_parts(parts: Iterable[Part], settings: NucleiSettings, *, tissue: TissueMask, area: Area) -> Nuclei:
    """Return the nuclei of tiles that lie on tissue and in an area; those at a seam are counted once."""
    parts = sorted(parts, key=lambda part: part.tile)
    centers = np.concatenate([np.empty((0, 2)), *(part.centers for part in parts)])
    kept = area.contains(centers) & (tissue.coverage_at(centers, 2 * RIM_UM) > 0)
    kept[_twins(parts)] = False
    outlines = Outlines.joined([part.outlines for part in parts if part.outlines is not None])
    tiles = np.array([part.tile for part in parts], dtype=np.float64).reshape(-1, 2)
    nuclei = Nuclei(
        centers.astype(np.float32),
        outlines if settings.outlines else None,
        source=source_of(settings),
        searched=Searched.of_tiles(tissue, area, tiles, CORE * MPP),
    )
    return nuclei.subset(kept)


def finder_of(slide: Slide, tissue: TissueMask, settings: NucleiSettings) -> Finder:
    """Return the detector of the settings, adapted to the slide where it has to be."""
    odds = settings.sensitivity / (1 - settings.sensitivity)
    if settings.method == "network":
        from napari_cpnn.nuclei.detector import NetworkFinder

        return NetworkFinder.load(settings.device, odds)
    if settings.method != "classical":
        return other_finder(settings, odds)
    return ClassicalFinder.of(_tissue_pixels(slide, tissue), odds)


def _tissue_pixels(slide: Slide, tissue: TissueMask) -> npt.NDArray[np.uint8]:
    """Return pixels ``(N, 3)`` of the tiles with most tissue, where the mask has it."""
    tiles = Tiling.of(tissue, Area.of(None, slide)).centers_um
    fullest = np.sort(np.argsort(-tissue.coverage_at(tiles, CORE * MPP), kind="stable")[:_SAMPLE])
    images, ok = PatchReader(slide, PatchSpec(CORE, MPP)).read(tiles[fullest])
    pixels = []
    steps = (np.arange(CORE) + 0.5 - CORE / 2) * MPP
    for image, center in zip(images[ok], tiles[fullest][ok], strict=True):
        rows, cols = (
            np.floor((middle + steps) / um).astype(int) for middle, um in zip(center, tissue.um_per_px, strict=True)
        )
        height, width = tissue.mask.shape
        there = np.ix_(rows.clip(0, height - 1), cols.clip(0, width - 1))
        inside = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))[None]
        pixels.append(image[tissue.mask[there] & inside])
    found = np.concatenate([np.empty((0, 3), np.uint8), *pixels])
    if not len(found):
        raise SlideError(f"No tile of {slide.label} with tissue can be read; it may be damaged.")
    return found


def by_tile(
    slide: Slide, tiling: Tiling, finder: Finder, settings: NucleiSettings, progress: Reporting
) -> Iterator[Part]:
    """Yield the nuclei of each tile; the next one is read, and the last one cut into nuclei, meanwhile."""
    reader, lost = PatchReader(slide, PatchSpec(CORE + 2 * HALO, MPP)), []
    limits = settings.smallest_um2 / MPP**2, settings.largest_um2 / MPP**2
    keep = slice(HALO - _SEAM, HALO + CORE + _SEAM)

    def read(center: FloatArray) -> tuple[FloatArray, Picture]:
        images, ok = reader.read(center[None])
        if not ok[0]:
            lost.append(center)
        return center, images[0]

    def cut(looked_at: tuple[FloatArray, Maps | Labels]) -> Part:
        center, maps = looked_at
        found = separate(maps, keep, limits, settings.outlines)
        corner = center - (CORE / 2 + HALO) * MPP
        inner = ((found.peaks >= HALO + _SEAM) & (found.peaks < HALO + CORE - _SEAM)).all(axis=1)
        outlines = found.outlines
        if outlines is not None:
            outlines = Outlines((outlines.vertices_um * MPP + corner).astype(np.float32), outlines.starts)
        tile = float(center[0]), float(center[1])
        return Part(
            tile, found.centers * MPP + corner, outlines, (found.peaks + 0.5) * MPP + corner, np.logical_not(inner)
        )

    with (
        ThreadPoolExecutor(1, "napari-cpnn nuclei") as reading,
        ThreadPoolExecutor(1, "napari-cpnn nuclei") as cutting,
        counting(progress, "finding nuclei", len(tiling.centers_um), "tile") as done,
    ):
        tiles = _ahead(reading, read, tiling.centers_um)
        looked = ((center, finder.maps(image)) for center, image in tiles)
        for part in _ahead(cutting, cut, looked):
            done(1)
            yield part
    if lost:
        warnings.warn(
            f"{counted(len(lost), 'tile')} of {len(tiling.centers_um):,} of {slide.label} could not be read; nuclei "
            "are missing there.",
            CpnnWarning,
            stacklevel=4,
        )


def _ahead(pool: Executor, work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield the results of ``work`` in order, while the pool works on the next ones."""
    waiting: deque[Future[U]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _twins(parts: Sequence[Part]) -> IntArray:
    """Return the numbers of nuclei that a tile before found already, at the seam between the two."""
    from scipy.spatial import KDTree

    sizes = [len(part.seam) for part in parts]
    at_seam = np.flatnonzero(np.concatenate([np.empty(0, bool), *(part.seam for part in parts)]))
    if not len(at_seam):
        return np.empty(0, np.intp)
    peaks = np.concatenate([part.peaks for part in parts])[at_seam]
    tile = np.repeat(np.arange(len(parts)), sizes)[at_seam]
    pairs = KDTree(peaks).query_pairs(_TWIN_UM, output_type="ndarray")
    pairs = pairs[tile[pairs[:, 0]] != tile[pairs[:, 1]]]
    is_twin = np.zeros(len(at_seam), bool)
    for first, second in pairs[np.lexsort(pairs.T[::-1])]:
        if not is_twin[first]:
            is_twin[second] = True
    return at_seam[is_twin]


def source_of(settings: NucleiSettings) -> str:
    if settings.method == "classical":
        return f"napari-cpnn {__version__}, classical detector"
    if settings.method != "network":
        return other_source(settings)
    from napari_cpnn.nuclei.detector import detector_card

    card = detector_card()
    return f"napari-cpnn {__version__}, {card['name']} {card['version']}"
