"""Correlations against scipy, one column at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from napari_cpnn.errors import TrainingError
from napari_cpnn.training.metrics import mean_correlations, pearson, spearman


@pytest.fixture
def tables() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    measured = rng.poisson(1.0, (37, 2100)).astype(np.float32)  # many ties, and more genes than one block
    predicted = (measured * rng.normal(size=2100) + rng.normal(size=measured.shape)).astype(np.float32)
    return predicted, measured


@pytest.mark.parametrize(("ours", "theirs"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)])
def test_equals_scipy_per_column(tables, ours, theirs):
    predicted, measured = tables
    wanted = [theirs(predicted[:, g].astype(float), measured[:, g].astype(float))[0] for g in range(2100)]
    np.testing.assert_allclose(ours(predicted, measured), wanted, atol=1e-12)


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_constant_or_infinite_columns_have_no_correlation(correlation):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(10, 4)), rng.normal(size=(10, 4))
    a[:, 0] = 0.1  # the mean of ten 0.1 is not exactly 0.1
    b[:, 1] = 3.0
    b[4, 2] = np.inf
    result = correlation(a, b)
    assert np.isnan(result[:3]).all()
    assert np.isfinite(result[3])


def test_tiny_and_huge_scales_do_not_matter():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    np.testing.assert_allclose(pearson(a * 1e-170, b * 1e170), pearson(a, b), rtol=1e-9)


def test_one_spot_has_no_correlation():
    assert np.isnan(pearson(np.ones((1, 3)), np.ones((1, 3)))).all()


def test_shapes_must_agree():
    with pytest.raises(TrainingError, match="cannot be correlated"):
        pearson(np.ones((3, 2)), np.ones((3, 4)))


def test_mean_leaves_constant_genes_out():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    b[:, 1] = 0
    summary = mean_correlations(a, b)
    assert summary["n_genes"] == 2
    assert summary["pcc"] == pytest.approx(np.mean([stats.pearsonr(a[:, g], b[:, g])[0] for g in (0, 2)]))
    assert summary["scc"] == pytest.approx(np.mean([stats.spearmanr(a[:, g], b[:, g])[0] for g in (0, 2)]))


def test_no_gene_varies():
    summary = mean_correlations(np.zeros((5, 2)), np.ones((5, 2)))
    assert summary["n_genes"] == 0
    assert np.isnan(summary["pcc"])
