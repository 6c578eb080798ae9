"""The noise ceiling against simulated tissue that is sequenced more than once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from napari_cpnn.errors import GenesError, SpotsError
from napari_cpnn.evaluation.metrics import pearson
from napari_cpnn.evaluation.noise_ceiling import noise_ceilings, spearman_brown, split_half_reliability


class Tissue:
    """Known mean counts, from which any number of measurements can be drawn."""

    def __init__(self, depth: float, depth_spread: float, n_spots: int = 300, n_genes: int = 400) -> None:
        self.rng = np.random.default_rng(0)
        base = self.rng.lognormal(0, 2, n_genes)
        varies = self.rng.normal(0, 1, (n_spots, 1)) * self.rng.uniform(0, 0.8, n_genes)
        shares = base * np.exp(varies)
        shares /= shares.sum(axis=1, keepdims=True)
        self.means = depth * np.exp(self.rng.normal(0, depth_spread, (n_spots, 1))) * shares

    def measure(self) -> np.ndarray:
        return self.rng.poisson(self.means)


def normalised(counts: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def residuals(counts: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(counts)), np.log(counts.sum(axis=1))])
    values = normalised(counts)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def table(counts: np.ndarray) -> AnnData:
    matrix = sparse.csr_matrix(counts)
    var = pd.DataFrame(index=[f"G{i}" for i in range(counts.shape[1])])
    return AnnData(matrix, var=var, layers={"counts": matrix.copy()})


@pytest.mark.parametrize(
    ("depth", "spread", "with_depth", "bias"),
    [
        (5000, 0.3, True, (-0.02, 0.02)),
        (5000, 0.3, False, (-0.02, 0.02)),
        (648, 0.7, True, (0.02, 0.1)),  # the nonlinearity of log1p: half the depth follows depth more
        (648, 0.7, False, (-0.02, 0.02)),
    ],
)
def test_reliability_is_the_correlation_of_two_measurements(depth, spread, with_depth, bias):
    tissue = Tissue(depth, spread)
    values = normalised if with_depth else residuals
    found, true = [], []
    for _ in range(6):
        first, second = tissue.measure(), tissue.measure()
        covariate = None if with_depth else np.log(first.sum(axis=1))
        found.append(split_half_reliability(sparse.csr_matrix(first), n_repeats=5, covariate=covariate))
        true.append(pearson(values(first), values(second)))
    well_counted = tissue.means.mean(axis=0) > 1
    ours, theirs = (np.mean([r[well_counted] for r in rs], axis=0) for rs in (found, true))
    assert bias[0] < (ours - theirs).mean() < bias[1]
    if depth > 1000:  # at less, six pairs tell the truth of a single gene too badly
        assert np.abs(ours - theirs).max() < 0.15
        assert np.corrcoef(ours, theirs)[0, 1] > 0.97


def test_the_truth_itself_correlates_as_the_ceiling_says():
    tissue = Tissue(depth=5000, depth_spread=0.0)
    counts = tissue.measure()
    truth = np.mean([normalised(tissue.measure()) for _ in range(40)], axis=0)
    ceiling = noise_ceilings(table(counts))["ceiling"].to_numpy()
    well_counted = tissue.means.mean(axis=0) > 2
    reached = pearson(truth, normalised(counts))[well_counted]
    assert np.nanmean(ceiling[well_counted]) == pytest.approx(np.nanmean(reached), abs=0.03)


def test_pure_noise_has_no_reliability():
    counts = np.random.default_rng(1).poisson(2.0, (200, 300))
    result = noise_ceilings(table(counts), n_repeats=5)
    assert abs(result["reliability"].mean()) < 0.02


def test_depth_alone_is_reliable_until_it_is_regressed_out():
    """The same composition everywhere, but spots of very different depth."""
    rng = np.random.default_rng(2)
    depth = rng.uniform(100, 1500, (300, 1))
    counts = rng.poisson(depth * rng.dirichlet(np.ones(200)))
    result = noise_ceilings(table(counts))
    assert result["reliability"].mean() > 0.1
    assert abs(result["reliability_given_depth"].mean()) < 0.03


def test_spearman_brown_predicts_the_sum_of_parallel_tests():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=200_000)
    halves = truth[:, None] + rng.normal(0, 1.5, (200_000, 4))
    r = np.corrcoef(halves[:, 0], halves[:, 1])[0, 1]
    wholes = halves[:, :2].sum(axis=1), halves[:, 2:].sum(axis=1)
    assert spearman_brown(r) == pytest.approx(np.corrcoef(*wholes)[0, 1], abs=0.01)
    np.testing.assert_allclose(spearman_brown([0, 1, -1, np.nan]), [0, 1, -1, np.nan])


def test_one_split_equals_the_plain_computation():
    counts = Tissue(depth=2000, depth_spread=0.5, n_spots=50, n_genes=30).measure()
    whole = sparse.csc_matrix(counts)
    data = np.random.default_rng(9).binomial(whole.data, 0.5)
    first = sparse.csc_matrix((data, whole.indices, whole.indptr), whole.shape).toarray()
    a, b = normalised(first), normalised(counts - first)
    wanted = np.array([3, 0, 17])
    covariance = np.array([np.cov(a[:, g], b[:, g]) for g in wanted])
    r = covariance[:, 0, 1] / ((covariance[:, 0, 0] + covariance[:, 1, 1]) / 2)
    found = split_half_reliability(whole, wanted, n_repeats=1, seed=9)
    np.testing.assert_allclose(found, spearman_brown(r), rtol=1e-9)


def test_seeded_and_in_the_order_asked_for():
    spots = table(Tissue(depth=500, depth_spread=0.2, n_spots=60).measure())
    once = noise_ceilings(spots, seed=4)
    pd.testing.assert_frame_equal(noise_ceilings(spots, ["G7", "G2"], seed=4), once.loc[["G7", "G2"]])
    assert not noise_ceilings(spots, seed=5).equals(once)


def test_empty_spots_and_genes_that_were_never_counted():
    counts = Tissue(depth=500, depth_spread=0.2, n_spots=60).measure()
    counts[:, 5] = 0
    expected = noise_ceilings(table(counts))
    with_empty = np.vstack([counts, np.zeros((3, counts.shape[1]), dtype=int)])
    found = noise_ceilings(table(with_empty))
    assert found.loc["G5"].isna().all()
    pd.testing.assert_frame_equal(found, expected)


def test_bad_input_is_one_sentence():
    counts = np.zeros((4, 3), dtype=int)
    counts[0] = 5
    with pytest.raises(SpotsError, match="1 of 4 spots have counts, and a noise ceiling needs two"):
        noise_ceilings(table(counts))
    with pytest.raises(GenesError, match="does not have ERBB2"):
        noise_ceilings(table(counts), ["ERBB2"])
