"""The out-of-domain score against plain formulas in numpy, and through checkpoint and inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cpnn.errors import CheckpointError
from napari_cpnn.models import CPNN, Domain, fuse_for_inference, load_model, predict_symmetric, read_card, save_model
from napari_cpnn.models.domain import BODY, N_KNOTS

F, K = 512, 6


@pytest.fixture
def domain(rng: np.random.Generator) -> Domain:
    """Some axes, variances and quantiles."""
    made = Domain(F, K)
    made.center.copy_(torch.from_numpy(rng.normal(size=F)))
    made.axes.copy_(torch.from_numpy(np.linalg.qr(rng.normal(size=(F, K)))[0].T))
    made.variances.copy_(torch.from_numpy(rng.uniform(0.5, 4, K)))
    made.residual.fill_(F * 0.7)
    made.knots.copy_(torch.from_numpy(np.sort(rng.uniform(0.3, 1.4, N_KNOTS))))
    made.knots[0] = 0
    made.tail.fill_(0.2)
    return made


@pytest.fixture
def aware(model: CPNN, domain: Domain, patches: np.ndarray) -> CPNN:
    """A model whose domain lies about what it sees in the patches."""
    with torch.no_grad():
        features = model.features(model.normalize(patches))
    domain.center.copy_(features.mean(dim=0))
    spread = (features - domain.center).square().sum(dim=1).mean()
    domain.variances.fill_(0.2 * float(spread))
    domain.residual.fill_(float(spread))
    model.domain = domain
    return model


def test_distance_is_mahalanobis_along_the_axes_and_euclid_beside_them(
    domain: Domain, rng: np.random.Generator
) -> None:
    h = rng.normal(size=(20, F)).astype(np.float32)
    m, U, v, q = (
        getattr(domain, name).numpy().astype(np.float64) for name in ("center", "axes", "variances", "residual")
    )
    # As one full F x F matrix, without the short cut over the K axes.
    beside = np.eye(F) - U.T @ U
    inverse = U.T @ np.diag(1 / v) @ U + beside.T @ beside / q
    expected = [np.sqrt((x - m) @ inverse @ (x - m) / 2) for x in h.astype(np.float64)]
    np.testing.assert_allclose(domain.distance(torch.from_numpy(h)).numpy(), expected, rtol=1e-4)


def test_score_reads_the_quantiles_and_grows_for_ever(domain: Domain) -> None:
    distance = torch.linspace(0, 6, 2001)
    score = domain.score(distance).numpy()
    shares = np.linspace(0, BODY, N_KNOTS)
    last = float(domain.knots[-1])
    body = distance.numpy() <= last
    np.testing.assert_allclose(score[body], np.interp(distance.numpy()[body], domain.knots.numpy(), shares), atol=1e-5)
    expected = 1 - (1 - BODY) * np.exp(-(distance.numpy()[~body] - last) / 0.2)
    np.testing.assert_allclose(score[~body], expected, atol=1e-5)
    assert score[0] == 0
    assert score[-1] <= 1
    assert (np.diff(score) >= 0).all()
    assert (np.diff(score[distance.numpy() < 2]) > 0).all()


def test_quantiles_that_are_equal_and_values_that_are_none(domain: Domain) -> None:
    domain.knots[10:20] = domain.knots[10].item()
    tie = domain.knots[10].item()
    low, at, above = domain.score(torch.tensor([tie - 1e-4, tie, tie + 1e-4])).numpy()
    assert low <= at <= above
    assert np.isnan(domain.score(torch.tensor([torch.nan])).item())
    assert domain.score(torch.tensor([torch.inf])).item() == 1


def test_a_model_without_a_domain_predicts_as_before_and_knows_no_score(model: CPNN, patches: np.ndarray) -> None:
    with torch.no_grad():
        x = model.normalize(patches)
        weights, programs = model(x)
        prediction = model.predict(x)
    assert model.domain is None
    assert torch.equal(prediction.weights, weights)
    assert torch.equal(prediction.programs, programs)
    assert prediction.out_of_domain.shape == (len(patches),)
    assert prediction.out_of_domain.isnan().all()


def test_the_score_comes_from_the_features_of_the_same_pass(aware: CPNN, patches: np.ndarray) -> None:
    with torch.no_grad():
        x = aware.normalize(patches)
        passes = []
        aware.backbone.register_forward_hook(lambda *_: passes.append(1))
        prediction = aware.predict(x)
        assert len(passes) == 1
        again = aware.domain(aware.features(x))
        torch.testing.assert_close(prediction.out_of_domain, again, rtol=0, atol=1e-4)
        assert torch.equal(prediction.weights, aware(x)[0])
    score = prediction.out_of_domain
    assert ((score > 0) & (score < 1)).all()
    assert len(score.unique()) > 1


def test_inference_on_a_cpu_keeps_the_score(aware: CPNN, patches: np.ndarray) -> None:
    with torch.no_grad():
        x = aware.normalize(patches)
        exact = aware.predict(x).out_of_domain
        fused = fuse_for_inference(aware).predict(x).out_of_domain
        rough = fuse_for_inference(aware, bfloat16=True).predict(x).out_of_domain
    torch.testing.assert_close(fused, exact, atol=1e-3, rtol=0)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)


def test_symmetric_score_is_the_mean_over_the_eight(aware: CPNN, patches: np.ndarray) -> None:
    with torch.no_grad():
        x = aware.normalize(patches)
        score = predict_symmetric(aware, x).out_of_domain
        views = [aware.predict(v.rot90(k, (2, 3))).out_of_domain for v in (x, x.flip(3)) for k in range(4)]
    torch.testing.assert_close(score, torch.stack(views).mean(dim=0))


@pytest.mark.parametrize("half", [False, True])
def test_a_checkpoint_brings_it_back(aware: CPNN, patches: np.ndarray, tmp_path: Path, half: bool) -> None:
    path = tmp_path / "m.safetensors"
    save_model(aware, path, half=half)
    card = read_card(path)
    assert card["domain"] == {"n_axes": K}
    assert card["format_version"] == 2
    again = load_model(path)
    with torch.no_grad():
        x = aware.normalize(patches)
        expected, found = aware.predict(x).out_of_domain, again.predict(x).out_of_domain
    torch.testing.assert_close(found, expected, atol=0.02 if half else 0, rtol=0)
    assert half or again.fingerprint == aware.fingerprint


def test_it_costs_little_room_and_is_part_of_the_fingerprint(aware: CPNN, tmp_path: Path) -> None:
    save_model(aware, tmp_path / "with.safetensors", half=True)
    named = aware.fingerprint
    aware.domain = None
    save_model(aware, tmp_path / "without.safetensors", half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("with", "without")]
    assert sizes[0] - sizes[1] < 2 * F * K + 4 * F + 3000
    assert named != aware.fingerprint
    assert read_card(tmp_path / "without.safetensors")["format_version"] == 1  # what older programs can read
    assert load_model(tmp_path / "without.safetensors").domain is None


def test_a_card_that_does_not_fit_its_domain_is_one_sentence(aware: CPNN, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    aware.domain.axes = aware.domain.axes[:, :-1]
    save_model(aware, path)
    with pytest.raises(CheckpointError, match=r"domain\.axes has shape"):
        load_model(path)


def test_a_linear_head_has_it_too(linear_model: CPNN, domain: Domain, patches: np.ndarray) -> None:
    linear_model.domain = domain
    with torch.no_grad():
        prediction = linear_model.predict(linear_model.normalize(patches))
    assert prediction.weights.shape == (len(patches), 0)
    torch.testing.assert_close(prediction.out_of_domain, domain(prediction.programs), rtol=0, atol=1e-4)
