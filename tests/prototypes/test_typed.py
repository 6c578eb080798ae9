"""Expression of each cell type: counts are split exactly, known expression is found, confidence is what comes true."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy.optimize import minimize

from napari_cpnn.errors import CpnnError, GenesError, SettingsError, SpotsError
from napari_cpnn.evaluation import pearson
from napari_cpnn.prototypes import Prototypes, TypedExpression, deconvolve_typed
from napari_cpnn.prototypes.gamma_split import relative_expression, reliability, variances
from napari_cpnn.settings import DeconvolutionSettings

TYPES = ("cancer", "stroma", "immune")
N, G, PLANTED = 150, 240, 30
NNLS = DeconvolutionSettings(method="nnls")


def world(depth: float = 3e6) -> tuple[AnnData, Prototypes, np.ndarray, np.ndarray]:
    """Bulk, prototypes, true log ratios ``(N, C, G)`` to the mean of each type, and true shares."""
    rng = np.random.default_rng(3)
    profiles = rng.lognormal(0, 0.5, (len(TYPES), G))
    profiles[:, G // 2 :] *= rng.gamma(0.4, size=(len(TYPES), G - G // 2)) + 0.02
    profiles /= profiles.sum(axis=1, keepdims=True)
    log = rng.normal(0, 0.08, (N, len(TYPES), G))
    for c in range(len(TYPES)):  # a program of each type, in genes that all types have
        log[:, c, c * PLANTED : (c + 1) * PLANTED] += 0.5 * rng.standard_normal((N, 1))
    shares = rng.dirichlet([4, 3, 2], N)
    mean = np.einsum("nc,ncg->ng", shares, profiles * np.exp(log)) * rng.lognormal(0, 0.1, (N, G))
    counts = rng.poisson(depth * mean)
    table = AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(N)]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(G)]),
        layers={"counts": sp.csr_matrix(counts)},
    )
    return table, Prototypes(profiles, TYPES, tuple(table.var_names), np.full(3, 50)), log, shares


@pytest.fixture(scope="module")
def found():
    bulk, protos, log, shares = world()
    return bulk, deconvolve_typed(bulk, protos), log, shares


def test_counts_are_split_and_nothing_is_lost(found) -> None:
    bulk, typed, _, _ = found
    assert (typed.counts >= 0).all()
    np.testing.assert_allclose(typed.counts.sum(axis=0), bulk.layers["counts"].toarray(), rtol=1e-4)


def test_known_expression_is_found_where_confidence_is_high(found) -> None:
    _, typed, log, _ = found
    # Where a gene is found not to vary in a type, there is no correlation.
    r = np.nan_to_num(np.stack([pearson(np.log(typed.relative[c]), log[:, c]) for c in range(3)]))
    confidence = typed.confidence.to_numpy().T
    for c in range(3):
        planted = slice(c * PLANTED, (c + 1) * PLANTED)
        others = [k for k in range(3) if k != c]
        assert r[c, planted].mean() > r[others, planted].mean() + 0.2
        assert confidence[c, planted].mean() > confidence[others, planted].mean() + 0.2
    # Calibration: the correlation that comes out is the one that was said.
    for low, high in ((0.1, 0.3), (0.3, 0.5), (0.5, 1.0)):
        bin_ = (confidence >= low) & (confidence < high)
        assert bin_.sum() > 15
        assert r[bin_].mean() == pytest.approx(confidence[bin_].mean(), abs=0.08)


def test_split_is_nearer_to_the_truth_than_by_prototypes_alone(found) -> None:
    bulk, typed, log, shares = found
    _, protos, _, _ = world()
    true = shares[:, :, None] * protos.profiles * np.exp(log)
    counts = bulk.layers["counts"].toarray()
    true *= (counts / true.sum(axis=1))[:, None, :]
    plain = shares[:, :, None] * protos.profiles
    plain *= (counts / plain.sum(axis=1))[:, None, :]
    planted = slice(0, PLANTED)
    errors = [np.abs(x[:, 0, planted] / true[:, 0, planted] - 1).mean() for x in (typed.counts.swapaxes(0, 1), plain)]
    assert errors[0] < 0.9 * errors[1]


def test_mode_is_that_of_the_written_posterior() -> None:
    rng = np.random.default_rng(0)
    expected, variance = rng.gamma(1, 20, (3, 1, 1)), np.array([[0.3], [0.01], [0.0]])
    for k in (0.0, 5.0, 60.0, 700.0):
        x = relative_expression(np.full((1, 1), k), expected, variance, np.full((1, 1), 2.0))[:, 0, 0]

        def loss(log: np.ndarray, k: float = k) -> float:
            mean = (expected[:2, 0, 0] * np.exp(log)).sum() + expected[2, 0, 0] + 2
            prior = ((log - np.exp(log)) / variance[:2, 0]).sum()
            return -(k * np.log(mean) - mean + prior)

        best = minimize(loss, np.zeros(2), tol=1e-12)
        np.testing.assert_allclose(x[:2], np.exp(best.x), rtol=2e-4)
        assert x[2] == 1


def test_reliability_is_the_correlation_of_the_best_linear_estimate() -> None:
    rng = np.random.default_rng(1)
    mu, v = np.array([60.0, 25.0]), np.array([0.2, 0.1])
    x = rng.gamma(1 / v[:, None], v[:, None], (2, 200_000))
    k = rng.poisson((mu[:, None] * x).sum(axis=0))
    spread = mu.sum() + (v * mu**2).sum()
    found = reliability(mu[:, None, None], v[:, None], np.full((1, 1), spread))[:, 0]
    np.testing.assert_allclose(found, [np.corrcoef(x[c], k)[0, 1] for c in range(2)], atol=0.005)


def test_variances_of_many_samples_are_the_true_ones() -> None:
    rng = np.random.default_rng(2)
    expected = rng.gamma(2, 300, (2, 20_000, 1))
    true = np.array([0.3, 0.02])
    counts = rng.poisson((expected[..., 0] * rng.gamma(1 / true[:, None], true[:, None], (2, 20_000))).sum(axis=0))
    mean = expected.sum(axis=0)
    spread = mean + np.einsum("c,csg->sg", true, expected**2)
    found = variances(counts[:, None] - mean, expected, spread, mean, 3.0)
    np.testing.assert_allclose(found[:, 0], true, rtol=0.12, atol=0.004)


def test_a_sample_without_counts_has_no_expression_and_bad_input_gets_a_sentence() -> None:
    bulk, protos, _, _ = world()
    counts = bulk.layers["counts"].toarray()
    counts[4] = 0
    bulk.layers["counts"] = sp.csr_matrix(counts)
    typed = deconvolve_typed(bulk, protos, NNLS, genes=["G3", "G1"])
    assert typed.genes == ("G3", "G1")
    assert np.isnan(typed.relative[:, 4]).all()
    assert np.isfinite(np.delete(typed.relative, 4, axis=1)).all()
    with pytest.raises(SpotsError, match="2 of 2 samples"):
        deconvolve_typed(bulk[:2].copy(), protos, NNLS)
    with pytest.raises(SettingsError, match="technical noise"):
        deconvolve_typed(bulk, protos, NNLS, technical_sd=-1)
    with pytest.raises(GenesError):
        deconvolve_typed(bulk, protos, NNLS, genes=["absent"])
    with pytest.raises(SpotsError, match="no cell type"):
        typed.expression("absent")


def test_genes_in_blocks_are_the_same_as_at_once(monkeypatch) -> None:
    bulk, protos, _, _ = world()
    at_once = deconvolve_typed(bulk, protos, NNLS)
    monkeypatch.setattr("napari_cpnn.prototypes.typed._BLOCK", 3 * N * 240 // 5)
    in_blocks = deconvolve_typed(bulk, protos, NNLS)
    np.testing.assert_allclose(in_blocks.relative, at_once.relative, rtol=1e-5)
    one = deconvolve_typed(bulk, protos, NNLS, genes=["G7"])
    np.testing.assert_allclose(one.relative[..., 0], at_once.relative[..., 7], rtol=1e-5)


def test_file_keeps_everything(found, tmp_path) -> None:
    _, typed, _, _ = found
    typed.select(["G5", "G0"]).save(tmp_path / "typed.h5ad")
    back = TypedExpression.load(tmp_path / "typed.h5ad")
    assert back.genes == ("G5", "G0")
    assert back.cell_types == TYPES
    pd.testing.assert_frame_equal(
        back.expression("stroma"), typed.select(["G5", "G0"]).expression("stroma"), check_names=False
    )
    np.testing.assert_array_equal(back.counts, typed.select(["G5", "G0"]).counts)
    world()[0].write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(CpnnError, match="no typed expression"):
        TypedExpression.load(tmp_path / "other.h5ad")
