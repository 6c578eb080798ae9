"""Scores of typed expression, AUC and outcome: against second computations, and on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import pearsonr
from scipy.stats import t as student

from napari_cpnn.errors import TrainingError
from napari_cpnn.studies import (
    Robustness,
    auc,
    auc_difference,
    feature_sets,
    outcome_study,
    summarise_typed,
    typed_scores,
)
from napari_cpnn.studies.outcome import _logistic
from napari_cpnn.studies.per_type import holm


def test_auc_counts_pairs_and_its_interval_is_that_of_many_samples() -> None:
    rng = np.random.default_rng(0)
    scores, positive = np.round(rng.normal(size=60), 1), rng.uniform(size=60) < 0.4
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    found = auc(scores, positive)
    assert found.value == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    # DeLong's error is close to the jackknife's, a second way to the same variance.
    left_out = np.array([auc(np.delete(scores, i), np.delete(positive, i)).value for i in range(60)])
    n, m = positive.sum(), (~positive).sum()
    jack = sum(
        (k - 1) / k * ((left_out[rows] - left_out[rows].mean()) ** 2).sum()
        for rows, k in ((positive, n), (~positive, m))
    )
    assert found.se == pytest.approx(np.sqrt(jack), rel=0.02)
    assert found.low < found.value < found.high


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = 0.7602  # Phi(1 / sqrt(2)) of two normal distributions one standard deviation apart
    covered = 0
    for _ in range(400):
        one = auc(np.r_[rng.normal(1, 1, 25), rng.normal(0, 1, 35)], np.r_[np.ones(25), np.zeros(35)])
        covered += one.low <= truth <= one.high
    assert 0.92 <= covered / 400 <= 0.98


def test_separated_classes_have_an_interval_below_one() -> None:
    one = auc([3, 4, 5, 1, 2], [1, 1, 1, 0, 0])
    assert (one.value, one.high) == (1, 1)
    assert one.low < 0.6
    with pytest.raises(TrainingError, match="all are alike"):
        auc([1, 2], [1, 1])
    with pytest.raises(TrainingError, match="finite"):
        auc([1, np.nan], [1, 0])


def test_only_pairs_within_a_fold_count() -> None:
    rng = np.random.default_rng(3)
    scores, folds = np.round(rng.normal(size=(3, 60)), 1), np.stack([rng.permutation(60) % 4 for _ in range(3)])
    positive = rng.uniform(size=60) < 0.5
    of_patients = [
        np.mean([np.mean([(s[i] > s[j]) + (s[i] == s[j]) / 2 for j in np.flatnonzero(~positive & (f == f[i]))])
                 for s, f in zip(scores, folds, strict=True)])
        for i in np.flatnonzero(positive)
    ]  # fmt: skip
    found = auc(scores, positive, folds=folds)
    assert found.value == pytest.approx(np.mean(of_patients))
    # Repeating the same folds adds nothing.
    once, twice = auc(scores[0], positive, folds=folds[0]), auc(scores[[0, 0]], positive, folds=folds[[0, 0]])
    assert (once.value, once.se) == pytest.approx((twice.value, twice.se))
    with pytest.raises(TrainingError, match="in each"):
        auc(scores[0], positive, folds=np.where(positive, 0, 1))


def test_a_model_that_knows_nothing_but_its_training_is_chance() -> None:
    """Its intercept is the lower, the more positive patients were held out: all pairs would say below one half."""
    folds, positive = np.arange(23) % 5, np.arange(23) % 2 < 1
    held_out = np.array([positive[folds != fold].mean() for fold in folds])
    assert auc(held_out, positive).value < 0.45
    assert auc(held_out, positive, folds=folds).value == 0.5


def test_difference_of_the_same_scores_is_zero_and_antisymmetric() -> None:
    rng = np.random.default_rng(2)
    a, b, y = rng.normal(size=40), rng.normal(size=40), np.arange(40) % 2
    assert auc_difference(a, a, y) == (0, 0, 0)
    first, second = auc_difference(a, b, y), auc_difference(b, a, y)
    assert first[0] == -second[0]
    assert first[1] == pytest.approx(-second[2])


def test_holm_is_the_step_down_procedure() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    found = holm(p)
    assert np.isnan(found[1])
    np.testing.assert_allclose(found[[0, 2, 3, 4]], [0.03, 0.06, 0.06, 0.02])


def tables():
    """A gene that is specific of type a, one that rises in all types, and noise; two bags per patient."""
    rng = np.random.default_rng(3)
    n = 80
    own, common = rng.standard_normal((2, n)).repeat(2, axis=1)
    measured = 0.3 * rng.standard_normal((2 * n, 3, 3))
    measured[:, 0, 0] += own
    measured[:, :, 1] += common[:, None]
    predicted = 0.3 * rng.standard_normal((2 * n, 3, 3))
    predicted[:, 0, 0] += own
    predicted[:, :, 1] += common[:, None]
    return predicted, measured, measured.mean(axis=1), [f"p{i // 2}" for i in range(2 * n)]


def test_scores_tell_what_is_specific_of_a_type() -> None:
    predicted, measured, bulk, patients = tables()
    scores = typed_scores(
        predicted, measured, bulk, patients, (("a", "b", "c"), ("own", "all", "none")), np.ones((3, 3))
    )
    found = scores.set_index(["cell_type", "gene"])
    assert found.loc[("a", "own"), "specific_r"] > 0.8
    assert found.loc[("a", "all"), "r"] > 0.8
    assert found.loc[("a", "all"), "specific_r"] < 0.5
    assert found.loc[("a", "all"), "r_given_bulk"] < 0.5
    assert found["robust"].tolist() == [True, True, False, False, True, False, False, True, False]
    # Second computations: over patients, and by residuals of least squares.
    mean = lambda x: x.reshape(80, 2).mean(axis=1)  # noqa: E731
    x, y, z = mean(predicted[:, 0, 0]), mean(measured[:, 0, 0]), mean(bulk[:, 0])
    # Patients are sorted by name, which no correlation depends on.
    assert found.loc[("a", "own"), "r"] == pytest.approx(pearsonr(x, y).statistic)
    assert found.loc[("a", "own"), "p"] == pytest.approx(pearsonr(x, y, alternative="greater").pvalue, rel=1e-6)
    rest = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y)]
    assert found.loc[("a", "own"), "r_given_bulk"] == pytest.approx(pearsonr(*rest).statistic)
    summary = summarise_typed(scores)
    assert summary.loc["a", "n_robust"] == 2
    assert summary.loc["a", "share_robust"] == pytest.approx(2 / 3)


def test_the_means_of_training_parts_are_no_prediction() -> None:
    """Where nothing is predicted, held-out correlations are about 0 within folds, and far below it over them."""
    rng = np.random.default_rng(6)
    measured, fold = rng.normal(size=(44, 2, 200)), np.arange(44) % 11
    predicted = np.stack([measured[fold != k].mean(axis=0) for k in fold]) + 1e-3 * rng.normal(size=measured.shape)
    patients, names = [f"P{i:02d}" for i in range(44)], (("a", "b"), tuple(map(str, range(200))))
    pooled, scores = (
        typed_scores(predicted, measured, measured.mean(axis=1), patients, names, folds=folds) for folds in (None, fold)
    )
    assert pooled["r"].median() < -0.2
    assert abs(scores["r"].median()) < 0.03
    assert abs(scores["specific_r"].median()) < 0.03
    assert 0.03 < (scores["p"] < 0.05).mean() < 0.07
    # A second way: residuals of a regression on the folds, and the test with their degrees of freedom.
    dummies = (fold[:, None] == np.arange(11)).astype(float)
    left = lambda x: x - dummies @ np.linalg.lstsq(dummies, x, rcond=None)[0]  # noqa: E731
    r = pearsonr(left(predicted[:, 1, 7]), left(measured[:, 1, 7])).statistic
    row = scores[(scores.cell_type == "b") & (scores.gene == "7")].iloc[0]
    assert row.r == pytest.approx(r)
    assert row.p == pytest.approx(student.sf(r * np.sqrt(32 / (1 - r**2)), 32))


def test_robustness_is_a_setting() -> None:
    predicted, measured, bulk, patients = tables()
    names = (("a", "b", "c"), ("own", "all", "none"))
    strict = typed_scores(predicted, measured, bulk, patients, names, robustness=Robustness(least_r=0.99))
    assert not strict["robust"].any()
    with pytest.raises(TrainingError, match="need tables"):
        typed_scores(predicted[:, :2], measured, bulk, patients, names)


def cohort(n: int = 120, effect: float = 1.5):
    rng = np.random.default_rng(4)
    state = rng.standard_normal(n)
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-effect * state))).astype(int)
    genes = state[:, None] + 0.4 * rng.standard_normal((n, 300))
    patients = [f"p{i:03d}" for i in range(n)]
    return state, y, genes, rng.standard_normal((n, 5)), patients


def test_outcome_is_found_where_it_is_and_not_elsewhere() -> None:
    state, y, genes, noise, patients = cohort()
    study = outcome_study({"genes": genes, "noise": noise}, patients, y.tolist(), n_repeats=2)
    truth = auc(state, y).value
    row = study.table.loc["genes"]
    assert row["low"] <= truth <= row["high"]
    assert study.table.loc["noise", "low"] < 0.5 < study.table.loc["noise", "high"] + 0.1
    assert study.table.loc["noise", "difference_high"] < 0
    assert study.log_odds.index.tolist() == patients


def test_an_outcome_by_chance_is_not_predicted() -> None:
    """No leak: an outcome drawn anew has an AUC about one half with many features and few patients."""
    _, _, genes, _, patients = cohort(60)
    found = []
    for seed in range(4):
        y = np.random.default_rng(seed).permutation(np.arange(60) % 2)
        found.append(
            outcome_study({"genes": genes}, patients, y.tolist(), n_repeats=1, seed=seed).table.loc["genes", "auc"]
        )
    assert np.mean(found) < 0.6


def test_folds_are_not_ordered_by_their_share_of_positives() -> None:
    """18 of 40 in five folds: a fold with few positives leaves many for the training, which says nothing of its own."""
    y = (np.random.default_rng(3).permutation(40) < 18).tolist()
    features = {"none": np.ones((40, 1)), "noise": np.random.default_rng(0).normal(size=(40, 1))}
    study = outcome_study(features, [f"p{i}" for i in range(40)], y, n_repeats=1)
    assert study.table.loc["none", "auc"] == 0.5  # 0.44 with the intercepts of the folds
    assert np.abs(study.log_odds["none"]).max() < 1e-9


def test_logistic_regression_is_that_of_all_features() -> None:
    _, y, genes, _, _ = cohort(50)
    X = (genes - genes.mean(axis=0)) / genes.std(axis=0)
    unit = (np.linalg.svd(X, compute_uv=False)[:50] ** 2).mean()
    sign = 2 * y - 1

    def loss(b: np.ndarray) -> float:
        return np.logaddexp(0, -sign * (X[:, :20] @ b[:-1] + b[-1])).sum() + 0.1 * unit20 / 2 * (b[:-1] ** 2).sum()

    unit20 = (np.linalg.svd(X[:, :20], compute_uv=False) ** 2).mean()
    best = minimize(loss, np.zeros(21), tol=1e-10).x
    odds = next(_logistic(genes[:, :20], y, genes[:, :20], [0.1]))
    np.testing.assert_allclose(odds, X[:, :20] @ best[:-1] + best[-1], atol=0.01)
    assert unit > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda y, p: (["yes", "no", "maybe"] * 40, p), "two values, and has 3"),
        (lambda y, p: (y, ["p0"] * 120), "two outcomes"),
        (lambda y, p: ([1, 1] + [0] * 118, p), "2 patients"),
        (lambda y, p: ([None] * 120, p), "two values, and has 0"),
    ],
)
def test_bad_outcomes_get_a_sentence(change, sentence) -> None:
    _, y, genes, _, patients = cohort()
    outcome, who = change(y.tolist(), patients)
    with pytest.raises(TrainingError, match=sentence):
        outcome_study({"genes": genes}, who, outcome)


def test_features_of_an_outcome() -> None:
    rng = np.random.default_rng(5)
    clinical = pd.DataFrame({"age": [60.0, np.nan, 40.0], "stage": ["I", "II", "I"]})
    shares = rng.dirichlet(np.ones(2), 3)
    sets = feature_sets(rng.uniform(0, 2, (3, 2, 4)), shares, ("a", "b"), clinical)
    assert {name: table.shape[1] for name, table in sets.items()} == {
        "typed expression": 8,
        "bulk": 4,
        "abundance": 2,
        "clinical": 3,
        "typed: a": 4,
        "typed: b": 4,
    }
    assert np.isfinite(sets["clinical"]).all()
