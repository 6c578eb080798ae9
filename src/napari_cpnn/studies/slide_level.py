"""Scores of slide-level models: per gene over slides, the same for all heads; and cross-validation by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.counts import as_counts, positions, require_genes
from napari_cpnn.errors import SpotsError, TrainingError
from napari_cpnn.evaluation import pearson, spearman
from napari_cpnn.progress import Reporting, reporter
from napari_cpnn.training.bags import Bags, log1p_cp10k, rows_of, train_slides

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.prototypes import Prototypes
    from napari_cpnn.settings import SlideLevelSettings

#: A correlation over fewer slides says nothing.
_LEAST_SLIDES = 3


class PredictsSlides(Protocol):
    """A model of slides: any head."""

    @property
    def genes(self) -> tuple[str, ...]: ...

    def predict(self, bags: Bags) -> FloatArray: ...


def evaluate_slides(
    models: Mapping[str, PredictsSlides] | PredictsSlides,
    bags: Bags,
    bulk: AnnData,
    genes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score models over the slides of a cohort, each gene by itself, against log1p CP10k for all heads.

    Measured and predicted expression are over the same genes, those that all models predict, so that their totals are
    the same for every head.

    Parameters
    ----------
    models
        Models of slides by name, or one.
    bags
        Features of the slides, which trained none of the models; of the encoder that all of them have.
    bulk
        Measured counts, rows named as the bags.
    genes
        Genes whose scores are reported; by default all.

    Returns
    -------
    DataFrame
        One row per head and gene: ``head``, ``gene``, ``pcc``, ``scc`` (NaN for a constant gene), ``mean_expression``
        (measured log1p CP10k), ``detected`` (share of the slides with a count), ``n_slides``.

    Raises
    ------
    TrainingError
        With fewer than three slides, or a slide without a sample.
    GenesError
        If a gene is not predicted or not measured.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.training.bags import Bags, train_slides
    >>> bags = Bags.of(list(np.random.default_rng(0).normal(size=(12, 5, 21))), list(spots.obs_names[:12]))
    >>> settings = nc.SlideLevelSettings(head="ridge", encoder="colour", patch=nc.PatchSpec(32, 2.0))
    >>> trained = train_slides(bags.subset(range(8)), spots[:12].copy(), protos, settings)
    >>> nc.evaluate_slides(trained, bags.subset(range(8, 12)), spots[:12].copy()).columns[:4].tolist()
    ['head', 'gene', 'pcc', 'scc']
    """
    import pandas as pd

    named = models if isinstance(models, Mapping) else {getattr(models, "head", "model"): models}
    if len(bags) < _LEAST_SLIDES:
        raise TrainingError(f"Correlations over slides need at least {_LEAST_SLIDES} of them, not {len(bags)}.")
    first = next(iter(named.values()))
    others = [set(one.genes) for one in named.values()]
    shared = [gene for gene in first.genes if all(gene in one for one in others)]
    measured, counts = _measured(bags, bulk, shared)
    chosen = np.arange(len(shared)) if genes is None else require_genes(shared, genes, "The models")
    tables = []
    for name, model in named.items():
        predicted = _over(model.predict(bags), positions(list(model.genes), shared))
        tables.append(
            pd.DataFrame(
                {
                    "head": name,
                    "gene": [shared[i] for i in chosen],
                    "pcc": pearson(predicted, measured)[chosen],
                    "scc": spearman(predicted, measured)[chosen],
                    "mean_expression": measured.mean(axis=0)[chosen],
                    "detected": (counts > 0).mean(axis=0)[chosen],
                    "n_slides": len(bags),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def summarise_slides(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over genes of :func:`evaluate_slides`, one row per head: ``pcc``, ``scc``, ``n_genes`` (with a score).

    The standard error over genes is not given: genes are not independent. Folds, if any, are averaged last.
    """
    import pandas as pd

    by = ["head", "fold"] if "fold" in scores else ["head"]
    grouped = scores.groupby(by, sort=False)
    means = pd.DataFrame(
        {"pcc": grouped["pcc"].mean(), "scc": grouped["scc"].mean(), "n_genes": grouped["pcc"].count()}
    )
    return means.groupby(level="head", sort=False).mean()


@dataclass(frozen=True)
class SlideFold:
    """Bags of a fold: tested, and trained on; no patient is in both."""

    test: IntArray
    train: IntArray


def slide_folds(bags: Bags, n_folds: int = 4, seed: int = 0) -> list[SlideFold]:
    """Split bags by patient, drawn by the seed, into folds of about equal numbers of patients.

    Raises
    ------
    TrainingError
        If there are fewer patients than folds.
    """
    patients = np.array(sorted(set(bags.patients.tolist())))
    if not 2 <= n_folds <= len(patients):
        raise TrainingError(f"{len(patients)} patients cannot be split into {n_folds} folds; patients are never split.")
    order = np.random.default_rng(seed).permutation(len(patients))
    tests = [np.flatnonzero(np.isin(bags.patients, patients[part])) for part in np.array_split(order, n_folds)]
    return [SlideFold(test, np.setdiff1d(np.arange(len(bags)), test)) for test in tests]


def cross_validate_slides(
    bags: Bags,
    bulk: AnnData,
    prototypes: Prototypes | None,
    settings: Mapping[str, SlideLevelSettings],
    n_folds: int = 4,
    progress: Reporting = False,
) -> pd.DataFrame:
    """Train and test each of several settings in the same folds of patients.

    Returns
    -------
    DataFrame
        :func:`evaluate_slides` of all folds, with a column ``fold``; ``head`` is the key of ``settings``.

    Raises
    ------
    TrainingError
        If a fold would have fewer than three slides.
    """
    import pandas as pd

    report, tables = reporter(progress), []
    folds = slide_folds(bags, n_folds)
    for number, fold in enumerate(folds):
        trained = {}
        for k, (name, one) in enumerate(settings.items()):
            report(f"fold {number + 1} of {n_folds}: {name}", (number + k / len(settings)) / n_folds)
            trained[name] = train_slides(bags.subset(fold.train), bulk, prototypes, one)
        table = evaluate_slides(trained, bags.subset(fold.test), bulk)
        tables.append(table.assign(fold=number))
    return pd.concat(tables, ignore_index=True)


def _measured(bags: Bags, bulk: AnnData, genes: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    if "counts" not in bulk.layers:
        raise SpotsError('The bulk samples have no raw counts in layers["counts"]; read them with read_bulk.')
    index = require_genes([str(name) for name in bulk.var_names], genes, "The bulk table")
    counts = as_counts(bulk.layers["counts"], "The table of bulk samples", SpotsError)[rows_of(bags, bulk)][:, index]
    values = np.asarray(counts.toarray(), dtype=np.float64)
    return log1p_cp10k(values.astype(np.float32)), values


def _over(predicted: FloatArray, columns: IntArray) -> FloatArray:
    """Predicted log1p CP10k over some genes only: relative to the total over these."""
    if len(columns) == predicted.shape[1] and (columns == np.arange(len(columns))).all():
        return predicted
    values = np.expm1(predicted[:, columns]).clip(min=0)
    return np.asarray(np.log1p(1e4 * values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12)))
