"""Paired differences between heads, with bootstrap intervals.

Heads are compared on the same spots and genes: those that all of them predict on a slide, and that vary there in the
measurement and in every prediction. There are two intervals. Over *spots*: would the difference hold for other spots of
this tissue? Spots of a slide are drawn with replacement, the same for all heads, and correlations are recomputed. Over
*genes*: does the difference depend on few genes? Genes are drawn, with fixed correlations. Since genes are correlated,
as are neighbouring spots, both intervals are too narrow; neither generalises to other patients, for which the
individual folds should be inspected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import partial_pearson, partial_spearman, pearson, spearman
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.studies.bootstrap import bootstrap_means, draws

METRICS = ("pcc", "scc", "pcc_given_depth", "scc_given_depth")


@dataclass(frozen=True)
class HeldOutSlide:
    """Predictions of all heads on one tested slide.

    Attributes
    ----------
    fold, slide
        Names of fold and slide.
    heads
        Tables as from :func:`~napari_cpnn.evaluation.predictions.predict_expression`, by name of the head.
    """

    fold: str
    slide: str
    heads: Mapping[str, AnnData]


@dataclass(frozen=True)
class _Scores:
    """Scores of all heads on one slide: ``per_gene[metric][head] (G,)``, ``resampled[metric][head] (B,)``."""

    fold: str
    genes: list[str]
    n_spots: int
    per_gene: dict[str, dict[str, FloatArray]]
    resampled: dict[str, dict[str, FloatArray]]


def compare_heads(
    slides: Iterable[HeldOutSlide], reference: str | None = None, settings: EvaluationSettings | None = None
) -> pd.DataFrame:
    """Compare mean scores of heads over shared genes, as differences from a reference head.

    Parameters
    ----------
    slides
        Iterable of slides, which need not be in memory together.
    reference
        Reference head; default the first.
    settings
        Number of resamples and coverage of the intervals.

    Returns
    -------
    DataFrame
        One row per ``metric`` (:data:`METRICS`), ``fold`` (and ``"all"``, the mean over all slides) and ``head``.
        ``mean`` is the mean over genes, then over slides; ``difference`` is the mean minus the reference's, with
        intervals ``spots_low`` to ``spots_high`` and ``genes_low`` to ``genes_high``; ``better`` is the fraction of
        genes for which the head is better; ``n_slides``, ``n_spots`` and ``n_genes`` (mean over slides) are sample
        sizes. Differences are NaN in rows of the reference.

    Raises
    ------
    TrainingError
        If there is nothing to compare, or the reference is unknown.

    Examples
    --------
    >>> from napari_cpnn.evaluation import predict_expression
    >>> from napari_cpnn.studies import HeldOutSlide, compare_heads
    >>> compared = predict_expression(model, slide, spots[:5])
    >>> held_out = HeldOutSlide("1", "slide", {"ours": compared, "the same": compared})
    >>> table = compare_heads([held_out], settings=nc.EvaluationSettings(bootstraps=10))
    >>> float(table.loc[table["head"] == "the same", "difference"].abs().max())
    0.0
    """
    settings = settings or EvaluationSettings()
    scored = [_score(slide, settings.bootstraps, seed) for seed, slide in enumerate(slides)]
    scored = [one for one in scored if one.genes]
    if not scored:
        raise TrainingError("No slide has genes that vary in every prediction, so the heads cannot be compared.")
    heads = list(dict.fromkeys(head for one in scored for head in one.per_gene["pcc"]))
    reference = reference or heads[0]
    if reference not in heads:
        raise TrainingError(f"There is no head {reference!r} to compare with; there are {', '.join(heads)}.")
    folds = {fold: [one for one in scored if one.fold == fold] for fold in dict.fromkeys(one.fold for one in scored)}
    rows = []
    for metric in METRICS:
        for fold, members in {**folds, "all": scored}.items():
            for head in heads:
                common = [one for one in members if {head, reference} <= one.per_gene[metric].keys()]
                if common:
                    row = _row(common, metric, head, reference, settings)
                    rows.append({"metric": metric, "fold": fold, "head": head, **row})
    return pd.DataFrame(rows)


def _score(slide: HeldOutSlide, n_bootstraps: int, seed: int) -> _Scores:
    tables = _paired(slide.heads)
    first = next(iter(tables.values()))
    measured = np.asarray(first.layers["measured"], dtype=np.float64)
    depth = np.log(first.obs["total_counts"].to_numpy(dtype=np.float64))
    predicted = {head: np.asarray(table.X, dtype=np.float64) for head, table in tables.items()}
    varies = (np.ptp(measured, axis=0) > 0) if len(measured) > 1 else np.zeros(first.n_vars, dtype=bool)
    for values in predicted.values():
        varies = varies & np.isfinite(values).all(axis=0) & (np.ptp(values, axis=0) > 0)
    measured = measured[:, varies]
    predicted = {head: values[:, varies] for head, values in predicted.items()}
    correlations: dict[str, Any] = {
        "pcc": pearson,
        "scc": spearman,
        "pcc_given_depth": lambda a, b: partial_pearson(a, b, depth),
        "scc_given_depth": lambda a, b: partial_spearman(a, b, depth),
    }
    per_gene = {name: {head: r(x, measured) for head, x in predicted.items()} for name, r in correlations.items()}
    weights = draws(len(measured), n_bootstraps, seed)  # slides are drawn independently
    resampled = bootstrap_means(predicted, measured, depth, weights)
    genes = [str(gene) for gene in first.var_names[varies]]
    return _Scores(slide.fold, genes, len(measured), per_gene, resampled)


def _paired(heads: Mapping[str, AnnData]) -> dict[str, AnnData]:
    """Restrict tables to common spots and genes, in the same order."""
    tables = list(heads.values())
    rows, genes = tables[0].obs["row"].to_numpy(), tables[0].var_names
    for table in tables[1:]:
        rows = rows[np.isin(rows, table.obs["row"])]
        genes = genes[genes.isin(table.var_names)]
    paired = {}
    for head, table in heads.items():
        where = pd.Index(table.obs["row"]).get_indexer(rows)
        paired[head] = table[where, genes]
    return paired


def _row(
    slides: list[_Scores], metric: str, head: str, reference: str, settings: EvaluationSettings
) -> dict[str, float | int]:
    ours, theirs = ([one.per_gene[metric][name] for one in slides] for name in (head, reference))
    row: dict[str, float | int] = {
        "mean": float(np.mean([np.nanmean(values) for values in ours])),
        "difference": np.nan,
        "spots_low": np.nan,
        "spots_high": np.nan,
        "genes_low": np.nan,
        "genes_high": np.nan,
        "better": np.nan,
        "n_slides": len(slides),
        "n_spots": sum(one.n_spots for one in slides),
        "n_genes": round(np.mean([len(one.genes) for one in slides])),
    }
    if head == reference:
        return row
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    row["difference"] = float(np.mean([np.nanmean(values) for values in differences]))
    row["better"] = float(np.mean([np.nanmean(values > 0) for values in differences]))
    if settings.bootstraps:
        tails = (1 - settings.interval) / 2, (1 + settings.interval) / 2
        over_spots = np.mean([one.resampled[metric][head] - one.resampled[metric][reference] for one in slides], axis=0)
        row["spots_low"], row["spots_high"] = np.quantile(over_spots, tails)
        over_genes = _resampled_genes([one.genes for one in slides], differences, settings.bootstraps)
        row["genes_low"], row["genes_high"] = np.quantile(over_genes, tails)
    return row


def _resampled_genes(genes: list[list[str]], differences: list[FloatArray], n: int) -> FloatArray:
    """Mean differences ``(n,)`` over draws of genes; a gene is drawn on all slides jointly."""
    names = pd.Index(list(dict.fromkeys(gene for one in genes for gene in one)))
    weights = draws(len(names), n)
    means = []
    for one, values in zip(genes, differences, strict=True):
        known = np.isfinite(values)
        chosen = weights[:, names.get_indexer(pd.Index(one))[known]]
        means.append(chosen @ values[known] / np.maximum(chosen.sum(axis=1), 1))
    return np.asarray(np.mean(means, axis=0))
