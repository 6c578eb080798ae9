"""The regression: its likelihood and mode against scipy, cell by cell, and what it recovers of a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import nbinom

from napari_cpnn.prototypes.gene_block import FREE_SHAPE, HELD_SHAPE, Shared
from napari_cpnn.prototypes.regression import RegressionFit, _Problem, fit_regression, quality
from napari_cpnn.prototypes.statistics import GroupStatistics, count_statistics
from napari_cpnn.settings import PrototypeSettings

LOOSE = PrototypeSettings(min_genes=0, min_cells=1, max_mito=1.0)


def statistics_of(counts: np.ndarray, kind: np.ndarray, batch: np.ndarray | None) -> GroupStatistics:
    genes = [f"G{i}" for i in range(counts.shape[1])]
    batches = None if batch is None else pd.Series(batch).astype(str)
    (found,) = count_statistics(counts, genes, [pd.Series(kind).astype(str)], batches, LOOSE)
    return found.select_genes(np.flatnonzero(counts.sum(axis=0)))


def small(n: int = 60, C: int = 3, D: int = 2, G: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(C, size=n), rng.integers(D, size=n)
    rates = rng.gamma(1.0, 2.0, (C, G)) + 0.2
    mean = rng.uniform(0.5, 1.5, D)[batch, None] * (rates[kind] + 0.3 * batch[:, None])
    counts = rng.negative_binomial(2.0, 2.0 / (2.0 + mean))
    counts[counts.sum(axis=1) == 0, 0] = 1
    return counts, kind, batch


def constant(counts: np.ndarray) -> float:
    """What the sufficient statistics leave out: ``sum log(count!)``."""
    return float(torch.lgamma(torch.as_tensor(counts + 1.0, dtype=torch.float64)).sum())


def over_cells(fit: RegressionFit, counts: np.ndarray, kind: np.ndarray, batch: np.ndarray) -> float:
    """The likelihood, cell by cell, by scipy."""
    mean = fit.scales[batch, None] * (fit.rates[kind] + fit.background[batch])
    theta = fit.dispersion
    return float(nbinom.logpmf(counts, theta, theta / (theta + mean)).sum())


@pytest.mark.parametrize("n_batches", [1, 2])
def test_likelihood_is_that_of_the_cells(n_batches: int) -> None:
    counts, kind, batch = small(D=n_batches)
    for iterations in (1, 3, 100):
        fit = fit_regression(statistics_of(counts, kind, batch), max_iterations=iterations)
        assert fit.log_likelihood - constant(counts) == pytest.approx(over_cells(fit, counts, kind, batch), rel=1e-10)


def test_derivatives_of_the_genes_are_those_of_their_posterior() -> None:
    problem = _Problem(statistics_of(*small()), 0.7, "cpu")
    (block,), shared = problem._blocks, problem._shared
    generator = torch.Generator().manual_seed(0)
    for name in ("u", "e", "h"):
        value = getattr(block, name)
        setattr(block, name, value + 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    d = block.derivatives(shared)
    at = [x.clone().requires_grad_() for x in (block.u, block.e, block.h)]
    u, e, h = torch.autograd.grad(block.value(shared, *at).sum(), at)
    torch.testing.assert_close(d.u, u, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(d.e, e, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(d.theta - (1 - (-block.h / 2).exp()) / 2, h, rtol=1e-8, atol=1e-9)
    for g in range(block.h.shape[0]):
        pick = [x.clone() for x in (block.u, block.e, block.h)]

        def of_one(x: torch.Tensor, g: int = g, pick: list[torch.Tensor] = pick) -> torch.Tensor:
            parts = [p.clone() for p in pick]
            parts[0][:, g], parts[1][:, g], parts[2][g] = x[:3], x[3:5], x[5]
            return block.value(shared, *parts)[g]

        hessian = -torch.autograd.functional.hessian(
            of_one, torch.cat([block.u[:, g], block.e[:, g], block.h[g : g + 1]])
        )
        torch.testing.assert_close(torch.diag(d.uu[:, g]), hessian[:3, :3], rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(torch.diag(d.ee[:, g]), hessian[3:5, 3:5], rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(d.ue[:, :, g], hessian[:3, 3:5], rtol=1e-7, atol=1e-8)
        likely = d.theta_likelihood[g] + d.theta_prior[g]
        if hessian[5, 5] > d.theta_prior[g]:  # else a positive number stands in
            torch.testing.assert_close(likely, hessian[5, 5], rtol=1e-7, atol=1e-8)


def test_gradient_of_what_is_shared() -> None:
    problem = _Problem(statistics_of(*small()), 1.0, "cpu")
    (block,) = problem._blocks
    logs = problem._log_shared.clone().requires_grad_()
    values = logs.exp()
    block.log_likelihood(Shared(values[:2], values[2:4], values[4]), block.u, block.e, block.h).sum().backward()
    d = block.derivatives(problem._shared)
    assert logs.grad is not None
    torch.testing.assert_close(d.residual.sum((0, 2)), logs.grad[:2])
    torch.testing.assert_close((d.residual * d.share).sum((0, 2)), logs.grad[2:4])
    torch.testing.assert_close(2 * d.theta.sum(), logs.grad[4])


def log_posterior(
    x: np.ndarray,
    cells: tuple[np.ndarray, ...],
    priors: tuple[np.ndarray, ...],
    rho: np.ndarray,
    shape: float,
    k: np.ndarray | float = 1.0,
) -> float:
    """The model as its docstring writes it, with the densities of logarithms; nothing shared with the package."""
    counts, kind, batch = cells
    mean_t, mean_a = priors
    (C, G), D = mean_t.shape, len(mean_a)
    t, b, root, scale, phi = np.split(np.exp(x), np.cumsum([C * G, D * G, G, D]))
    t, b, phi = t.reshape(C, G), b.reshape(D, G), phi[0]
    theta = root**-2.0
    mean = scale[batch, None] * (t[kind] + b[batch])
    value = nbinom.logpmf(counts, theta, theta / (theta + mean)).sum() + (k * (np.log(t) - t / mean_t)).sum()
    rate = shape / (rho[:, None] * mean_a)
    value += (shape * np.log(rate * b) - rate * b).sum()
    value += (np.log(phi * root) - phi * root).sum() + 9 * np.log(phi) - 3 * phi
    return float(value + (np.log(scale) - scale).sum() + (np.log(rho) - 100 * rho).sum())


def as_logs(fit: RegressionFit) -> np.ndarray:
    parts = (fit.rates, fit.background, fit.dispersion**-0.5, fit.scales, np.array([fit.phi]))
    return np.log(np.concatenate([part.ravel() for part in parts]))


@pytest.mark.parametrize("prior_counts", [None, 1.0])
def test_the_mode_is_where_scipy_finds_it(prior_counts: float | None) -> None:
    cells = small(n=80, G=4)
    stats = statistics_of(*cells)
    block = _Problem(stats, 1.0, "cpu")._blocks[0]
    priors = (block.mean.numpy(), block.ambient.numpy())
    fit = fit_regression(stats, prior_counts, tolerance=1e-10)
    assert fit.converged
    assert (fit.shape == 1).all() == (prior_counts == 1)
    mode = as_logs(fit)
    best = minimize(
        lambda x: -log_posterior(x, cells, priors, fit.ambient, FREE_SHAPE, fit.shape),
        mode + 0.1,
        options={"gtol": 1e-4},
    )
    np.testing.assert_allclose(mode, best.x, atol=2e-3)
    assert log_posterior(mode, cells, priors, fit.ambient, FREE_SHAPE, fit.shape) >= -best.fun - 1e-6


def test_ambient_shares_are_at_the_mode_with_background_held() -> None:
    cells = small(n=80, G=4)
    problem = _Problem(statistics_of(*cells), 1.0, "cpu")
    assert problem.climb(200, 1e-10)[1]
    block, fit = problem._blocks[0], problem.result(0, True)
    mode = np.concatenate([as_logs(fit), np.log(fit.ambient)])

    def of(x: np.ndarray) -> float:
        priors = (block.mean.numpy(), block.ambient.numpy())
        return log_posterior(x[:-2], cells, priors, np.exp(x[-2:]), HELD_SHAPE)

    # Background and its share move together: by the share alone the posterior is as steep as its prior is.
    steps = np.eye(len(mode)) * 1e-4
    for d in range(2):
        steps[-2 + d, 12 + 4 * d : 16 + 4 * d] = 1e-4
    slopes = [(of(mode + step) - of(mode - step)) / 2e-4 for step in steps]
    np.testing.assert_allclose(slopes, 0, atol=1e-3)


def simulated(ambient: tuple[float, float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Cells of six types in five batches: depth, ambient RNA of the batch, overdispersion. Truth last."""
    rng = np.random.default_rng(seed)
    C, D, G, n = 6, 5, 400, 1200
    T = (rng.gamma(0.4, size=G) + 1e-3) * np.exp(rng.normal(0, 1, (C, G)) * (rng.random((C, G)) < 0.4))
    T /= T.sum(axis=1, keepdims=True)
    mix = 0.9 * rng.dirichlet(np.full(C, 0.6), D) + 0.1 / C
    batch = rng.integers(D, size=n)
    kind = np.array([rng.choice(C, p=mix[d]) for d in batch])
    rates = T * 800 * np.exp(rng.normal(0, 0.3, (C, 1)))
    background = rng.uniform(*ambient, (D, 1)) * (mix @ rates)
    mean = np.exp(rng.normal(0, 0.4, D))[batch, None] * (rates[kind] + background[batch])
    theta = rng.gamma(3, 0.7, G) + 0.2
    return rng.poisson(rng.gamma(theta, mean / theta)), kind, batch, T


def divergence(T: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence per type, in nats."""
    estimate = estimate / estimate.sum(axis=1, keepdims=True)
    return (T * np.log(T / np.maximum(estimate, 1e-9))).sum(axis=1)


@pytest.mark.parametrize(("ambient", "better"), [((0.0, 0.4), 0.6), ((0.0, 0.0), 1.0)])
def test_recovers_the_truth_better_than_the_mean(ambient: tuple[float, float], better: float) -> None:
    counts, kind, batch, T = simulated(ambient)
    stats = statistics_of(counts, kind, batch)
    fit = fit_regression(stats)
    assert fit.converged
    assert fit.iterations < 80
    T = T[:, counts.sum(axis=0) > 0]
    ours, mean = divergence(T, fit.rates), divergence(T, stats.per_type()[1])
    assert (ours < mean).all()
    assert ours.mean() < better * mean.mean()
    report = quality(fit, stats)
    assert report["mean_correlation"] > 0.95
    assert report["variance_correlation"] > 0.99


def test_depth_of_batches_is_found() -> None:
    rng = np.random.default_rng(0)
    counts, kind, _, _ = simulated((0.0, 0.0))
    batch = rng.integers(2, size=len(counts))
    counts = np.where(batch[:, None] == 1, rng.binomial(counts, 0.4), counts)
    fit = fit_regression(statistics_of(counts, kind, batch))
    assert fit.scales[1] / fit.scales[0] == pytest.approx(0.4, rel=0.05)
    assert (fit.ambient < 0.02).all()


def test_one_batch_has_no_background_and_is_the_mean_but_for_the_prior() -> None:
    counts, kind, _ = small(n=200)
    stats = statistics_of(counts, kind, None)
    fit = fit_regression(stats, tolerance=1e-10)
    assert fit.scales.tolist() == [1]
    assert not fit.background.any()
    # d/du: theta (Y - n t) / (theta + t) + k (1 - t / m) = 0
    n, Y = stats.per_type()
    t, m = fit.rates, Y.sum(axis=1, keepdims=True) / n[:, None] * Y.sum(axis=0) / Y.sum()
    slopes = fit.dispersion * (Y - n[:, None] * t) / (fit.dispersion + t)
    np.testing.assert_allclose(slopes, fit.shape * (t / m - 1), atol=1e-4)
    loose = fit_regression(stats, prior_counts=1e-3)
    np.testing.assert_allclose(loose.rates, Y / n[:, None], rtol=2e-3)


def test_dispersion_of_genes_is_found() -> None:
    rng = np.random.default_rng(0)
    theta = np.array([0.3, 1.0, 5.0, 50.0])
    mean = np.array([2.0, 4.0])[:, None] * np.ones(4)
    kind = np.repeat([0, 1], 4000)
    fit = fit_regression(statistics_of(rng.poisson(rng.gamma(theta, mean[kind] / theta)), kind, None))
    np.testing.assert_allclose(fit.dispersion[:3], theta[:3], rtol=0.1)
    assert fit.dispersion[3] > 15


def test_blocks_of_genes_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, kind, batch, _ = simulated((0.0, 0.3))
    stats = statistics_of(counts[:300, :60], kind[:300], batch[:300])
    whole = fit_regression(stats, tolerance=1e-9)
    monkeypatch.setattr("napari_cpnn.prototypes.regression._CPU_BLOCK", 6 * 5 * 7)
    parts = fit_regression(stats, tolerance=1e-9)
    np.testing.assert_allclose(parts.rates, whole.rates, rtol=1e-5)
    np.testing.assert_allclose(parts.background, whole.background, rtol=1e-5)


def test_odd_designs_are_fitted() -> None:
    """A batch of one type, a type of one cell, a batch of one cell, a batch that alone has its type."""
    counts, kind, batch, _ = simulated((0.0, 0.3))
    counts, kind, batch = counts[:200], kind[:200].copy(), batch[:200].copy()
    kind[batch == 4] = 2
    kind[0] = 6
    batch[1], kind[1] = 5, 0
    kind[batch == 3] = 7
    fit = fit_regression(statistics_of(counts, kind, batch))
    assert fit.converged
    assert all(np.isfinite(part).all() for part in (fit.rates, fit.background, fit.scales, fit.dispersion))
    # What only one batch has keeps the shape that it has there: background is taken from it in proportion.
    alone = counts[kind == 7].sum(axis=0) + 0.0
    seen = alone > 20
    ratio = fit.rates[7, seen[counts.sum(axis=0) > 0]] / alone[seen]
    assert ratio.std() / ratio.mean() < 0.1


def test_many_iterations_are_not_needed_and_too_few_are_said() -> None:
    fit = fit_regression(statistics_of(*small()), max_iterations=2)
    assert not fit.converged
    assert fit.iterations == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_and_cpu_agree() -> None:
    counts, kind, batch, _ = simulated((0.0, 0.3))
    stats = statistics_of(counts, kind, batch)
    one, two = fit_regression(stats), fit_regression(stats, device="cuda")
    np.testing.assert_allclose(one.rates, two.rates, rtol=1e-4)
