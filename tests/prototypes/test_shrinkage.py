"""Shapes of the genes' priors: a grid of negative binomials, and types drawn from known ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nbinom

from napari_cpnn.prototypes.regression import fit_regression
from napari_cpnn.prototypes.shrinkage import SHAPES, estimate_shapes
from napari_cpnn.prototypes.statistics import count_statistics
from napari_cpnn.settings import PrototypeSettings


def test_likelihood_and_weights_are_those_of_a_grid_of_negative_binomials() -> None:
    rng = np.random.default_rng(0)
    expected = rng.gamma(2.0, 20.0, (6, 40))
    counts = rng.poisson(expected * rng.gamma(1.0, 1.0, expected.shape))
    k = SHAPES[:, None, None]
    likelihood = np.exp(nbinom.logpmf(counts, k, k / (k + expected)).sum(axis=1))
    weights = np.full(len(SHAPES), 1 / len(SHAPES))
    for _ in range(30):
        weights = (likelihood * weights[:, None] / (weights @ likelihood)).mean(axis=1)
    posterior = likelihood * weights[:, None] / (weights @ likelihood)
    np.testing.assert_allclose(estimate_shapes(counts, expected), 1 / (posterior.T @ (1 / SHAPES)), rtol=1e-9)


@pytest.mark.parametrize("true", [0.2, 1.0, 8.0])
def test_shapes_that_types_were_drawn_from_are_found(true: float) -> None:
    rng = np.random.default_rng(0)
    expected = np.full((12, 300), 80.0)
    counts = rng.poisson(expected * rng.gamma(true, 1 / true, expected.shape))
    assert np.median(1 / estimate_shapes(counts, expected)) == pytest.approx(1 / true, rel=0.2)


def test_markers_and_housekeeping_genes_of_one_reference_are_told_apart() -> None:
    """Half the genes are alike in all types, half are on or off: each half gets a shape of its own."""
    rng = np.random.default_rng(0)
    C, G = 8, 400
    factor = np.where(np.arange(G) < G // 2, 1.0, rng.random((C, G)) < 0.25)
    T = rng.gamma(0.8, size=G) * (0.02 + factor)
    T /= T.sum(axis=1, keepdims=True)
    kind = np.repeat(np.arange(C), [200, 100, 100, 50, 50, 25, 12, 12])
    mean = 600 * T[kind]
    counts = rng.poisson(rng.gamma(2.0, mean / 2.0))
    counts[0, counts.sum(axis=0) == 0] = 1
    loose = PrototypeSettings(min_genes=0, min_cells=1, max_mito=1.0)
    labels = pd.Series(kind).astype(str)
    (stats,) = count_statistics(counts, [f"G{i}" for i in range(G)], [labels], None, loose)
    fit, fixed = fit_regression(stats), fit_regression(stats, prior_counts=1.0)
    assert fit.converged
    assert np.median(fit.shape[: G // 2]) > 10 * np.median(fit.shape[G // 2 :])

    def divergence(estimate: np.ndarray) -> np.ndarray:
        estimate = estimate / estimate.sum(axis=1, keepdims=True)
        return (T * np.log(T / np.maximum(estimate, 1e-9))).sum(axis=1)

    ours, before, mean_profile = (divergence(x) for x in (fit.rates, fixed.rates, stats.per_type()[1]))
    assert ours.mean() < 0.8 * before.mean()
    assert ours.mean() < 0.5 * mean_profile.mean()
