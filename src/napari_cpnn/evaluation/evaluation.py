"""Evaluate the predictions of a model on the spots of a slide."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData

from napari_cpnn.counts import name_genes_as
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation.metrics import partial_pearson, partial_spearman, pearson, spearman
from napari_cpnn.evaluation.noise_ceiling import noise_ceilings
from napari_cpnn.evaluation.predictions import predict_expression, warn_of_seen
from napari_cpnn.evaluation.spatial_agreement import morans_i
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.models import CPNN
from napari_cpnn.progress import Reporting, reporter
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.slides import Slide
from napari_cpnn.spots import OF_CELLS, array_coordinates, fit_array

#: Counts for the whole slide in ``attrs`` of a table of scores.
COUNTS = (
    "n_spots", "spots_without_counts", "spots_without_place", "spots_without_patch", "genes_not_measured",
    "genes_constant_measured", "genes_constant_predicted",
)  # fmt: skip


class ScoreSummary(TypedDict, total=False):
    """Means over the genes that vary, with their number, and counts of what was left out.

    ``pcc``, ``scc`` and ``n_genes`` are always present, the others if the table has them.
    """

    pcc: float
    scc: float
    n_genes: int
    pcc_given_depth: float
    scc_given_depth: float
    pcc_of_depth: float
    ceiling: float
    ceiling_given_depth: float
    pcc_counts: float
    moran_measured: float
    moran_predicted: float
    n_spots: int
    spots_without_counts: int
    spots_without_place: int
    spots_without_patch: int
    genes_not_measured: int
    genes_constant_measured: int
    genes_constant_predicted: int


def evaluate(
    model: CPNN,
    slide: Slide,
    spots: AnnData,
    device: str = "auto",
    symmetries: bool | None = None,
    settings: EvaluationSettings | None = None,
    progress: Reporting = False,
) -> pd.DataFrame:
    """Correlation of predicted with measured expression over the spots of one slide, per gene.

    Parameters
    ----------
    model
        A trained model. Its genes that were not measured here are left out.
    slide, spots
        As from :func:`~napari_cpnn.open_slide` and :func:`~napari_cpnn.read_spots`.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    symmetries
        Average predictions over the eight symmetries of each patch: slightly better, eight times slower. By default as
        in the settings of the training.
    settings
        Selects the expensive scores; default :class:`~napari_cpnn.EvaluationSettings`.
    progress
        Show how much is predicted, on stderr; or a function that is called with it.

    Returns
    -------
    DataFrame
        Index ``gene``; the columns are

        - ``pcc``, ``scc``: Pearson and Spearman correlation, NaN for a gene that is constant here;
        - ``n_spots``: the number of spots with counts and a readable patch;
        - ``pcc_given_depth``, ``scc_given_depth``: the same with log total counts regressed out of both sides
          (partial correlation; on ranks for ``scc``);
        - ``pcc_of_depth``: correlation of the measured expression with log total counts, as a baseline;
        - of measured cells: ``pcc_counts``, the Pearson correlation of predicted counts per 10,000 with the counts of
          the cell, not of logarithms; most cells have few counts, and the totals of a panel are of its own genes;
        - ``mean_expression``, log1p CP10k, and ``detected``, the fraction of spots with a count of the gene;
        - with ``settings.ceiling_repeats``: ``reliability``, ``ceiling`` and both ``_given_depth`` (see
          :func:`~napari_cpnn.evaluation.noise_ceiling.noise_ceilings`);
        - with ``settings.spatial``: ``moran_measured`` and ``moran_predicted``, Moran's I.

        ``attrs`` contains the name of the ``slide`` and the numbers of what was left out (:data:`COUNTS`).

    Raises
    ------
    GenesError
        If model and spots share too few genes.
    PixelSizeError, SlideError
        If the slide cannot be mapped.
    SpotsError
        If there are no spots, none with counts and a readable patch, no raw counts, or spots of several libraries.

    Warns
    -----
    CpnnWarning
        If the model was trained on a slide of this name.

    Examples
    --------
    >>> scores = nc.evaluate(model, slide, spots[:5])
    >>> int(scores.loc["ERBB2", "n_spots"]), list(scores.columns[:3])
    (5, ['pcc', 'scc', 'n_spots'])
    """
    settings = settings or EvaluationSettings()
    warn_of_seen(model, slide)
    compared = predict_expression(
        model, slide, spots, device, symmetries, settings.precision,
        progress=reporter(progress), ignore_gene_case=settings.ignore_gene_case,
    )  # fmt: skip
    return score(compared, spots, settings)


def score(compared: AnnData, spots: AnnData, settings: EvaluationSettings | None = None) -> pd.DataFrame:
    """Compute the table of :func:`evaluate` from existing predictions.

    Parameters
    ----------
    compared
        As from :func:`~napari_cpnn.evaluation.predictions.predict_expression`.
    spots
        Table of the spots that were predicted: the noise of a gene depends on the counts of all genes.
    """
    settings = settings or EvaluationSettings()
    genes = list(compared.var_names)
    predicted, measured = np.asarray(compared.X), np.asarray(compared.layers["measured"])
    depth = np.log(compared.obs["total_counts"].to_numpy(dtype=np.float64))
    columns: dict[str, Any] = {
        "pcc": pearson(predicted, measured),
        "scc": spearman(predicted, measured),
        "n_spots": compared.n_obs,
        "pcc_given_depth": partial_pearson(predicted, measured, depth),
        "scc_given_depth": partial_spearman(predicted, measured, depth),
        "pcc_of_depth": pearson(measured, np.broadcast_to(depth[:, None], measured.shape)),
        "mean_expression": measured.mean(axis=0, dtype=np.float64),
        "detected": np.asarray((compared.layers["counts"] > 0).mean(axis=0)).ravel(),
    }
    if compared.uns["comparison"].get("of") == OF_CELLS:
        columns["pcc_counts"] = _count_correlations(predicted, compared.layers["counts"])
    kept = name_genes_as(spots, genes, ignore_case=settings.ignore_gene_case)[compared.obs["row"].to_numpy()]
    if settings.ceiling_repeats and compared.n_obs > 1:
        ceilings = noise_ceilings(kept, genes, settings.ceiling_repeats)
        columns |= {str(name): ceilings[name].to_numpy() for name in ceilings}
    if settings.spatial:
        mpp = compared.uns["comparison"]["mpp"]
        centers = spatial_to_um(compared.obsm["spatial"], (float(mpp[0]), float(mpp[1])))
        of_cells = compared.uns["comparison"].get("of") == OF_CELLS  # which lie on no array
        array = None if of_cells else fit_array(compared.obsm["spatial"], array_coordinates(kept.obs))
        kind = None if array is None else array.kind
        columns["moran_measured"] = morans_i(measured, centers, kind)
        columns["moran_predicted"] = morans_i(predicted, centers, kind)
    scores = pd.DataFrame(columns, index=pd.Index(genes, name="gene"))
    scores.attrs = {
        **{key: value for key, value in compared.uns["comparison"].items() if key in ("slide", *COUNTS)},
        "genes_constant_measured": int((np.ptp(measured, axis=0) == 0).sum()),
        "genes_constant_predicted": int((np.ptp(predicted, axis=0) == 0).sum()),
    }
    return scores


def _count_correlations(logs: npt.NDArray[np.float32], counts: Any) -> npt.NDArray[np.float64]:
    """Correlate predictions per 10,000 counts with counts ``(N, G)``, some genes at a time."""
    found = np.empty(logs.shape[1])
    step = max(1, 20_000_000 // max(len(logs), 1))
    columns = counts.tocsc()
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        found[part] = pearson(np.expm1(logs[:, part]), columns[:, part].toarray())
    return found


def summarise(scores: pd.DataFrame) -> ScoreSummary:
    """Summarise a table of :func:`evaluate`: means over the genes that vary, and counts of what was left out.

    ``pcc`` and ``scc`` are means over the ``n_genes`` genes that have both; each other column is averaged over those
    of them that have it.

    Examples
    --------
    >>> from napari_cpnn.evaluation import summarise
    >>> summary = summarise(scores)
    >>> summary["n_genes"] <= len(model.genes)
    True
    """
    if not {"pcc", "scc"} <= set(scores.columns):
        raise TrainingError("A table of scores needs the columns pcc and scc; make it with evaluate.")
    varies = scores[np.isfinite(scores["pcc"]) & np.isfinite(scores["scc"])]
    summary = ScoreSummary(pcc=float(varies["pcc"].mean()), scc=float(varies["scc"].mean()), n_genes=len(varies))
    for name in ScoreSummary.__annotations__:
        if name in COUNTS:
            if name in scores.attrs:
                summary[name] = int(scores.attrs[name])  # type: ignore[literal-required]
        elif name in scores and name not in summary:
            summary[name] = float(varies[name].mean())  # type: ignore[literal-required]
    return summary
