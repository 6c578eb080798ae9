"""What models of typed expression learn from: bulk samples and what deconvolution says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from anndata import AnnData

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.counts import as_counts, named_as
from napari_cpnn.errors import TrainingError
from napari_cpnn.prototypes import TypedExpression


@dataclass(frozen=True, eq=False)
class TypedLabels:
    """Labels of S bags, C cell types and G genes.

    Parameters
    ----------
    names
        ``(S,)`` names of the samples.
    cell_types, genes
        Names.
    shares
        ``(S, C)``, shares of RNA, rows sum to 1.
    expression
        ``(S, C, G)``, log1p of counts per 10,000 of each type: :meth:`~napari_cpnn.TypedExpression.stacked`.
    profiles
        ``(C, G)``, mean expression of each type in the cohort, as shares of its counts.
    counts, totals
        ``(S, G)`` bulk counts and ``(S,)`` counts of all genes.
    confidence
        ``(G, C)``.
    """

    names: npt.NDArray[np.str_]
    cell_types: tuple[str, ...]
    genes: tuple[str, ...]
    shares: FloatArray
    expression: Float32Array
    profiles: FloatArray
    counts: FloatArray
    totals: FloatArray
    confidence: FloatArray

    @classmethod
    def of(cls, typed: TypedExpression, bulk: AnnData) -> TypedLabels:
        """Labels of the samples that have counts.

        Raises
        ------
        TrainingError
            If the typed expression is of other samples or genes than the bulk.
        """
        if list(typed.samples) != [str(name) for name in bulk.obs_names]:
            raise TrainingError("The typed expression is of other samples than the bulk; deconvolve this bulk.")
        ids = [str(i) for i in bulk.var["gene_ids"]] if "gene_ids" in bulk.var else None
        names = {
            name: i for i, name in enumerate(named_as([str(g) for g in bulk.var_names], ids, typed.genes, None, False))
        }
        if missing := [g for g in typed.genes if g not in names]:
            raise TrainingError(f"The bulk has no gene {missing[0]}, of which there is typed expression.")
        matrix = as_counts(bulk.layers["counts"], "The bulk", TrainingError)
        keep = np.flatnonzero(np.isfinite(typed.shares.to_numpy()).all(axis=1))
        totals = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
        return cls(
            np.asarray(typed.samples, dtype=np.str_)[keep],
            typed.cell_types,
            typed.genes,
            typed.shares.to_numpy()[keep],
            typed.stacked()[keep],
            typed.profiles.to_numpy().astype(np.float64),
            np.asarray(matrix[keep][:, [names[g] for g in typed.genes]].toarray(), dtype=np.float64),
            totals[keep],
            typed.confidence.to_numpy(),
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def bulk(self) -> FloatArray:
        """``(S, G)``, log1p of bulk counts per 10,000."""
        return np.log1p(1e4 * self.counts / self.totals[:, None])

    def subset(self, index: IntArray | BoolArray) -> TypedLabels:
        """Labels of some bags, in this order."""
        rows = np.flatnonzero(index) if index.dtype == bool else index
        return replace(
            self,
            names=self.names[rows],
            shares=self.shares[rows],
            expression=self.expression[rows],
            counts=self.counts[rows],
            totals=self.totals[rows],
        )

    def select(self, genes: IntArray) -> TypedLabels:
        """Labels of some genes, by index."""
        return replace(
            self,
            genes=tuple(self.genes[i] for i in genes),
            expression=self.expression[..., genes],
            profiles=self.profiles[:, genes],
            counts=self.counts[:, genes],
            confidence=self.confidence[genes],
        )
