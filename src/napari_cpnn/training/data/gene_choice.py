"""Selection of the genes to learn, and their weights in the loss."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from napari_cpnn.arrays import FloatArray
from napari_cpnn.counts import name_genes_as, positions, shared_genes
from napari_cpnn.errors import CpnnWarning, GenesError, TrainingError
from napari_cpnn.evaluation import split_half_reliability
from napari_cpnn.prototypes import Prototypes, lacking_genes
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data.spot_samples import SpotSample
from napari_cpnn.untrusted import require_no_device

#: Minimum weight, of a gene whose measurement is pure noise, so that its prediction remains meaningful.
_LEAST_WEIGHT = 0.05

#: Random splits of the counts for the reliability; more do not change means over hundreds of genes.
_SPLITS = 5


def name_genes_alike(parts: Sequence[SpotSample], genes: Sequence[str], settings: TrainingSettings) -> None:
    """Rename the genes of all spots to matching names in ``genes``."""
    for part in parts:
        part.spots = name_genes_as(part.spots, genes, ignore_case=settings.ignore_gene_case)


def choose_genes(parts: Sequence[SpotSample], prototypes: Prototypes, settings: TrainingSettings) -> list[str]:
    """Select genes shared by the prototypes and all spots and detected in enough training spots, in prototype order.

    Of these, ``settings.genes`` selects all (``"shared"``, as in the paper), the ``n_genes`` with the largest variance
    within slides (``"variable"``) or the largest mean (``"abundant"``, as in ST-Net) of log1p CP10k, or those listed in
    a file, one name per line.
    """
    if lacking := lacking_genes(prototypes.provenance):
        warnings.warn(lacking, CpnnWarning, stacklevel=4)
    genes = list(prototypes.genes)
    for part in parts:
        genes = shared_genes(genes, list(part.spots.var_names), ("The prototypes", f"the spots of {part.slide.name}"))
    wanted = None if settings.genes in ("shared", "variable", "abundant") else _listed(Path(settings.genes), genes)
    n_shared = len(genes)
    genes = _detected(parts, genes if wanted is None else wanted, settings.min_spot_fraction)
    if wanted is None and len(genes) < n_shared / 2:
        warnings.warn(
            f"Of {n_shared:,} genes that the prototypes and the spots share, {len(genes):,} are detected in at least "
            f"{settings.min_spot_fraction:.0%} of the training spots (min_spot_fraction); the others are left out.",
            CpnnWarning,
            stacklevel=4,
        )
    if wanted is not None and len(genes) < len(wanted):
        rare = f"{len(wanted) - len(genes)} of {len(wanted)} listed genes are in too few training spots"
        warnings.warn(f"{rare} (min_spot_fraction) and are left out.", CpnnWarning, stacklevel=4)
    if settings.genes in ("variable", "abundant") and len(genes) > settings.n_genes:
        mean, variance = _moments(parts, genes)
        score = variance if settings.genes == "variable" else mean
        chosen = np.sort(np.argsort(-score, kind="stable")[: settings.n_genes])
        genes = [genes[i] for i in chosen]
    return genes


def gene_weights(parts: Sequence[SpotSample], genes: Sequence[str], seed: int) -> npt.NDArray[np.float32]:
    """Weights ``(G,)`` of genes in the loss: their reliability, at least 0.05.

    The reliability is the fraction of a gene's variance that a second sequencing of the same tissue would reproduce
    (:func:`~napari_cpnn.evaluation.noise_ceiling.split_half_reliability`), here within the training spots of each
    slide, averaged over slides in proportion to their spots. A gene with few counts has a low noise ceiling and
    contributes mostly noise to the gradients.
    """
    total, n_spots = np.zeros(len(genes)), 0
    for part in parts:
        rows = np.flatnonzero(part.train)
        if len(rows) < 2:
            continue
        columns = positions(list(part.spots.var_names), genes)
        reliability = split_half_reliability(part.counts[rows], columns, n_repeats=_SPLITS, seed=seed)
        total += len(rows) * np.nan_to_num(reliability)
        n_spots += len(rows)
    weights = total / max(1, n_spots)
    return np.clip(weights, _LEAST_WEIGHT, 1.0).astype(np.float32)


def _listed(path: Path, shared: Sequence[str]) -> list[str]:
    """Genes listed in a file that are shared, in the order of ``shared``."""
    try:
        require_no_device(path)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise GenesError(
            f"The list of genes {path} cannot be read ({reason}); give 'shared', 'variable', 'abundant' or a text file "
            "with one gene per line."
        ) from error
    names = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    genes = [gene for gene in shared if gene in names]
    if not genes:
        first = ", ".join(sorted(names)[:3]) or "it is empty"
        like = [gene for gene in shared if gene.casefold() in {name.casefold() for name in names}]
        meant = f", which have {', '.join(like[:3])}" if like else ""
        raise GenesError(f"None of the genes in {path} ({first}) is shared by the prototypes and all spots{meant}.")
    if len(genes) < len(names):
        warnings.warn(
            f"{len(names) - len(genes)} of {len(names)} genes in {path.name} are not shared by the prototypes and all "
            "spots and are left out.",
            CpnnWarning,
            stacklevel=5,
        )
    return genes


def _training_counts(parts: Sequence[SpotSample], genes: Sequence[str]) -> Iterator[tuple[sp.csr_matrix, FloatArray]]:
    """Counts ``(n, G)`` of the training spots of each slide, and their totals over all genes of the table."""
    for part in parts:
        counts = part.counts[np.flatnonzero(part.train)]
        totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        yield counts[:, positions(list(part.spots.var_names), genes)], totals


def _detected(parts: Sequence[SpotSample], genes: list[str], min_fraction: float) -> list[str]:
    detected, n_spots = np.zeros(len(genes)), 0
    for counts, _ in _training_counts(parts, genes):
        detected += np.asarray((counts > 0).sum(axis=0)).ravel()
        n_spots += counts.shape[0]
    kept = [gene for gene, n in zip(genes, detected, strict=True) if n > 0 and n >= min_fraction * n_spots]
    if not kept:
        raise TrainingError(
            f"None of the {len(genes)} shared genes is detected in {min_fraction:.0%} of the {n_spots} training spots; "
            "lower min_spot_fraction."
        )
    return kept


def _moments(parts: Sequence[SpotSample], genes: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Mean over all training spots, and mean variance within their slides, of log1p CP10k; ``(G,)`` each."""
    total, spread, n_spots = np.zeros(len(genes)), np.zeros(len(genes)), 0
    for counts, totals in _training_counts(parts, genes):
        if not counts.shape[0]:
            continue
        values = (sp.diags(1e4 / totals) @ counts).log1p()
        mean = np.asarray(values.mean(axis=0)).ravel()
        squares = np.asarray(values.multiply(values).mean(axis=0)).ravel()
        total += counts.shape[0] * mean
        spread += counts.shape[0] * (squares - mean**2)
        n_spots += counts.shape[0]
    return total / n_spots, spread / n_spots
