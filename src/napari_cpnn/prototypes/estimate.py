"""Prototypes from single cells."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.errors import CellsError, CpnnWarning, PrototypesError
from napari_cpnn.genes import is_mitochondrial
from napari_cpnn.prototypes.prototypes import Prototypes
from napari_cpnn.settings import PrototypeSettings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_log = logging.getLogger(__name__)

#: What the message says for each reason for which cells are left out.
_REASONS = {
    "no_label": "without a label",
    "few_genes": "with few genes",
    "mitochondrial": "with many mitochondrial counts",
}


def estimate_prototypes(
    cells: AnnData,
    cell_type: str = "celltype",
    batch: str | None = None,
    settings: PrototypeSettings | None = None,
) -> Prototypes:
    """Estimate the mean expression profile of each cell type.

    Cells without a label, with few genes or with many mitochondrial counts are left out, then genes that are seen in
    few of the remaining cells. The profile of a type is the sum of the counts of its cells, divided by its total:
    for cells with counts ``~ Poisson(s_k T_cg)`` this is the maximum-likelihood estimate of ``T_c``.

    Parameters
    ----------
    cells
        Raw counts in ``layers["counts"]``, ``(cells, genes)``.
    cell_type, batch
        Columns of ``obs``. The batches are recorded; the mean profile does not model them.
    settings
        Filters and method.

    Returns
    -------
    Prototypes
        Cell types in alphabetic order. ``provenance`` says what was left out.

    Raises
    ------
    CellsError
        When a column is missing or there are no raw counts.
    PrototypesError
        When no cell, gene or type is left.
    """
    settings = settings or PrototypeSettings()
    if "counts" not in cells.layers:
        raise CellsError('The cells have no raw counts in layers["counts"]; read them with read_cells.')
    labels = _column(cells, cell_type)
    batches = None if batch is None else _column(cells, batch)
    counts = sp.csr_matrix(cells.layers["counts"])
    kept, dropped = _kept_cells(counts, labels, list(cells.var_names), settings)
    counts, labels = counts[kept], labels[kept].astype(str)
    if batches is not None:
        batches = batches[kept].astype(str)
    genes = _kept_genes(counts, settings)
    counts = counts[:, genes]
    names = sorted(labels.unique())
    membership = _membership(labels, names)
    sums = (membership @ counts).toarray().astype(np.float64)
    n_cells = np.asarray(membership.sum(axis=1)).ravel().astype(np.int64)
    names, sums, n_cells = _without_silent(names, sums, n_cells)
    _warn_of_thin(names, n_cells, settings)
    provenance: dict[str, Any] = {
        "source": "single cells",
        "cell_type": cell_type,
        "batch": batch,
        "batches": {} if batches is None else {str(b): int(n) for b, n in batches.value_counts().items()},
        "settings": settings.to_dict(),
        "cells_left_out": dropped,
        "n_genes_given": int(cells.n_vars),
    }
    profiles = (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)
    return Prototypes(profiles, tuple(names), tuple(cells.var_names[genes]), n_cells, provenance)


def _column(cells: AnnData, name: str) -> pd.Series[Any]:
    if name not in cells.obs:
        there = ", ".join(map(str, cells.obs.columns)) or "none"
        raise CellsError(f"The cells have no column {name!r}; the columns there are: {there}.")
    column: pd.Series[Any] = cells.obs[name].astype(object)
    return column


def _kept_cells(
    counts: sp.csr_matrix, labels: pd.Series[Any], genes: list[str], settings: PrototypeSettings
) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    """Which cells are used, and how many are not, each by the first reason that holds."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    mito = np.asarray(counts[:, is_mitochondrial(genes)].sum(axis=1), dtype=np.float64).ravel()
    reasons = {
        "no_label": (labels.isna() | (labels.astype(str).str.strip() == "")).to_numpy(),
        "few_genes": (counts.getnnz(axis=1) < settings.min_genes) | (totals == 0),
        "mitochondrial": mito > settings.max_mito * totals,
    }
    kept = np.ones(len(totals), dtype=bool)
    dropped = {}
    for reason, wrong in reasons.items():
        dropped[reason] = int((kept & wrong).sum())
        kept &= ~wrong
    if not kept.any():
        raise PrototypesError(
            f"No cell is left of {len(totals)}: {dropped['no_label']} have no label, {dropped['few_genes']} fewer than "
            f"{settings.min_genes} genes, {dropped['mitochondrial']} more than {settings.max_mito:.0%} mitochondrial "
            "counts; change PrototypeSettings."
        )
    if not kept.all():
        left_out = ", ".join(f"{n} {_REASONS[reason]}" for reason, n in dropped.items() if n)
        _log.info("prototypes from %d of %d cells; left out: %s", kept.sum(), len(kept), left_out)
    return kept, dropped


def _kept_genes(counts: sp.csr_matrix, settings: PrototypeSettings) -> np.ndarray[Any, Any]:
    """Genes in enough cells; a warning when a small reference loses most of its genes by that."""
    n_cells, seen_in = counts.shape[0], counts.getnnz(axis=0)
    kept = seen_in >= max(settings.min_cells, 1)
    detected = int((seen_in > 0).sum())
    advice = (
        f"of {detected} detected genes {int(kept.sum())} are in at least {settings.min_cells} of the {n_cells} cells; "
        f"for so few cells use PrototypeSettings(min_cells={max(3, n_cells // 300)})"
    )
    if not kept.any():
        raise PrototypesError(f"No gene is left: {advice}.")
    if kept.sum() < detected / 4:
        warnings.warn(f"Most genes are left out: {advice}.", CpnnWarning, stacklevel=3)
    return np.asarray(kept)


def _membership(labels: pd.Series[Any], names: list[str]) -> sp.csr_matrix:
    """``(types, cells)``, 1 where a cell is of a type."""
    codes = {name: i for i, name in enumerate(names)}
    rows = [codes[label] for label in labels]
    return sp.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(names), len(rows)))


def _without_silent(
    names: list[str], sums: np.ndarray[Any, Any], n_cells: np.ndarray[Any, Any]
) -> tuple[list[str], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Types without a single count in the kept genes have no profile."""
    loud = sums.sum(axis=1) > 0
    if not loud.all():
        silent = [name for name, ok in zip(names, loud, strict=True) if not ok]
        warnings.warn(
            f"No counts in the genes that are left, so no prototype: {', '.join(silent)}.", CpnnWarning, stacklevel=3
        )
    return [name for name, ok in zip(names, loud, strict=True) if ok], sums[loud], n_cells[loud]


def _warn_of_thin(names: list[str], n_cells: np.ndarray[Any, Any], settings: PrototypeSettings) -> None:
    thin = [f"{name} ({n})" for name, n in zip(names, n_cells, strict=True) if n < settings.min_cells_per_type]
    if thin:
        warnings.warn(
            f"Few cells stand behind these prototypes, so they are uncertain: {', '.join(thin)}.",
            CpnnWarning,
            stacklevel=3,
        )
