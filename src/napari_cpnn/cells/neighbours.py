"""Who is next to whom: pairs of cells of each two types within a distance, against random labels.

The null is that of Schapiro et al. 2017 (Nature Methods, histoCAT) and of squidpy's ``nhood_enrichment``: the places of
the cells stay, and their types are shuffled. Unlike these, z-scores come with p-values of the permutations and with the
expected number of pairs, and pairs are those of a radius, symmetric by definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray, Int64Array, IntArray
from napari_cpnn.errors import CellMapError
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.untrusted import available_memory

if TYPE_CHECKING:
    import pandas as pd

_PAIR_BYTES = 40


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Pairs of neighbours by their types.

    Attributes
    ----------
    names
        Names of the C types.
    within_um
        Largest distance between the centres of neighbours.
    n_cells
        Number of cells of each type, ``(C,)``.
    observed
        ``(C, C)``: number of neighbours of type ``b`` that all cells of type ``a`` have together. Symmetric; a pair of
        one type counts twice.
    expected, sd
        ``(C, C)``: mean and standard deviation of it over the permutations.
    p
        ``(C, C)``: two-sided p-values of the permutations, at least ``2 / (permutations + 1)``.
    """

    names: tuple[str, ...]
    within_um: float
    n_cells: Int64Array
    observed: Int64Array
    expected: FloatArray
    sd: FloatArray
    p: FloatArray

    @property
    def z(self) -> FloatArray:
        """``(observed - expected) / sd``, ``(C, C)``; NaN where the permutations do not vary."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.sd > 0, (self.observed - self.expected) / self.sd, np.nan)

    @property
    def ratio(self) -> FloatArray:
        """Observed to expected number of neighbours, ``(C, C)``; NaN where none are expected."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.expected > 0, self.observed / self.expected, np.nan)

    @property
    def per_cell(self) -> FloatArray:
        """Mean number of neighbours of type ``b`` of a cell of type ``a``, ``(C, C)``; NaN without cells."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.observed / self.n_cells[:, None], dtype=np.float64)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per pair of types: what is observed, expected, their ratio, z and p."""
        import pandas as pd

        first, second = (index.ravel() for index in np.indices(self.observed.shape))
        names = np.array([*self.names, ""], dtype=object)
        return pd.DataFrame(
            {
                "type": names[first],
                "neighbour": names[second],
                "per_cell": self.per_cell.ravel(),
                "observed": self.observed.ravel(),
                "expected": self.expected.ravel(),
                "ratio": self.ratio.ravel(),
                "z": self.z.ravel(),
                "p": self.p.ravel(),
            }
        )


def neighbours_of(
    centers_um: npt.ArrayLike,
    codes: npt.ArrayLike,
    names: Sequence[str],
    within_um: float = 30.0,
    permutations: int = 200,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Neighbours:
    """Count neighbours by type, and compare with cells whose types are shuffled.

    Parameters
    ----------
    centers_um
        ``(N, 2)`` in um.
    codes
        Type of each cell, ``(N,)``, numbers of ``names``; cells with -1 are left out.
    names
        Names of the types.
    within_um
        Largest distance between the centres of neighbours.
    permutations
        How often types are shuffled.
    progress
        Called with the share done; what it raises ends the count.

    Raises
    ------
    CellMapError
        If fewer than two cells have a type, no two are neighbours, the distance or the number of permutations is none,
        or there are more pairs than fit into memory.

    Examples
    --------
    >>> from napari_cpnn.cells import neighbours_of
    >>> found = neighbours_of([[0, 0], [0, 10], [0, 100], [0, 110]], [0, 0, 1, 1], ["tumour", "immune"])
    >>> found.observed.tolist()
    [[2, 0], [0, 2]]
    """
    centers, kinds = np.asarray(centers_um, dtype=np.float64), np.asarray(codes, dtype=np.intp)
    if not 0 < within_um < np.inf or permutations < 1:
        raise CellMapError("Neighbours need a distance above 0 um and at least one permutation.")
    centers, kinds = centers[kinds >= 0], kinds[kinds >= 0]
    if len(kinds) < 2:
        raise CellMapError("Neighbours need at least two cells that have a type.")
    first, second = _pairs(centers, within_um)
    n = len(names)
    observed = _counts(kinds, first, second, n)
    rng = np.random.default_rng(seed)
    total, squares = np.zeros((n, n)), np.zeros((n, n))
    above, below = np.zeros((n, n), dtype=np.int64), np.zeros((n, n), dtype=np.int64)
    for number in range(permutations):
        progress("Shuffling types", number / permutations)
        shuffled = _counts(rng.permutation(kinds), first, second, n)
        difference = (shuffled - observed).astype(np.float64)  # small numbers lose no digits
        total += difference
        squares += difference**2
        above += shuffled >= observed
        below += shuffled <= observed
    mean = total / permutations
    variance = np.maximum(squares / permutations - mean**2, 0.0)
    return Neighbours(
        names=tuple(names),
        within_um=float(within_um),
        n_cells=np.bincount(kinds, minlength=n).astype(np.int64),
        observed=observed,
        expected=observed + mean,
        sd=np.sqrt(variance),
        p=np.minimum(1.0, 2 * (np.minimum(above, below) + 1) / (permutations + 1)),
    )


def _pairs(centers: FloatArray, within_um: float) -> tuple[IntArray, IntArray]:
    from scipy.spatial import cKDTree

    tree = cKDTree(centers)
    n_pairs = (int(tree.count_neighbors(tree, within_um)) - len(centers)) // 2
    if not n_pairs:
        raise CellMapError(f"No two cells lie within {within_um:g} um of one another; choose a larger distance.")
    if n_pairs * _PAIR_BYTES > available_memory() / 2:
        raise CellMapError(
            f"{n_pairs:,} pairs of cells lie within {within_um:g} um of one another, too many for the memory; choose a "
            "smaller distance."
        )
    pairs = tree.query_pairs(within_um, output_type="ndarray")
    return pairs[:, 0], pairs[:, 1]


def _counts(kinds: IntArray, first: IntArray, second: IntArray, n: int) -> Int64Array:
    counts = np.bincount(kinds[first] * n + kinds[second], minlength=n * n).reshape(n, n)
    return np.asarray(counts + counts.T, dtype=np.int64)
