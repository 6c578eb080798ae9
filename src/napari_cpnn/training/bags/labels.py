"""Labels of bags: their bulk counts over the genes of a model, and the shares that are deconvolved from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray, IntArray
from napari_cpnn.counts import as_counts, positions, shared_genes
from napari_cpnn.errors import CpnnWarning, GenesError, SpotsError, TrainingError
from napari_cpnn.prototypes import Prototypes, deconvolve
from napari_cpnn.settings import DeconvolutionSettings, SlideLevelSettings
from napari_cpnn.training.bags.bags import Bags

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False)
class Labelled:
    """Bags with their counts.

    Attributes
    ----------
    bags
        S bags.
    counts
        ``(S, G)`` counts of the genes of the model; the library is their sum.
    shares
        ``(S, C)`` shares of RNA, deconvolved from the counts; NaN where there are none.
    slides
        ``(S,)`` number of the slide of each bag, within which correlations are taken; None where each bag is a slide.
    """

    bags: Bags
    counts: Float32Array
    shares: Float32Array
    slides: IntArray | None = None

    @property
    def expression(self) -> FloatArray:
        """Measured log1p CP10k ``(S, G)`` over the genes of the model."""
        return log1p_cp10k(self.counts)

    def subset(self, index: IntArray) -> Labelled:
        """Return the bags of these indices."""
        slides = None if self.slides is None else self.slides[index]
        return Labelled(self.bags.subset(index), self.counts[index], self.shares[index], slides)


def log1p_cp10k(counts: Float32Array) -> FloatArray:
    """Return log1p of counts per 10,000 of ``(S, G)`` counts."""
    values = counts.astype(np.float64)
    return np.asarray(np.log1p(1e4 * values / values.sum(axis=1, keepdims=True)))


def rows_of(bags: Bags, bulk: AnnData) -> IntArray:
    """Rows ``(S,)`` of a table of samples for the bags, by name.

    Raises
    ------
    TrainingError
        If a bag has no sample, or two samples have its name.
    """
    where: dict[str, list[int]] = {}
    for i, name in enumerate(map(str, bulk.obs_names)):
        where.setdefault(name, []).append(i)
    missing = [name for name in bags.names.tolist() if len(where.get(name, [])) != 1]
    if missing:
        n = len(where.get(missing[0], []))
        what = "is not in the bulk table" if not n else f"is in the bulk table {n} times"
        raise TrainingError(f"Bag {missing[0]} {what} ({len(missing)} of {len(bags)} bags cannot be matched by name).")
    return np.array([where[name][0] for name in bags.names.tolist()], dtype=np.intp)


def choose_bag_genes(bulk: AnnData, prototypes: Prototypes, settings: SlideLevelSettings) -> list[str]:
    """Select the genes that bulk samples and prototypes share, detected in enough samples, in prototype order.

    Raises
    ------
    GenesError
        If none is left.
    """
    genes = shared_genes(prototypes.genes, [str(g) for g in bulk.var_names], ("The prototypes", "the bulk samples"))
    counts = _counts(bulk)[:, positions([str(g) for g in bulk.var_names], genes)]
    detected = np.asarray((counts > 0).mean(axis=0), dtype=np.float64).ravel()
    kept = np.flatnonzero(detected >= max(settings.min_bag_fraction, 1e-9))
    if settings.genes == "variable" and len(kept) > settings.n_genes:
        values = log1p_cp10k(np.asarray(counts.toarray(), dtype=np.float32))[:, kept]
        kept = np.sort(kept[np.argsort(-values.var(axis=0), kind="stable")[: settings.n_genes]])
    if not len(kept):
        raise GenesError(f"No shared gene is detected in {settings.min_bag_fraction:.0%} of the bulk samples.")
    return [genes[i] for i in kept]


def label_bags(
    bags: Bags, bulk: AnnData, prototypes: Prototypes | None, genes: Sequence[str], *, deconvolved: bool = True
) -> Labelled:
    """Align the counts of bulk samples with bags, by name, and deconvolve them to shares of RNA.

    Parameters
    ----------
    bulk
        Samples by genes, whole numbers in ``layers["counts"]``; :func:`napari_cpnn.read_bulk`.
    deconvolved
        Whether shares are needed.

    Raises
    ------
    TrainingError
        If a bag has no sample, or a sample has no counts in the genes.
    """
    rows = rows_of(bags, bulk)
    table = bulk[rows]
    counts = _counts(table)[:, positions([str(g) for g in table.var_names], list(genes))]
    values = np.asarray(counts.toarray(), dtype=np.float32)
    if (values.sum(axis=1) == 0).any():
        name = bags.names[int(np.argmin(values.sum(axis=1)))]
        raise TrainingError(f"The sample of bag {name} has no counts in the {len(genes)} genes of the model.")
    shares = np.full((len(bags), 0 if prototypes is None else len(prototypes.cell_types)), np.nan, dtype=np.float32)
    if deconvolved and prototypes is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* share only ", CpnnWarning)
            warnings.filterwarnings("ignore", "Deconvolution has not converged", CpnnWarning)
            found = deconvolve(table.copy(), prototypes, DeconvolutionSettings.bulk())
        shares = found[list(prototypes.cell_types)].to_numpy(dtype=np.float32)
    return Labelled(bags, values, shares)


def _counts(table: AnnData) -> Any:
    if "counts" not in table.layers:
        raise SpotsError('The bulk samples have no raw counts in layers["counts"]; read them with read_bulk.')
    return as_counts(table.layers["counts"], "The table of bulk samples", SpotsError)
