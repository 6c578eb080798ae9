"""A trained model carries what its held-out spots say of it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.evaluation import predict_expression
from napari_cpnn.models import load_model
from napari_cpnn.training import train


@pytest.fixture(scope="module")
def trained(world, quick, tmp_path_factory):
    samples = [world.sample(1, rows=6), world.sample(2, rows=6)]
    for (_, spots), patient in zip(samples, ("Jane Doe", "John Roe"), strict=True):
        spots.obs["patient"] = patient
    out = tmp_path_factory.mktemp("run")
    return (
        samples,
        train(samples, world.prototypes, quick.replace(max_epochs=1, tissue="squares"), out, progress=False),
        out,
    )


def test_intervals_cover_the_held_out_spots(trained):
    samples, model, out = trained
    slide, spots = samples[1]
    table = predict_expression(model, slide, spots, precision="float32")
    predicted, measured = np.asarray(table.X), np.asarray(table.layers["measured"])
    covered = []
    for g in range(predicted.shape[1]):
        low, high = model.trust.interval(g, predicted[:, g])
        covered.append((low - 1e-4 <= measured[:, g]) & (measured[:, g] <= high + 1e-4))
    assert 0.88 < np.mean(covered) <= 1
    assert model.provenance["trust"]["n_spots"] == table.n_obs
    assert float(load_model(out / "model.safetensors").trust.n_spots) == table.n_obs


def test_the_card_names_tissue_and_numbers_of_patients_but_not_their_names(trained):
    _, model, out = trained
    assert model.trained_on.startswith("squares, 1 patient, 1 slide")
    content = (out / "model.safetensors").read_bytes()
    assert b"Jane" not in content
    assert b"Roe" not in content


def test_few_held_out_spots_give_no_intervals(world, quick, tmp_path):
    model = train([world.sample(1, rows=5)], world.prototypes, quick.replace(max_epochs=1), tmp_path, progress=False)
    assert model.trust is None
