"""Calibrate a trained model on its held-out spots: intervals and trusted scales."""

from __future__ import annotations

import numpy as np

from napari_cpnn.arrays import IntArray
from napari_cpnn.evaluation import LEAST_SPOTS, HeldOutSpots, fit_trust
from napari_cpnn.models import CPNN
from napari_cpnn.training.data import Inputs, SpotData


def fit_run_trust(model: CPNN, data: SpotData, inputs: Inputs) -> None:
    """Fit the ``trust`` of a trained model, and record in ``provenance["trust"]`` what it is based on.

    The held-out spots also decided when training ended, so that intervals are slightly too narrow; a cross-validation
    (:func:`napari_cpnn.studies.calibrate`) does without. With fewer than 20 of them the model has no intervals.
    """
    if len(data.held_out) < LEAST_SPOTS:
        return
    slides = [
        _held_out_spots(model, data, inputs, data.held_out[data.slide_of[data.held_out] == slide])
        for slide in np.unique(data.slide_of[data.held_out])
    ]
    model.trust = fit_trust(slides, len(model.genes))
    model.provenance["trust"] = {"calibrated_on": data.held_out_name, "n_spots": len(data.held_out)}


def _held_out_spots(model: CPNN, data: SpotData, inputs: Inputs, rows: IntArray) -> HeldOutSpots:
    slide = data.slide_of[rows[0]]
    parts = list(inputs.predict(model, rows))
    weights, programs = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    genes = model.decoder().expression(weights, programs, model.genes)
    shares = np.full_like(weights, np.nan) if data.shares is None else data.shares[rows]
    if not model.cell_types:
        shares = weights
    return HeldOutSpots(
        data.patients[slide] or data.slides[slide],
        np.hstack([genes, weights]).astype(np.float64),
        np.hstack([np.asarray(data.targets[rows]), shares]).astype(np.float64),
        data.places_um[rows],
    )
