"""A model is calibrated by the cross-validation of its settings."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.cli import main
from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import HeldOutSpots, fit_trust
from napari_cpnn.models import load_model
from napari_cpnn.prototypes import deconvolve
from napari_cpnn.studies import calibrate, cross_validate, held_out_slides
from napari_cpnn.training import train


@pytest.fixture(scope="module")
def study(world, quick, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    samples = [world.sample(1, rows=5), world.sample(2, rows=5)]
    settings = quick.replace(max_epochs=1, validation="none")
    cross_validate(samples, world.prototypes, settings, groups=["A", "B"], out=out / "folds", progress=False)
    train(samples, world.prototypes, settings, out / "all", progress=False)
    return out


def test_calibrated_by_the_spots_of_all_folds(study, world):
    model = load_model(study / "all" / "model.safetensors")
    assert model.trust is None
    calibrate(model, study / "folds", world.prototypes)
    tested = list(held_out_slides(study / "folds"))
    assert model.provenance["trust"]["n_slides"] == len(tested) == 2
    tables = [next(iter(slide.heads.values())) for slide in tested]
    assert model.provenance["trust"]["n_spots"] == sum(table.n_obs for table in tables)
    expected = fit_trust(
        [
            HeldOutSpots.of_table(
                table, model.genes, slide.fold,
                deconvolve(world_spots(table), world.prototypes)[list(model.cell_types)].to_numpy(),
            )
            for slide, table in zip(tested, tables, strict=True)
        ],
        len(model.genes),
    )  # fmt: skip
    for name, values in expected.named_buffers():
        np.testing.assert_allclose(model.trust.get_buffer(name), values, atol=1e-5)
    assert (model.trust.scale_um[len(model.genes) :] != -2).all()  # the cell types, too


def world_spots(table):
    spots = table.copy()
    spots.X = table.layers["counts"]
    return spots


def test_without_prototypes_cell_types_are_left_open(study):
    model = calibrate(load_model(study / "all" / "model.safetensors"), study / "folds")
    assert all(np.isnan(model.trust.scale(len(model.genes) + i)) for i in range(len(model.cell_types)))


def test_a_patient_counts_once(study):
    model = load_model(study / "all" / "model.safetensors")
    calibrate(model, study / "folds", patients={"slide1": "A", "slide2": "A"})
    assert model.provenance["trust"]["n_patients"] == 1


def test_no_such_head_or_run(study, tmp_path):
    model = load_model(study / "all" / "model.safetensors")
    with pytest.raises(TrainingError, match=r"has no head 'paper'; it has cpnn\."):
        calibrate(model, study / "folds", head="paper")
    with pytest.raises(TrainingError):
        calibrate(model, tmp_path)


def test_in_the_terminal(study, tmp_path, capsys):
    before, out = study / "all" / "model.safetensors", tmp_path / "calibrated.safetensors"
    command = ["calibrate", "--model", str(before), "--folds", str(study / "folds"), "--out", str(out)]
    assert main(command) == 0
    assert "spots of 2 slides" in capsys.readouterr().out
    assert load_model(out).trust is not None
    assert load_model(out).fingerprint == load_model(before).fingerprint
    assert main(command) != 0  # what is there is not replaced
    assert "exists" in capsys.readouterr().err


def test_the_cross_validation_of_another_model_is_refused(study, world, quick, tmp_path):
    model = load_model("breast-her2st")
    with pytest.raises(TrainingError, match="is of a model with other cell types than this one"):
        calibrate(model, study / "folds")
    assert model.trust is not None  # the one that it had
    plain = train([world.sample(1, rows=5)], world.prototypes, quick.replace(max_epochs=1, head="linear"), tmp_path)
    with pytest.raises(TrainingError, match="other cell types"):
        calibrate(plain, study / "folds")
