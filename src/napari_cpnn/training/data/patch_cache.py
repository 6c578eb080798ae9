"""Disk cache of patches: read once from the slide, stored in chunks, and memory-mapped.

The patches of a slide are stored in a folder whose name is a hash of everything that their pixels depend on: the
slide's identity and pixel size, the :class:`~napari_cpnn.geometry.PatchSpec`, the places, and the version of the
code that reads them. Other runs, folds or heads on the same spots reuse them, as do concurrent processes (see
:mod:`napari_cpnn.storage.array_files`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_cpnn._version import __version__
from napari_cpnn.arrays import FloatArray, IntArray, Picture
from napari_cpnn.errors import TrainingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.slides import PatchReader, Slide
from napari_cpnn.storage import (
    ARRAY_FILES,
    find_array,
    folder_of,
    keep_array,
    key_of,
    prune_kept,
    touch_kept,
    write_array,
    writing,
)

#: Patches per chunk: 39 MB at 224 px, the peak memory of reading.
CHUNK = 256

#: Patches that are read at a time, between reports of progress.
_GROUP = 32

#: Size limit of the cache; patches of the least recently used slides are deleted beyond it.
CACHE_BYTES = 20 * 1024**3


class LaterPatches:
    """Patches of one slide that are read on first access.

    Parameters
    ----------
    n
        Number of patches.
    spec
        Size and resolution of the patches.
    cut
        Function that returns all patches, ``(n, S, S, 3)``.
    """

    def __init__(self, n: int, spec: PatchSpec, cut: Callable[[], PatchArray]) -> None:
        self._n, self._cut = n, cut
        self.shape = (n, spec.size_px, spec.size_px, 3)
        self._patches: PatchArray | None = None

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, place: int) -> Picture:
        if self._patches is None:
            self._patches = self._cut()
        return self._patches[np.array([place])][0]  # type: ignore[no-any-return]


class PatchArray:
    """Patches of one or more slides as one read-only array ``(N, S, S, 3)`` uint8 over memory-mapped chunks.

    Indexing with a slice or an array of indices copies these patches into memory.

    Parameters
    ----------
    chunks
        Arrays ``(n, S, S, 3)``, some of which may be read later.
    rows
        Indices into the concatenated chunks; by default all.
    """

    def __init__(self, chunks: Sequence[Picture | LaterPatches], rows: IntArray | None = None) -> None:
        self.chunks = list(chunks)
        ends = np.cumsum([len(chunk) for chunk in self.chunks], dtype=np.intp)
        rows = np.arange(ends[-1] if len(ends) else 0) if rows is None else np.asarray(rows, dtype=np.intp)
        self._chunk_of = np.searchsorted(ends, rows, side="right")
        self._place = rows - np.concatenate([[0], ends])[self._chunk_of]

    def __len__(self) -> int:
        return len(self._place)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *(self.chunks[0].shape[1:] if self.chunks else (0, 0, 3)))

    def __getitem__(self, rows: IntArray | slice) -> Picture:
        chunk_of, place = self._chunk_of[rows], self._place[rows]
        images = np.empty((len(place), *self.shape[1:]), dtype=np.uint8)
        for i, (chunk, at) in enumerate(zip(chunk_of.tolist(), place.tolist(), strict=True)):
            images[i] = self.chunks[chunk][at]
        return images

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[np.generic]:
        return np.asarray(self[:], dtype=dtype)


class PatchCache:
    """Disk cache of patches.

    Parameters
    ----------
    where
        ``"auto"``, the user's cache directory; ``"none"``, no cache: patches are stored in ``scratch`` for the run; or
        a folder.
    scratch
        Temporary folder of the run, for patches that are not kept.

    Raises
    ------
    TrainingError
        By any method, if the folder cannot be written.
    """

    def __init__(self, where: str, scratch: Path) -> None:
        self.kept = where != "none"
        self._scratch = scratch
        self.folder = folder_of("patches", None if where == "auto" else where) if self.kept else scratch

    def missing(self, slide: Slide, centers_um: FloatArray, spec: PatchSpec) -> int:
        """Number of patches that are not cached; damaged chunks are detected later and not counted."""
        folder = self._folder_of(slide, centers_um, spec)
        return sum(
            len(part) for i, part in enumerate(_parts(len(centers_um))) if not any(folder.glob(f"{i:05d}-*.npy"))
        )

    def read(
        self, slide: Slide, centers_um: FloatArray, spec: PatchSpec, on_cut: Callable[[int], object] | None = None
    ) -> tuple[list[Picture], npt.NDArray[np.bool_]]:
        """Patches of one slide; missing ones are read from the slide and cached.

        Parameters
        ----------
        centers_um
            ``(N, 2)``, slide micrometres. Reading is fastest if neighbours are adjacent in this order.
        on_cut
            Called with the number of patches read after each group of some.

        Returns
        -------
        chunks
            Memory-mapped ``(n, S, S, 3)`` uint8, in the order of ``centers_um``.
        ok
            ``(N,)`` bool, false where the slide could not be read. Chunks with such patches are not kept.
        """
        folder = self._folder_of(slide, centers_um, spec)
        reader = PatchReader(slide, spec)
        ok = np.ones(len(centers_um), dtype=bool)
        chunks = []
        for i, part in enumerate(_parts(len(centers_um))):
            shape = (len(part), spec.size_px, spec.size_px, 3)
            chunk = find_array(folder, i, shape, np.uint8, f"patches of {slide.name}")
            if chunk is None:
                images = np.empty(shape, dtype=np.uint8)
                for start in range(0, len(part), _GROUP):
                    group = slice(start, start + _GROUP)
                    images[group], ok[part[group]] = reader.read(centers_um[part[group]])
                    if on_cut is not None:
                        on_cut(len(part[group]))
                if ok[part].all():
                    chunk = keep_array(folder, self._scratch, i, images)
                else:
                    chunk = write_array(self._scratch / folder.name, i, images)
            chunks.append(chunk)
        touch_kept(folder)
        return chunks, ok

    def later(self, slide: Slide, centers_um: FloatArray, spec: PatchSpec) -> LaterPatches:
        """Patches as from :meth:`read`, but read on first access.

        That access raises a :class:`TrainingError` if patches cannot be read.
        """

        def cut() -> PatchArray:
            chunks, ok = self.read(slide, centers_um, spec)
            if not ok.all():
                raise TrainingError(f"{int((~ok).sum())} patches of {slide.name} can no longer be read.")
            return PatchArray(chunks)

        return LaterPatches(len(centers_um), spec, cut)

    def prune(self, limit_bytes: int | None = None) -> None:
        """Delete the patches of the least recently used slides until at most ``limit_bytes`` remain."""
        if self.kept:
            prune_kept(self.folder, CACHE_BYTES if limit_bytes is None else limit_bytes, ARRAY_FILES)

    def require_space(self, n_bytes: int) -> None:
        """Raise a :class:`TrainingError` if there is less free disk space than ``n_bytes``."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        require_space(self.folder, n_bytes, "patches need", " (patch_cache)")

    def _folder_of(self, slide: Slide, centers_um: FloatArray, spec: PatchSpec) -> Path:
        facts = [slide.identity, slide.mpp, spec.size_px, spec.mpp, len(centers_um), CHUNK, __version__]
        return self.folder / key_of(facts, np.asarray(centers_um, dtype="<f8"))


def require_space(folder: Path, n_bytes: int, needed_for: str, setting: str = "") -> None:
    """Raise a :class:`TrainingError` if there is less free disk space in a folder than ``n_bytes``."""
    free = shutil.disk_usage(folder).free
    if free < 1.05 * n_bytes:
        raise TrainingError(
            f"The {needed_for} {n_bytes / 1e6:,.0f} MB in {folder} and {free / 1e6:,.0f} MB are free; "
            f"free some space or choose another folder{setting}."
        )


def _parts(n: int) -> list[IntArray]:
    return [np.arange(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
