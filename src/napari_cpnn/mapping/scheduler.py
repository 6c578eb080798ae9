"""Order of computation: convert a viewport to an ordered list of patches. Pure functions without threads or I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.lattice import COARSEST, Lattice
from napari_cpnn.settings import MappingSettings

#: Within a lattice, patches are ordered by square blocks of this side, so that neighbours share one region read.
TILE = 4

#: In large views and beyond the view, patches are ordered by square blocks of this side: all of a block before the
#: next, so that a tile of the slide is decoded for all its patches at once. The tiles of a few rows of such a block fit
#: in the cache of tiles.
BLOCK = 16

#: Patches in view above which blocks are completed one after the other once the view is covered by patches of
#: `_OVERVIEW`. Smaller views are refined everywhere at the same time: their tiles stay in the cache, or are few.
_MANY = 8 * BLOCK**2
_OVERVIEW = 8

#: Maximum number of patches in view of the first lattice; on very large slides, coarser lattices precede it.
_FIRST = 64


@dataclass(frozen=True)
class Viewport:
    """Visible part of a slide in a viewer.

    Parameters
    ----------
    rect
        Visible rectangle in slide micrometres.
    px_per_um
        Screen pixels per micrometre.
    pointer
        Position ``(y, x)`` of the mouse in slide micrometres, which is mapped first; ``None``: the centre.

    Examples
    --------
    >>> from napari_cpnn.geometry import Rect
    >>> from napari_cpnn.mapping import LiveMapper, Viewport
    >>> with LiveMapper(slide, model) as mapper:
    ...     mapper.set_viewport(Viewport(Rect(1000, 1000, 1100, 1100), px_per_um=2.0))
    ...     mapper.wait_until_mapped(60)
    True
    """

    rect: Rect
    px_per_um: float
    pointer: tuple[float, float] | None = None

    @property
    def focus(self) -> tuple[float, float]:
        """Pointer position if in view, else the centre."""
        r = self.rect
        if self.pointer and r.y0 <= self.pointer[0] < r.y1 and r.x0 <= self.pointer[1] < r.x1:
            return self.pointer
        return r.center


class Wish(NamedTuple):
    """Requested parts of a slide: the view, then areas, then the whole slide."""

    viewport: Viewport | None = None
    areas: tuple[Rect, ...] = ()
    whole_slide: bool = False


class Scheduler:
    """Order the patches of a grid for a view: coarse to fine, near to far, then a margin; the rest block by block.

    A view of very many patches is covered coarsely, then completed block by block.

    Parameters
    ----------
    grid, lattice
        Grid of the patches, and nested lattices over the tissue.
    settings
        `coarsest`, `min_screen_px` and `margin` are used.
    halo_um
        Minimum width of the margin.
    """

    def __init__(self, grid: Grid, lattice: Lattice, settings: MappingSettings, halo_um: float = 0.0) -> None:
        self.halo_um = halo_um
        self.grid = grid
        self.lattice = lattice
        self.settings = settings

    def finest(self, px_per_um: float) -> int:
        """Smallest lattice spacing, in patches, of at least `min_screen_px` screen pixels."""
        wanted = self.settings.min_screen_px / max(px_per_um * self.grid.stride_um, 1e-12)
        return min(self.settings.coarsest, 1 << math.ceil(math.log2(max(wanted, 1.0))))

    def order(
        self,
        viewport: Viewport | None,
        pending: npt.NDArray[np.bool_],
        whole_slide: bool = False,
        areas: Sequence[Rect] = (),
    ) -> IntArray:
        """Flat indices of the patches to compute, in order, without duplicates.

        Parameters
        ----------
        viewport
            The current view; ``None`` for none.
        pending
            ``(rows, cols)`` bool: patches that are not computed yet.
        whole_slide
            Append all other tissue after the view and its margin.
        areas
            Append all patches of these parts of the slide before that.
        """
        parts: list[IntArray] = []
        if viewport is not None:
            focus = np.asarray(viewport.focus)
            finest = self.finest(viewport.px_per_um)
            margin = max(self.settings.margin * max(viewport.rect.height, viewport.rect.width), self.halo_um)
            for rect in (viewport.rect, viewport.rect.grown(margin)):
                parts += self._coarse_to_fine(self.grid.window(rect), finest, focus)
        for area in areas:
            patches = self.lattice.representatives(1)[self.grid.window(area)]
            parts.append(self._by_block(patches[patches >= 0], np.asarray(area.center)))
        if whole_slide:
            parts.append(self._whole_slide)
        # A patch may represent blocks of several sizes; its first occurrence counts.
        open_patches = pending.reshape(-1).copy()
        order = []
        for patches in parts:
            order.append(patches[open_patches[patches]])
            open_patches[patches] = False
        return np.concatenate(order) if order else np.empty(0, dtype=np.intp)

    @cached_property
    def _whole_slide(self) -> IntArray:
        """Order of all tissue from the centre of the grid outwards; independent of the view."""
        middle = (np.asarray(self.grid.shape) / 2) * self.grid.stride_um + self.grid.origin_um
        patches = self.lattice.representatives(1)
        return self._by_block(patches[patches >= 0], middle)

    def _by_block(self, patches: IntArray, focus: FloatArray) -> IntArray:
        """Sort patches by blocks, near to far; within a block, small blocks row by row."""
        row, col = np.divmod(patches, self.grid.shape[1])
        block = self._distance(patches, BLOCK, focus)
        return patches[np.lexsort((col, row, col // TILE, row // TILE, block))]

    def _coarse_to_fine(self, window: tuple[slice, slice], finest: int, focus: FloatArray) -> list[IntArray]:
        rows, cols = window
        if rows.stop <= rows.start or cols.stop <= cols.start:
            return []
        parts: list[IntArray] = []
        by_block = False
        for size in sorted(self.lattice.sizes):
            blocks = self.lattice.representatives(size)[
                rows.start // size : -(-rows.stop // size), cols.start // size : -(-cols.stop // size)
            ]
            patches = blocks[blocks >= 0]
            if size == finest and size < _OVERVIEW and len(patches) > _MANY:
                by_block = True  # lattices are nested: this one holds those between
                parts.append(self._by_block(patches, focus))
            elif size >= (_OVERVIEW if by_block else finest):
                parts.append(self._near_to_far(patches, focus))
            if size >= self.settings.coarsest and (size < COARSEST or len(patches) <= _FIRST):
                break
        return parts[::-1]

    def _near_to_far(self, patches: IntArray, focus: FloatArray) -> IntArray:
        """Sort by distance of the block to the focus, then by block, so that blocks stay together."""
        return patches[np.argsort(self._distance(patches, TILE, focus), kind="stable")]  # in a block, by row

    def _distance(self, patches: IntArray, side: int, focus: FloatArray) -> FloatArray:
        """Squared distance (um2) from the focus to the block of ``side`` with each patch; no two blocks are equal."""
        row, col = np.divmod(patches, self.grid.shape[1])
        block_row, block_col = row // side, col // side
        at = (np.stack([block_row, block_col], axis=1) + 0.5) * (side * self.grid.stride_um) + self.grid.origin_um
        distance = ((at - focus) ** 2).sum(axis=1)
        # Ties between blocks are broken by a thousandth of a stride.
        distance += (block_row * self.grid.shape[1] + block_col) * (1e-3 * self.grid.stride_um / self.grid.n_cells)
        return np.asarray(distance, dtype=np.float64)
