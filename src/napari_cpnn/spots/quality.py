"""Normalised expression of spots, and the pixel size of their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from napari_cpnn.arrays import IntArray
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import SpotsError
from napari_cpnn.geometry import Mpp, is_plausible_mpp
from napari_cpnn.spots.array import array_coordinates, fit_array, is_within_known_array
from napari_cpnn.spots.positions import with_positions

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

LEGACY_ST = "legacy ST"
"""Value of ``uns["napari_cpnn"]["layout"]`` for spots read from a spot table of Spatial Transcriptomics."""

OF_CELLS = "cells"
"""Value of ``uns["napari_cpnn"]["of"]`` for single cells that were measured, such as those of Xenium."""


def is_of_cells(spots: AnnData) -> bool:
    """Return whether a table holds measured single cells (of Xenium, MERSCOPE, CosMx, Visium HD), not spots or bins.

    Examples
    --------
    >>> from napari_cpnn.spots import is_of_cells
    >>> is_of_cells(spots)
    False
    """
    noted = spots.uns.get("napari_cpnn")
    return isinstance(noted, dict) and noted.get("of") == OF_CELLS


def counts_matrix(spots: AnnData) -> sp.csr_matrix:
    """Return ``layers["counts"]`` as CSR ``(N, all genes)``; raise :class:`SpotsError` if it is missing."""
    if "counts" not in spots.layers:
        raise SpotsError('The spots have no raw counts in layers["counts"]; read them with read_spots.')
    return sp.csr_matrix(spots.layers["counts"])


def expression(spots: AnnData, genes: Sequence[str] | None = None) -> npt.NDArray[np.float32]:
    """Return measured expression as log1p of counts per 10,000.

    The total of a spot is taken over *all* genes of the table, so values do not depend on the requested genes.

    Parameters
    ----------
    spots
        Table with raw counts in ``layers["counts"]``.
    genes
        Names of genes, by default all. Missing genes raise a :class:`GenesError` that lists them.

    Returns
    -------
    ndarray
        ``(N, G)`` float32; 0 for a spot without counts.

    Examples
    --------
    >>> from napari_cpnn.spots import expression
    >>> expression(spots, ["ERBB2", "CD3E"]).shape
    (387, 2)
    """
    counts = counts_matrix(spots)
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    if genes is not None:
        counts = counts[:, require_genes(list(spots.var_names), genes, "The table of spots")]
    values: npt.NDArray[np.float32] = (sp.diags(_to_ten_thousand(totals)) @ counts).toarray().astype(np.float32)
    return np.log1p(values, out=values)


class MeasuredGenes:
    """Measured expression gene by gene, as :func:`expression`, for tables of a million rows.

    Totals are summed once, and a gene is found by one pass over the indices, without a second copy of the matrix.

    Parameters
    ----------
    spots
        Table with raw counts in ``layers["counts"]``.
    rows
        Rows ``(k,)`` whose expression is wanted; ``None`` for all.

    Attributes
    ----------
    totals
        Counts of each row, ``(N,)`` float32.
    n_genes
        Number of genes with a count in each row, ``(N,)`` float32.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.spots import MeasuredGenes, expression
    >>> np.array_equal(MeasuredGenes(spots).of("ERBB2"), expression(spots, ["ERBB2"])[:, 0])
    True
    """

    def __init__(self, spots: AnnData, rows: IntArray | None = None) -> None:
        counts = counts_matrix(spots)
        self._names = list(spots.var_names)
        totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        positive = counts if (counts.data > 0).all() else counts > 0
        self.totals = totals.astype(np.float32)
        self.n_genes = np.diff(positive.indptr).astype(np.float32)
        self._detected = np.bincount(positive.indices, minlength=counts.shape[1]) / max(counts.shape[0], 1)
        is_part = rows is not None and len(rows) < counts.shape[0]
        self._counts = counts[rows] if is_part else counts
        self._factors = _to_ten_thousand(totals[rows] if is_part else totals)

    def of(self, gene: str) -> npt.NDArray[np.float32]:
        """Return log1p of counts per 10,000 of a gene, ``(k,)``."""
        counts = self._counts
        found = np.flatnonzero(counts.indices == self._column(gene))
        rows = np.searchsorted(counts.indptr, found, side="right") - 1
        parts = self._factors[rows] * counts.data[found]
        values = np.bincount(rows, weights=parts, minlength=counts.shape[0]).astype(np.float32)
        return np.log1p(values, out=values)

    def share_with(self, gene: str) -> float:
        """Return the share of all rows with a count of a gene."""
        return float(self._detected[self._column(gene)])

    def _column(self, gene: str) -> int:
        return int(require_genes(self._names, [gene], "The table of spots")[0])


def _to_ten_thousand(totals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the factors that scale rows to 10,000 counts; 0 for those without counts."""
    return np.divide(1e4, totals, out=np.zeros_like(totals), where=totals > 0)


def summarise_genes(spots: AnnData) -> pd.DataFrame:
    """Summarise the expression of each gene, without making the table dense.

    Returns
    -------
    DataFrame
        Index ``gene``; ``mean_expression``, log1p of counts per 10,000, and ``detected``, the share of spots with a
        count, both over the spots that have counts at all.
    """
    import pandas as pd

    counts = counts_matrix(spots)
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    n = max(int((totals > 0).sum()), 1)
    logs = (sp.diags(_to_ten_thousand(totals)) @ counts).log1p()
    columns = {
        "mean_expression": np.asarray(logs.sum(axis=0)).ravel() / n,
        "detected": np.asarray((counts > 0).sum(axis=0)).ravel() / n,
    }
    return pd.DataFrame(columns, index=pd.Index(list(spots.var_names), name="gene"))


def estimate_mpp(spots: AnnData, pitch_um: float | None = None) -> Mpp | None:
    """Estimate the pixel size in um ``(y, x)`` from the pitch of the printed array.

    Array coordinates in ``obs`` are used where available (``new_x, new_y`` of a legacy ST spot table, else ``array_col,
    array_row``), otherwise the distances between neighbours. The kind of array, square or hexagonal, is inferred from
    them.

    Parameters
    ----------
    spots
        Table with ``obsm["spatial"]`` in level-0 pixels.
    pitch_um
        Centre-to-centre distance. By default 200 um for a spot table of Spatial Transcriptomics, 100 um for a hexagonal
        array no larger than Visium's, and the bin size for Visium HD. For any other array, such as DBiT-seq, the pitch
        must be given.

    Returns
    -------
    (float, float) or None
        None if the spots do not lie on an array of known pitch, are fewer than six, or imply an implausible pixel size.
        Measured cells lie on no array, but Space Ranger and Xenium store the pixel size with them.

    Examples
    --------
    >>> from napari_cpnn.spots import estimate_mpp
    >>> [round(size, 2) for size in estimate_mpp(spots)]
    [0.5, 0.5]
    """
    mpp = implied_mpp(spots, pitch_um)
    return mpp if mpp is not None and is_plausible_mpp(mpp) else None


def implied_mpp(spots: AnnData, pitch_um: float | None = None) -> Mpp | None:
    """Estimate the pixel size as :func:`estimate_mpp`, including implausible values from positions on another image."""
    spots = with_positions(spots, "The table of spots")
    if pitch_um is None:
        pitch_um = _scale_factor(spots, "bin_size_um")
    stated = _scale_factor(spots, "microns_per_pixel")
    if is_of_cells(spots):  # they lie on no array
        return None if stated is None else (stated, stated)
    spatial, array = np.asarray(spots.obsm["spatial"], dtype=np.float64), array_coordinates(spots.obs)
    placed = np.isfinite(spatial).all(axis=1)
    spatial, array = spatial[placed], None if array is None else array[placed]
    fit = fit_array(spatial, array, pitch_um, any_mpp=True)
    if fit is not None and pitch_um is None:
        is_known = fit.kind == "hexagonal" or _is_of_st(spots)
        fit = fit if is_known and is_within_known_array(fit.kind, spatial, array) else None
    if fit is None:
        return None if stated is None else (stated, stated)
    return fit.mpp


def _is_of_st(spots: AnnData) -> bool:
    """Return whether spots come from a spot table of Spatial Transcriptomics, whose square array has a known pitch."""
    noted = spots.uns.get("napari_cpnn")
    is_legacy = isinstance(noted, dict) and noted.get("layout") == LEGACY_ST
    return is_legacy or {"new_x", "new_y"} <= set(spots.obs)


def _scale_factor(spots: AnnData, name: str) -> float | None:
    """Return a scale factor that Space Ranger writes for Visium HD, such as the side of a bin."""
    libraries = spots.uns.get("spatial")
    for library in libraries.values() if isinstance(libraries, dict) else ():
        factors = library.get("scalefactors") if isinstance(library, dict) else None
        value = factors.get(name) if isinstance(factors, dict) else None
        if isinstance(value, int | float | np.number) and np.isfinite(value):
            return float(value)
    return None
