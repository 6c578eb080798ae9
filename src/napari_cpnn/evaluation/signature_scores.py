"""Sets of genes at measured spots: the mean z-score of the measurement against that of the prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.errors import MappingError
from napari_cpnn.evaluation.metrics import partial_pearson, partial_spearman, pearson, spearman
from napari_cpnn.evaluation.predictions import predict_expression, warn_of_seen
from napari_cpnn.evaluation.spot_pair import SpotPair
from napari_cpnn.mapping import LEAST_PATCHES, GeneChoice, choose_genes, gene_set_of, rule_text
from napari_cpnn.settings import EvaluationSettings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.counts import GeneSet
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

_UNIT = "mean z-score"
#: Genes that a message names at most.
_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class SignaturePair(SpotPair):
    """Measured and predicted mean z-score of a set of genes at each spot, with the genes and why others were left out.

    Attributes
    ----------
    choices
        Every gene of the set, used or not, with the reason.
    rule
        The rule by which genes were chosen.
    """

    choices: tuple[GeneChoice, ...] = ()
    rule: str = ""

    @property
    def used(self) -> tuple[str, ...]:
        """Genes that count, on both sides."""
        return tuple(choice.gene for choice in self.choices if not choice.reason)

    @property
    def note(self) -> str:
        """Which genes were averaged, in a sentence or two."""
        left = [choice for choice in self.choices if choice.reason]
        out = f" Left out: {', '.join(f'{c.name} ({c.reason})' for c in left)}." if left else ""
        genes = f"{len(self.used)} of {len(self.choices)} genes ({', '.join(self.used)})"
        return f"{self.name}: mean z-score over the spots of {genes}; {self.rule}.{out}"


def signature_pair(
    compared: AnnData,
    model: CPNN,
    genes: GeneSet | str | Sequence[str],
    name: str = "",
    *,
    least_pcc: float | None = None,
) -> SignaturePair:
    """Score a set of genes at the spots, measured and predicted, over the same genes.

    The z-score of a gene is its distance from its mean over the compared spots, in standard deviations (``ddof=0``), of
    the measured expression on one side and of the predicted one on the other. Genes that are constant on a side are
    left out on both.

    Parameters
    ----------
    compared
        As from :func:`~napari_cpnn.evaluation.predict_expression`.
    model
        The model of the predictions, whose calibration says which genes count.
    genes, name, least_pcc
        As for :func:`napari_cpnn.signature`.

    Raises
    ------
    GenesError
        If there is no such set.
    MappingError
        If none of its genes can be used, or there are fewer than eight spots.

    Examples
    --------
    >>> from napari_cpnn.evaluation import predict_expression, signature_pair
    >>> pair = signature_pair(predict_expression(model, slide, spots[:40]), model, ["HER2", "GRB7", "no gene"], "17q12")
    >>> pair.name, pair.unit, len(pair.used) < len(pair.choices)
    ('17q12', 'mean z-score', True)
    """
    gene_set = gene_set_of(model.decoder(), genes, name)
    choices = choose_genes(gene_set, model.genes, model.trust, least_pcc)
    there = set(compared.var_names)
    choices = tuple(
        replace(c, reason="not measured here") if not c.reason and c.gene not in there else c for c in choices
    )
    used = _used(gene_set.name, choices)
    measured, predicted, constant = mean_z_scores(compared, used)
    flat = {gene for gene, still in zip(used, constant, strict=True) if still}
    choices = tuple(
        replace(c, reason="constant at these spots") if not c.reason and c.gene in flat else c for c in choices
    )
    _used(gene_set.name, choices)
    return SignaturePair(gene_set.name, _UNIT, measured, predicted, choices, rule_text(model.trust, least_pcc))


def _used(name: str, choices: Sequence[GeneChoice]) -> list[str]:
    """Return the genes that count; raise a :class:`MappingError` that says why there is none."""
    used = [choice.gene for choice in choices if not choice.reason]
    if not used:
        reasons = [f"{choice.name} ({choice.reason})" for choice in choices]
        more = f" and {len(reasons) - _MOST_NAMED} more" if len(reasons) > _MOST_NAMED else ""
        raise MappingError(f"No gene of {name} can be compared: {', '.join(reasons[:_MOST_NAMED])}{more}.")
    return used


def mean_z_scores(compared: AnnData, genes: Sequence[str]) -> tuple[Float32Array, Float32Array, BoolArray]:
    """Return mean z-scores ``(n,)``, measured and predicted, over the genes that vary on both sides, and which do not.

    Raises
    ------
    MappingError
        If there are fewer than eight spots.
    """
    if compared.n_obs < LEAST_PATCHES:
        raise MappingError(f"{compared.n_obs} spots are compared; z-scores need at least {LEAST_PATCHES}.")
    columns = compared.var_names.get_indexer(list(genes))
    sides = [
        np.asarray(table[:, columns], dtype=np.float64) for table in (compared.layers["measured"], compared.X)
    ]  # fmt: skip
    constant = np.zeros(len(columns), dtype=bool)
    for values in sides:
        constant |= np.ptp(values, axis=0) <= 1e-6 * np.maximum(np.abs(values).max(axis=0), 1.0)
    measured, predicted = (_mean_z(values[:, ~constant]) for values in sides)
    return measured, predicted, constant


def _mean_z(values: FloatArray) -> Float32Array:
    if not values.shape[1]:
        return np.full(len(values), np.nan, dtype=np.float32)
    return np.asarray(((values - values.mean(axis=0)) / values.std(axis=0)).mean(axis=1), dtype=np.float32)


def score_signatures(
    compared: AnnData,
    model: CPNN,
    sets: Iterable[GeneSet | str],
    *,
    least_pcc: float | None = None,
) -> pd.DataFrame:
    """Compute the table of :func:`evaluate_signatures` from existing predictions; a set without usable genes is NaN."""
    import pandas as pd

    depth = np.log(compared.obs["total_counts"].to_numpy(dtype=np.float64))
    rows: dict[str, dict[str, Any]] = {}
    for one in sets:
        name = one if isinstance(one, str) else one.name
        try:
            pair = signature_pair(compared, model, one, least_pcc=least_pcc)
        except MappingError as error:
            rows[name] = {"n_spots": compared.n_obs, "n_genes": 0, "genes": "", "note": str(error)}
            continue
        predicted, measured = (np.asarray(v, dtype=np.float64)[:, None] for v in (pair.predicted, pair.measured))
        rows[pair.name] = {
            "pcc": float(pearson(predicted, measured)[0]),
            "scc": float(spearman(predicted, measured)[0]),
            "pcc_given_depth": float(partial_pearson(predicted, measured, depth)[0]),
            "scc_given_depth": float(partial_spearman(predicted, measured, depth)[0]),
            "n_spots": compared.n_obs,
            "n_genes": len(pair.used),
            "genes": " ".join(pair.used),
            "note": pair.note,
        }
    columns = ["pcc", "scc", "pcc_given_depth", "scc_given_depth", "n_spots", "n_genes", "genes", "note"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("signature")


def evaluate_signatures(
    model: CPNN,
    slide: Slide,
    spots: AnnData,
    sets: Iterable[GeneSet | str],
    *,
    least_pcc: float | None = None,
    device: str = "auto",
    settings: EvaluationSettings | None = None,
) -> pd.DataFrame:
    """Correlation of predicted with measured signatures over the spots of one slide, per set of genes.

    Both sides are the mean z-score over the same genes, those of :func:`napari_cpnn.signature` that were measured here,
    see :func:`~napari_cpnn.evaluation.signature_pair`.

    Parameters
    ----------
    model, slide, spots, device, settings
        As for :func:`~napari_cpnn.evaluate`.
    sets
        Sets of genes, or names of built-in ones.
    least_pcc
        As for :func:`napari_cpnn.signature`.

    Returns
    -------
    DataFrame
        Index ``signature``; ``pcc``, ``scc``, both ``_given_depth``, ``n_spots``, ``n_genes``, the ``genes`` that
        count, and a ``note`` of those left out, or why the set could not be scored.

    Raises
    ------
    GenesError, PixelSizeError, SlideError, SpotsError
        As :func:`~napari_cpnn.evaluate`, or if there is no such set.

    Examples
    --------
    >>> table = nc.evaluate_signatures(model, slide, spots[:40], [nc.GeneSet("17q12", ("HER2", "GRB7"))])
    >>> int(table.loc["17q12", "n_genes"]) <= 2
    True
    """
    settings = settings or EvaluationSettings()
    sets = [gene_set_of(model.decoder(), one) for one in sets]
    warn_of_seen(model, slide)
    compared = predict_expression(
        model, slide, spots, device, None, settings.precision, ignore_gene_case=settings.ignore_gene_case
    )
    return score_signatures(compared, model, sets, least_pcc=least_pcc)
