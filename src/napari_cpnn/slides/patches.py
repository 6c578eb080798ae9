"""Cutting patches: the one function that training, evaluation and maps share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_cpnn.arrays import Int64Array, Picture
from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import Mpp, PatchSpec
from napari_cpnn.slides.slide import Slide

#: A level counts as fine enough when its pixels are at most this much larger than asked for.
_FINER = 1.05
#: Patches that are read together cover at most this many pixels, of which at least the share below is theirs.
_GROUP_PX = 8 * 2**20
_GROUP_SHARE = 0.6


@dataclass(frozen=True)
class _Cut:
    """How patches are cut from one level: scale is level pixels per patch pixel, ``(y, x)``."""

    level: int
    um_per_px: Mpp
    scale: tuple[float, float]
    copied: bool


class PatchReader:
    """Cuts patches of one size from one slide; safe to use from several threads.

    A patch is taken from the coarsest level that is at least as fine as asked for, and resampled with an
    anti-aliased triangle filter whose sampling points depend on its centre only. Where the level has the wanted
    pixel size already (off by less than a pixel over the patch), pixels are copied, from the nearest whole pixel.

    Parameters
    ----------
    slide
        RGB, 8 bit, with a pixel size.
    spec
        Side in pixels and pixel size.

    Raises
    ------
    SlideError, PixelSizeError
        When the slide cannot be mapped, see :meth:`Slide.require_mappable`.
    """

    def __init__(self, slide: Slide, spec: PatchSpec) -> None:
        mpp = slide.require_mappable()
        self.slide = slide
        self.spec = spec
        self._cut = _choose_cut(slide, spec, mpp)
        # The triangle filter reaches one output pixel to each side, at least one level pixel.
        self._margin = tuple(math.ceil(max(1.0, s)) + 1 for s in self._cut.scale)

    @property
    def level(self) -> int:
        """The level that patches are taken from."""
        return self._cut.level

    def read(self, centers_um: npt.ArrayLike) -> tuple[Picture, npt.NDArray[np.bool_]]:
        """Patches around centres; a patch's pixels do not depend on which others are read with it.

        Parameters
        ----------
        centers_um
            ``(N, 2)``, slide micrometres ``(y, x)``. What lies outside the slide is white.

        Returns
        -------
        images
            ``(N, size_px, size_px, 3)`` uint8; white where reading failed.
        ok
            ``(N,)``, false where the file could not be read.
        """
        centers = np.asarray(centers_um, np.float64).reshape(-1, 2)
        if not np.isfinite(centers).all():
            raise SlideError("The centres of patches have to be finite numbers.")
        size = self.spec.size_px
        images = np.full((len(centers), size, size, 3), 255, np.uint8)
        ok = np.zeros(len(centers), bool)
        corners = centers / np.asarray(self._cut.um_per_px) - np.asarray(self._cut.scale) * (size / 2)
        boxes = self._boxes(corners)
        for group in _groups(boxes, np.arange(len(centers))):
            self._read_group(group, corners, boxes, images, ok)
        return images, ok

    def _boxes(self, corners: npt.NDArray[np.float64]) -> Int64Array:
        """Whole level pixels ``(N, 4)`` as ``y0, x0, y1, x1`` that each patch is computed from."""
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
            # One bad tile must not cost its neighbours: each patch is tried by itself.
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
    """Patches ``(N, size_px, size_px, 3)`` uint8 around ``centers_um`` ``(N, 2)``; see :class:`PatchReader`.

    Raises
    ------
    SlideError
        When one of them cannot be read.
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
    """Neighbours to read in one go: halved along the longer side until a group fills its bounding box."""
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
