"""Result of a benchmark: tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.evaluation import pearson
from napari_cpnn.studies.benchmarking.summary import SectionScores

#: Genes among which those on the maps are chosen, and the correlation at which two show the same.
_CANDIDATES, _ALIKE = 100, 0.5


@dataclass(frozen=True, eq=False)
class ExampleMaps:
    """Measured and predicted values of some genes on one section, for the page.

    Attributes
    ----------
    section
        Name of the section.
    spatial
        ``(n, 2)`` positions in um ``(y, x)``.
    genes
        Names of the ``k`` genes.
    maps
        ``(n, k)`` by title, the measured values first.
    correlations
        PCC with the measured values ``(k,)`` by title.
    """

    section: str
    spatial: FloatArray
    genes: list[str]
    maps: dict[str, Float32Array]
    correlations: dict[str, FloatArray]


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """Result of :func:`~napari_cpnn.benchmark`.

    Attributes
    ----------
    scores
        One row per score: ``kind`` (``model``, ``baseline``, ``ceiling``, ``measured``, or the negative controls
        ``shifted`` and ``other section`` of a model), ``name``, ``patient``, ``section``, ``gene`` (empty for a score
        of a whole section), ``metric``, ``value``. Metrics: ``pcc``, ``scc``, both ``_given_depth``,
        ``pcc_residuals``, ``rmse`` in counts, ``moran`` (Moran's I), ``svg_ranks``.
    summary
        One row per kind, name and metric: the ``mean`` over genes, then sections, then patients, with the bootstrap
        interval ``low`` to ``high`` over ``n_units`` patients or sections (``unit``); its share ``of_ceiling``; for
        controls, whether the score ``survives``.
    differences
        Paired differences of each model from each baseline and from the first model (``minus``).
    sections
        One row per section: what was compared and what was left out, in numbers.
    flags
        A sentence for each model and negative control that its scores survive, and for scores above the noise ceiling.
    notes
        Sentences about what was done and what could not be done.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    differences: pd.DataFrame
    sections: pd.DataFrame
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    by_section: Sequence[SectionScores]
    example: ExampleMaps | None

    def mean(self, name: str, metric: str = "pcc", kind: str | None = None) -> float:
        """Mean of a metric of a model, a baseline or the ``noise ceiling``; NaN if there is none.

        Parameters
        ----------
        kind
            As in ``summary``; by default that of the name, and not a negative control.
        """
        rows = self.summary[(self.summary["name"] == name) & (self.summary["metric"] == metric)]
        rows = rows[rows["kind"].isin([kind] if kind else ["model", "baseline", "ceiling"])]
        return float(rows["mean"].iloc[0]) if len(rows) else float("nan")


def top_genes(measured: Float32Array, ceilings: FloatArray, n: int) -> list[int]:
    """Columns of the genes with the highest noise ceiling that differ from one another; no model takes part.

    Parameters
    ----------
    measured
        ``(N, G)``.
    ceilings
        ``(G,)``.
    n
        Number of genes.
    """
    order = np.argsort(np.where(np.isfinite(ceilings), -ceilings, np.inf), kind="stable")
    chosen: list[int] = []
    for gene in order[:_CANDIDATES]:
        others, own = measured[:, chosen], np.repeat(measured[:, [gene]], len(chosen), axis=1)
        if len(chosen) < n and np.ptp(measured[:, gene]) > 0 and not (np.abs(pearson(others, own)) > _ALIKE).any():
            chosen.append(int(gene))
    return chosen
