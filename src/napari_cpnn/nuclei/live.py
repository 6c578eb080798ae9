"""Nuclei of a slide that are found as somebody looks: the tiles in view first, each once, kept on disk."""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Rect
from napari_cpnn.nuclei.detect import Part, by_tile, finder_of, nuclei_of_parts, require_visible, source_of
from napari_cpnn.nuclei.nuclei import Nuclei
from napari_cpnn.nuclei.outlines import Outlines
from napari_cpnn.nuclei.separation import MPP
from napari_cpnn.nuclei.store import Arrays, ArrayStore
from napari_cpnn.nuclei.tiles import CORE, Area, Tiling
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.settings import NucleiSettings
from napari_cpnn.slides import find_tissue
from napari_cpnn.storage import folder_of, key_of, prune_entries, remove

if TYPE_CHECKING:
    from napari_cpnn.nuclei.detect import Finder
    from napari_cpnn.slides import Slide, TissueMask

#: Kept nuclei, at most, and how recently used ones are never deleted.
_MOST_BYTES, _IN_USE_SECONDS = 2 * 2**30, 3600.0
_NAME = re.compile(r"[0-9a-f]{32}\.zarr")
_KEPT = ArrayStore(
    "napari_cpnn_nuclei_tiles",
    "tiles",
    NucleiError,
    {
        "tiles_um": ("float64", 2),
        "sizes": ("int64", 1),
        "centers_um": ("float64", 2),
        "peaks_um": ("float64", 2),
        "seam": ("bool", 1),
        "vertices_um": ("float32", 2),
        "starts": ("int64", 1),
    },
)


class LiveNuclei:
    """Nuclei of a slide, found tile by tile in any order.

    When all tiles are done, they are those of :func:`~napari_cpnn.detect_nuclei`. Several threads may read while one
    looks for more.

    Parameters
    ----------
    slide
        RGB slide, 8 bit, with a pixel size of at most about 1 um.
    settings
        Detector, sensitivity, sizes.
    tissue
        Tissue of the slide; found if not given.
    keep
        Whether what is found is kept in the cache folder, from where it is read again.

    Raises
    ------
    NucleiError
        If the pixels are too large.
    NoTissueError, SlideError, PixelSizeError
        As of :func:`~napari_cpnn.slides.find_tissue`.

    Examples
    --------
    >>> from napari_cpnn.geometry import Rect
    >>> from napari_cpnn.nuclei import LiveNuclei
    >>> live = LiveNuclei(slide, keep=False)
    >>> live.find(live.missing(Rect(1500, 1500, 1600, 1600)))
    >>> len(live.nuclei()) > 20, live.is_complete
    (True, False)
    """

    def __init__(
        self,
        slide: Slide,
        settings: NucleiSettings | None = None,
        *,
        tissue: TissueMask | None = None,
        keep: bool = True,
    ) -> None:
        require_visible(slide)
        self.slide = slide
        self.settings = settings or NucleiSettings()
        self.tissue = tissue if tissue is not None else find_tissue(slide, self.settings.tissue)
        self._area = Area.of(None, slide)
        self._tiles = Tiling.of(self.tissue, self._area).centers_um
        self._finder: Finder | None = None
        self._parts: dict[tuple[float, float], Part] = {}
        self._lock = threading.Lock()
        self._known: tuple[int, Nuclei] | None = None
        self._n_kept = 0
        self._path = _path_of(slide, self.settings, self.tissue) if keep else None
        self._restore()

    @property
    def n_tiles(self) -> int:
        """Number of tiles with tissue."""
        return len(self._tiles)

    @property
    def n_done(self) -> int:
        """Number of tiles that have been looked at."""
        return len(self._parts)

    @property
    def is_complete(self) -> bool:
        return self.n_done == self.n_tiles

    def missing(self, rect: Rect | None = None) -> FloatArray:
        """Return the centres ``(T, 2)`` of the tiles that a rectangle touches and that are not done.

        Those nearest to its middle come first; without a rectangle, all of the slide, row by row.
        """
        half = CORE * MPP / 2
        tiles = self._tiles
        if rect is not None:
            y, x = tiles.T
            near = (y + half > rect.y0) & (y - half < rect.y1) & (x + half > rect.x0) & (x - half < rect.x1)
            tiles = tiles[near]
            tiles = tiles[np.argsort(np.hypot(*(tiles - np.asarray(rect.center)).T), kind="stable")]
        with self._lock:
            done = np.array([(float(y), float(x)) in self._parts for y, x in tiles], dtype=bool)
        missing: FloatArray = tiles[~done]
        return missing

    def find(self, tiles_um: FloatArray, progress: Progress = no_progress) -> None:
        """Look for nuclei in some tiles of :meth:`missing`; what ``progress`` raises ends it, and keeps what is found.

        Warns
        -----
        CpnnWarning
            If tiles cannot be read; they count as done.
        """
        if not len(tiles_um):
            return
        if self._finder is None:
            self._finder = finder_of(self.slide, self.tissue, self.settings)
        progress("Finding nuclei", 0.0)
        for number, part in enumerate(by_tile(self.slide, Tiling(tiles_um), self._finder, self.settings, False), 1):
            with self._lock:
                self._parts[part.tile] = part
            progress("Finding nuclei", number / len(tiles_um))

    def nuclei(self) -> Nuclei:
        """Return the nuclei of the tiles that are done."""
        with self._lock:
            parts, known = list(self._parts.values()), self._known
        if known is not None and known[0] == len(parts):
            return known[1]
        found = nuclei_of_parts(parts, self.settings, tissue=self.tissue, area=self._area)
        self._known = len(parts), found
        return found

    def keep(self) -> None:
        """Write what is new to the cache folder; :class:`NucleiError` if that fails."""
        with self._lock:
            parts = list(self._parts.values())
        if self._path is None or len(parts) == self._n_kept:
            return
        outlines = Outlines.joined([part.outlines for part in parts if part.outlines is not None])
        arrays: Arrays = {
            "tiles_um": np.array([part.tile for part in parts], dtype=np.float64),
            "sizes": np.array([len(part.seam) for part in parts], dtype=np.int64),
            "centers_um": np.concatenate([part.centers for part in parts]),
            "peaks_um": np.concatenate([part.peaks for part in parts]),
            "seam": np.concatenate([part.seam for part in parts]),
            "vertices_um": outlines.vertices_um,
            "starts": outlines.starts,
        }
        _KEPT.write(arrays, {}, self._path, overwrite=True)
        self._n_kept = len(parts)
        _prune(self._path.parent)

    def _restore(self) -> None:
        """Take what was found before; a damaged file is as none."""
        if self._path is None or not self._path.exists():
            return
        with suppress(NucleiError, ValueError, KeyError, OSError):
            arrays, _ = _KEPT.read(self._path)
            parts = _parts_of(arrays)
            tiles = {(float(y), float(x)) for y, x in self._tiles}
            self._parts = {part.tile: part for part in parts if part.tile in tiles}
            self._n_kept = len(self._parts)
            os.utime(self._path)


def _path_of(slide: Slide, settings: NucleiSettings, tissue: TissueMask) -> Path:
    facts: dict[str, Any] = {
        "slide": slide.identity,
        "mpp": slide.require_mappable(),
        "settings": {name: value for name, value in asdict(settings).items() if name != "device"},
        "source": source_of(settings),
        "tissue": list(tissue.mask.shape),
    }
    return folder_of("nuclei") / f"{key_of(facts, tissue.mask)}.zarr"


def _prune(folder: Path) -> None:
    """Delete what was used longest ago beyond a limit; what changed within the last hour is kept."""
    used: dict[Path, float] = {}
    with suppress(OSError):
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name) and _KEPT.is_at(path):
                used[path] = path.stat().st_mtime
    prune_entries(used, _MOST_BYTES, _size, lambda path: time.time() - used[path] < _IN_USE_SECONDS, remove)


def _size(path: Path) -> int:
    total = 0
    with suppress(OSError):
        total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return total


def _parts_of(arrays: Arrays) -> list[Part]:
    ends = np.cumsum(arrays["sizes"])
    has_outlines = len(arrays["starts"]) - 1 == (ends[-1] if len(ends) else 0)
    outlines = Outlines(arrays["vertices_um"], arrays["starts"]) if has_outlines else None
    parts = []
    for (y, x), size, end in zip(arrays["tiles_um"].tolist(), arrays["sizes"].tolist(), ends.tolist(), strict=True):
        rows = slice(end - size, end)
        own = None if outlines is None else outlines.subset(np.arange(end - size, end))
        parts.append(Part((y, x), arrays["centers_um"][rows], own, arrays["peaks_um"][rows], arrays["seam"][rows]))
    return parts
