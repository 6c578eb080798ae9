"""Which patch next: a viewport becomes an order of cells. No threads, no pixels, no network here."""

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

#: Within a lattice, cells are taken in tiles of this many cells a side, so that neighbours share a region read.
TILE = 4

#: A lattice of more patches than this in view is no first picture: on very large slides coarser ones come before.
_FIRST = 64


@dataclass(frozen=True)
class Viewport:
    """What a viewer shows.

    Parameters
    ----------
    rect
        Visible rectangle in slide micrometres.
    px_per_um
        Screen pixels per micrometre.
    pointer
        Slide micrometres ``(y, x)`` under the mouse, where the viewer looks first; ``None``: the centre.
    """

    rect: Rect
    px_per_um: float
    pointer: tuple[float, float] | None = None

    @property
    def focus(self) -> tuple[float, float]:
        """The pointer where it is in view, else the centre."""
        r = self.rect
        if self.pointer and r.y0 <= self.pointer[0] < r.y1 and r.x0 <= self.pointer[1] < r.x1:
            return self.pointer
        return r.center


class Wish(NamedTuple):
    """What is to be mapped: what is in view, then areas of the slide, then all of it."""

    viewport: Viewport | None = None
    areas: tuple[Rect, ...] = ()
    whole_slide: bool = False


class Scheduler:
    """Orders the cells of a grid for a view: coarse to fine, near to far, then a margin, then the rest.

    Parameters
    ----------
    grid, lattice
        Where the patches are, and the nested lattices over the tissue.
    settings
        `coarsest`, `min_screen_px` and `margin` are used.
    halo_um
        The margin is at least this wide.
    """

    def __init__(self, grid: Grid, lattice: Lattice, settings: MappingSettings, halo_um: float = 0.0) -> None:
        self.halo_um = halo_um
        self.grid = grid
        self.lattice = lattice
        self.settings = settings

    def finest(self, px_per_um: float) -> int:
        """The smallest lattice spacing, in cells, that is at least `min_screen_px` screen pixels."""
        wanted = self.settings.min_screen_px / max(px_per_um * self.grid.stride_um, 1e-12)
        return min(self.settings.coarsest, 1 << math.ceil(math.log2(max(wanted, 1.0))))

    def order(
        self,
        viewport: Viewport | None,
        pending: npt.NDArray[np.bool_],
        whole_slide: bool = False,
        areas: Sequence[Rect] = (),
    ) -> IntArray:
        """Flat indices of the cells to compute, first to last, each once.

        Parameters
        ----------
        viewport
            What is in view; ``None`` when nothing is.
        pending
            ``(rows, cols)`` bool: the cells that are not computed yet.
        whole_slide
            Go on with all other tissue after the view and its margin.
        areas
            Before that, go on with all patches of these parts of the slide.
        """
        parts: list[IntArray] = []
        if viewport is not None:
            focus = np.asarray(viewport.focus)
            finest = self.finest(viewport.px_per_um)
            margin = max(self.settings.margin * max(viewport.rect.height, viewport.rect.width), self.halo_um)
            for rect in (viewport.rect, viewport.rect.grown(margin)):
                parts += self._coarse_to_fine(self.grid.window(rect), finest, focus)
        for area in areas:
            parts += self._coarse_to_fine(self.grid.window(area), 1, np.asarray(area.center))
        if whole_slide:
            parts += self._whole_slide
        # The same cell represents blocks of several sizes; its first place counts.
        open_cells = pending.reshape(-1).copy()
        order = []
        for cells in parts:
            order.append(cells[open_cells[cells]])
            open_cells[cells] = False
        return np.concatenate(order) if order else np.empty(0, dtype=np.intp)

    @cached_property
    def _whole_slide(self) -> list[IntArray]:
        """All tissue, coarse to fine, from the middle of the grid outwards; the same for every view."""
        middle = (np.asarray(self.grid.shape) / 2) * self.grid.stride_um + self.grid.origin_um
        return self._coarse_to_fine((slice(0, self.grid.shape[0]), slice(0, self.grid.shape[1])), 1, middle)

    def _coarse_to_fine(self, window: tuple[slice, slice], finest: int, focus: FloatArray) -> list[IntArray]:
        rows, cols = window
        if rows.stop <= rows.start or cols.stop <= cols.start:
            return []
        parts: list[IntArray] = []
        for size in sorted(self.lattice.sizes):
            blocks = self.lattice.representatives(size)[
                rows.start // size : -(-rows.stop // size), cols.start // size : -(-cols.stop // size)
            ]
            cells = blocks[blocks >= 0]
            if size >= finest:
                parts.append(self._near_to_far(cells, focus))
            if size >= self.settings.coarsest and (size < COARSEST or len(cells) <= _FIRST):
                break
        return parts[::-1]

    def _near_to_far(self, cells: IntArray, focus: FloatArray) -> IntArray:
        """Sort by distance of the tile to the focus, then by tile, so that tiles stay together."""
        row, col = np.divmod(cells, self.grid.shape[1])
        tile_row, tile_col = row // TILE, col // TILE
        at = (np.stack([tile_row, tile_col], axis=1) + 0.5) * (TILE * self.grid.stride_um) + self.grid.origin_um
        distance = ((at - focus) ** 2).sum(axis=1)
        # Tiles at the same distance are told apart by a thousandth of a tile; inside a tile, cells stay in row order.
        tile = tile_row * self.grid.shape[1] + tile_col
        return cells[np.argsort(distance + tile * (1e-3 * self.grid.stride_um / self.grid.n_cells), kind="stable")]
