"""Estimate prototypes from single cells."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from napari_cpnn.counts import look_like_ensembl, symbols_beside, unique_names
from napari_cpnn.errors import CellsError, CpnnWarning, PrototypesError
from napari_cpnn.progress import Progress, no_progress, part
from napari_cpnn.prototypes.batch_codes import ISLANDS, coded_statistics
from napari_cpnn.prototypes.labels import without_label
from napari_cpnn.prototypes.left_out import MOST_GENES, REASONS
from napari_cpnn.prototypes.majors import majors_among
from napari_cpnn.prototypes.prototypes import Prototypes
from napari_cpnn.prototypes.statistics import GroupStatistics, count_statistics
from napari_cpnn.settings import PrototypeSettings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_log = logging.getLogger(__name__)

#: Approximate share of the time needed for counting if a regression follows.
_COUNTING = 0.1


@overload
def estimate_prototypes(
    cells: AnnData,
    cell_type: str = ...,
    batch: str | None = ...,
    settings: PrototypeSettings | None = ...,
    progress: Progress | None = ...,
) -> Prototypes: ...


@overload
def estimate_prototypes(
    cells: AnnData,
    cell_type: Sequence[str],
    batch: str | None = ...,
    settings: PrototypeSettings | None = ...,
    progress: Progress | None = ...,
) -> dict[str, Prototypes]: ...


def estimate_prototypes(
    cells: AnnData,
    cell_type: str | Sequence[str] = "celltype",
    batch: str | None = None,
    settings: PrototypeSettings | None = None,
    progress: Progress | None = None,
) -> Prototypes | dict[str, Prototypes]:
    """Estimate the mean expression profile of each cell type.

    Cells without a label (including labels such as ``nan`` or ``Unassigned``) or batch, with few genes or with many
    mitochondrial counts are left out, then genes detected in few of the remaining cells. ``method="nb"`` fits a
    negative binomial regression on type and batch (:mod:`napari_cpnn.prototypes.regression`; paper 3.1.2), which
    corrects for the depth and ambient background of the batches and shrinks types with few cells towards the common
    profile, each gene as much as it varies little between types. ``method="mean"`` divides the summed counts of each
    type by their total, ignoring batches. The default is ``"nb"``.

    Parameters
    ----------
    cells
        Raw counts in ``layers["counts"]`` or else ``X``, ``(cells, genes)``, in memory or on disk (``backed``, CSR).
        They are read once, in chunks.
    cell_type
        Column of ``obs``, or several columns for prototypes at several granularities in one pass over the counts. The
        coarser of two columns gives the hierarchy of the finer one, as does a column ``X_major`` that of ``X_minor``.
    batch
        Column of ``obs`` such as the patient; None if all cells belong to one batch.
    settings
        Filters and method.
    progress
        Called as ``progress(text, done)`` for each chunk of cells and each block of genes, with a description and the
        finished share, 0 to 1. Exceptions that it raises cancel the estimate and propagate to the caller.

    Returns
    -------
    Prototypes, or dict of them by column
        Cell types in alphabetical order. :meth:`Prototypes.left_out` lists what was left out; ``provenance`` has the
        settings with the method and ``min_cells`` that were used, describes the quality of the fit, and its ``notes``
        hold the texts of the warnings.

    Raises
    ------
    CellsError
        If a column is missing, the values are not counts, or gene names are not unique.
    PrototypesError
        If no cell, gene or type is left.

    Examples
    --------
    >>> cells = nc.read_cells(folder / "cells.h5ad")
    >>> nc.estimate_prototypes(cells, cell_type="celltype", batch="patient").cell_types[:2]
    ('B-cells', 'CAFs')
    """
    columns = [cell_type] if isinstance(cell_type, str) else list(cell_type)
    prototypes = estimate_all(cells, columns, batch, settings or PrototypeSettings(), progress or no_progress)
    for text in dict.fromkeys(text for one in prototypes.values() for text in one.provenance["notes"]):
        warnings.warn(text, CpnnWarning, stacklevel=2)
    return prototypes[cell_type] if isinstance(cell_type, str) else prototypes


def estimate_all(
    cells: AnnData,
    columns: Sequence[str],
    batch: str | None,
    settings: PrototypeSettings,
    progress: Progress = no_progress,
) -> dict[str, Prototypes]:
    """Estimate prototypes by column as :func:`estimate_prototypes`, but store warnings only in the provenance."""
    labels = [_column(cells, name) for name in columns]
    batches = None if batch is None else _column(cells, batch)
    genes, gene_ids = _genes(cells)
    start = 1.0 if settings.method == "mean" else _COUNTING
    found = count_statistics(_counts(cells), genes, labels, batches, settings, part(progress, 0.0, start))
    if batches is not None:
        found = [coded_statistics(stats) for stats in found]
    about = {"source": "single cells", "batch": batch, "n_genes_given": len(genes)}
    prototypes, share = {}, (1 - start) / len(columns)
    for number, (name, stats) in enumerate(zip(columns, found, strict=True)):
        notes = [*_about_names(genes), *_about_labels(name, labels[number])]
        provenance = {"cell_type": name, **about, "settings": settings.to_dict(), "notes": notes}
        its = part(progress, start + number * share, start + (number + 1) * share)
        prototypes[name] = _estimate(stats, genes, gene_ids, settings, provenance, its)
    progress("Done", 1.0)
    return {
        name: dataclasses.replace(one, hierarchy=majors_among(name, cells.obs, columns, one.cell_types))
        for name, one in prototypes.items()
    }


def _column(cells: AnnData, name: str) -> pd.Series[Any]:
    if name not in cells.obs:
        there = ", ".join(map(str, cells.obs.columns)) or "none"
        raise CellsError(f"The cells have no column {name!r}; available columns: {there}.")
    column: pd.Series[Any] = cells.obs[name]
    return column


def _counts(cells: AnnData) -> Any:
    """Return the matrix that should hold raw counts; its chunks are validated when read."""
    matrix = cells.layers.get("counts", cells.X)
    if matrix is None:
        raise CellsError('The cells have no raw counts in layers["counts"] or X; read them with read_cells.')
    return matrix


def _genes(cells: AnnData) -> tuple[list[str], list[str] | None]:
    """Return the gene names (symbols if available), and their ids if known."""
    names = [str(name) for name in cells.var_names]
    symbols = symbols_beside(names, {str(column): cells.var[column] for column in cells.var.columns})
    if symbols:
        return list(unique_names(symbols)), names
    unique, times = np.unique(names, return_counts=True)
    if (times > 1).any():
        raise CellsError(
            f"The cells have {int((times > 1).sum())} duplicate gene names, such as {unique[times > 1][0]}; call "
            "var_names_make_unique() on them, or read them with read_cells."
        )
    if look_like_ensembl(names):
        return names, names
    return names, [str(i) for i in cells.var["gene_ids"]] if "gene_ids" in cells.var else None


def _about_names(genes: list[str]) -> list[str]:
    if not look_like_ensembl(genes):
        return []
    text = (
        "The genes are named by Ensembl ids, from which mitochondrial genes are not recognised, so no cell is left out "
        "for its mitochondrial counts."
    )
    return [text]


def _about_labels(name: str, labels: pd.Series[Any]) -> list[str]:
    none = without_label(labels)
    if not none:
        return []
    named = ", ".join(f"{text[:40]} ({n:,})" for text, n in list(none.items())[:5])
    return [f"{sum(none.values()):,} cells without a label in column {name!r} are left out: {named}."]


def _estimate(
    stats: GroupStatistics,
    genes: list[str],
    gene_ids: list[str] | None,
    settings: PrototypeSettings,
    provenance: dict[str, Any],
    progress: Progress,
) -> Prototypes:
    """Estimate prototypes for one annotation, adding notes for the user to the provenance."""
    notes: list[str] = provenance["notes"]
    _check_cells(stats, settings)
    kept = _kept_genes(stats, settings, notes)
    provenance["settings"]["min_cells"] = settings.least_cells(int(stats.n_cells.sum()))
    detected = int((stats.histogram.detected_in(len(genes)) > 0).sum())
    given = stats.cell_types
    stats = _without_silent(stats.select_genes(kept), notes)
    n_cells, sums = stats.per_type()
    thin = {t: int(n) for t, n in zip(stats.cell_types, n_cells, strict=True) if n < settings.min_cells_per_type}
    if thin:
        names = ", ".join(f"{name} ({n})" for name, n in thin.items())
        notes.append(f"These prototypes are based on few cells and are uncertain: {names}.")
    mean = settings.method == "mean"
    rates, dispersion, fit = (sums, None, {}) if mean else _regression(stats, settings, notes, progress)
    provenance |= {
        "batches": {} if provenance["batch"] is None else stats.per_batch(),
        "cells_left_out": stats.left_out,
        "genes_left_out": {"undetected": len(genes) - detected, "few_cells": detected - len(kept)},
        "types_left_out": [name for name in given if name not in stats.cell_types],
        "thin_types": thin,
        "counts_per_type": {t: float(n) for t, n in zip(stats.cell_types, sums.sum(axis=1), strict=True)},
        "fit": fit,
    }
    return Prototypes(
        (rates / rates.sum(axis=1, keepdims=True)).astype(np.float32),
        stats.cell_types,
        tuple(genes[i] for i in kept),
        n_cells,
        provenance,
        None if dispersion is None else dispersion.astype(np.float32),
        None if gene_ids is None else tuple(gene_ids[i] for i in kept),
    )


def _regression(
    stats: GroupStatistics, settings: PrototypeSettings, notes: list[str], progress: Progress
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], dict[str, Any]]:
    """Return the rates of the types, the dispersions of the genes, and the quality of the fit."""
    from napari_cpnn.models import choose_device
    from napari_cpnn.prototypes.regression import fit_regression, quality

    notes += _islands(stats)
    device = choose_device(settings.device)
    # Apple's GPUs do not support float64.
    name = "cpu" if device.type == "mps" else str(device)
    fit = fit_regression(stats, settings.prior_counts, name, settings.max_iterations, progress=progress)
    if not fit.converged:
        notes.append(f"The regression has not converged after {fit.iterations} steps; raise max_iterations.")
    return fit.rates, fit.dispersion, quality(fit, stats)


def _islands(stats: GroupStatistics) -> list[str]:
    """Return a note if sets of batches are not connected by common cell types, so that they cannot be compared."""
    n_types = len(stats.cell_types)
    size = n_types + len(stats.batches)
    links = coo_matrix((np.ones(len(stats.type_of)), (stats.type_of, n_types + stats.batch_of)), shape=(size, size))
    n_islands, island = connected_components(links, directed=False)
    if n_islands == 1:
        return []
    sets = [[b for b, i in zip(stats.batches, island[n_types:], strict=True) if i == j] for j in range(n_islands)]
    texts = [", ".join(names[:3]) + (" and more" if len(names) > 3 else "") for names in sorted(sets)]
    text = f"{ISLANDS} ({'; '.join(texts)}), so batch effects cannot be separated from differences between their types."
    return [text]


def _check_cells(stats: GroupStatistics, settings: PrototypeSettings) -> None:
    """Raise an error with the reasons if no cell is left."""
    n_cells, dropped = int(stats.n_cells.sum()), stats.left_out
    texts = [f"{n} {REASONS[reason].format(settings)}" for reason, n in dropped.items()]
    if not n_cells:
        raise PrototypesError(f"No cell is left of {sum(dropped.values())}: {', '.join(texts)}; change these limits.")
    if any(dropped.values()):
        left_out = ", ".join(text for text, n in zip(texts, dropped.values(), strict=True) if n)
        _log.info("prototypes from %d of %d cells; left out: %s", n_cells, n_cells + sum(dropped.values()), left_out)


def _kept_genes(stats: GroupStatistics, settings: PrototypeSettings, notes: list[str]) -> npt.NDArray[np.int64]:
    """Return the genes detected in enough cells, adding a note if most of them are left out."""
    n_cells, seen_in = int(stats.n_cells.sum()), stats.histogram.detected_in(stats.sums.shape[1])
    least, usual = settings.least_cells(n_cells), PrototypeSettings().least_cells(n_cells)
    kept = seen_in >= least
    detected = int((seen_in > 0).sum())
    advice = (
        f"of {detected:,} detected genes {int(kept.sum()):,} are in at least {least} of the {n_cells:,} cells "
        f"(min_cells); set min_cells to {usual if usual < least else 'a smaller number'}"
    )
    if not kept.any():
        raise PrototypesError(f"No gene is left: {advice}.")
    if kept.sum() < detected / 2:
        notes.append(f"{MOST_GENES}: {advice}.")
    return np.flatnonzero(kept)


def _without_silent(stats: GroupStatistics, notes: list[str]) -> GroupStatistics:
    """Remove types without any count in the kept genes."""
    loud = stats.per_type()[1].sum(axis=1) > 0
    if loud.all():
        return stats
    names = [name for name, ok in zip(stats.cell_types, loud, strict=True) if not ok]
    notes.append(f"No prototype, since there are no counts in the remaining genes: {', '.join(names)}.")
    return stats.select_types(np.flatnonzero(loud))
