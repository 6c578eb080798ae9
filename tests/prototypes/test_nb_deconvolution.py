"""The negative binomial model: likelihood and optimum computed another way, and the truth of simulated spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.optimize import minimize
from scipy.special import gammaln
from scipy.stats import gamma, nbinom

from napari_cpnn.errors import SettingsError
from napari_cpnn.prototypes.linear_systems import solve_definite
from napari_cpnn.prototypes.nb_deconvolution import NbFit, _Model, fit_nb
from napari_cpnn.prototypes.nnls import nnls_abundances
from napari_cpnn.settings import DeconvolutionSettings


@dataclass
class World:
    """Spots drawn from the model."""

    shares: np.ndarray
    profiles: np.ndarray
    counts: np.ndarray
    gene_scale: np.ndarray
    mean: np.ndarray

    @property
    def depth(self) -> np.ndarray:
        return self.counts.sum(axis=1).astype(float)

    def fit(self, **settings: float) -> NbFit:
        return fit_nb(sp.csr_matrix(self.counts), self.profiles, self.depth, DeconvolutionSettings("nb", **settings))


def world(seed=0, S=60, C=5, G=400, depth=4000.0, scale_sd=0.5, background=0.1, theta=5.0, sparse=0.4) -> World:
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.4, size=(C, G)) * rng.lognormal(0, 1, G) + 1e-3
    profiles /= profiles.sum(axis=1, keepdims=True)
    shares = rng.dirichlet(np.full(C, sparse), S)
    scale = rng.gamma(scale_sd**-2, scale_sd**2, G) if scale_sd else np.ones(G)
    rate = scale * (shares @ profiles)
    rate = (1 - background) * rate / rate.sum(axis=1, keepdims=True)
    rate += background * rate.mean(axis=0) / (1 - background)
    mean = rate * depth * rng.lognormal(0, 0.3, (S, 1))
    counts = rng.poisson(mean * rng.gamma(theta, 1 / theta, (S, G)))
    kept = counts.sum(axis=0) > 0
    return World(shares, profiles[:, kept], counts[:, kept], scale[kept], mean[:, kept])


def shares_of(fit: NbFit) -> np.ndarray:
    return fit.abundances / fit.abundances.sum(axis=1, keepdims=True)


def model_of(w: World, **settings: float) -> _Model:
    return _Model(sp.csr_matrix(w.counts), w.profiles, w.depth, DeconvolutionSettings("nb", **settings), "cpu")


def log_posterior(w: World, logs: dict[str, np.ndarray], settings: DeconvolutionSettings) -> float:
    """From scipy's densities: each parameter's density is that of its logarithm, hence ``+ log x``."""
    a, m, b, theta, u = (np.exp(logs[name]) for name in ("w", "m", "b", "theta", "u"))
    y = w.depth[:, None]
    mean = y * ((a @ w.profiles) * m + b)
    total = nbinom.logpmf(w.counts, theta, theta / (theta + mean)).sum()
    k = settings.gene_scale_sd**-2
    total += (gamma.logpdf(m, k, scale=1 / k) + np.log(m)).sum()
    ambient = settings.background * w.counts.sum(axis=0) / w.counts.sum()
    total += (gamma.logpdf(b, 1, scale=ambient) + np.log(b)).sum()
    total += (gamma.logpdf(a, settings.abundance_shape, scale=u / settings.abundance_shape) + np.log(a)).sum()
    inverse = theta**-0.5
    total += (-3 * inverse + np.log(inverse)).sum()
    return float(total)


def random_logs(w: World, rng: np.random.Generator) -> dict[str, np.ndarray]:
    S, (C, G) = len(w.counts), w.profiles.shape
    abundances = rng.normal(-1, 0.5, (S, C))
    ambient = 0.1 * w.counts.sum(axis=0) / w.counts.sum()
    return {
        "w": abundances,
        "m": rng.normal(0, 0.3, G),
        "b": np.log(ambient) + rng.normal(0, 0.3, G),
        "theta": rng.normal(1, 0.5, G),
        "u": np.log(np.exp(abundances).mean(axis=0)),
    }


def put(model: _Model, logs: dict[str, np.ndarray]) -> None:
    for name in ("w", "m", "b", "theta"):
        setattr(model, name, torch.as_tensor(np.exp(logs[name]), dtype=torch.float32))


def test_posterior_is_that_of_scipy_up_to_a_constant():
    w = world(S=7, C=3, G=20)
    settings, model, rng = DeconvolutionSettings("nb"), model_of(w), np.random.default_rng(1)
    differences = []
    for _ in range(4):
        logs = random_logs(w, rng)
        put(model, logs)
        differences.append(log_posterior(w, logs, settings) - model.value())
    np.testing.assert_allclose(differences, differences[0], atol=0.02)
    assert abs(model.value()) > 1000  # of which two hundredths are rounding in float32


def test_steps_climb_and_end_at_the_optimum_that_scipy_finds():
    w = world(S=4, C=2, G=6, depth=300)
    settings = DeconvolutionSettings("nb", tolerance=1e-6, max_iterations=500)
    model = model_of(w)
    values = [model.value()]
    for _ in range(30):
        model.spot_step()
        model.gene_step()
        values.append(model.value())
    assert (np.diff(values) > -1e-3).all()

    shapes = {name: x.shape for name, x in random_logs(w, np.random.default_rng(0)).items()}
    names, sizes = list(shapes), [int(np.prod(s)) for s in shapes.values()]

    def unpack(x: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.split(x, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shapes[name]) for name, part in zip(names, parts, strict=True)}

    fit = w.fit(tolerance=1e-6, max_iterations=500)
    found = {
        "w": np.log(fit.abundances), "m": np.log(fit.gene_scale), "b": np.log(fit.background),
        "theta": np.log(fit.dispersion), "u": np.log(fit.abundances.mean(axis=0)),
    }  # fmt: skip
    start = random_logs(w, np.random.default_rng(2))
    best = minimize(
        lambda x: -log_posterior(w, unpack(x), settings),
        np.concatenate([start[name].ravel() for name in names]),
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 500_000, "ftol": 1e-13, "gtol": 1e-6},
    )
    assert log_posterior(w, found, settings) == pytest.approx(-best.fun, abs=0.01)
    other = np.exp(unpack(best.x)["w"])
    np.testing.assert_allclose(shares_of(fit), other / other.sum(axis=1, keepdims=True), atol=0.01)


def test_better_than_least_squares_where_detection_differs_by_gene():
    errors = {"nb": [], "nnls": []}
    for seed in range(3):
        w = world(seed, scale_sd=0.7)
        least = nnls_abundances(sp.csr_matrix(w.counts), w.profiles)
        for name, shares in (("nb", shares_of(w.fit())), ("nnls", least / least.sum(axis=1, keepdims=True))):
            errors[name].append(np.abs(shares - w.shares).mean())
    assert np.mean(errors["nb"]) < 0.75 * np.mean(errors["nnls"])
    assert np.mean(errors["nb"]) < 0.04


def test_gene_scales_and_background_are_found():
    w = world(S=150, depth=20_000, scale_sd=0.5)
    fit = w.fit()
    seen = w.counts.mean(axis=0) > 5
    assert np.corrcoef(np.log(fit.gene_scale[seen]), np.log(w.gene_scale[seen]))[0, 1] > 0.9
    cells = (fit.abundances @ w.profiles) * fit.gene_scale
    np.testing.assert_allclose((w.depth[:, None] * (cells + fit.background)).sum(axis=1), w.depth, rtol=0.15)
    assert 0.05 < fit.background.sum() < 0.2


def test_without_ambient_counts_the_background_is_zero():
    fit = world(background=0.0).fit(background=0.0)
    assert not fit.background.any()
    assert fit.converged


def test_standard_deviations_cover_the_truth():
    """Of standardised errors about 68 % within 1 and 95 % within 2, and deeper spots are more certain."""
    inside, widths = [], []
    for seed in range(3):
        w = world(seed, S=80, G=300, depth=3000, scale_sd=0.5, sparse=1.0)
        fit = w.fit(abundance_shape=1.0, max_iterations=200)
        z = (shares_of(fit) - w.shares) / fit.share_sd
        inside.append([(np.abs(z) < 1).mean(), (np.abs(z) < 2).mean()])
        widths.append(fit.share_sd.mean())
    one, two = np.mean(inside, axis=0)
    assert 0.55 < one < 0.82
    assert 0.88 < two < 0.99
    deep = world(0, S=80, G=300, depth=30_000, scale_sd=0.5, sparse=1.0).fit(abundance_shape=1.0)
    assert deep.share_sd.mean() < widths[0]


def test_uncertainty_grows_with_what_is_not_known_of_the_genes():
    w = world(S=1, G=300, scale_sd=0.5)
    sure, unsure = w.fit(gene_scale_sd=0.05), w.fit(gene_scale_sd=0.8)
    assert (unsure.share_sd > sure.share_sd).all()


def test_blocks_of_spots_change_nothing(monkeypatch):
    w = world(S=30)
    whole = w.fit()
    monkeypatch.setattr("napari_cpnn.prototypes.nb_deconvolution._BLOCK", 7 * w.counts.shape[1])
    parts = w.fit()
    np.testing.assert_allclose(shares_of(parts), shares_of(whole), atol=2e-3)


def test_same_again_to_the_bit():
    w = world(S=20)
    first, second = w.fit(), w.fit()
    np.testing.assert_array_equal(first.abundances, second.abundances)
    np.testing.assert_array_equal(first.share_sd, second.share_sd)


def test_a_fit_that_is_cut_short_says_so():
    fit = world(S=10).fit(max_iterations=2)
    assert not fit.converged
    assert fit.iterations == 2


@pytest.mark.parametrize("case", ["one spot", "one type", "twins", "one count", "huge"])
def test_extremes_are_finite_and_settle(case):
    w = world(S=1 if case == "one spot" else 12, C=1 if case == "one type" else 3, G=150)
    if case == "twins":
        w.profiles[1] = w.profiles[0]
    if case == "one count":
        w.counts[0] = 0
        w.counts[0, 3] = 1
    if case == "huge":  # bulk depths
        w.counts = w.counts * 20_000
    fit = w.fit(max_iterations=300)
    assert fit.converged
    for values in (fit.abundances, fit.share_sd, fit.gene_scale, fit.background, fit.dispersion):
        assert np.isfinite(values).all()
    assert (fit.abundances > 0).all()
    if case == "one type":
        np.testing.assert_allclose(fit.share_sd, 0, atol=1e-6)


def test_gamma_terms_are_those_of_the_dense_table():
    from napari_cpnn.prototypes.gamma_terms import GammaTerms

    w = world(S=9, G=15)
    theta = torch.as_tensor(np.random.default_rng(0).gamma(2.0, size=w.counts.shape[1]))
    terms = GammaTerms(sp.csr_matrix(w.counts))
    expected = (gammaln(w.counts + theta.numpy()) - gammaln(theta.numpy())).sum(axis=0)
    np.testing.assert_allclose(terms.value(theta).numpy(), expected)
    theta.requires_grad_()
    (slope,) = torch.autograd.grad(terms.value(theta).sum(), theta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), theta)
    for found, wanted in zip(terms.derivatives(theta.detach()), (slope.detach(), curvature), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-8)


@pytest.mark.parametrize("settings", [{}, {"abundance_shape": 1e-9}, {"gene_scale_sd": 1e6}, {"background": 0}])
@pytest.mark.parametrize("n_genes", [1, 2, 3])
def test_fewer_genes_than_types_give_shares_or_a_sentence(n_genes: int, settings: dict[str, float]) -> None:
    w = world(S=40, C=5, G=60)
    few = np.argsort(-w.counts.sum(0))[:n_genes]
    given = DeconvolutionSettings(max_iterations=20, **settings)
    try:
        fit = fit_nb(sp.csr_matrix(w.counts[:, few]), w.profiles[:, few], w.depth, given)
    except SettingsError as error:
        assert "use more genes or the defaults" in str(error)  # noqa: PT017 -- either is right
    else:
        assert np.isfinite(shares_of(fit)).all()
        assert np.isfinite(fit.share_sd).all()


def test_systems_that_are_sound_are_solved_as_they_are() -> None:
    rng = np.random.default_rng(0)
    root = torch.as_tensor(rng.normal(size=(3, 4, 6)))
    sound = root @ root.mT
    singular = root.mT @ root
    right = torch.as_tensor(rng.normal(size=(3, 4, 1)))
    assert torch.equal(solve_definite(sound, right), torch.cholesky_solve(right, torch.linalg.cholesky(sound)))
    one_of_two = torch.stack([singular[0], torch.eye(6, dtype=torch.float64)])
    solved = solve_definite(one_of_two, torch.ones(2, 6, 1))
    assert torch.isfinite(solved).all()
    assert torch.equal(solved[1], torch.ones(6, 1, dtype=torch.float64))
    with pytest.raises(SettingsError, match="has no solution"):
        solve_definite(torch.full((2, 2), torch.nan), torch.ones(2, 1))
