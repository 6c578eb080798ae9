"""Read patches from slides, for training, evaluation and maps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_cpnn.arrays import Int64Array, Picture
from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import Mpp, PatchSpec
from napari_cpnn.slides.slide import Slide

#: A level is fine enough if its pixels are at most this much larger than requested.
_FINER = 1.05
#: Maximum number of pixels of patches that are read together, and minimum share of them that patches must cover.
_GROUP_PX = 8 * 2**20
_GROUP_SHARE = 0.6


@dataclass(frozen=True)
class _Cut:
    """Parameters for reading patches from one level; scale is level pixels per patch pixel, ``(y, x)``."""

    level: int
    um_per_px: Mpp
    scale: tuple[float, float]
    copied: bool


class PatchReader:
    """Read patches of one size from one slide; thread-safe.

    A patch is read from the coarsest level that is at least as fine as requested, and resampled with an antialiasing
    triangle filter whose sampling points depend only on the patch's centre. If the level already has the requested
    pixel size (deviating by less than a pixel over the patch), pixels are copied, aligned to the nearest whole pixel.

    Parameters
    ----------
    slide
        RGB slide, 8 bit, with a pixel size.
    spec
        Side in pixels, and pixel size.

    Raises
    ------
    SlideError, PixelSizeError
        If the slide cannot be mapped, see :meth:`Slide.require_mappable`.

    Examples
    --------
    >>> from napari_cpnn.slides import PatchReader
    >>> images, ok = PatchReader(slide, model.patch).read([[1200.0, 1200.0], [1300.0, 1200.0]])
    >>> images.shape, ok.tolist()
    ((2, 224, 224, 3), [True, True])
    """

    def __init__(self, slide: Slide, spec: PatchSpec) -> None:
        mpp = slide.require_mappable()
        self.slide = slide
        self.spec = spec
        self._cut = _choose_cut(slide, spec, mpp)
        # The triangle filter extends by one output pixel on each side, and at least one level pixel.
        self._margin = tuple(math.ceil(max(1.0, s)) + 1 for s in self._cut.scale)
        self._spare: list[Picture] = []  # appending and popping are atomic

    @property
    def level(self) -> int:
        """Index of the level from which patches are read."""
        return self._cut.level

    def read(self, centers_um: npt.ArrayLike) -> tuple[Picture, npt.NDArray[np.bool_]]:
        """Read patches around centres; the pixels of a patch do not depend on the other patches.

        Parameters
        ----------
        centers_um
            ``(N, 2)``, slide micrometres ``(y, x)``. Pixels outside the slide are white.

        Returns
        -------
        images
            ``(N, size_px, size_px, 3)`` uint8; white where reading failed.
        ok
            ``(N,)``, False where the file could not be read.
        """
        centers = np.asarray(centers_um, np.float64).reshape(-1, 2)
        images = self._memory(len(centers))
        return images, self.read_into(centers, images)

    def give_back(self, images: Picture) -> None:
        """Let later reads write into ``images`` of :meth:`read`, which nothing uses any more.

        New memory costs more than the pixels that are copied into it. What is given back is kept until it is read into
        again, or until :meth:`release`.
        """
        self._spare.append(images if images.base is None else images.base)

    def release(self) -> None:
        """Release the memory that was given back."""
        self._spare.clear()

    def _memory(self, n: int) -> Picture:
        """Memory of ``n`` patches: spare, or new where that is too small."""
        with suppress(IndexError):  # other threads take some, too
            spare = self._spare.pop()
            if len(spare) >= n:
                return spare[:n]
        return np.empty((n, self.spec.size_px, self.spec.size_px, 3), np.uint8)

    def read_into(self, centers_um: npt.ArrayLike, images: Picture) -> npt.NDArray[np.bool_]:
        """Read as :meth:`read`, into ``images (N, size_px, size_px, 3)`` uint8 that are there; return ``ok (N,)``."""
        centers = np.asarray(centers_um, np.float64).reshape(-1, 2)
        if not np.isfinite(centers).all():
            raise SlideError("The centres of patches must be finite numbers.")
        ok = np.zeros(len(centers), bool)
        corners = centers / np.asarray(self._cut.um_per_px) - np.asarray(self._cut.scale) * (self.spec.size_px / 2)
        boxes = self._boxes(corners)
        for group in _groups(boxes, np.arange(len(centers))):
            self._read_group(group, corners, boxes, images, ok)
        images[~ok] = 255
        return ok

    def _boxes(self, corners: npt.NDArray[np.float64]) -> Int64Array:
        """Return the level pixels ``(N, 4)`` as ``y0, x0, y1, x1`` from which each patch is computed."""
        size = self.spec.size_px
        if self._cut.copied:
            start = np.floor(corners + 0.5).astype(np.int64)
            return np.concatenate([start, start + size], axis=1)
        margin = np.asarray(self._margin)
        start = np.floor(corners).astype(np.int64) - margin
        extent = np.ceil(np.asarray(self._cut.scale) * size).astype(np.int64) + 1 + 2 * margin
        return np.concatenate([start, start + extent], axis=1)

    def _read_group(
        self,
        group: npt.NDArray[np.intp],
        corners: npt.NDArray[np.float64],
        boxes: Int64Array,
        images: Picture,
        ok: npt.NDArray[np.bool_],
    ) -> None:
        y0, x0 = (int(v) for v in boxes[group, :2].min(axis=0))
        y1, x1 = (int(v) for v in boxes[group, 2:].max(axis=0))
        try:
            region = self.slide.read_region(y0, x0, y1 - y0, x1 - x0, self._cut.level)
        except SlideError:
            # Retry patches one by one, so that a damaged tile does not affect its neighbours.
            if len(group) > 1:
                for one in group:
                    self._read_group(np.asarray([one]), corners, boxes, images, ok)
            return
        for i in group:
            top, left, bottom, right = (int(v) for v in boxes[i])
            part = region[top - y0 : bottom - y0, left - x0 : right - x0]
            images[i] = part if self._cut.copied else self._resample(part, corners[i] - boxes[i, :2])
            ok[i] = True

    def _resample(self, part: Picture, corner: npt.NDArray[np.float64]) -> Picture:
        size = self.spec.size_px
        y, x = (float(v) for v in corner)
        box = (x, y, x + self._cut.scale[1] * size, y + self._cut.scale[0] * size)
        image = Image.fromarray(np.ascontiguousarray(part))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def read_patches(slide: Slide, centers_um: npt.ArrayLike, spec: PatchSpec) -> Picture:
    """Read patches ``(N, size_px, size_px, 3)`` uint8 around ``centers_um`` ``(N, 2)``; see :class:`PatchReader`.

    Raises
    ------
    SlideError
        If a patch cannot be read.

    Examples
    --------
    >>> from napari_cpnn.slides import read_patches
    >>> read_patches(slide, [[1200.0, 1200.0]], nc.PatchSpec(64, 1.0)).shape
    (1, 64, 64, 3)
    """
    images, ok = PatchReader(slide, spec).read(centers_um)
    if not ok.all():
        raise SlideError(f"{int((~ok).sum())} of {len(ok)} patches of {slide.label} cannot be read; it may be damaged.")
    return images


def _choose_cut(slide: Slide, spec: PatchSpec, mpp: Mpp) -> _Cut:
    level = 0
    for index, down in enumerate(slide.downsamples):
        if all(m * d <= spec.mpp * _FINER for m, d in zip(mpp, down, strict=True)):
            level = index
    down = slide.downsamples[level]
    um_per_px = mpp[0] * down[0], mpp[1] * down[1]
    scale = spec.mpp / um_per_px[0], spec.mpp / um_per_px[1]
    copied = all(abs(s - 1) * spec.size_px < 1 for s in scale)
    return _Cut(level, um_per_px, (1.0, 1.0) if copied else scale, copied)


def _groups(boxes: Int64Array, indices: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    """Group neighbouring patches to read together, splitting along the longer side until a group is compact."""
    if not len(indices):
        return
    mine = boxes[indices]
    low, high = mine[:, :2].min(axis=0), mine[:, 2:].max(axis=0)
    area = int(np.prod(high - low))
    own = int(np.prod(mine[:, 2:] - mine[:, :2], axis=1).sum())
    if len(indices) == 1 or (area <= _GROUP_PX and own >= _GROUP_SHARE * area):
        yield indices
        return
    axis = int(np.argmax(high - low))
    order = np.argsort(mine[:, axis], kind="stable")
    half = len(indices) // 2
    yield from _groups(boxes, indices[order[:half]])
    yield from _groups(boxes, indices[order[half:]])
