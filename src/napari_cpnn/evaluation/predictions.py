"""Predictions at measured spots, together with the measurements.

All that cannot be compared is excluded and counted here: spots without counts, without a position or without a readable
patch, and genes of the model that were not measured.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.cells import predict_cells
from napari_cpnn.counts import as_counts, name_genes_as, require_genes, shared_genes
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.models import CPNN, Decoder, usable
from napari_cpnn.nuclei import Nuclei
from napari_cpnn.prediction import PlacePredictor, Predictor
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.slides import Slide
from napari_cpnn.spots import (
    OF_CELLS,
    counts_matrix,
    expression,
    is_of_cells,
    on_one_slide,
    warn_of_misfit,
    with_positions,
)
from napari_cpnn.texts import shown


def predict_spots(
    model: CPNN,
    slide: Slide,
    spots: AnnData,
    device: str = "auto",
    symmetries: bool | None = None,
    precision: str = "auto",
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    """Predict composition and programs at the spots of a slide.

    Parameters
    ----------
    model, slide, spots, device, symmetries, precision, progress
        As for :func:`predict_expression`.

    Returns
    -------
    weights
        DataFrame ``(spots, cell types)``; NaN for spots with unreadable patches.
    programs
        ``(spots, R)`` float32, NaN likewise.

    Examples
    --------
    >>> from napari_cpnn.evaluation import predict_spots
    >>> weights, programs = predict_spots(model, slide, spots[:5])
    >>> weights.shape, programs.shape
    ((5, 8), (5, 8))
    """
    slide.require_mappable()
    if spots.n_obs == 0:
        raise SpotsError(f"There are no spots on {slide.name}, so there is nothing to predict.")
    spots = on_one_slide(spots, f"The table of spots of {slide.name}")
    warn_of_misfit(slide, spots)
    return _predict(model, slide, spots, device, symmetries, precision, progress)


def _predict(
    model: CPNN,
    slide: Slide,
    spots: AnnData,
    device: str,
    symmetries: bool | None,
    precision: str,
    progress: Progress | None,
) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    mpp = slide.require_mappable()
    centers = spatial_to_um(spots.obsm["spatial"], mpp)
    if model.input_kind == "nucleus":
        return _predict_cells(model, slide, spots, centers, device, precision, progress)
    if symmetries is None:
        symmetries = bool(usable(model.provenance).get("settings", {}).get("symmetries", False))
    weights = np.full((spots.n_obs, len(model.cell_types)), np.nan, dtype=np.float32)
    programs = np.full((spots.n_obs, model.n_programs), np.nan, dtype=np.float32)
    there = PlacePredictor(slide, model, Predictor(model, device, precision, symmetries))
    predicted, ok = there.predict(centers, progress or no_progress, "spots")
    if predicted is not None:
        weights[ok], programs[ok] = predicted.weights, predicted.programs
    if not ok.all():
        warnings.warn(
            f"{int((~ok).sum())} of {spots.n_obs} patches of {slide.name} cannot be read and have no prediction.",
            CpnnWarning,
            stacklevel=3,
        )
    return pd.DataFrame(weights, index=spots.obs_names, columns=list(model.cell_types)), programs


def _predict_cells(
    model: CPNN,
    slide: Slide,
    spots: AnnData,
    centers: FloatArray,
    device: str,
    precision: str,
    progress: Progress | None,
) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    """Predict measured cells by a model of single cells, at their centres."""
    if not is_of_cells(spots):
        raise SpotsError(
            f"The model {model.title or 'given'} predicts single cells, but the table of {slide.name} holds spots, of "
            "many cells each; give measured cells (Xenium, segmented Visium HD), or a model of patches."
        )
    nuclei = Nuclei(np.where(np.isfinite(centers), centers, -1.0).astype(np.float32))
    on = nuclei.on_slide(slide)
    weights = np.full((len(nuclei), len(model.cell_types)), np.nan, dtype=np.float32)
    programs = np.full((len(nuclei), model.n_programs), np.nan, dtype=np.float32)
    if on.any():
        there = nuclei.subset(on)
        cells = predict_cells(slide, model, there, progress=progress or False, device=device, precision=precision)
        weights[on], programs[on] = cells.weights, cells.programs
    return pd.DataFrame(weights, index=spots.obs_names, columns=list(model.cell_types)), programs


def predict_expression(
    model: CPNN,
    slide: Slide,
    spots: AnnData,
    device: str = "auto",
    symmetries: bool | None = None,
    precision: str = "auto",
    progress: Progress | None = None,
    ignore_gene_case: bool = False,
) -> AnnData:
    """Predict expression at spots, together with the measured expression, for comparable spots and genes.

    Parameters
    ----------
    model, slide, spots, device, symmetries
        As for :func:`~napari_cpnn.evaluate`. Of a model of single cells, ``spots`` are measured cells.
    precision
        Precision of the image network, as in :class:`~napari_cpnn.settings.EvaluationSettings`.
    progress
        Called as ``progress(text, done)`` between batches, with a text such as ``256 of 5,000 spots``, and the fraction
        done. Exceptions raised by it are propagated, which cancels the prediction.
    ignore_gene_case
        Whether gene names are compared without regard to case.

    Returns
    -------
    AnnData
        ``(n, G)`` spots by genes. ``X`` is predicted and ``layers["measured"]`` measured expression, log1p CP10k, and
        ``layers["counts"]`` are the counts. ``obs["total_counts"]`` is the sum over all measured genes, and
        ``obs["row"]`` is the row in ``spots``. ``obsm["weights"]`` are the cell-type shares,
        ``obsm["spatial"]`` level-0 pixels. ``uns["comparison"]`` contains the numbers of excluded spots and genes by
        reason, and as ``of`` whether rows are ``"spots"`` or ``"cells"``.

    Raises
    ------
    GenesError, PixelSizeError, SlideError, SpotsError
        As :func:`~napari_cpnn.evaluate`.
    """
    spots = on_one_slide(spots, f"The table of spots of {slide.name}")
    spots = name_genes_as(spots, model.genes, ignore_case=ignore_gene_case)
    genes = shared_genes(model.genes, list(spots.var_names), ("The model", f"the spots of {slide.name}"))
    usable, left_out = usable_spots(slide, spots)
    slide.require_mappable()
    warn_of_misfit(slide, spots)
    weights, programs = _predict(model, slide, spots[usable], device, symmetries, precision, progress)
    # A linear head has no weights, so check both for unreadable patches.
    read = np.isfinite(np.concatenate([weights.to_numpy(), programs], axis=1)).all(axis=1)
    if not read.any():
        raise SpotsError(f"No spot of {slide.name} has counts and a readable patch, so nothing can be compared.")
    facts = {**left_out, "spots_without_patch": int((~read).sum()), "n_model_genes": len(model.genes)}
    return comparison_table(slide, spots, usable[read], genes, model.decoder(), weights[read], programs[read], facts)


def comparison_table(
    slide: Slide,
    spots: AnnData,
    rows: IntArray,
    genes: list[str],
    decoder: Decoder,
    weights: pd.DataFrame,
    programs: npt.NDArray[np.float32],
    facts: dict[str, int],
) -> AnnData:
    """Return the table of :func:`predict_expression` from predictions at some rows of the spots."""
    kept = spots[rows]
    counts = counts_matrix(kept)
    table = AnnData(
        decoder.expression(weights.to_numpy(), programs, genes),
        obs=pd.DataFrame({"row": rows, "total_counts": np.asarray(counts.sum(axis=1)).ravel()}, index=kept.obs_names),
        var=pd.DataFrame(index=genes),
        layers={
            "measured": expression(kept, genes),
            "counts": counts[:, require_genes(list(kept.var_names), genes, "The table of spots")],
        },
        obsm={"spatial": np.asarray(kept.obsm["spatial"], dtype=np.float64), "weights": weights},
    )
    table.uns["comparison"] = {
        "slide": slide.name,
        "mpp": np.asarray(slide.require_mappable()),
        "n_spots": table.n_obs,
        "of": OF_CELLS if is_of_cells(spots) else "spots",
        "genes_not_measured": facts.pop("n_model_genes") - len(genes),
        **facts,
    }
    return table


def warn_of_seen(model: CPNN, slide: Slide) -> None:
    """Warn that a slide was in the training data of a model, by its name: scores on it say little about others."""
    if model.has_seen(slide.name):
        warnings.warn(
            f"A slide named {shown(slide.name)} was in the training data of this model; its scores here flatter.",
            CpnnWarning,
            stacklevel=3,
        )


def usable_spots(slide: Slide, spots: AnnData) -> tuple[IntArray, dict[str, int]]:
    """Indices of spots with counts and a position, and the numbers of others."""
    if "spatial" not in spots.obsm:
        raise SpotsError(f'The spots of {slide.name} have no obsm["spatial"]; read them with read_spots.')
    if spots.n_obs == 0:
        raise SpotsError(f"There are no spots on {slide.name}, so there is nothing to compare.")
    spots = with_positions(spots, f"The table of spots of {slide.name}")
    counts = as_counts(counts_matrix(spots), f"The table of spots of {slide.name}", SpotsError)
    counted = np.asarray(counts.sum(axis=1)).ravel() > 0
    placed = np.isfinite(np.asarray(spots.obsm["spatial"], dtype=np.float64)).all(axis=1)
    usable = np.flatnonzero(counted & placed)
    if not len(usable):
        raise SpotsError(f"No spot of {slide.name} has counts and a place, so nothing can be compared.")
    return usable, {
        "spots_without_counts": int((~counted).sum()),
        "spots_without_place": int((counted & ~placed).sum()),
    }
