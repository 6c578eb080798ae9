"""What is fitted to training tissue: against plain formulas, and through a run on the small world."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from margins import less_than, more_than
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.models import load_model
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.training import train
from napari_cpnn.training.fit.domain import LEAST_PATCHES, N_AXES, Axes, calibrated, fit_domain

F = 40


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def tissue(rng, n, away=0.0):
    """Features with a few strong directions, as those of a network."""
    mix = np.random.default_rng(0).normal(size=(F, F)) * np.r_[6, 4, 3, 2, np.full(F - 4, 0.3)][:, None]
    return rng.normal(size=(n, F)) @ mix + 5 + away


def score(domain, features):
    return domain(torch.from_numpy(features.astype(np.float32))).numpy()


def test_axes_are_the_eigenvectors_of_the_covariance(rng):
    x = tissue(rng, 300)
    axes = Axes.of(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(axes.variances, values[::-1][:N_AXES], rtol=1e-8)
    np.testing.assert_allclose(np.abs((axes.axes * vectors.T[::-1][:N_AXES]).sum(axis=1)), 1, atol=1e-6)
    away = tissue(rng, 5) - x.mean(axis=0)
    expected = np.linalg.norm(away - away @ vectors[:, ::-1][:, :N_AXES] @ vectors[:, ::-1][:, :N_AXES].T, axis=1) ** 2
    np.testing.assert_allclose(axes.parts(away + x.mean(axis=0))[:, 1], expected, rtol=1e-6)


def test_few_patches_have_few_axes(rng):
    assert len(Axes.of(tissue(rng, 24)).axes) == 3
    assert len(Axes.of(tissue(rng, 3)).axes) == 1


def test_scores_are_the_quantiles_of_the_held_out_distances(rng):
    axes, held_out = Axes.of(tissue(rng, 400)), tissue(rng, 500)
    domain = calibrated(axes, axes.parts(held_out))
    squared = domain.distance(torch.from_numpy(held_out.astype(np.float32))).numpy().astype(np.float64) ** 2
    assert squared.mean() == pytest.approx(1, rel=1e-4)
    share = np.searchsorted(np.sort(squared), squared, side="right") / (len(squared) + 1)
    np.testing.assert_allclose(score(domain, held_out), share, atol=0.02)


def test_new_tissue_of_the_same_kind_is_uniform_and_other_tissue_is_not(rng):
    axes = Axes.of(tissue(rng, 400))
    domain = calibrated(axes, axes.parts(tissue(rng, 300)))
    same, other = score(domain, tissue(rng, 4000)), score(domain, tissue(rng, 200, away=4.0))
    assert np.abs(np.quantile(same, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.06
    assert (same > 0.95).mean() == pytest.approx(0.05, abs=0.03)
    assert np.median(other) > 0.99
    ever_further = score(domain, tissue(rng, 1) + np.linspace(0, 4, 60)[:, None])
    assert (np.diff(ever_further[3:]) >= 0).all()


def test_features_that_never_vary_make_everything_else_far_away():
    same = np.ones((40, F))
    axes = Axes.of(same)
    domain = calibrated(axes, axes.parts(same))
    assert score(domain, same).max() < 0.5
    assert score(domain, same + 0.1).min() > 0.99


def knots(*domains):
    return [domain.knots.numpy() for domain in domains]


def seen(features):
    """In place of a model and its inputs: the features of patch i are given."""
    inputs = SimpleNamespace(own_features=lambda _model, rows: features[rows])
    return SimpleNamespace(domain=None, provenance={}), inputs


def spots(n_train, n_held_out, slide_of=None):
    n = n_train + n_held_out
    return SimpleNamespace(
        train=np.arange(n_train),
        held_out=np.arange(n_train, n),
        held_out_name="C4",
        slide_of=np.zeros(n, dtype=int) if slide_of is None else slide_of,
        images=np.random.default_rng(0).integers(90, 250, (n, 16, 16, 3), dtype=np.uint8),
    )


SETTINGS = SimpleNamespace(device="cpu", precision="float32", seed=0)


def test_held_out_patches_calibrate(rng):
    features = tissue(rng, 160)
    model, inputs = seen(features)
    fit_domain(model, spots(100, 60), inputs, SETTINGS)
    card = dict(model.provenance["domain"])
    assert set(card.pop("appearance")) == {"haematoxylin", "eosin", "sharpness"}
    assert card == {"calibrated_on": "C4", "n_train": 100, "n_calibration": 60}
    axes = Axes.of(features[:100])
    np.testing.assert_array_equal(*knots(model.domain, calibrated(axes, axes.parts(features[100:]))))


@pytest.mark.parametrize("slides", [None, np.repeat([0, 1, 2], 40)])
def test_without_them_the_training_patches_are_measured_against_each_other(rng, slides):
    features = tissue(rng, 120)
    model, inputs = seen(features)
    fit_domain(model, spots(120, 0, slides), inputs, SETTINGS)
    assert model.provenance["domain"]["calibrated_on"] == "training patches, cross-fitted"
    folds = np.repeat(np.arange(4), 30) if slides is None else slides
    parts = np.concatenate([Axes.of(features[folds != f]).parts(features[folds == f]) for f in np.unique(folds)])
    np.testing.assert_array_equal(*knots(model.domain, calibrated(Axes.of(features), parts)))
    assert (score(model.domain, tissue(rng, 2000)) > 0.95).mean() < 0.12


def test_a_slide_that_is_nearly_all_of_it_is_cut_into_bands(rng):
    model, inputs = seen(tissue(rng, 60))
    fit_domain(model, spots(60, 0, np.r_[np.zeros(55, int), np.ones(5, int)]), inputs, SETTINGS)
    assert model.domain.knots.isfinite().all()
    assert 0.2 < np.median(score(model.domain, tissue(rng, 500))) < 0.8


def test_too_few_patches_are_said_and_leave_the_model_as_it_is(rng):
    model, inputs = seen(tissue(rng, 100))
    with pytest.warns(CpnnWarning, match="19 training patches are too few to tell which tissue is unlike them"):
        fit_domain(model, spots(LEAST_PATCHES - 1, 50), inputs, SETTINGS)
    assert model.domain is None
    assert model.provenance == {}


@pytest.mark.parametrize("head", ["cpnn", "linear"])
def test_a_run_gives_its_model_a_domain_that_knows_other_tissue(world, quick, tmp_path, head):
    chosen = quick.replace(head=head, max_epochs=4)
    samples = [world.sample(1), world.sample(2)]
    model = train(samples, world.prototypes, chosen, out=tmp_path, progress=False)
    card = {name: value for name, value in model.provenance["domain"].items() if name != "appearance"}
    assert card == {"calibrated_on": "slide2", "n_train": 90, "n_calibration": 90}
    assert load_model(tmp_path / "model.safetensors").fingerprint == model.fingerprint
    slide, _ = world.sample(3)
    pixels = np.asarray(slide.levels[0])
    patches = pixels.reshape(9, 32, 10, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    predictor = Predictor(model, "cpu", "float32")
    like, unlike = (predictor.predict(images).out_of_domain for images in (patches, 255 - patches))
    more_than(0.2, np.median(like), "score of like tissue")
    less_than(0.9, np.median(like), "score of like tissue")
    more_than(0.95, np.median(unlike), "score of other tissue")
    rough = Predictor(model, "cpu", "bfloat16").predict(patches).out_of_domain
    # Nothing but colours to see here, so the smallest differences count; real tissue agrees to 0.03 (docs/methods.md).
    less_than(0.15, np.abs(rough - like).mean(), "difference in bfloat16")
    more_than(0.85, np.corrcoef(rough, like)[0, 1], "correlation in bfloat16")
