"""How well a model predicts the spots of a slide that it has not seen."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData

from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.genes import shared_genes
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.mapping.predictor import Predictor
from napari_cpnn.models import CPNN
from napari_cpnn.slides import PatchReader, Slide
from napari_cpnn.spots import expression
from napari_cpnn.spots.quality import counts_matrix
from napari_cpnn.training.metrics import Summary, pearson, spearman, summarise_values

#: Patches cut and predicted at a time.
_CHUNK = 256


def evaluate(
    model: CPNN, slide: Slide, spots: AnnData, device: str = "auto", symmetries: bool | None = None
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
        Predict the mean over the eight symmetries of each patch: a little better, eight times slower. By default as
        in the settings that the model was trained with.

    Returns
    -------
    DataFrame
        Index ``gene``; columns ``pcc``, ``scc`` (NaN for a gene that is constant here) and ``n_spots``, the number
        of spots with counts and a readable patch.

    Raises
    ------
    GenesError
        The model and the spots share no gene.
    PixelSizeError, SlideError
        The slide cannot be mapped.
    SpotsError
        There are no spots, or none with counts and a readable patch.
    """
    genes = shared_genes(model.genes, list(spots.var_names), ("The model", f"the spots of {slide.name}"))
    weights, programs = predict_spots(model, slide, spots, device, symmetries)
    counted = np.asarray(counts_matrix(spots).sum(axis=1)).ravel() > 0
    # The indicator of a linear head is its programs alone, so read quality is told from either.
    read = np.isfinite(np.concatenate([weights.to_numpy(), programs], axis=1)).all(axis=1)
    use = np.flatnonzero(counted & read)
    if not len(use):
        raise SpotsError(f"No spot of {slide.name} has counts and a readable patch, so nothing can be compared.")
    predicted = model.decoder().expression(weights.to_numpy()[use], programs[use], genes)
    measured = expression(spots[use], genes)
    return pd.DataFrame(
        {"pcc": pearson(predicted, measured), "scc": spearman(predicted, measured), "n_spots": len(use)},
        index=pd.Index(genes, name="gene"),
    )


def predict_spots(
    model: CPNN, slide: Slide, spots: AnnData, device: str = "auto", symmetries: bool | None = None
) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    """Predicted composition and programs at the spots of a slide.

    Returns
    -------
    weights
        DataFrame ``(spots, cell types)``; NaN in the row of a spot whose patch cannot be read.
    programs
        ``(spots, R)`` float32, NaN likewise.
    """
    mpp = slide.require_mappable()
    if spots.n_obs == 0:
        raise SpotsError(f"There are no spots on {slide.name}, so there is nothing to predict.")
    centers = spatial_to_um(spots.obsm["spatial"], mpp)
    if symmetries is None:
        symmetries = bool(model.provenance.get("settings", {}).get("symmetries", False))
    reader, predictor = PatchReader(slide, model.patch), Predictor(model, device=device, symmetries=symmetries)
    weights = np.full((spots.n_obs, len(model.cell_types)), np.nan, dtype=np.float32)
    programs = np.full((spots.n_obs, model.n_programs), np.nan, dtype=np.float32)
    n_failed = 0
    for start in range(0, spots.n_obs, _CHUNK):
        images, ok = reader.read(centers[start : start + _CHUNK])
        rows = start + np.flatnonzero(ok)
        n_failed += int((~ok).sum())
        if len(rows):
            weights[rows], programs[rows], _ = predictor.predict(images[ok])
    if n_failed:
        warnings.warn(
            f"{n_failed} of {spots.n_obs} patches of {slide.name} cannot be read and have no prediction.",
            CpnnWarning,
            stacklevel=2,
        )
    return pd.DataFrame(weights, index=spots.obs_names, columns=list(model.cell_types)), programs


def summarise(scores: pd.DataFrame) -> Summary:
    """Mean ``pcc`` and ``scc`` over the genes that vary, and their number, of a table of :func:`evaluate`."""
    return summarise_values(scores["pcc"], scores["scc"])
