"""Nested coarse-to-fine lattices over a tissue mask, with one representative patch per block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import IntArray

COARSEST = 16
"""Side of the largest blocks on most slides, in patches."""

_FIRST = 64
"""Maximum number of blocks of the coarsest lattice; very large slides have additional coarser lattices."""


class Lattice:
    """Representative tissue patches of blocks of 1, 2, 4, ... patches a side.

    The representative is the tissue patch nearest to the block's centre among the representatives of its four
    quarters. Lattices are therefore nested (nothing is computed twice from coarse to fine), and each block with tissue
    has a representative, including at the tissue's edge, where a regular lattice of every 16th patch would miss it.

    Parameters
    ----------
    tissue
        ``(rows, cols)`` bool.
    coarsest
        The largest block, a power of two; by default `COARSEST`, and more where the tissue has many such blocks.
    """

    def __init__(self, tissue: npt.NDArray[np.bool_], coarsest: int | None = None) -> None:
        self.shape = (tissue.shape[0], tissue.shape[1])
        rows, cols = self.shape
        self._tissue = tissue
        flat = np.arange(rows * cols, dtype=np.intp).reshape(rows, cols)
        self._representatives: dict[int, IntArray] = {1: np.where(tissue, flat, -1)}
        size = 1
        while size < (coarsest or COARSEST) or (coarsest is None and self._n_blocks(size) > _FIRST):
            size *= 2
            self._representatives[size] = self._merge(self._representatives[size // 2], size)

    def representatives(self, size: int) -> IntArray:
        """Flat patch index per block of ``size`` x ``size`` patches, -1 for a block without tissue."""
        return self._representatives[size]

    @property
    def sizes(self) -> list[int]:
        """Block sizes, coarsest first."""
        return sorted(self._representatives, reverse=True)

    def _n_blocks(self, size: int) -> int:
        return int((self._representatives[size] >= 0).sum())

    def _merge(self, finer: IntArray, size: int) -> IntArray:
        rows, cols = -(-finer.shape[0] // 2), -(-finer.shape[1] // 2)
        padded = np.full((rows * 2, cols * 2), -1, dtype=np.intp)
        padded[: finer.shape[0], : finer.shape[1]] = finer
        quarters = padded.reshape(rows, 2, cols, 2).transpose(0, 2, 1, 3).reshape(rows, cols, 4)
        row, col = np.divmod(quarters, self.shape[1])
        centre_row = (np.arange(rows) + 0.5)[:, None, None] * size - 0.5
        centre_col = (np.arange(cols) + 0.5)[None, :, None] * size - 0.5
        distance = (row - centre_row) ** 2 + (col - centre_col) ** 2
        best = np.where(quarters >= 0, distance, np.inf).argmin(axis=2)
        return np.take_along_axis(quarters, best[..., None], axis=2)[..., 0]

    def donors(self, done: npt.NDArray[np.bool_]) -> IntArray:
        """Computed patch that represents each patch: itself, or the representative of the smallest block around it.

        Parameters
        ----------
        done
            ``(rows, cols)`` bool.

        Returns
        -------
        ``(rows, cols)`` flat indices, -1 if there is none.
        """
        cells = np.flatnonzero(self._tissue)
        found = np.where(done.reshape(-1)[cells], cells, -1)
        missing = np.flatnonzero(found < 0)
        row, col = np.divmod(cells[missing], self.shape[1])
        for size in sorted(self._representatives)[1:]:
            if not missing.size:
                break
            representative = self._representatives[size][row // size, col // size]
            hit = done.reshape(-1)[representative]  # the block of a tissue patch always has one
            found[missing[hit]] = representative[hit]
            missing, row, col = missing[~hit], row[~hit], col[~hit]
        result = np.full(self.shape[0] * self.shape[1], -1, dtype=np.intp)
        result[cells] = found
        return result.reshape(self.shape)

    def donor(self, row: int, col: int, done: npt.NDArray[np.bool_]) -> int:
        """:meth:`donors` of one patch."""
        if self._tissue[row, col]:
            for size in sorted(self._representatives):
                cell = int(self._representatives[size][row // size, col // size])
                if done.reshape(-1)[cell]:
                    return cell
        return -1
