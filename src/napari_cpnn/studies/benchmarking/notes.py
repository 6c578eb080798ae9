"""Sentences about how a benchmark was computed, for its page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from napari_cpnn.settings import BenchmarkSettings
from napari_cpnn.studies.benchmarking.controls import OTHER_SECTION, SHIFTED, SURVIVES
from napari_cpnn.studies.benchmarking.sections import Aligned
from napari_cpnn.studies.benchmarking.summary import BASELINE, MODEL, SectionScores, Units

#: A bootstrap over fewer units has too few different resamples for its nominal coverage.
FEW_UNITS = 6


def notes_of(
    scores: Sequence[SectionScores],
    aligned: Sequence[Aligned],
    differences: pd.DataFrame,
    settings: BenchmarkSettings,
    *,
    groups_given: bool,
) -> list[str]:
    """Describe genes and spots, units of the intervals, baselines, controls and the number of comparisons."""
    units = Units.of(scores)
    notes = [
        *_compared(scores, aligned),
        *_units(units, settings, groups_given=groups_given),
        _baselines(scores, units),
    ]
    notes += [_controls(scores, units, settings)]
    notes += _multiplicity(differences, units, settings)
    return notes


def _multiplicity(differences: pd.DataFrame, units: Units, settings: BenchmarkSettings) -> list[str]:
    if differences.empty:
        return []
    tested = differences[np.isfinite(differences["low"].to_numpy(dtype=np.float64))]
    if tested.empty:
        return [f"{_several(len(differences), 'difference')} without an interval: none of them is tested."]
    # Means of few units all have the same sign by chance more often than the interval says.
    same_sign = 2.0 ** (1 - tested["n_units"].to_numpy())
    by_chance = float(np.maximum(same_sign, 1 - settings.interval).sum())
    why = f", since {len(units.names)} {units.kind}s often agree by chance" if len(units.names) < FEW_UNITS else ""
    n, apart = _several(len(tested), "difference"), int(tested["excludes_0"].sum())
    said = f"{n} with intervals, none adjusted for their number: {apart} exclude 0."
    return [f"{said} If no difference were real, about {by_chance:.0f} would{why}."]


def headlines(summary: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """Say for each model how its PCC stands to the noise ceiling and the baselines."""
    of_pcc = summary[(summary["metric"] == "pcc") & summary["mean"].notna()]
    models = of_pcc[of_pcc["kind"] == MODEL]
    baselines = dict(zip(*(of_pcc.loc[of_pcc["kind"] == BASELINE, c] for c in ("name", "mean")), strict=True))
    sentences = []
    for name, mean, share in zip(*(models[c] for c in ("name", "mean", "of_ceiling")), strict=True):
        parts = [f"{name}: mean PCC {mean:z.3f}"]
        if np.isfinite(share):
            parts[0] += f", {share:.0%} of the noise ceiling"
        beside: dict[str, list[str]] = {}
        own = differences[(differences["name"] == name) & (differences["metric"] == "pcc")]
        for minus, *values in zip(*(own[c] for c in ("minus", "difference", "low", "high")), strict=True):
            if minus in baselines:
                beside.setdefault(_stands(*values), []).append(f"{minus} ({baselines[minus]:z.3f})")
        parts += [f"{how} {' and '.join(names)}" for how, names in beside.items()]
        sentences.append(f"{'; '.join(parts)}.")
    return sentences


def _stands(difference: float, low: float, high: float) -> str:
    if low <= 0 <= high:
        return "not told apart from"
    return "more than" if difference > 0 else "less than"


def _compared(scores: Sequence[SectionScores], aligned: Sequence[Aligned]) -> list[str]:
    n_models = len(aligned[0].predicted)
    who = "the model" if n_models == 1 else f"each of the {n_models} models"
    genes = sorted({len(one.genes) for one in aligned})
    counted = f"{genes[0]:,}" if len(genes) == 1 else f"{genes[0]:,} to {genes[-1]:,}"
    left = [one.numbers["genes_detected"] - one.numbers["genes"] for one in aligned]
    notes = [
        f"Scores are over {sum(one.n_spots for one in scores):,} spots of {_several(len(scores), 'section')} and all "
        f"{counted} genes that are detected in a section and that {who} predicts"
        + (f"; up to {max(left):,} detected genes are not predicted and not scored." if max(left) else ".")
    ]
    absent = sum(one.numbers["spots_not_predicted"] for one in aligned)
    if absent:
        notes.append(f"{absent:,} measured spots are missing or NaN in some prediction and not scored.")
    if flat := max(int((np.ptp(one.measured, axis=0) == 0).sum()) for one in aligned):
        notes.append(f"Up to {flat:,} genes of a section are measured as constant; they count for no model.")
    for name in aligned[0].predicted:
        values = [one.predicted[name] for one in aligned]
        if n := max(int((np.ptp(v, axis=0) == 0).sum()) for v in values):
            notes.append(
                f"{name} predicts the same in all spots for up to {n:,} genes of a section; each counts as "
                "uncorrelated, r = 0."
            )
        if n := max(int((~np.isfinite(v).all(axis=0)).sum()) for v in values):
            notes.append(f"{name} has NaN for up to {n:,} genes of a section; these count for no model.")
    return notes


def _units(units: Units, settings: BenchmarkSettings, *, groups_given: bool) -> list[str]:
    n = len(units.names)
    notes = []
    if n == 1:
        notes.append("There is one section, so there are no intervals, and nothing says how scores vary.")
    elif settings.bootstraps:
        few = f" With {n}, they show little more than the range and are too narrow." if n < FEW_UNITS else ""
        notes.append(
            f"Intervals are {settings.interval:.0%} bootstrap intervals over {n} {units.kind}s; scores are averaged "
            f"over genes, then sections{', then patients' if units.kind == 'patient' else ''}.{few}"
        )
    if units.kind == "section" and n > 1:
        why = "All sections are of one patient" if groups_given else "No patients were given"
        notes.append(f"{why}, so that intervals are over sections, and nothing says how scores vary between patients.")
    return notes


def _baselines(scores: Sequence[SectionScores], units: Units) -> str:
    if len(scores) == 1:
        return (
            "There is no other section to fit baselines on: depth oracle and nuclei count are the plain numbers, "
            "without a slope for each gene, so that a gene that falls with depth counts as negatively correlated and "
            "there is no RMSE; train mean and colour statistics are left out."
        )
    where = "the sections of the other patients" if units.kind == "patient" else "the other sections"
    return (
        f"Baselines are fitted on {where}. Colour statistics and nuclei count see the image alone; the depth oracle "
        "sees how many counts each measured spot has, which no image shows."
    )


def _controls(scores: Sequence[SectionScores], units: Units, settings: BenchmarkSettings) -> str:
    kinds = {kind for one in scores for kind, _ in one.per_gene}
    parts = []
    if SHIFTED in kinds:
        parts.append(f"predictions shifted over the section on a torus ({settings.shifts**2 - 1} shifts)")
    if OTHER_SECTION in kinds:
        whose = "another patient's" if units.kind == "patient" else "the same patient's other"
        parts.append(f"predictions for {whose} sections, stretched to the extent of this one")
    if not parts:
        return "No negative control was computed."
    judged = (
        f"A score survives if its interval excludes 0 and it exceeds {SURVIVES} and what such maps give by chance."
        if len(units.names) > 1
        else "Without intervals none is judged."
    )
    if 1 < len(units.names) < FEW_UNITS:
        judged += f" With {len(units.names)} {units.kind}s one may survive by chance."
    missing = " There is no other section for the second control." if OTHER_SECTION not in kinds else ""
    return f"Negative controls: {'; '.join(parts)}. {judged}{missing}"


def _several(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
