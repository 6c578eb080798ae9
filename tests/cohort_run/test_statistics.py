"""Groups of patients: against second computations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from napari_cpnn.cohort_run import adjusted, compare_groups, patient_means
from napari_cpnn.cohort_run.statistics import mean_interval

TYPES = ("T", "B", "CAF")


def by_definition(p: np.ndarray) -> np.ndarray:
    """The smallest rate at which the procedure of Benjamini and Hochberg would reject each hypothesis."""
    n = len(p)
    return np.array([min(1.0, *(p_j * n / np.sum(p <= p_j) for p_j in p if p_j >= own)) for own in p])


def test_the_false_discovery_rate_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        p = np.round(rng.uniform(0, 1, n) ** 2, 3)  # with ties
        np.testing.assert_allclose(adjusted(p), by_definition(p), rtol=1e-12)
        np.testing.assert_allclose(adjusted(p), stats.false_discovery_control(p), rtol=1e-12)


def test_p_values_that_are_not_known_do_not_count():
    np.testing.assert_allclose(adjusted([0.01, math.nan, 0.03]), [0.02, math.nan, 0.03])
    assert adjusted([]).shape == (0,)


def test_the_interval_of_a_mean():
    values = np.random.default_rng(1).normal(size=9)
    found = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values, 0.9) == pytest.approx((values.mean(), found.low, found.high))
    assert mean_interval([0.3])[0] == 0.3
    assert math.isnan(mean_interval([0.3])[1])
    assert math.isnan(mean_interval([math.nan])[0])


def test_slides_of_a_patient_count_as_one():
    shares = pd.DataFrame({"T": [0.2, 0.6, 0.5]}, index=list("abc"))
    patients, areas = pd.Series(["P", "P", "Q"], list("abc")), pd.Series([1.0, 3.0, 2.0], list("abc"))
    assert patient_means(shares, patients, areas)["T"].to_dict() == pytest.approx({"P": 0.5, "Q": 0.5})


@pytest.fixture
def means() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame(rng.dirichlet([3, 2, 5], 14), [f"P{i}" for i in range(14)], TYPES)


def test_two_groups(means):
    groups = pd.Series(["a"] * 6 + ["b"] * 7 + [None], means.index)
    table = compare_groups(means, groups).set_index(["type", "group"])
    assert set(table["patients"]) == {6, 7}
    first, second = means["T"].to_numpy()[:6], means["T"].to_numpy()[6:13]
    variances = [x.var(ddof=1) / len(x) for x in (first, second)]
    error = math.sqrt(sum(variances))
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 5 + variances[1] ** 2 / 6)  # Welch and Satterthwaite
    row = table.loc[("T", "a")]
    assert row["difference"] == pytest.approx(second.mean() - first.mean())
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(row["difference"]) / error, freedom))
    half = stats.t.ppf(0.975, freedom) * error
    assert row["difference_high"] - row["difference"] == pytest.approx(half)
    ps = table["p"].xs("a", level="group")
    np.testing.assert_allclose(
        table["q"].xs("b", level="group")[list(TYPES)], by_definition(ps[list(TYPES)].to_numpy())
    )


def test_three_groups_and_a_group_of_one(means):
    groups = pd.Series(list("aaaabbbbcccccd"), means.index)
    table = compare_groups(means, groups)
    parts = [means["B"][groups == g] for g in "abc"]
    row = table[(table["type"] == "B") & (table["group"] == "d")].iloc[0]
    assert row["p"] == pytest.approx(stats.kruskal(*parts).pvalue)
    assert math.isnan(row["difference"])
    assert math.isnan(row["low"])
    assert row["mean"] == means["B"].iloc[-1]


def test_intervals_of_shares_are_shares():
    means = pd.DataFrame({"T": [0.02, 0.3, 0.9, 0.5]}, list("abcd"))
    table = compare_groups(means, pd.Series(list("xxyy"), means.index)).set_index("group")
    assert mean_interval([0.02, 0.3])[1] < 0
    assert table.loc["x", "low"] == 0
    assert table.loc["y", "high"] == 1


def test_groups_that_cannot_be_compared(means):
    assert compare_groups(means, pd.Series("a", means.index))["p"].isna().all()
    assert compare_groups(means * 0, pd.Series(list("ab") * 7, means.index))["p"].isna().all()
    assert compare_groups(means, pd.Series(None, means.index, dtype=object)).empty


def test_under_no_difference_p_values_are_uniform():
    rng = np.random.default_rng(3)
    groups = pd.Series(["a"] * 8 + ["b"] * 8, [f"P{i}" for i in range(16)])
    means = pd.DataFrame(rng.normal(size=(16, 800)), groups.index, [f"t{i}" for i in range(800)])
    table = compare_groups(means, groups).drop_duplicates("type")
    assert np.mean(table["p"] < 0.05) == pytest.approx(0.05, abs=0.025)
    assert (table["q"] < 0.05).sum() <= 2
    inside = (table["difference_low"] <= 0) & (table["difference_high"] >= 0)
    assert inside.mean() == pytest.approx(0.95, abs=0.025)
