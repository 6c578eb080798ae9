"""Paired differences and their intervals, against plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation.metrics import partial_pearson, partial_spearman, pearson, spearman
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.studies.bootstrap import bootstrap_means, draws
from napari_cpnn.studies.comparison import METRICS, HeldOutSlide, compare_heads

FEW = EvaluationSettings(bootstraps=200)


def tables(seed: int = 0, n: int = 60, genes: int = 30, skill: tuple[float, float] = (0.5, 1.0)) -> dict[str, AnnData]:
    """Two heads, the second with more skill; counts are shallow, so that depth matters."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, genes))
    depth = rng.lognormal(6, 0.6, (n, 1))
    counts = rng.poisson(depth * np.exp(0.5 * truth) / genes)
    totals = counts.sum(axis=1)
    measured = np.log1p(1e4 * counts / totals[:, None]).astype(np.float32)
    result = {}
    for head, share in zip(("plain", "ours"), skill, strict=True):
        X = (share * truth + rng.normal(size=truth.shape)).astype(np.float32)
        obs = pd.DataFrame({"row": np.arange(n), "total_counts": totals}, index=[f"s{i}" for i in range(n)])
        var = pd.DataFrame(index=[f"G{i}" for i in range(genes)])
        result[head] = AnnData(X, obs=obs, var=var, layers={"measured": measured})
    return result


def test_bootstrap_equals_a_plain_loop():
    both = tables(n=25, genes=700)  # more genes than one block
    measured = both["ours"].layers["measured"].astype(float)
    depth = np.log(both["ours"].obs["total_counts"].to_numpy())
    weights = draws(25, 6)
    assert (weights.sum(axis=1) == 25).all()
    found = bootstrap_means({head: t.X.astype(float) for head, t in both.items()}, measured, depth, weights)
    for b, counts in enumerate(weights.astype(int)):
        spots = np.repeat(np.arange(25), counts)
        for head, table in both.items():
            plain = pearson(table.X[spots], measured[spots])
            assert found["pcc"][head][b] == pytest.approx(np.nanmean(plain), abs=1e-9)
            given = partial_pearson(table.X[spots], measured[spots], depth[spots])
            assert found["pcc_given_depth"][head][b] == pytest.approx(np.nanmean(given), abs=1e-9)
            ranks = [stats.rankdata(values, axis=0)[spots] for values in (table.X, measured)]
            assert found["scc"][head][b] == pytest.approx(np.nanmean(pearson(*ranks)), abs=1e-9)


def test_ranking_a_draw_anew_would_change_the_interval_little():
    both = tables(n=150, genes=40)
    measured = both["ours"].layers["measured"].astype(float)
    depth = np.log(both["ours"].obs["total_counts"].to_numpy())
    weights = draws(150, 150)
    found = bootstrap_means({head: t.X.astype(float) for head, t in both.items()}, measured, depth, weights)
    for metric, correlation in (("scc", spearman), ("scc_given_depth", partial_spearman)):
        anew = []
        for counts in weights.astype(int):
            s = np.repeat(np.arange(150), counts)
            z = (depth[s],) if metric == "scc_given_depth" else ()
            a, b = (np.nanmean(correlation(both[head].X[s], measured[s], *z)) for head in ("ours", "plain"))
            anew.append(a - b)
        ours = found[metric]["ours"] - found[metric]["plain"]
        np.testing.assert_allclose(np.quantile(ours, [0.05, 0.95]), np.quantile(anew, [0.05, 0.95]), atol=0.012)


def test_a_gene_that_is_constant_in_a_draw_does_not_count_there():
    both = tables(n=20, genes=3)
    measured = np.asarray(both["ours"].layers["measured"], dtype=float)
    measured[:, 0] = 0
    measured[4, 0] = 1.0  # constant in every draw without spot 4
    weights = draws(20, 30)
    x = {"ours": both["ours"].X.astype(float)}
    found = bootstrap_means(x, measured, np.arange(20.0), weights)["pcc"]["ours"]
    without = np.flatnonzero(weights[:, 4] == 0)
    assert len(without) > 3
    for b in without:
        spots = np.repeat(np.arange(20), weights[b].astype(int))
        assert found[b] == pytest.approx(pearson(x["ours"][spots, 1:], measured[spots, 1:]).mean(), abs=1e-9)


def test_rows_are_means_over_genes_then_slides():
    slides = [
        HeldOutSlide("C", "C2", tables(1)),
        HeldOutSlide("C", "C3", tables(2, n=40)),
        HeldOutSlide("B", "B4", tables(3)),
    ]
    result = compare_heads(slides, settings=FEW).set_index(["metric", "fold", "head"])
    assert set(result.index.get_level_values("metric")) == set(METRICS)
    mean = {}
    for slide in slides:
        for head, table in slide.heads.items():
            mean[slide.slide, head] = pearson(table.X, table.layers["measured"]).mean()
    for fold, members in {"C": ["C2", "C3"], "B": ["B4"], "all": ["C2", "C3", "B4"]}.items():
        ours, plain = (np.mean([mean[slide, head] for slide in members]) for head in ("ours", "plain"))
        row = result.loc["pcc", fold, "ours"]
        assert row["mean"] == pytest.approx(ours)
        assert row["difference"] == pytest.approx(ours - plain)
        assert row["spots_low"] < row["difference"] < row["spots_high"]
        assert row["genes_low"] < row["difference"] < row["genes_high"]
        assert row["spots_low"] > 0
        assert row["better"] > 0.6
        assert row["n_slides"] == len(members)
        assert np.isnan(result.loc["pcc", fold, "plain"]["difference"])
    assert result.loc["pcc", "all", "ours"]["n_spots"] == 160


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Heads of equal skill: the interval over spots should hold 0 in about 90 of 100 experiments."""
    settings = EvaluationSettings(bootstraps=200, interval=0.9)
    hits = 0
    for seed in range(60):
        slide = HeldOutSlide("C", "C2", tables(100 + seed, n=50, genes=8, skill=(0.7, 0.7)))
        row = compare_heads([slide], settings=settings).set_index(["metric", "fold", "head"]).loc["pcc", "all", "ours"]
        hits += row["spots_low"] <= 0 <= row["spots_high"]
    assert hits >= 48


def test_heads_are_paired_on_the_spots_and_genes_that_all_have():
    both = tables()
    fewer = {"plain": both["plain"][5:, :20].copy(), "ours": both["ours"][::-1, ::-1][:, 12:].copy()}
    fewer["ours"].layers["measured"] = fewer["ours"].layers["measured"].copy()
    result = compare_heads([HeldOutSlide("C", "C2", fewer)], settings=FEW)
    assert set(result["n_genes"]) == {18}
    assert set(result["n_spots"]) == {55}
    same = {head: both[head][5:, :18].copy() for head in both}
    wanted = compare_heads([HeldOutSlide("C", "C2", same)], settings=FEW)
    np.testing.assert_allclose(result["mean"], wanted["mean"], atol=1e-6)


def test_a_head_that_predicts_a_constant_gene_takes_it_from_all():
    both = tables()
    both["plain"].X[:, 4] = 0.5
    result = compare_heads([HeldOutSlide("C", "C2", both)], settings=FEW)
    assert set(result["n_genes"]) == {29}


def test_a_head_that_misses_a_slide_is_compared_on_the_others():
    slides = [HeldOutSlide("C", "C2", tables(1)), HeldOutSlide("B", "B4", {"plain": tables(2)["plain"]})]
    result = compare_heads(slides, "plain", FEW).set_index(["metric", "fold", "head"])
    assert result.loc["pcc", "all", "ours"]["n_slides"] == 1
    assert result.loc["pcc", "all", "plain"]["n_slides"] == 2
    assert ("pcc", "B", "ours") not in result.index


def test_no_intervals_on_request():
    result = compare_heads([HeldOutSlide("C", "C2", tables())], settings=EvaluationSettings(bootstraps=0))
    assert result[["spots_low", "spots_high", "genes_low", "genes_high"]].isna().all().all()
    assert result["difference"].notna().any()


def test_nothing_to_compare():
    both = tables()
    with pytest.raises(TrainingError, match="no head 'paper' to compare with; there are plain, ours"):
        compare_heads([HeldOutSlide("C", "C2", both)], "paper", FEW)
    with pytest.raises(TrainingError, match="cannot be compared"):
        compare_heads([], settings=FEW)
    for table in both.values():
        table.X[:] = 1.0
    with pytest.raises(TrainingError, match="No slide has genes that vary"):
        compare_heads([HeldOutSlide("C", "C2", both)], settings=FEW)
