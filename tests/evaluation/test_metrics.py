"""Correlations against scipy, one column at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation.metrics import (
    column_ranks,
    mean_correlations,
    partial_pearson,
    partial_spearman,
    pearson,
    spearman,
)


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


def given(columns: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Residuals of a least squares fit, by numpy's solver."""
    design = np.column_stack([np.ones(len(z)), z])
    return columns - design @ np.linalg.lstsq(design, columns, rcond=None)[0]


def test_partial_correlations_are_those_of_least_squares_residuals(tables):
    predicted, measured = (t[:, :60].astype(float) for t in tables)
    z = np.random.default_rng(4).normal(size=len(predicted)) + predicted[:, 0]
    wanted = [stats.pearsonr(given(predicted, z)[:, g], given(measured, z)[:, g])[0] for g in range(60)]
    np.testing.assert_allclose(partial_pearson(predicted, measured, z), wanted, atol=1e-10)
    ranked = [stats.rankdata(t, axis=0) for t in (predicted, measured, z)]
    wanted = [
        stats.pearsonr(given(ranked[0], ranked[2])[:, g], given(ranked[1], ranked[2])[:, g])[0] for g in range(60)
    ]
    np.testing.assert_allclose(partial_spearman(predicted, measured, z), wanted, atol=1e-10)


def test_partial_correlation_equals_the_formula_of_three_correlations(tables):
    predicted, measured = (t[:, :60].astype(float) for t in tables)
    z = np.random.default_rng(5).normal(size=(len(predicted), 1)) + measured[:, :1]
    ab, az, bz = (
        pearson(x, np.broadcast_to(y, x.shape)) for x, y in ((predicted, measured), (predicted, z), (measured, z))
    )
    wanted = (ab - az * bz) / np.sqrt((1 - az**2) * (1 - bz**2))
    np.testing.assert_allclose(partial_pearson(predicted, measured, z[:, 0]), wanted, atol=1e-9)


@pytest.mark.parametrize("correlation", [partial_pearson, partial_spearman])
def test_what_follows_the_covariate_alone_has_no_partial_correlation(correlation):
    rng = np.random.default_rng(6)
    z = rng.normal(size=40)
    b = rng.normal(size=(40, 3))
    a = np.column_stack([2 * z + 1, z + rng.normal(size=40), np.full(40, 0.1)]).astype(np.float32)
    result = correlation(a, b, z)
    assert np.isnan(result[[0, 2]]).all()
    assert np.isfinite(result[1])


def test_a_constant_column_has_no_partial_correlation_whatever_its_value():
    rng = np.random.default_rng(0)
    constant = np.repeat(rng.normal(size=(1, 50)) / 3, 37, axis=0)  # means of such columns differ from them by rounding
    for correlation in (partial_pearson, partial_spearman):
        assert np.isnan(correlation(constant, rng.normal(size=(37, 50)), rng.normal(size=37))).all()


def test_a_constant_covariate_takes_nothing_away(tables):
    constant = np.full(len(tables[0]), 3.0)
    np.testing.assert_allclose(partial_pearson(*tables, constant), pearson(*tables), atol=1e-12)
    np.testing.assert_allclose(partial_spearman(*tables, constant), spearman(*tables), atol=1e-12)


def test_partial_correlation_needs_three_spots_and_a_number_for_each():
    rng = np.random.default_rng(7)
    assert np.isnan(partial_pearson(rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), [1.0, 2.0])).all()
    for covariate in ([1.0, 2.0], [1.0, 2.0, np.nan]):
        with pytest.raises(TrainingError, match="one number per spot"):
            partial_pearson(np.ones((3, 2)), np.ones((3, 2)), covariate)


def test_ranks_are_those_of_scipy_with_and_without_ties(tables):
    predicted, measured = (table.copy() for table in tables)
    predicted[3, 5], measured[:, 7] = np.nan, 1.0
    for table in (predicted, measured):
        wanted = stats.rankdata(table, axis=0)
        wanted[:, ~np.isfinite(table).all(axis=0)] = np.nan
        np.testing.assert_array_equal(column_ranks(table), wanted)


def test_ranks_that_are_known_change_no_mean(tables):
    predicted, measured = tables
    measured = measured.copy()
    measured[:, 11] = 0.0
    known = mean_correlations(predicted, measured, column_ranks(measured))
    assert known == mean_correlations(predicted, measured)
    assert known["n_genes"] == 2099


def test_a_correlation_with_known_ranks_is_that_of_scipy_with_and_without_ties(tables):
    predicted, measured = (table[:, :6].copy() for table in tables)
    predicted[:, 1] = np.round(predicted[:, 1])
    predicted[2, 2], predicted[3, 3], predicted[:, 4] = np.nan, np.inf, 0.5
    ranks = column_ranks(measured)
    for gene in range(6):
        one = [gene]
        found = mean_correlations(predicted[:, one], measured[:, one], ranks[:, one])["scc"]
        wanted = np.nan if 2 <= gene <= 4 else stats.spearmanr(predicted[:, gene], measured[:, gene]).statistic
        np.testing.assert_allclose(found, wanted, rtol=1e-12, err_msg=str(gene))
