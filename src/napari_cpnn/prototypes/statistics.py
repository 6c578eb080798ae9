"""Sufficient statistics for estimating prototypes, from one pass over the count matrix in chunks of rows.

All cells of one type and batch share one mean in the model, so their negative binomial likelihood depends on the counts
only through the number of cells and the summed counts of each group (type, batch), and the number of cells per count
value of each gene. After the pass, the cost no longer depends on the number of cells.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from napari_cpnn.arrays import Int64Array
from napari_cpnn.counts import as_counts, is_mitochondrial, require_sound
from napari_cpnn.errors import CellsError
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.prototypes.labels import texts_of
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.untrusted import reading, require_memory

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

#: Maximum rows in memory; with 20,000 genes at most 0.7 GB, even if every count is positive.
CHUNK_ROWS = 4096
#: Maximum size of a chunk of a dense matrix in MB, since rows may be very long.
CHUNK_MB = 1024
#: Count values below this are tallied in a dense table; few counts are larger.
_DENSE = 32


@dataclass(frozen=True, eq=False)
class Histogram:
    """Number of cells with each positive count value per gene; cells without counts are implied.

    Parameters
    ----------
    gene, value, cells
        ``(M,)``, sorted by gene and then by value: ``cells[i]`` cells have ``value[i]`` counts of ``gene[i]``.
    """

    gene: Int64Array
    value: Int64Array
    cells: Int64Array

    def detected_in(self, n_genes: int) -> Int64Array:
        """Return the number of cells with at least one count, ``(G,)``."""
        return np.bincount(self.gene, self.cells, n_genes).astype(np.int64)

    def squares(self, n_genes: int) -> npt.NDArray[np.float64]:
        """Return the sum of squared counts, ``(G,)``."""
        return np.bincount(self.gene, self.cells * self.value.astype(np.float64) ** 2, n_genes).astype(np.float64)

    def between(self, start: int, stop: int) -> Histogram:
        """Return the histogram of the genes ``start`` to ``stop`` (exclusive), renumbered from 0."""
        part = slice(*np.searchsorted(self.gene, [start, stop]))
        return Histogram(self.gene[part] - start, self.value[part], self.cells[part])

    def select(self, genes: Int64Array, n_genes: int) -> Histogram:
        """Return the histogram of ``genes`` (ascending), renumbered from 0."""
        number = np.full(n_genes, -1)
        number[genes] = np.arange(len(genes))
        kept = number[self.gene] >= 0
        return Histogram(number[self.gene[kept]], self.value[kept], self.cells[kept])


@dataclass(frozen=True, eq=False)
class GroupStatistics:
    """Sufficient statistics of the cells of ``K`` groups, each of one type and one batch.

    Parameters
    ----------
    cell_types, batches
        Names in alphabetical order.
    type_of, batch_of
        ``(K,)``, the type and batch of each group.
    n_cells
        ``(K,)``, at least 1.
    sums
        ``(K, G)`` float64, summed counts.
    histogram
        Count values over all cells of all groups.
    left_out
        Number of cells left out, by the first reason that applies.
    """

    cell_types: tuple[str, ...]
    batches: tuple[str, ...]
    type_of: Int64Array
    batch_of: Int64Array
    n_cells: Int64Array
    sums: npt.NDArray[np.float64]
    histogram: Histogram
    left_out: dict[str, int]

    def per_type(self) -> tuple[Int64Array, npt.NDArray[np.float64]]:
        """Return number of cells ``(C,)`` and summed counts ``(C, G)`` of each type over its batches."""
        n_cells = np.bincount(self.type_of, self.n_cells, len(self.cell_types)).astype(np.int64)
        sums = np.zeros((len(self.cell_types), self.sums.shape[1]))
        np.add.at(sums, self.type_of, self.sums)
        return n_cells, sums

    def per_batch(self) -> dict[str, int]:
        """Return the number of cells per batch."""
        counted = np.bincount(self.batch_of, self.n_cells, len(self.batches))
        return {name: int(n) for name, n in zip(self.batches, counted, strict=True)}

    def select_genes(self, genes: Int64Array) -> GroupStatistics:
        """Return the statistics restricted to genes, given by ascending positions."""
        return replace(self, sums=self.sums[:, genes], histogram=self.histogram.select(genes, self.sums.shape[1]))

    def select_types(self, types: Int64Array) -> GroupStatistics:
        """Return the statistics without types that have no counts, given the positions of those to keep."""
        kept = np.isin(self.type_of, types)
        batches, batch_of = np.unique(self.batch_of[kept], return_inverse=True)
        return replace(
            self,
            cell_types=tuple(self.cell_types[i] for i in types),
            batches=tuple(self.batches[i] for i in batches),
            type_of=np.searchsorted(types, self.type_of[kept]),
            batch_of=batch_of,
            n_cells=self.n_cells[kept],
            sums=self.sums[kept],
        )


def count_statistics(
    matrix: Any,
    genes: Sequence[str],
    labels: Sequence[pd.Series[Any]],
    batches: pd.Series[Any] | None,
    settings: PrototypeSettings,
    progress: Progress = no_progress,
) -> list[GroupStatistics]:
    """Compute statistics for several annotations of the same cells in one pass over the counts.

    Parameters
    ----------
    matrix
        ``(cells, genes)`` raw counts: sparse or dense, in memory or on disk. On disk, ``anndata``'s CSR data sets and
        dense HDF5 data sets are supported.
    genes
        Symbols, to identify mitochondrial genes.
    labels
        Type of each cell for each annotation; cells with a missing or empty label, or one that means so (``nan``,
        ``Unassigned``, ``unknown``), are left out of that annotation.
    batches
        Batch of each cell; None if there is only one. Cells with a missing batch are left out.
    settings
        Settings with the filters of cells.
    progress
        Called for each chunk.

    Raises
    ------
    CellsError
        If a value is not a count, or the matrix on disk is stored by genes.
    """
    with reading("The matrix of cells", CellsError, "is its file complete?"):
        matrix = _by_rows(matrix)
        n_cells, n_genes = matrix.shape
        require_memory((8 * _DENSE + 8) * n_genes, "The matrix of cells", CellsError)
        mitochondrial = is_mitochondrial(genes)
        tallies = [_Tally(column, batches, n_genes) for column in labels]
    step = rows_at_once(matrix, CHUNK_ROWS)
    for start in range(0, n_cells, step):
        progress(f"Counts of {n_cells:,} cells", start / n_cells)
        rows = slice(start, min(start + step, n_cells))
        with reading("The matrix of cells", CellsError, "is its file complete?"):
            counts = as_counts(matrix[rows], "The matrix of cells", CellsError)
        totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        mito = np.asarray(counts[:, mitochondrial].sum(axis=1), dtype=np.float64).ravel()
        wrong = {
            "few_genes": (counts.getnnz(axis=1) < settings.min_genes) | (totals == 0),
            "mitochondrial": mito > settings.max_mito * totals,
        }
        for tally in tallies:
            tally.add(counts, rows, wrong)
    return [tally.statistics() for tally in tallies]


def rows_at_once(matrix: Any, most: int) -> int:
    """Return how many rows fit into `CHUNK_MB`, at most ``most``; dense rows count with their declared length."""
    if sp.issparse(matrix) or hasattr(matrix, "format"):
        return most
    return int(min(most, max(1, CHUNK_MB * 2**20 // max(1, matrix.shape[1] * np.dtype(matrix.dtype).itemsize))))


def _by_rows(matrix: Any) -> Any:
    """Return the matrix in a form whose rows can be sliced efficiently."""
    if sp.issparse(matrix):
        require_sound(matrix, "The matrix of cells", CellsError)
        return matrix.tocsr()
    if getattr(matrix, "format", "csr") != "csr":
        raise CellsError(
            "The matrix of cells is stored by genes (CSC) on disk, which cannot be read by cells; read it into memory, "
            "or save it as CSR."
        )
    return matrix


class _Tally:
    """Accumulate the statistics of one annotation, chunk by chunk."""

    def __init__(self, labels: pd.Series[Any], batches: pd.Series[Any] | None, n_genes: int) -> None:
        self._types, type_of = _codes(labels)
        self._batches, batch_of = (
            (("all",), np.zeros(len(labels), dtype=np.int64)) if batches is None else _codes(batches, of_batch=True)
        )
        reasons = {"no_label": type_of < 0} | ({} if batches is None else {"no_batch": batch_of < 0})
        self._reasons = reasons
        self.left_out = dict.fromkeys((*reasons, "few_genes", "mitochondrial"), 0)
        pair = np.where((type_of < 0) | (batch_of < 0), -1, type_of * len(self._batches) + batch_of)
        self._pairs = np.unique(pair[pair >= 0])
        self._group = np.where(pair < 0, -1, np.searchsorted(self._pairs, pair))
        self._n_cells = np.zeros(len(self._pairs), dtype=np.int64)
        self._sums = np.zeros((len(self._pairs), n_genes))
        self._small = np.zeros((n_genes, _DENSE), dtype=np.int64)
        self._large: dict[int, int] = {}

    def add(self, counts: sp.csr_matrix, rows: slice, wrong: dict[str, npt.NDArray[np.bool_]]) -> None:
        kept = np.ones(counts.shape[0], dtype=bool)
        for reason, bad in ({name: bad[rows] for name, bad in self._reasons.items()} | wrong).items():
            self.left_out[reason] += int((kept & bad).sum())
            kept &= ~bad
        if not kept.any():
            return
        counts = counts if kept.all() else counts[kept]
        group = self._group[rows][kept]
        self._n_cells += np.bincount(group, minlength=len(self._pairs))
        here, number = np.unique(group, return_inverse=True)
        membership = sp.csr_matrix(
            (np.ones(len(group), dtype=np.int64), (number, np.arange(len(group)))), shape=(len(here), len(group))
        )
        sums = (membership @ counts).tocoo()
        self._sums[here[sums.row], sums.col] += sums.data
        self._add_values(counts.indices, counts.data)

    def _add_values(self, genes: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        small = values < _DENSE
        n_genes = len(self._small)
        key = genes[small].astype(np.int64) * _DENSE + values[small]
        self._small += np.bincount(key, minlength=n_genes * _DENSE).reshape(n_genes, _DENSE)
        large = genes[~small].astype(np.int64) << 32 | values[~small]
        for key, cells in zip(*(part.tolist() for part in np.unique(large, return_counts=True)), strict=True):
            self._large[key] = self._large.get(key, 0) + cells

    def statistics(self) -> GroupStatistics:
        """Return the statistics of the groups, types and batches that have cells left."""
        kept = self._n_cells > 0
        type_of, batch_of = np.divmod(self._pairs[kept], len(self._batches))
        types, type_of = np.unique(type_of, return_inverse=True)
        batches, batch_of = np.unique(batch_of, return_inverse=True)
        return GroupStatistics(
            tuple(self._types[i] for i in types),
            tuple(self._batches[i] for i in batches),
            type_of,
            batch_of,
            self._n_cells[kept],
            self._sums[kept],
            self._histogram(),
            self.left_out,
        )

    def _histogram(self) -> Histogram:
        gene, value = np.nonzero(self._small)
        key = np.concatenate([gene.astype(np.int64) << 32 | value, np.array(list(self._large), dtype=np.int64)])
        cells = np.concatenate([self._small[gene, value], np.array(list(self._large.values()), dtype=np.int64)])
        order = np.argsort(key)
        return Histogram(key[order] >> 32, key[order] & 0xFFFFFFFF, cells[order])


def _codes(column: pd.Series[Any], *, of_batch: bool = False) -> tuple[tuple[str, ...], Int64Array]:
    """Return the names in alphabetical order, and each cell's position among them; -1 if it has none."""
    import pandas as pd

    codes, unique = pd.factorize(texts_of(column, of_batch=of_batch), sort=True)
    return tuple(str(name) for name in unique), np.asarray(codes, dtype=np.int64)
