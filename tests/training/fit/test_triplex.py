"""TRIPLEX through training, evaluation and all that comes after, on a small world."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from margins import more_than
from napari_cpnn import Slide, cross_validate, evaluate, load_model, train
from napari_cpnn.errors import CpnnWarning, NoTissueError, TrainingError, WeightsError
from napari_cpnn.evaluation import predict_spots
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.prediction import PlacePredictor, Predictor
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.slides import PatchReader
from napari_cpnn.training.data import inputs as kinds
from napari_cpnn.training.fit import fit
from napari_cpnn.training.fit.module import VIEWS, CpnnTraining
from small_world import draw_nothing
from training.prepared import prepare
from training.triplex_world import MPP, SETTINGS, on_glass, shrink

QUICK = EvaluationSettings(ceiling_repeats=0, precision="float32")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    shrink(monkeypatch)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A model that has learned a little, its run folder, and a slide that it has not seen."""
    folder = tmp_path_factory.mktemp("triplex") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        patch.setenv("NAPARI_CPNN_CACHE", str(folder.parent / "cache"))
        draw_nothing(patch)
        samples = [on_glass(world.sample(i, rows=5, cols=6)) for i in (1, 2, 3)]
        model = train(samples, world.prototypes, SETTINGS.replace(max_epochs=12), folder, progress=False)
    return model, folder, samples


def test_it_learns_and_says_so(trained, world):
    model, folder, samples = trained
    history = pd.read_csv(folder / "metrics.csv")
    assert {f"{view}_loss" for view in VIEWS} < set(history)
    terms = ["expression_loss", "prototype_loss", "composition_loss", *(f"{view}_loss" for view in VIEWS)]
    np.testing.assert_allclose(history["loss"], history[terms].sum(axis=1), rtol=1e-4)
    more_than(0.4, history["held_out_pcc"].max(), "PCC on the held-out slide")
    assert model.spec.backbone_args["pitch_um"] == 128.0
    slide, spots = samples[2]
    scores = evaluate(model, slide, spots, settings=QUICK)
    card = model.provenance["metrics"]["held_out"]
    assert card["pcc_mean"] == pytest.approx(scores["pcc"].mean(), abs=1e-3)
    assert model.domain is not None
    assert model.provenance["domain"]["n_calibration"] == spots.n_obs
    unseen_slide, unseen = on_glass(world.sample(9, rows=5, cols=6))
    more_than(0.3, evaluate(model, unseen_slide, unseen, settings=QUICK)["pcc"].mean(), "PCC on another slide")


def test_predictions_in_training_are_those_of_evaluate(trained, world, tmp_path):
    model, _, samples = trained
    data, inputs = prepare(samples, world.prototypes, SETTINGS, tmp_path), kinds.inputs_for(SETTINGS)
    inputs.prepare(data, model, tmp_path)
    predicted = np.concatenate([values for _, values in fit._decoded(model, inputs, data.held_out)])
    slide, spots = samples[2]
    there = PlacePredictor(slide, model, Predictor(model, "cpu", "float32"))
    weights, programs, _ = there.predict(spatial_to_um(spots.obsm["spatial"], slide.mpp))[0]
    expected = model.decoder().expression(weights, programs, model.genes)[data.row_of[data.held_out]]
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


def test_the_order_of_spots_leaves_predictions_alone(trained):
    model, _, samples = trained
    slide, spots = samples[0]
    order = np.random.default_rng(0).permutation(spots.n_obs)
    weights, programs = predict_spots(model, slide, spots, precision="float32")
    again, programs_again = predict_spots(model, slide, spots[order], precision="float32")
    np.testing.assert_allclose(again, weights.to_numpy()[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(programs_again, programs[order], rtol=1e-5, atol=1e-5)


def test_two_evaluations_are_equal(trained, monkeypatch, tmp_path):
    model, folder, samples = trained
    slide, spots = samples[1]
    first = evaluate(model, slide, spots, settings=QUICK)
    pd.testing.assert_frame_equal(first, evaluate(model, slide, spots, settings=QUICK), check_exact=True)
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "elsewhere"))  # nothing known of the slide
    again = evaluate(load_model(folder / "model.safetensors"), slide, spots, settings=QUICK)
    pd.testing.assert_frame_equal(first, again, rtol=1e-3, atol=1e-3)  # features anew, in other company


def test_what_a_spot_says_does_not_depend_on_the_other_spots(trained):
    model, _, samples = trained
    slide, spots = samples[0]
    weights, _ = predict_spots(model, slide, spots, precision="float32")
    alone, _ = predict_spots(model, slide, spots[7:8], precision="float32")
    np.testing.assert_allclose(alone.to_numpy()[0], weights.to_numpy()[7], rtol=1e-5, atol=1e-5)
    scores = evaluate(model, slide, spots[7:8], settings=QUICK)
    assert scores["pcc"].isna().all()  # a correlation needs two
    assert (scores["n_spots"] == 1).all()


def one_patch():
    """A slide with tissue in a single patch, and a spot there."""
    pixels = np.full((7 * 64, 7 * 64, 3), 255, dtype=np.uint8)
    pixels[192:256, 192:256] = (150, 60, 160)
    return Slide.from_arrays([pixels], MPP, name="island")


def test_a_slide_whose_neighbours_are_all_background(trained):
    model, _, samples = trained
    spots = samples[0][1][:2].copy()
    spots.obsm["spatial"] = np.array([[224.0, 224.0], [64.0, 64.0]])  # on the tissue, and on glass
    weights, programs = predict_spots(model, one_patch(), spots)
    assert np.isfinite(weights).all(axis=None)
    assert np.isfinite(programs).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_a_slide_of_glass_is_one_sentence(trained):
    model, _, samples = trained
    glass = Slide.from_arrays([np.full((448, 448, 3), 255, dtype=np.uint8)], MPP, name="glass")
    with pytest.raises(NoTissueError, match="glass"):
        predict_spots(model, glass, samples[0][1])


@pytest.mark.parametrize("max_tokens", [1, 2])
def test_a_tiny_limit_of_tokens_trains_and_evaluates(max_tokens, world, tmp_path):
    sample = on_glass(world.sample(1, rows=4, cols=5))
    settings = SETTINGS.replace(max_tokens=max_tokens, max_epochs=1)
    with pytest.warns(CpnnWarning, match="too few to tell which tissue"):
        model = train([sample], world.prototypes, settings, tmp_path / "run", progress=False)
    assert np.isfinite(evaluate(model, *sample, settings=QUICK)["pcc"]).any()


def test_a_training_slide_with_one_spot(world, tmp_path):
    slide, spots = on_glass(world.sample(1, rows=4, cols=5))
    other, few = on_glass(world.sample(2, rows=4, cols=5))
    samples = [(other, few[3:4]), (slide, spots)]
    settings = SETTINGS.replace(max_epochs=1, validation="none")
    model = train(samples, world.prototypes, settings, tmp_path / "run", progress=False)
    assert [row["n_spots"] for row in model.provenance["training_data"]] == [1, 20]


def test_a_run_that_was_killed_ends_with_the_same_bits(world, tmp_path):
    samples = [on_glass(world.sample(i, rows=4, cols=5)) for i in (1, 2)]
    settings = SETTINGS.replace(max_epochs=3, batch_size=10, context_pitch_um=None)

    def killed(row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    def run(name, **options):
        return train(samples, world.prototypes, settings, tmp_path / name, progress=False, **options)

    whole = run("whole")
    run("parts", on_epoch=killed)
    resumed = run("parts", resume=True)
    assert whole.spec.backbone_args["pitch_um"] == 128.0  # told from the spots
    assert whole.fingerprint == resumed.fingerprint


def test_a_frozen_target_network_learns_the_same_from_kept_tokens(world, tmp_path, monkeypatch):
    samples = [on_glass(world.sample(1, rows=5, cols=6))]
    settings = SETTINGS.replace(backbone_learning_rate=0.0, max_epochs=2, validation="none", symmetries=True)
    kept = train(samples, world.prototypes, settings, tmp_path / "kept", progress=False)
    monkeypatch.setattr(kinds, "is_frozen", lambda _: False)
    computed = train(samples, world.prototypes, settings, tmp_path / "computed", progress=False)
    got, wanted = (predict_spots(model, *samples[0])[0] for model in (kept, computed))
    np.testing.assert_allclose(got, wanted, atol=5e-3)  # tokens are kept in float16
    for name, value in kept.backbone.target.state_dict().items():
        assert torch.equal(value, computed.backbone.target.state_dict()[name])


def test_all_training_options_at_once(world, tmp_path):
    samples = [on_glass(world.sample(i, rows=4, cols=5)) for i in (1, 2)]
    settings = SETTINGS.replace(
        max_epochs=1, stain_augment=0.1, weight_average=0.9, symmetries=True, gene_weights="reliability", loss="mse",
        layer_decay=0.5, validation="none",
    )  # fmt: skip
    model = train(samples, world.prototypes, settings, tmp_path / "run", progress=False)
    assert np.isfinite(evaluate(model, *samples[0], settings=QUICK)["pcc"]).any()


@pytest.mark.slow  # test_cross_validation has it for one patch
def test_cross_validation_of_both_heads(world, tmp_path):
    samples = []
    for i in (1, 2):
        slide, spots = on_glass(world.sample(i, rows=4, cols=5))
        spots.obs["patient"] = f"P{i}"
        samples.append((slide, spots))
    short = SETTINGS.replace(max_epochs=1, validation="none")
    heads = {"cpnn": short, "plain": short.replace(head="linear", n_programs=0, composition_weight=0.0)}
    table = cross_validate(samples, world.prototypes, heads, "patient", tmp_path / "cv", QUICK, progress=False)
    assert set(table["head"]) == {"cpnn", "plain"}
    assert set(table["slide"]) == {"slide1", "slide2"}
    assert np.isfinite(table["pcc"]).any()


def test_missing_encoder_weights_show_before_patches_are_cut(world, tmp_path, monkeypatch):
    monkeypatch.setattr(PatchReader, "read", lambda *_: pytest.fail("patches were cut"))
    settings = SETTINGS.replace(encoder="ciga", encoder_weights="pretrained")
    with pytest.raises(WeightsError, match="ciga"):
        train([on_glass(world.sample(1))], world.prototypes, settings, tmp_path / "run", progress=False)
    settings = SETTINGS.replace(encoder="squeezenet", encoder_weights=str(tmp_path / "absent.safetensors"))
    with pytest.raises(WeightsError, match="absent"):
        train([on_glass(world.sample(1))], world.prototypes, settings, tmp_path / "run", progress=False)


def test_an_array_that_is_not_recognised_shows_before_patches_are_cut(world, tmp_path, monkeypatch):
    monkeypatch.setattr(PatchReader, "read", lambda *_: pytest.fail("patches were cut"))
    slide, spots = on_glass(world.sample(1))
    spots = AnnData(spots.X, obs=spots.obs, var=spots.var, layers=dict(spots.layers))
    spots.obsm["spatial"] = np.random.default_rng(0).uniform(64, 300, (spots.n_obs, 2))
    settings = SETTINGS.replace(context_pitch_um=None)
    with pytest.raises(TrainingError, match="set context_pitch_um"):
        train([(slide, spots)], world.prototypes, settings, tmp_path / "run", progress=False)


def test_the_whole_batch_runs_in_one_encoding_of_each_slide(world, tmp_path, monkeypatch):
    from napari_cpnn.models.triplex import Triplex

    encoded, steps = [], []
    encode, step = Triplex.encode, CpnnTraining.training_step
    monkeypatch.setattr(Triplex, "encode", lambda t, s: encoded.append(t.training) or encode(t, s))
    monkeypatch.setattr(CpnnTraining, "training_step", lambda m, b, i: steps.append(b["slide"]) or step(m, b, i))
    samples = [on_glass(world.sample(i, rows=4, cols=5)) for i in (1, 2)]
    settings = SETTINGS.replace(max_epochs=1, validation="none")
    train(samples, world.prototypes, settings, tmp_path / "run", progress=False)
    assert sum(encoded) == sum(len(torch.unique(slides)) for slides in steps)
