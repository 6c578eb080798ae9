"""Predict every cell of a slide: a crop around its nucleus, the frozen encoder, the head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import Float32Array
from napari_cpnn.cells.cell_map import CellMap
from napari_cpnn.errors import CellMapError, CpnnWarning
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import provenance_of
from napari_cpnn.models import Prediction
from napari_cpnn.nuclei import Nuclei, require_visible
from napari_cpnn.prediction import PlaceFeatures, Predictor
from napari_cpnn.progress import Progress, Reporting, counting, no_progress

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

#: Cells whose features are in memory at a time.
_BLOCK = 4096
#: Rows of every matrix product of the head, so that a cell gets the same numbers among any others.
_ROWS = 256


def predict_cells(
    slide: Slide,
    model: CPNN,
    nuclei: Nuclei,
    region: Rect | Sequence[float] | None = None,
    progress: Reporting = True,
    *,
    device: str = "auto",
    precision: str = "auto",
    keep: bool = False,
) -> CellMap:
    """Predict types and expression of the cells of a slide.

    What is predicted of a cell is what *cells that look like this one* have, as learnt from spots: differences between
    types, next to nothing of the differences within a type.

    Parameters
    ----------
    slide
        RGB slide, 8 bit, with a pixel size.
    model
        A model of single cells (:func:`~napari_cpnn.train_cells`).
    nuclei
        Nuclei of the slide; those with their centre outside of it are refused.
    region
        Rectangle ``(y0, x0, y1, x1)`` in um: only the nuclei in it. By default all.
    progress
        Whether progress is shown as a bar, or a function that is called with it; what it raises ends the prediction.
    device, precision
        As in :class:`~napari_cpnn.MappingSettings`.
    keep
        Keep the features of the crops in the user's cache, about 1 KB per cell; those that are there are used.

    Returns
    -------
    CellMap
        One row per nucleus; NaN where the slide cannot be read, with a warning.

    Raises
    ------
    CellMapError
        If the model was trained on patches, or there is no nucleus.
    NucleiError
        If nuclei lie outside of the slide, or its pixels are too large to see them.
    PixelSizeError, SlideError
        If the slide cannot be mapped.

    Examples
    --------
    >>> settings = nc.CellSettings(encoder="colour", epochs=1, validation="none", genes="variable", n_genes=50)
    >>> near = spots[((spots.obsm["spatial"] - [8950, 10120]) ** 2).sum(axis=1) < 300**2].copy()
    >>> cell_model = nc.train_cells([(slide, near)], protos, settings)
    >>> nuclei = nc.detect_nuclei(slide, region=(5000, 4400, 5100, 4500), progress=False)
    >>> cells = nc.predict_cells(slide, cell_model, nuclei, progress=False)
    >>> cells.weights.shape == (len(cells.nuclei), 8)
    True
    """
    require_cells(model)
    require_visible(slide)
    nuclei.require_on(slide)
    if region is not None:
        searched = None if nuclei.searched is None else nuclei.searched.within_um(region)
        nuclei = replace(nuclei.subset(nuclei.query(region)), searched=searched)
    if not len(nuclei):
        raise CellMapError(f"There is no nucleus {'in the region' if region is not None else 'on the slide'}.")
    predictor = Predictor(model, device, precision)
    features = PlaceFeatures(slide, model, predictor, keep)
    order = _neighbours_together(nuclei)
    weights = np.full((len(nuclei), len(model.cell_types)), np.nan, dtype=np.float16)
    programs = np.full((len(nuclei), model.n_programs), np.nan, dtype=np.float16)
    scores = np.full(len(nuclei), np.nan, dtype=np.float16)
    with counting(progress, "looking at cells", len(nuclei), "cell") as done:
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            step = _within(progress, start, len(rows), len(order))
            values, ok = features.at(nuclei.centers_um[rows], step)
            weights[rows[ok]], programs[rows[ok]], scores[rows[ok]] = head_outputs(model, values)
            done(len(rows))
    between_types = dict(model.provenance.get("between_types") or {})
    facts = {**provenance_of(slide, model, predictor.arithmetic), "between_types": between_types}
    cells = CellMap(nuclei, model.decoder(), weights, programs, facts, scores)
    if n_failed := int((~cells.known).sum()):
        warnings.warn(
            f"The crops of {n_failed:,} of {len(nuclei):,} nuclei of {slide.name} could not be read.",
            CpnnWarning,
            stacklevel=2,
        )
    return cells


def require_cells(model: CPNN) -> None:
    """Raise a :class:`CellMapError` unless a model is one of single cells."""
    if model.input_kind != "nucleus":
        raise CellMapError(
            f"The model {model.title or 'given'} was trained on patches of {model.patch.size_um:.0f} um, not on "
            "nuclei; train a model of single cells by the command 'napari-cpnn train --cells'."
        )


def head_outputs(model: CPNN, features: Float32Array) -> Prediction[Float32Array]:
    """Weights, programs and out-of-domain scores of features ``(N, F)``; the same for a cell among any others."""
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, max(len(features), 1), _ROWS):
            part = features[start : start + _ROWS]
            padded = np.zeros((_ROWS, features.shape[1]), dtype=np.float32)
            padded[: len(part)] = part
            views = model.views(torch.from_numpy(padded))[0]
            outputs = (*model.head_outputs(views), model.score(views))
            parts.append([values[: len(part)].numpy() for values in outputs])
    return Prediction(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _neighbours_together(nuclei: Nuclei) -> np.ndarray[Any, Any]:
    """Order of the nuclei in squares of 256 um, whose pixels are read together."""
    y, x = np.floor(nuclei.centers_um / 256.0).T
    return np.lexsort((x, y))


def _within(progress: Reporting, start: int, n: int, total: int) -> Progress:
    """Progress within a block of cells."""
    if isinstance(progress, bool):
        return no_progress
    return lambda _, share: progress("looking at cells", (start + share * n) / total)
