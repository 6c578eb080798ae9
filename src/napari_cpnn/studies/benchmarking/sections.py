"""Measured sections of a benchmark, and predictions aligned to their spots and genes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.counts import name_genes_as, positions, shared_genes
from napari_cpnn.errors import GenesError, SpotsError, TrainingError
from napari_cpnn.evaluation import usable_spots
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.slides import Slide
from napari_cpnn.spots import counts_matrix, expression, on_one_slide
from napari_cpnn.studies.benchmarking.units import in_log_cp10k
from napari_cpnn.studies.folds import Groups, distinct, groups_of, sample_labels

#: A correlation of fewer spots is always 1, -1 or undefined once depth is regressed out.
MIN_SPOTS = 4


@dataclass(frozen=True, eq=False)
class Section:
    """A slide with its measured spots.

    Attributes
    ----------
    name, group
        Names of the section and of its patient.
    slide
        The slide.
    spots
        Spots with counts and a position.
    left_out
        Numbers of other spots, by reason.
    """

    name: str
    group: str
    slide: Slide
    spots: AnnData
    left_out: Mapping[str, int]

    @cached_property
    def centers_um(self) -> FloatArray:
        """Positions ``(N, 2)`` of the spots in slide um ``(y, x)``."""
        return spatial_to_um(self.spots.obsm["spatial"], self.slide.require_mappable())


@dataclass(frozen=True, eq=False)
class Aligned:
    """Predictions of all models on the same spots and genes of a section.

    Attributes
    ----------
    section
        The section.
    rows
        Rows ``(n,)`` of the compared spots in ``section.spots``.
    genes
        The ``G`` genes that are detected in these spots and predicted by every model.
    counts
        ``(n, G)`` measured counts.
    totals
        ``(n,)`` counts of all measured genes.
    measured
        ``(n, G)`` log1p CP10k.
    predicted
        ``(n, G)`` by model: log1p CP10k, or the values as given if their unit is unknown.
    has_unit
        By model, whether its predictions can be converted to counts.
    numbers
        What was compared and what was left out.
    """

    section: Section
    rows: IntArray
    genes: list[str]
    counts: Float32Array
    totals: FloatArray
    measured: Float32Array
    predicted: dict[str, Float32Array]
    has_unit: dict[str, bool]
    numbers: dict[str, int]

    @property
    def centers_um(self) -> FloatArray:
        """Positions ``(n, 2)`` of the compared spots in slide um ``(y, x)``."""
        return self.section.centers_um[self.rows]


def open_sections(
    samples: Sequence[tuple[Slide, AnnData]], groups: Groups | None, names: Sequence[str] | None
) -> list[Section]:
    """Check the measured spots of a benchmark; without ``groups``, all sections belong to one patient."""
    if not samples:
        raise TrainingError("There is nothing to compare with: give slides with their measured spots.")
    if names is not None and (len(names) != len(samples) or len(set(names)) < len(names)):
        raise TrainingError(f"There are {len(samples)} sections; give each a name of its own, not {', '.join(names)}.")
    labels = sample_labels(samples) if names is None else distinct([str(name) for name in names])
    # Slides are grouped by the names that the user gave them.
    patients = _patients(samples, labels, groups)
    sections = []
    for (slide, table), label, patient in zip(samples, labels, patients, strict=True):
        slide.require_mappable()
        spots = on_one_slide(table, f"The table of spots of {label}")
        usable, left_out = usable_spots(slide, spots)
        spots = spots[usable].copy()
        if not spots.obs_names.is_unique:
            raise SpotsError(f"Two spots of {label} have the same name, so predictions cannot be assigned to them.")
        sections.append(Section(label, patient, slide, spots, left_out))
    return sections


def _patients(samples: Sequence[tuple[Slide, AnnData]], labels: list[str], groups: Groups | None) -> list[str]:
    if groups is None or (isinstance(groups, str) and groups == "section"):
        return [""] * len(samples)
    if isinstance(groups, Mapping) and all(label in groups for label in labels):
        return [str(groups[label]) for label in labels]
    return groups_of(samples, groups)


def align(section: Section, tables: Mapping[str, AnnData], without_patch: BoolArray, ignore_case: bool) -> Aligned:
    """Restrict predictions to the spots and genes that were measured and that every model predicts.

    Parameters
    ----------
    tables
        Predictions ``(spots, genes)`` by model.
    without_patch
        Spots of the section whose image cannot be read; they are left out.
    ignore_case
        Whether gene names that differ only in case denote the same gene.

    Raises
    ------
    SpotsError
        If no spots are left, or names of spots are not unique.
    GenesError
        If no genes are left.
    """
    spots, n = section.spots, section.spots.n_obs
    tables = {name: _named_as(table, spots, ignore_case) for name, table in tables.items()}
    predicted_by_all = np.logical_and.reduce([_is_predicted(section, *item) for item in tables.items()])
    rows = np.flatnonzero(predicted_by_all & ~without_patch)
    if len(rows) < MIN_SPOTS:
        raise SpotsError(
            f"{len(rows)} spots of {section.name} are measured, have a readable patch and are in every prediction, and "
            f"scores need at least {MIN_SPOTS}; give the predictions of the whole section."
        )
    counts = sp.csc_matrix(counts_matrix(spots)[rows])
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    detected = np.asarray(counts.sum(axis=0)).ravel() > 0
    genes = _common_genes(section, tables, [str(g) for g in spots.var_names[detected]])
    wanted = counts[:, positions([str(g) for g in spots.var_names], genes)]
    measured = expression(spots[rows], genes)
    share = float(wanted.sum() / totals.sum())
    predicted, has_unit = {}, {}
    for name, table in tables.items():
        values = _values(table, spots.obs_names[rows], genes, f"The predictions of {name} for {section.name}")
        predicted[name], has_unit[name] = in_log_cp10k(values, measured, share)
    numbers = {
        "spots": len(rows),
        **section.left_out,
        "spots_not_predicted": int((~predicted_by_all).sum()),
        "spots_without_patch": n - len(rows) - int((~predicted_by_all).sum()),
        "genes": len(genes),
        "genes_detected": int(detected.sum()),
        "median_counts": int(np.median(totals)),
    }
    dense = wanted.toarray().astype(np.float32)
    return Aligned(section, rows, genes, dense, totals, measured, predicted, has_unit, numbers)


def _named_as(table: AnnData, spots: AnnData, ignore_case: bool) -> AnnData:
    ids = [str(i) for i in spots.var["gene_ids"]] if "gene_ids" in spots.var else None
    return name_genes_as(table, [str(name) for name in spots.var_names], ids, ignore_case)


def _is_predicted(section: Section, name: str, table: AnnData) -> BoolArray:
    """Return which spots of the section a model predicts; spots whose prediction is NaN throughout do not count."""
    known, names = section.spots.obs_names.astype(str), table.obs_names.astype(str)
    if not names.is_unique:
        raise SpotsError(
            f"The predictions of {name} for {section.name} have two rows called {names[names.duplicated()][0]}; obs "
            "names must be those of the measured table, each once."
        )
    at = names.get_indexer(known)
    if not (at >= 0).any():
        raise SpotsError(
            f"The predictions of {name} and the spots of {section.name} have no name in common, for instance "
            f"{', '.join(names[:2]) or 'none'} against {', '.join(known[:2])}; obs names must be those of the measured "
            "table."
        )
    matrix = table.X
    finite = np.ones(table.n_obs, dtype=bool) if sp.issparse(matrix) else np.isfinite(np.asarray(matrix)).any(axis=1)
    predicted: BoolArray = (at >= 0) & finite[at]
    return predicted


def _common_genes(section: Section, tables: Mapping[str, AnnData], detected: Iterable[str]) -> list[str]:
    owner = f"the spots of {section.name}"
    measured = [str(name) for name in section.spots.var_names]
    genes = list(detected)
    for name, table in tables.items():
        both = set(shared_genes([str(g) for g in table.var_names], measured, (f"The predictions of {name}", owner)))
        genes = [gene for gene in genes if gene in both]
    if not genes:
        raise GenesError(
            f"No gene that was detected in {section.name} is predicted by all of {', '.join(tables)}; compare models "
            "with common genes."
        )
    return genes


def _values(table: AnnData, names: pd.Index[str], genes: Sequence[str], owner: str) -> Float32Array:
    rows = table.obs_names.astype(str).get_indexer(names.astype(str))
    columns = positions([str(g) for g in table.var_names], genes)
    matrix: Any = table.X
    part = matrix.tocsr()[rows][:, columns].toarray() if sp.issparse(matrix) else np.asarray(matrix)[rows][:, columns]
    values = np.array(part, dtype=np.float32)
    values[~np.isfinite(values)] = np.nan
    if not np.isfinite(values).any():
        raise SpotsError(f"{owner} hold no finite number; write predictions into X.")
    return values
