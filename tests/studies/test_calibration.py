"""A model is calibrated by the cross-validation of its settings."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pandas as pd
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
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_slides"] == 2
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


def _without(part, name):
    return lambda table: getattr(table, part).__delitem__(name)


def _set(part, name, value):
    return lambda table: getattr(table, part).__setitem__(name, value(table))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("layers", "measured"), "predictions for slide1 in .*run the cross-validation again"),
        (_without("layers", "counts"), "predictions for slide1 in .*run the cross-validation again"),
        (_without("obsm", "weights"), "predictions for slide1 in .*run the cross-validation again"),
        (_without("obsm", "spatial"), "predictions for slide1 in .*run the cross-validation again"),
        (_without("uns", "comparison"), "predictions for slide1 in .*run the cross-validation again"),
        (_set("uns", "comparison", lambda t: "text"), "predictions for slide1 in .*run the cross-validation again"),
        (_set("uns", "comparison", lambda t: {"mpp": np.array([np.nan, 1.0])}), "have positions that are NaN"),
        (_set("obsm", "spatial", lambda t: np.full((t.n_obs, 2), np.inf)), "have positions that are NaN"),
        (_set("obsm", "spatial", lambda t: np.zeros((t.n_obs, 3))), "predictions for slide1 in .*|must be .n, 2."),
        (_set("obsm", "weights", lambda t: np.zeros((t.n_obs, 99))), "other cell types"),
        (_set("layers", "measured", lambda t: np.full(t.shape, np.inf)), "infinite values"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_table_of_a_fold_is_one_sentence_and_the_model_is_kept(study, world, tmp_path, damage, message):
    folds = shutil.copytree(study / "folds", tmp_path / "folds")
    (path,) = folds.rglob("slide1.h5ad")
    table = anndata.read_h5ad(path)
    damage(table)
    table.write_h5ad(path)
    model = load_model(study / "all" / "model.safetensors")
    with pytest.raises(TrainingError, match=message) as caught:
        calibrate(model, folds, world.prototypes)
    assert "\n" not in str(caught.value)
    assert model.trust is None
    assert "trust" not in model.provenance


def test_a_truncated_table_or_list_of_folds_is_one_sentence(study, tmp_path, capsys):
    folds = shutil.copytree(study / "folds", tmp_path / "folds")
    (path,) = folds.rglob("slide1.h5ad")
    model = load_model(study / "all" / "model.safetensors")
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(TrainingError, match="slide1"):
            calibrate(model, folds)
    path.write_bytes(whole)
    tested = pd.read_csv(folds / "folds.csv")
    for column in ("head", "fold", "slide", "not_tested"):
        tested.drop(columns=column).to_csv(folds / "folds.csv", index=False)
        with pytest.raises(TrainingError, match=f"folds.csv is damaged: it has no column {column}"):
            calibrate(model, folds)
    command = ["calibrate", "--model", str(study / "all" / "model.safetensors"), "--folds", str(folds)]
    assert main([*command, "--out", str(tmp_path / "out.safetensors")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()
