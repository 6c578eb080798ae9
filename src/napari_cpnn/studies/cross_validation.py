"""Leave-one-group-out cross-validation of one or more heads.

The folder of a cross-validation::

    <out>/<head>/<fold>/     see napari_cpnn.studies.fold_folder
    <out>/scores.csv         all scores, one row per head, fold, slide and gene
    <out>/folds.csv          one row per head, fold and slide: means, spots, exclusions, or why it is not tested
    <out>/comparison.csv     paired differences between heads (see napari_cpnn.studies.comparison), of two or more
    <out>/report.png         figure of the results, with maps of the best genes
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm import tqdm

from napari_cpnn.counts import name_genes_as, shared_genes
from napari_cpnn.errors import CpnnError, CpnnWarning, SettingsError, SpotsError, TrainingError
from napari_cpnn.evaluation import predict_expression, score, summarise, usable_spots, write_table
from napari_cpnn.models import load_model
from napari_cpnn.progress import Reporting, part
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.settings import EvaluationSettings, TrainingSettings
from napari_cpnn.slides import Slide
from napari_cpnn.spots import expression
from napari_cpnn.studies.fold_folder import FoldFolder, prototypes_key, sample_key
from napari_cpnn.studies.folds import Fold, Groups, folder_names, make_folds, sample_labels
from napari_cpnn.studies.report import write_report
from napari_cpnn.studies.twins import warn_of_twins
from napari_cpnn.training.fit import train

Samples = Sequence[tuple[Slide, AnnData]]
Outcome = pd.DataFrame | CpnnError


@dataclass(frozen=True)
class _Head:
    """Training configuration of one head, with the data shared by all heads and folds."""

    name: str
    settings: TrainingSettings
    prototypes: Prototypes
    samples: Samples
    labels: list[str]
    keys: list[str]
    evaluation: EvaluationSettings
    progress: Reporting


def cross_validate(
    samples: Samples,
    prototypes: Prototypes | Mapping[str, Prototypes],
    settings: TrainingSettings | Mapping[str, TrainingSettings] | None = None,
    groups: Groups = "patient",
    out: str | Path = "runs/cross-validation",
    evaluation: EvaluationSettings | None = None,
    progress: Reporting = True,
) -> pd.DataFrame:
    """Cross-validate by group: test each group of samples with a model trained on the others.

    Parameters
    ----------
    samples
        Slides with their spots, as for :func:`~napari_cpnn.train`.
    prototypes
        As for :func:`~napari_cpnn.train`; or one for each head.
    settings
        Training settings; or a mapping of names to settings, to compare several heads on the same folds. Patches are
        read once for all of them. Tested spots never determine when training ends: with ``validation="auto"`` this is
        decided by the last section of the group before the tested one, cyclically (other sections of that group are
        trained on), or by a quarter of the only section; with ``"none"`` every fold is trained for ``max_epochs`` on
        everything that is not tested.
    groups
        Groups that are tested together: see :func:`~napari_cpnn.studies.folds.make_folds`.
    out
        Output folder, see :mod:`napari_cpnn.studies.cross_validation`. Finished folds with the same samples,
        prototypes and settings are not repeated, and an interrupted fold is resumed after its last epoch.
    evaluation
        Evaluation settings. Changing them does not repeat training.
    progress
        Show progress in the terminal (on stderr); or a function that is called with it.

    Returns
    -------
    DataFrame
        One row per ``head``, ``fold``, ``slide`` and ``gene``, with the columns of :func:`~napari_cpnn.evaluate`.
        A slide that cannot be tested (fewer than two usable spots, no gene that varies), or a fold that cannot be
        trained, has no rows; a :class:`~napari_cpnn.errors.CpnnWarning` and ``folds.csv`` give the reason. The other
        folds are run, without slides that have no usable spots.

    Raises
    ------
    TrainingError
        If there is a single group, groups are not found, the folder has other settings, or no fold could be tested.
    SettingsError
        If ``validation`` names a slide, or prototypes and settings are for different heads.

    Warns
    -----
    CpnnWarning
        If a slide is in two groups: the same picture, or the same measured spots, under two names.

    Examples
    --------
    >>> settings = nc.TrainingSettings(
    ...     backbone="squeezenet", weights="none", patch=nc.PatchSpec(32, 2.0), max_epochs=1, validation="none"
    ... )
    >>> other = nc.Slide.from_arrays([255 - level for level in slide.levels], slide.mpp, name="other")
    >>> samples = [(slide, spots[::8].copy()), (other, spots[4::8].copy())]
    >>> scores = nc.cross_validate(samples, protos, settings, groups=["1", "2"], out="runs/folds", progress=False)
    >>> sorted(scores["slide"].unique())
    ['other', 'slide']
    """
    folds, heads = make_folds(samples, groups), _heads(samples, prototypes, settings, evaluation, progress)
    group_of = {i: fold.name for fold in folds for i in fold.test}
    warn_of_twins(samples, heads[0].labels, [group_of[i] for i in range(len(samples))])
    tables: list[pd.DataFrame] = []
    rows: list[dict[str, object]] = []
    for fold, head, folder in _plan(folds, heads, Path(out)):
        for slide, outcome in _run_fold(head, fold, folder).items():
            place = {"head": head.name, "fold": fold.name, "slide": slide}
            if isinstance(outcome, CpnnError):
                rows.append({**place, "not_tested": str(outcome)})
                warnings.warn(f"{slide} is not tested with {head.name}: {outcome}", CpnnWarning, stacklevel=2)
                continue
            rows.append({**place, **summarise(outcome), "not_tested": None})
            table = outcome.reset_index()
            table.attrs = {}
            tables.append(pd.concat([pd.DataFrame(place, index=table.index), table], axis=1))
        write_table(pd.DataFrame(rows), Path(out) / "folds.csv")
    if not tables:
        raise TrainingError(f"No fold could be tested; {rows[0]['slide']}: {rows[0]['not_tested']}")
    result = pd.concat(tables, ignore_index=True)
    write_table(result, Path(out) / "scores.csv", digits=7)
    slides = {label: slide for label, (slide, _) in zip(heads[0].labels, samples, strict=True)}
    write_report(out, slides, heads[0].evaluation)
    return result


def _heads(
    samples: Samples,
    prototypes: Prototypes | Mapping[str, Prototypes],
    settings: TrainingSettings | Mapping[str, TrainingSettings] | None,
    evaluation: EvaluationSettings | None,
    progress: Reporting,
) -> list[_Head]:
    if not isinstance(settings, Mapping):
        settings = settings or TrainingSettings()
        settings = {settings.head: settings}
    if not settings:
        raise SettingsError("There is no head to train: give settings for one at least.")
    if isinstance(prototypes, Mapping) and set(prototypes) != set(settings):
        raise SettingsError(
            f"There are prototypes for {', '.join(prototypes)} and settings for {', '.join(settings)}; "
            "give both for the same heads, or the same prototypes to all."
        )
    for name, one in settings.items():
        if one.validation not in ("auto", "none"):
            raise SettingsError(
                f"The settings of {name} hold out {one.validation} for validation, but each slide is tested in some "
                "fold; set validation to 'auto' or 'none'."
            )
    labels = sample_labels(samples)
    keys = [sample_key(*sample) for sample in samples]
    evaluation = evaluation or EvaluationSettings()
    return [
        _Head(
            name,
            one,
            prototypes[name] if isinstance(prototypes, Mapping) else prototypes,
            samples,
            labels,
            keys,
            evaluation.replace(ignore_gene_case=one.ignore_gene_case or evaluation.ignore_gene_case),
            progress,
        )
        for name, one in settings.items()
    ]


def _plan(folds: Sequence[Fold], heads: Sequence[_Head], out: Path) -> Iterator[tuple[Fold, _Head, FoldFolder]]:
    """Pair every fold with every head; all folders are checked before training starts."""
    plan = []
    for fold, fold_name in zip(folds, folder_names([fold.name for fold in folds]), strict=True):
        for head, head_name in zip(heads, folder_names([head.name for head in heads]), strict=True):
            folder = FoldFolder(out / head_name / fold_name, head.name, fold.name, [head.labels[i] for i in fold.test])
            folder.start(
                head.settings,
                {
                    "tested": {head.labels[i]: head.keys[i] for i in fold.test},
                    "trained_on": {head.labels[i]: head.keys[i] for i in fold.train},
                    "prototypes": prototypes_key(head.prototypes),
                },
            )
            plan.append((fold, head, folder))
    for number, (fold, head, folder) in enumerate(plan, start=1):
        tested, trained = ([head.labels[i] for i in which] for which in (fold.test, fold.train))
        text = f"{number} of {len(plan)}: {head.name}, fold {fold.name}"
        if callable(head.progress):
            its = part(head.progress, (number - 1) / len(plan), number / len(plan))
            its(text, 0.0)
            yield fold, replace(head, progress=its), folder
            continue
        if head.progress:
            tqdm.write(f"{text}: {', '.join(tested)} tested, {', '.join(trained)} to learn from", file=sys.stderr)
        yield fold, head, folder


def _run_fold(head: _Head, fold: Fold, folder: FoldFolder) -> dict[str, Outcome]:
    """Train and test a fold; return the scores of each tested slide, or the reason why it has none."""
    outcomes: dict[str, Outcome] = {}
    done = folder.read_scores(head.evaluation)
    untrainable: CpnnError | None = None
    for i in fold.test:
        label = head.labels[i]
        try:
            _require_testable(head, i)
            if label in done:
                outcomes[label] = done[label]
                continue
            if untrainable is None:
                untrainable = _train(head, fold, folder)
            outcomes[label] = untrainable or _test(head, folder, i)
        except CpnnError as error:
            outcomes[label] = error
    scores = {slide: outcome for slide, outcome in outcomes.items() if isinstance(outcome, pd.DataFrame)}
    if scores.keys() != done.keys():
        folder.write_scores(scores, head.evaluation)
    return outcomes


def _require_testable(head: _Head, i: int) -> None:
    """Report missing requirements of the evaluation before training."""
    slide, spots = head.samples[i]
    spots = name_genes_as(spots, head.prototypes.genes, ignore_case=head.settings.ignore_gene_case)
    genes = shared_genes(head.prototypes.genes, list(spots.var_names), ("The prototypes", f"the spots of {slide.name}"))
    usable, _ = usable_spots(slide, spots)
    if len(usable) < 2:
        raise TrainingError(f"{slide.name} has one spot with counts and a place, and a correlation needs two.")
    measured = expression(spots[usable], genes)
    if not (np.ptp(measured, axis=0) > 0).any():
        raise TrainingError(f"No gene of the prototypes varies over the {len(usable)} spots of {slide.name}.")


def _train(head: _Head, fold: Fold, folder: FoldFolder) -> CpnnError | None:
    """Train unless already done; return the reason if training is not possible."""
    if folder.is_trained:
        return None
    # Slides without usable spots are not trained on; one with a single spot cannot be the last, which is held out.
    n_usable = {i: _n_usable(*head.samples[i]) for i in fold.train}
    samples = [head.samples[i] for i in sorted(fold.train, key=lambda i: n_usable[i] > 1) if n_usable[i]]
    resume = folder.clear_unusable_run()
    try:
        train(samples, head.prototypes, head.settings, folder.run_path, head.progress, resume=resume)
    except CpnnError as error:
        return error
    if not folder.finish_training():
        raise KeyboardInterrupt  # train returned its best model, but the remaining folds must be cancelled too
    return None


def _n_usable(slide: Slide, spots: AnnData) -> int:
    try:
        return len(usable_spots(slide, spots)[0])
    except SpotsError:
        return 0


#: How predictions were made that do not say so.
_BEFORE = {"precision": "auto", "ignore_gene_case": False}


def _test(head: _Head, folder: FoldFolder, i: int) -> pd.DataFrame:
    slide, spots = head.samples[i]
    compared = folder.read_predictions(head.labels[i])
    how = {name: getattr(head.evaluation, name) for name in ("precision", "ignore_gene_case")}
    if compared is None or {**_BEFORE, **compared.uns.get("predicted", {})} != how:
        model = load_model(folder.model_path)
        compared = predict_expression(model, slide, spots, head.settings.device, **how)
        compared.uns["predicted"] = how
        folder.write_predictions(head.labels[i], compared)
    if compared.n_obs < 2:
        raise TrainingError(f"{slide.name} has one spot that can be compared, and a correlation needs two.")
    return score(compared, spots, head.evaluation)
