"""Cells per patch of a grid: counts, and means of what is known of each cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, IntArray
from napari_cpnn.geometry import Grid

#: Rows that are summed at a time, so that float32 copies stay small.
_ROWS = 131_072


@dataclass(frozen=True, eq=False)
class CellsOfPatches:
    """Which patch of a grid each of N cells lies in.

    Parameters
    ----------
    grid
        The grid.
    patches
        Flat index of the patch of each cell, ``(N,)``; -1 outside of the grid.

    Examples
    --------
    >>> from napari_cpnn.cells import CellsOfPatches
    >>> from napari_cpnn.geometry import Grid
    >>> cells = CellsOfPatches.of([[5.0, 5.0], [6.0, 4.0], [5.0, 15.0]], Grid((1, 2), 10.0))
    >>> cells.counts.tolist(), cells.means([1.0, 3.0, 7.0]).tolist()
    ([[2, 1]], [[2.0, 7.0]])
    """

    grid: Grid
    patches: IntArray

    @classmethod
    def of(cls, centers_um: npt.ArrayLike, grid: Grid) -> CellsOfPatches:
        """Return the cells with these centres, ``(N, 2)`` slide micrometres (y, x), over a grid."""
        centers = np.asarray(centers_um, dtype=np.float64).reshape(-1, 2)
        row, col = np.floor((centers - np.asarray(grid.origin_um)) / grid.stride_um).astype(np.intp).T
        inside = (row >= 0) & (col >= 0) & (row < grid.shape[0]) & (col < grid.shape[1])
        return cls(grid, np.where(inside, row * grid.shape[1] + col, -1))

    @cached_property
    def counts(self) -> IntArray:
        """Number of cells in each patch, ``(rows, cols)``."""
        return self.counts_of(np.ones(len(self.patches), dtype=bool))

    def counts_of(self, chosen: BoolArray) -> IntArray:
        """Return the number of cells in each patch that are ``chosen``, ``(N,)``, as ``(rows, cols)``."""
        patches = self.patches[chosen & (self.patches >= 0)]
        counts: IntArray = np.bincount(patches, minlength=self.grid.n_cells)
        return counts.reshape(self.grid.shape)

    def means(self, values: npt.ArrayLike) -> Float32Array:
        """Return means over the cells in each patch.

        Parameters
        ----------
        values
            ``(N,)`` or ``(N, K)``; cells with NaN are left out.

        Returns
        -------
        numpy.ndarray
            ``(rows, cols)`` or ``(rows, cols, K)`` float32, NaN in patches without cells.
        """
        rows: npt.NDArray[Any] = np.asarray(values)
        lead = rows.shape[1:]
        rows = rows.reshape(len(rows), int(np.prod(lead)))
        sums = np.zeros((self.grid.n_cells, rows.shape[1]))
        numbers = np.zeros(self.grid.n_cells)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS].astype(np.float64)
            patches = self.patches[start : start + _ROWS]
            used = (patches >= 0) & ~np.isnan(part).any(axis=1)
            part, patches = part[used], patches[used]
            if not len(part):
                continue
            order = np.argsort(patches, kind="stable")
            here, starts = np.unique(patches[order], return_index=True)
            sums[here] += np.add.reduceat(part[order], starts, axis=0)
            numbers[here] += np.diff(np.append(starts, len(order)))
        with np.errstate(invalid="ignore"):  # no cells: NaN
            means = (sums / numbers[:, None]).astype(np.float32)
        return means.reshape(*self.grid.shape, *lead)
