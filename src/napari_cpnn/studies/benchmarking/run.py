"""Score predictions of any models on measured sections, beside noise ceiling, baselines and negative controls."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from napari_cpnn.counts import is_mitochondrial
from napari_cpnn.errors import CpnnWarning, TrainingError
from napari_cpnn.models import CPNN
from napari_cpnn.progress import Reporting, counting
from napari_cpnn.settings import BenchmarkSettings
from napari_cpnn.slides import Slide
from napari_cpnn.studies.benchmarking.baselines import (
    BASELINES,
    DEPTH,
    NUCLEI,
    TRAIN_MEAN,
    SectionSums,
    baseline_predictions,
    sums_of,
)
from napari_cpnn.studies.benchmarking.controls import (
    OTHER_SECTION,
    SHIFTED,
    donors_of,
    laid_onto,
    score_donors,
    score_shifted,
    torus_shifts,
)
from napari_cpnn.studies.benchmarking.image_statistics import image_statistics
from napari_cpnn.studies.benchmarking.notes import notes_of
from napari_cpnn.studies.benchmarking.output import require_new, write_benchmark
from napari_cpnn.studies.benchmarking.result import BenchmarkResult, ExampleMaps, top_genes
from napari_cpnn.studies.benchmarking.scores import (
    CORRELATIONS,
    Measured,
    ceilings_of,
    correlations,
    measured_of,
    moran_of,
    rank_agreement,
    rmse,
    without_squidpy,
)
from napari_cpnn.studies.benchmarking.sections import Aligned, Section, align, open_sections
from napari_cpnn.studies.benchmarking.sources import Predictions, find_predictions, read_prediction
from napari_cpnn.studies.benchmarking.summary import (
    BASELINE,
    CEILING,
    MEASURED,
    MODEL,
    NOISE_CEILING,
    SectionScores,
    differences_of,
    flags_of,
    summarise_benchmark,
    tidy_scores,
)
from napari_cpnn.studies.folds import Groups
from napari_cpnn.untrusted import require_memory

#: Genes on the maps of the page.
_N_MAPS = 3
_RESERVED = {*BASELINES, NOISE_CEILING, MEASURED}
#: Scores that a baseline cannot have, whatever the data.
_NO_SCORE = {
    TRAIN_MEAN: (*CORRELATIONS, "svg_ranks"),
    DEPTH: ("pcc_given_depth", "scc_given_depth", "svg_ranks"),  # one map for all genes
    NUCLEI: ("svg_ranks",),
}


def benchmark(
    predictions: Mapping[str, Predictions],
    samples: Sequence[tuple[Slide, AnnData]],
    groups: Groups | None = None,
    sections: Sequence[str] | None = None,
    out: str | Path | None = None,
    settings: BenchmarkSettings | None = None,
    progress: Reporting = True,
    *,
    overwrite: bool = False,
) -> BenchmarkResult:
    """Score the predictions of any models on measured sections, all on the same spots and genes.

    Scores are computed per gene over the spots of a section, and averaged over genes, sections and patients. Measured
    counts are never smoothed. All genes count that are detected in a section and that every model predicts; where a
    prediction is constant, its correlation is 0. Beside the models stand the noise ceiling; baselines that are fitted
    on the other patients (the other sections if there is one patient): mean of the training spots, log total counts of
    the *measured* spot, 21 colour statistics, number of nuclei; and negative controls, in which the predictions are put
    into wrong places and the scores must vanish.

    Parameters
    ----------
    predictions
        By name of the model: a :class:`~napari_cpnn.CPNN` or the path of its file; or predicted expression, a table of
        spots by genes whose names are those of the measured spots. For several sections, a folder with one ``.h5ad``
        per section, named as the section; or tables or paths in a sequence, or in a mapping from the name of the
        section. A folder of :func:`~napari_cpnn.cross_validate` will do. Whole, non-negative numbers are taken to be
        counts, other values log1p of counts per 10,000 if their range and mean allow it. For other units there is no
        RMSE.
    samples
        Slides with their measured spots.
    groups
        Patient of each section: a list of names, a mapping from section to patient, or a column of ``obs``. If not
        given, all sections belong to one patient. Intervals are over patients, or over sections if there is one.
    sections
        Names of the sections; default those of the slides.
    out
        New folder for ``benchmark.html`` and tables.
    settings
        Scores, controls and intervals.
    progress
        Show progress in the terminal (on stderr); or a function that is called with it.
    overwrite
        Whether ``out`` may be the folder of an earlier benchmark, which is replaced.

    Returns
    -------
    BenchmarkResult
        Tables, and sentences about what was found.

    Raises
    ------
    TrainingError
        If there are no predictions for a section, or ``out`` exists.
    SpotsError, GenesError
        If predictions and measurements have no spots or genes in common.

    Warns
    -----
    CpnnWarning
        If predictions have an unknown unit, a model was trained on a section, or squidpy is missing.

    Examples
    --------
    Predictions that know the counts are found out: here the measured table itself.

    >>> few = spots[::8].copy()
    >>> settings = nc.BenchmarkSettings(spatial=False, shifts=0, ceiling_repeats=1)
    >>> result = nc.benchmark({"copy": few}, [(slide, few)], settings=settings, out="bench", progress=False)
    >>> round(result.mean("copy"), 3)
    1.0
    >>> result.flags[0]
    'copy: PCC 1.000 exceeds the noise ceiling, 0...; only predictions that know the measured counts can do that.'
    """
    if not isinstance(predictions, Mapping) or not predictions:
        raise TrainingError("There are no predictions; give a mapping from the name of a model to its predictions.")
    taken = sorted(_RESERVED & {str(name) for name in predictions})
    if taken:
        raise TrainingError(f"{taken[0]} is the name of a row that is always there; give the model another name.")
    if out is not None:
        require_new(out, overwrite=overwrite)
    predictions = {str(name): given for name, given in predictions.items()}
    settings = without_squidpy(settings or BenchmarkSettings())
    opened = open_sections(samples, groups, sections)
    found = {name: find_predictions(name, given, opened) for name, given in predictions.items()}
    aligned, sums = _read(opened, found, settings, progress)
    _require_one_unit(aligned)
    seen = _seen_in_training(opened, found)
    scores, examples = [], []
    with counting(progress, "scoring", len(aligned), "section") as count:
        for index in range(len(aligned)):
            training = _training(opened, sums, index)
            one, example = _score_section(aligned, index, (sums[index], training), settings)
            scores.append(one)
            examples.append(example)
            count(1)
    summary, differences = summarise_benchmark(scores, settings), differences_of(scores, settings)
    result = BenchmarkResult(
        tidy_scores(scores),
        summary,
        differences,
        _section_table(aligned),
        tuple(flags_of(summary)),
        (*seen, *notes_of(scores, aligned, differences, settings, groups_given=groups is not None)),
        scores,
        examples[_median_section(scores)],
    )
    if out is not None:
        write_benchmark(result, out, overwrite=overwrite)
    return result


def _read(
    opened: Sequence[Section],
    found: Mapping[str, Sequence[CPNN | AnnData | Path]],
    settings: BenchmarkSettings,
    progress: Reporting,
) -> tuple[list[Aligned], list[SectionSums]]:
    """Read images and predictions of all sections."""
    values = sum(section.spots.n_obs * section.spots.n_vars for section in opened)
    largest = max(section.spots.n_obs * section.spots.n_vars for section in opened)
    needed = 4 * (values * (len(found) + 2) + 12 * largest)
    require_memory(needed, "The benchmark of these sections", TrainingError)
    aligned, sums = [], []
    with counting(progress, "reading", len(opened), "section") as count:
        for index, section in enumerate(opened):
            images = image_statistics(section.slide, section.centers_um, settings.patch)
            tables = {name: read_prediction(name, files[index], section, settings) for name, files in found.items()}
            aligned.append(align(section, tables, ~images.ok, settings.ignore_gene_case))
            sums.append(sums_of(section, images))
            count(1)
    return aligned, sums


def _require_one_unit(aligned: Sequence[Aligned]) -> None:
    """Leave out the RMSE of models whose unit is unknown in a section, with one warning."""
    names = list(aligned[0].has_unit)
    unknown = {name: [one.section.name for one in aligned if not one.has_unit[name]] for name in names}
    unknown = {name: where for name, where in unknown.items() if where}
    for name in unknown:
        for one in aligned:
            one.has_unit[name] = False
    if unknown:
        said = "; ".join(f"{name} in {', '.join(where[:3])}" for name, where in unknown.items())
        warnings.warn(
            f"Some predictions are neither counts nor log1p of counts per 10,000 ({said}), so they have no RMSE; their "
            "correlations hold in any unit.",
            CpnnWarning,
            stacklevel=3,
        )


def _seen_in_training(opened: Sequence[Section], found: Mapping[str, Sequence[CPNN | AnnData | Path]]) -> list[str]:
    """Sentences about models whose card names a section among their training slides."""
    said = []
    for name, files in found.items():
        models = [one for one in files if isinstance(one, CPNN)]
        known = [s.name for s in opened if any(m.has_seen(s.name) or m.has_seen(s.slide.name) for m in models)]
        if known:
            said.append(
                f"{name} names {', '.join(known)} among the slides it was trained on, so its scores are too high there."
            )
    for sentence in said:
        warnings.warn(sentence, CpnnWarning, stacklevel=3)
    return said


def _training(opened: Sequence[Section], sums: Sequence[SectionSums], index: int) -> list[SectionSums]:
    """Sections that baselines are fitted on: of other patients, or the other ones if there is one patient."""
    own = opened[index].group
    foreign = [one for section, one in zip(opened, sums, strict=True) if section.group != own]
    return foreign or [one for i, one in enumerate(sums) if i != index]


def _score_section(
    aligned: Sequence[Aligned],
    index: int,
    fitted_on: tuple[SectionSums, list[SectionSums]],
    settings: BenchmarkSettings,
) -> tuple[SectionScores, ExampleMaps]:
    one = aligned[index]
    measured = measured_of(one, settings)
    scores = SectionScores(one.section.name, one.section.group, one.genes, len(one.rows), {}, {}, {})
    ceilings = ceilings_of(one, settings)
    if ceilings:
        scores.per_gene[CEILING, NOISE_CEILING] = ceilings
    baselines, fitted = baseline_predictions(one, *fitted_on)
    for name, values in one.predicted.items():
        _add(scores, (MODEL, name), one, measured, values)
        if one.has_unit[name]:
            scores.per_gene[MODEL, name]["rmse"] = rmse(measured, values)
    for name in BASELINES:
        if name in baselines:
            _add(scores, (BASELINE, name), one, measured, baselines[name])
            if fitted:
                scores.per_gene[BASELINE, name]["rmse"] = rmse(measured, baselines[name])
    if measured.moran is not None:
        scores.per_gene[MEASURED, MEASURED] = {"moran": measured.moran}
    places, donors = torus_shifts(one.centers_um, settings.shifts), donors_of(aligned, index)
    for name, values in one.predicted.items() if places else ():
        scores.per_gene[SHIFTED, name], spread = score_shifted(measured, values, places)
        scores.chance[OTHER_SECTION, name] = {m: sd / max(len(donors), 1) ** 0.5 for m, sd in spread.items()}
    for name in one.predicted if donors else ():
        laid = (laid_onto(one, donor, name) for donor in donors)
        scores.per_gene[OTHER_SECTION, name] = score_donors(measured, laid)
    return scores, _example(scores, one, baselines, ceilings)


def _add(scores: SectionScores, row: tuple[str, str], aligned: Aligned, measured: Measured, values: np.ndarray) -> None:
    """Add the correlations and Moran's I of predictions ``(n, G)``."""
    none = _NO_SCORE.get(row[1], ()) if row[0] == BASELINE else ()
    scores.per_gene[row] = {
        m: np.full_like(r, np.nan) if m in none else r for m, r in correlations(measured, values).items()
    }
    if measured.moran is not None and "svg_ranks" not in none:
        moran = moran_of(aligned, values)
        scores.per_gene[row]["moran"] = moran
        ranked = np.where(np.ptp(values, axis=0) == 0, 0.0, moran)  # what is constant is the least variable
        scores.whole[row] = {"svg_ranks": rank_agreement(measured.moran, ranked)}


def _example(
    scores: SectionScores, aligned: Aligned, baselines: Mapping[str, np.ndarray], ceilings: Mapping[str, np.ndarray]
) -> ExampleMaps:
    rank_by = ceilings.get("pcc_given_depth", aligned.measured.mean(axis=0, dtype=np.float64))
    rank_by = np.where(is_mitochondrial(aligned.genes), -np.inf, rank_by)
    at = top_genes(aligned.measured, rank_by, _N_MAPS)
    genes = [aligned.genes[i] for i in at]
    maps = {MEASURED: aligned.measured[:, at]}
    correlation = {}
    shown = {(MODEL, n): v for n, v in aligned.predicted.items()} | {(BASELINE, n): v for n, v in baselines.items()}
    for row, values in shown.items():
        shown_values = np.asarray(values[:, at])
        if (np.ptp(shown_values, axis=0) > 0).any():  # a constant has no map
            maps[row[1]] = shown_values
            correlation[row[1]] = scores.per_gene[row]["pcc"][at]
    return ExampleMaps(aligned.section.name, aligned.centers_um, genes, maps, correlation)


def _median_section(scores: Sequence[SectionScores]) -> int:
    """Index of the section with the median PCC of the first model."""
    first = next(row for row in scores[0].per_gene if row[0] == MODEL)
    means = np.array([one.mean(first, "pcc") for one in scores])
    order = np.argsort(np.where(np.isfinite(means), means, -np.inf), kind="stable")
    return int(order[len(order) // 2])


def _section_table(aligned: Sequence[Aligned]) -> pd.DataFrame:
    rows = [{"section": one.section.name, "patient": one.section.group, **one.numbers} for one in aligned]
    return pd.DataFrame(rows)
