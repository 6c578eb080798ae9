"""Means over genes, sections and patients, with intervals; differences; and what survived the negative controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from napari_cpnn.arrays import BoolArray, FloatArray
from napari_cpnn.settings import BenchmarkSettings
from napari_cpnn.studies.benchmarking.controls import CONTROLS, N_SD, SHIFTED, SURVIVES
from napari_cpnn.studies.benchmarking.scores import METRICS
from napari_cpnn.studies.bootstrap import draws

CEILING, MODEL, BASELINE, MEASURED = "ceiling", "model", "baseline", "measured"
NOISE_CEILING = "noise ceiling"

LABELS = {
    "pcc": "PCC",
    "scc": "SCC",
    "pcc_given_depth": "PCC given depth",
    "scc_given_depth": "SCC given depth",
    "pcc_residuals": "PCC, Pearson residuals",
    "rmse": "RMSE, counts",
    "svg_ranks": "SVG ranks",
}
"""Names of the metrics in tables and sentences."""

ABOVE_CEILING, MIN_GENES = 0.1, 20
"""A mean over this many genes that exceeds its noise ceiling by more than this is flagged: ceilings are estimates."""

#: What it means that a score survives a control; another section is of another patient, or of the only one.
_SHIFTED = "this part of the score does not say where in the section anything is"
_OTHER = {
    "patient": "this part of the score is alike in sections of different patients, such as their edges, depth or "
    "position on the array, and not read from this image",
    "section": "this part of the score is not read from this image, or the sections are neighbours in one tissue and "
    "look alike, which only sections of another patient can tell",
}

Row = tuple[str, str]
"""Kind (model, baseline, a control, ceiling) and name."""


@dataclass(frozen=True, eq=False)
class SectionScores:
    """All scores of one section.

    Attributes
    ----------
    section, group
        Names of section and patient.
    genes
        The ``G`` compared genes.
    n_spots
        Number of compared spots.
    per_gene
        ``[kind, name][metric]`` ``(G,)``.
    whole
        ``[kind, name]["svg_ranks"]``.
    chance
        ``[kind, name][metric]``: standard deviation by chance of the mean over genes, for a negative control.
    """

    section: str
    group: str
    genes: list[str]
    n_spots: int
    per_gene: dict[Row, dict[str, FloatArray]]
    whole: dict[Row, dict[str, float]]
    chance: dict[Row, dict[str, float]]

    def common_genes(self, metric: str) -> BoolArray:
        """Genes ``(G,)`` with a score in every model that has any, so that means are over the same genes."""
        known = np.ones(len(self.genes), dtype=bool)
        for (kind, _), values in self.per_gene.items():
            if kind == MODEL and metric in values and np.isfinite(values[metric]).any():
                known &= np.isfinite(values[metric])
        return known

    def mean(self, row: Row, metric: str, minus: Row | None = None) -> float:
        """Mean over the common genes of a score, or of its difference from that of another row; NaN without any."""
        if metric == "svg_ranks":
            return self._whole(row, metric) - (self._whole(minus, metric) if minus else 0.0)
        values = self.per_gene.get(row, {}).get(metric)
        if values is None:
            return float("nan")
        if minus is not None:
            other = self.per_gene.get(minus, {}).get(metric)
            values = values - (np.nan if other is None else other)
        known = self.common_genes(metric) & np.isfinite(values)
        return float(values[known].mean()) if known.any() else float("nan")

    def _whole(self, row: Row, metric: str) -> float:
        return self.whole.get(row, {}).get(metric, float("nan"))


@dataclass(frozen=True)
class Units:
    """What intervals are over: patients, or sections if there is one patient.

    Attributes
    ----------
    kind
        ``"patient"`` or ``"section"``.
    of_section
        Unit of each section.
    """

    kind: str
    of_section: tuple[str, ...]

    @classmethod
    def of(cls, scores: Sequence[SectionScores]) -> Units:
        groups = [one.group for one in scores]
        if len(set(groups)) > 1:
            return cls("patient", tuple(groups))
        return cls("section", tuple(one.section for one in scores))

    @property
    def names(self) -> list[str]:
        """Names of the units, in order."""
        return list(dict.fromkeys(self.of_section))

    def means(self, values: Sequence[float]) -> FloatArray:
        """Mean of the values of sections per unit, over the sections that have one."""
        table = pd.Series(values, dtype=np.float64).groupby(list(self.of_section), sort=False).mean()
        return np.asarray(table, dtype=np.float64)

    def deviation(self, values: Sequence[float]) -> float:
        """Standard deviation of the mean over units, given that of each section."""
        table = pd.Series(values, dtype=np.float64).groupby(list(self.of_section), sort=False)
        return float(np.sqrt((table.apply(lambda v: (v**2).sum() / len(v) ** 2)).sum()) / len(table))


def summarise_benchmark(scores: Sequence[SectionScores], settings: BenchmarkSettings) -> pd.DataFrame:
    """Means per kind, name and metric: over genes, then sections, then patients, with bootstrap intervals."""
    units, rows = Units.of(scores), []
    ceilings = {m: _mean(units.means([one.mean((CEILING, NOISE_CEILING), m) for one in scores])) for m in METRICS}
    for row in _rows_of(scores):
        for metric in METRICS:
            per_section = [one.mean(row, metric) for one in scores]
            values = units.means(per_section)
            if not np.isfinite(values).any() and (row[0], metric) != (MODEL, "pcc"):  # a model is always listed
                continue
            low, high = interval(values, settings)
            mean = _mean(values)
            n_genes = [int(one.common_genes(metric).sum()) for one in scores]
            entry: dict[str, Any] = {"kind": row[0], "name": row[1], "metric": metric, "mean": mean}
            entry |= {"low": low, "high": high}
            share = mean / ceilings[metric] if ceilings[metric] > 0 and row[0] != CEILING else float("nan")
            entry["of_ceiling"] = share
            chance = N_SD * units.deviation([one.chance.get(row, {}).get(metric, 0.0) for one in scores])
            entry["survives"] = row[0] in CONTROLS and survives(mean, low, chance)
            entry |= {"unit": units.kind, "n_units": int(np.isfinite(values).sum()), "n_sections": len(scores)}
            entry["n_genes"] = round(float(np.mean(n_genes)))
            rows.append(entry)
    return pd.DataFrame(rows)


def differences_of(scores: Sequence[SectionScores], settings: BenchmarkSettings) -> pd.DataFrame:
    """Differences of each model from each baseline and from the first model, on the same spots and genes.

    Negative differences of ``rmse`` are better, positive ones of the other metrics.
    """
    units, order = Units.of(scores), _rows_of(scores)
    models = [row for row in order if row[0] == MODEL]
    baselines = [row for row in order if row[0] == BASELINE]
    rows = []
    for metric in METRICS:
        for model in models:
            for other in [*(m for m in models[:1] if m != model), *baselines]:
                values = units.means([one.mean(model, metric, minus=other) for one in scores])
                if not np.isfinite(values).any():
                    continue
                low, high = interval(values, settings)
                found = {"metric": metric, "name": model[1], "minus": other[1], "difference": _mean(values)}
                rows.append({**found, "low": low, "high": high, "n_units": int(np.isfinite(values).sum())})
    columns = ["metric", "name", "minus", "difference", "low", "high", "n_units"]
    table = pd.DataFrame(rows, columns=columns)
    table["excludes_0"] = (table["low"] > 0) | (table["high"] < 0)
    return table


def interval(values: FloatArray, settings: BenchmarkSettings) -> tuple[float, float]:
    """Bootstrap interval of the mean over units; NaN for a single one."""
    known = values[np.isfinite(values)]
    if len(known) < 2 or not settings.bootstraps:
        return float("nan"), float("nan")
    means = draws(len(known), settings.bootstraps, settings.seed) @ known / len(known)
    low, high = np.quantile(means, [(1 - settings.interval) / 2, (1 + settings.interval) / 2])
    return float(low), float(high)


def survives(mean: float, low: float, chance: float = 0.0) -> bool:
    """Whether the score of a negative control is larger than chance."""
    return bool(mean > max(SURVIVES, chance) and low > 0)


def flags_of(summary: pd.DataFrame) -> list[str]:
    """Sentences about scores that survived a negative control, or exceed their noise ceiling."""
    sentences = []
    models = summary[(summary["kind"] == MODEL) & (summary["of_ceiling"] > 1) & (summary["n_genes"] >= MIN_GENES)]
    for name, metric, mean, share in zip(*(models[c] for c in ("name", "metric", "mean", "of_ceiling")), strict=True):
        if mean - mean / share > ABOVE_CEILING:
            sentences.append(
                f"{name}: {LABELS[metric]} {mean:z.3f} exceeds the noise ceiling, {mean / share:.3f}; only predictions "
                "that know the measured counts can do that."
            )
    for control in survivors(summary):
        sentences += [f"{name}: {said} is left when {control.what}; {control.why}." for name, said in control.scores]
    return sentences


@dataclass(frozen=True)
class Survivors:
    """Models whose scores survived a negative control.

    Attributes
    ----------
    what, why
        Clauses: what was done, and what it means.
    scores
        Name of the model, and what is left of its scores.
    """

    what: str
    why: str
    scores: list[tuple[str, str]]


def survivors(summary: pd.DataFrame) -> list[Survivors]:
    """What survived, by negative control."""
    left, found = summary[summary["survives"].astype(bool)], []
    for kind, rows in left.groupby("kind", sort=False):
        scores = []
        for name, own in rows.groupby("name", sort=False):
            values = zip(*(own[c] for c in ("metric", "mean", "low", "high")), strict=True)
            said = ", ".join(f"{LABELS[m]} {mean:z.3f} ({low:z.3f} to {high:z.3f})" for m, mean, low, high in values)
            scores.append((str(name), said))
        why = _SHIFTED if kind == SHIFTED else _OTHER[str(rows["unit"].iloc[0])]
        found.append(Survivors(CONTROLS[str(kind)], why, scores))
    return found


def tidy_scores(scores: Sequence[SectionScores]) -> pd.DataFrame:
    """One row per kind, name, section, gene and metric; ``gene`` is empty for scores of a whole section."""
    parts = []
    for one in scores:
        place = {"patient": one.group, "section": one.section}
        for (kind, name), metrics in one.per_gene.items():
            for metric, values in metrics.items():
                columns = {"kind": kind, "name": name, **place, "gene": one.genes, "metric": metric, "value": values}
                parts.append(pd.DataFrame(columns))
        whole = [
            {"kind": kind, "name": name, **place, "gene": "", "metric": metric, "value": value}
            for (kind, name), metrics in one.whole.items()
            for metric, value in metrics.items()
        ]
        if whole:
            parts.append(pd.DataFrame(whole))
    table = pd.concat(parts, ignore_index=True)
    texts = ["kind", "name", "patient", "section", "gene", "metric"]
    return table.astype(dict.fromkeys(texts, "category"))


def mean_by_gene(scores: Sequence[SectionScores], row: Row, metric: str) -> pd.Series:
    """Mean of a score over sections, by gene."""
    parts = [
        pd.Series(one.per_gene[row][metric], index=one.genes) for one in scores if metric in one.per_gene.get(row, {})
    ]
    if not parts:
        return pd.Series(dtype=np.float64)
    joined = pd.concat(parts)
    return joined.groupby(level=0, sort=False).mean()


def _rows_of(scores: Sequence[SectionScores]) -> list[Row]:
    return list(dict.fromkeys(row for one in scores for row in one.per_gene if row[0] != MEASURED))


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
