"""A benchmark of predictions whose skill is known."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

import napari_cpnn as nc
from benchmark_world import GENES, QUICK, known_section
from napari_cpnn.errors import CpnnError, CpnnWarning, TrainingError
from napari_cpnn.evaluation import morans_i
from napari_cpnn.studies.benchmarking.notes import headlines
from napari_cpnn.studies.benchmarking.page import html_page
from napari_cpnn.studies.bootstrap import draws


@pytest.fixture(scope="module")
def world():
    return [known_section(seed) for seed in range(7)]


def samples_of(world):
    return [one.sample for one in world]


def run(world, predictions, **options):
    return nc.benchmark(predictions, samples_of(world), settings=QUICK, progress=False, **options)


@pytest.fixture(scope="module")
def result(world):
    noise = np.random.default_rng(0)
    predictions = {
        "truth": [one.truth for one in world],
        "half": [one.table(np.maximum(one.truth.X + noise.normal(0, 0.4, one.truth.shape), 0)) for one in world],
        "depth only": [one.table(np.repeat(one.log_totals[:, None], len(GENES), axis=1)) for one in world],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)  # log total counts have another unit
        return run(world, predictions, groups=["P1", "P1", "P2", "P3", "P4", "P5", "P6"])


def score_of(result, kind, name, section, metric):
    table = result.scores
    rows = table[(table.kind == kind) & (table.name == name) & (table.section == section) & (table.metric == metric)]
    return rows.set_index("gene")["value"]


def test_scores_equal_those_of_scipy(world, result):
    one, name = world[2], world[2].slide.name
    measured, counts = one.measured, one.spots.layers["counts"].toarray()
    totals, depth = counts.sum(axis=1), one.log_totals
    truth = one.truth.X.astype(float)
    line = np.c_[np.ones(len(depth)), depth]
    ranks = np.c_[np.ones(len(depth)), stats.rankdata(depth)]
    predicted = {m: score_of(result, "model", "truth", name, m) for m in (*METRICS, "rmse")}
    for g in (0, 7, 31):
        x, y = truth[:, g], measured[:, g]
        mu = totals * counts[:, g].sum() / totals.sum()
        residual = np.clip((counts[:, g] - mu) / np.sqrt(mu + mu**2 / 100), -np.sqrt(len(mu)), np.sqrt(len(mu)))
        wanted = {
            "pcc": stats.pearsonr(x, y)[0],
            "scc": stats.spearmanr(x, y)[0],
            "pcc_given_depth": stats.pearsonr(left(x, line), left(y, line))[0],
            "scc_given_depth": stats.pearsonr(*(left(stats.rankdata(v), ranks) for v in (x, y)))[0],
            "pcc_residuals": stats.pearsonr(x, residual)[0],
            "rmse": np.sqrt(np.mean((counts[:, g] - one.fractions[:, g] * totals) ** 2)),
        }
        for metric, value in wanted.items():
            assert predicted[metric][GENES[g]] == pytest.approx(value, abs=2e-5), metric


METRICS = ("pcc", "scc", "pcc_given_depth", "scc_given_depth", "pcc_residuals")


def left(values, columns):
    return values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]


@pytest.mark.slow  # the ceiling itself is tested in evaluation
def test_a_perfect_prediction_reaches_its_ceiling():
    deep = [known_section(seed, depth=1500) for seed in range(2)]
    found = run(deep, {"expected": [one.expected for one in deep]})
    for metric in ("pcc", "pcc_given_depth"):
        assert found.mean("expected", metric) == pytest.approx(found.mean("noise ceiling", metric), abs=0.02)
        assert found.mean("noise ceiling", metric) < 0.9


def test_a_worse_prediction_scores_less_and_both_more_than_the_baselines(result):
    for metric in ("pcc", "pcc_given_depth"):
        assert result.mean("half", metric) < result.mean("truth", metric) - 0.05
        assert result.mean("truth", metric) > result.mean("colour statistics", metric) + 0.05
        assert result.mean("truth", metric) > result.mean("nuclei count", metric) + 0.05
        assert result.mean("colour statistics", metric) > 0.05
        assert result.mean("nuclei count", metric) > 0.05
    assert result.mean("truth", "rmse") < result.mean("half", "rmse")
    assert result.mean("truth", "rmse") < result.mean("train mean", "rmse")


def test_negative_controls_of_a_real_signal_vanish_and_depth_is_flagged(result):
    for kind in ("shifted", "other section"):
        for metric in METRICS:
            assert abs(result.mean("truth", metric, kind)) < 0.05
    assert result.mean("depth only", "pcc") > 0.1
    # Every section is deep in the middle, so that depth of another section predicts depth of this one.
    assert result.mean("depth only", "pcc", "other section") > 0.1
    assert [flag.split(":")[0] for flag in result.flags] == ["depth only"]
    assert "is left when predictions for another section are taken" in result.flags[0]
    survived = result.summary[result.summary["survives"]]
    assert set(survived["kind"]) == {"other section"}
    assert "pcc" in set(survived["metric"])


def test_predictions_that_know_the_counts_exceed_their_ceiling_and_are_flagged(world):
    found = run(world[:2], {"measured table": [one.table(one.measured) for one in world[:2]]})
    assert found.mean("measured table") == pytest.approx(1)
    assert found.flags[0].startswith("measured table: PCC 1.000 exceeds the noise ceiling, 0.")
    assert f"{found.mean('noise ceiling'):.3f}" in found.flags[0]


def test_patients_are_averaged_and_resampled(world, result):
    means = {one.slide.name: score_of(result, "model", "half", one.slide.name, "pcc").mean() for one in world}
    per_patient = np.array([(means["section0"] + means["section1"]) / 2, *(means[f"section{i}"] for i in range(2, 7))])
    row = result.summary.query("kind == 'model' and name == 'half' and metric == 'pcc'").iloc[0]
    assert row["mean"] == pytest.approx(per_patient.mean())
    assert (row["unit"], row["n_units"], row["n_sections"], row["n_genes"]) == ("patient", 6, 7, len(GENES))
    resampled = draws(6, QUICK.bootstraps, 0) @ per_patient / 6
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(resampled, [0.025, 0.975]))
    assert any("over 6 patients" in note for note in result.notes)


def test_differences_are_paired(world, result):
    row = result.differences.query("metric == 'pcc' and name == 'half' and minus == 'truth'").iloc[0]
    assert row["difference"] == pytest.approx(result.mean("half") - result.mean("truth"))
    assert row["high"] < 0
    assert row["excludes_0"]
    first = headlines(result.summary, result.differences)[0]
    assert first.startswith(f"truth: mean PCC {result.mean('truth'):.3f}, ")
    assert f"; more than depth oracle ({result.mean('depth oracle'):.3f}) and colour statistics" in first
    n = len(result.differences)
    chance = float(np.maximum(2.0 ** (1 - result.differences["n_units"]), 0.05).sum())
    assert any(
        f"{n} differences with intervals, none adjusted for their number" in note
        and f"about {chance:.0f} would." in note
        for note in result.notes
    )
    assert set(result.differences["minus"]) == {
        "truth",
        "depth oracle",
        "colour statistics",
        "nuclei count",
        "train mean",
    }


def test_the_depth_oracle_is_the_depth_of_the_spot(world, result):
    one = world[3]
    found = score_of(result, "baseline", "depth oracle", one.slide.name, "pcc")
    wanted = [abs(stats.pearsonr(one.log_totals, column)[0]) for column in one.measured.T]
    np.testing.assert_allclose(found.abs().to_numpy(), wanted, atol=1e-5)
    assert found.mean() > 0.1
    # Nothing is left of it once depth is known, which is no score of 0.
    for metric in ("pcc_given_depth", "scc_given_depth"):
        assert score_of(result, "baseline", "depth oracle", one.slide.name, metric).isna().all()
    assert score_of(result, "baseline", "train mean", one.slide.name, "pcc").isna().all()


def test_without_patients_sections_are_the_unit(world):
    found = run(world[:3], {"truth": [one.truth for one in world[:3]]}, sections=["A", "B", "C"])
    assert set(found.summary["unit"]) == {"section"}
    assert any("No patients were given" in note for note in found.notes)
    assert list(found.sections["section"]) == ["A", "B", "C"]
    one_patient = run(world[:3], {"truth": [one.truth for one in world[:3]]}, groups=["P", "P", "P"])
    assert any("All sections are of one patient" in note for note in one_patient.notes)
    pd.testing.assert_frame_equal(found.summary, one_patient.summary)


def test_one_section_has_no_intervals_and_no_fitted_baselines(world):
    found = run(world[:1], {"truth": world[0].truth})
    assert found.summary["low"].isna().all()
    assert not found.summary["survives"].any()
    assert set(found.summary["name"]) == {"truth", "noise ceiling", "depth oracle", "nuclei count"}
    assert np.isnan(found.mean("depth oracle", "rmse"))
    assert set(found.summary["kind"]) == {"model", "ceiling", "baseline", "shifted"}
    said = " ".join(found.notes)
    assert "There is one section, so there are no intervals" in said
    assert f"{len(found.differences)} differences without an interval: none of them is tested." in found.notes
    assert "by chance" not in said
    assert "No intervals. For RMSE" in html_page(found)
    assert "no other section to fit baselines on" in said


def test_models_are_compared_on_the_spots_and_genes_that_all_predict(world):
    one, other = world[:2]
    some = one.truth[np.arange(0, 150)][:, GENES[:30]].copy()
    some.X[3] = np.nan  # a patch that could not be read
    shuffled = one.truth[np.random.default_rng(0).permutation(one.truth.n_obs)].copy()
    found = run([one, other], {"some": [some, other.truth], "all": [shuffled, other.truth]})
    numbers = found.sections.set_index("section").loc[one.slide.name]
    assert (numbers["spots"], numbers["spots_not_predicted"]) == (149, one.truth.n_obs - 149)
    assert (numbers["genes"], numbers["genes_detected"]) == (30, len(GENES))
    both = [score_of(found, "model", name, one.slide.name, "pcc") for name in ("some", "all")]
    pd.testing.assert_series_equal(*both)
    assert any("up to 20 detected genes are not predicted" in note for note in found.notes)


def test_nan_is_no_score_and_counts_for_no_model(world):
    tables = [one.truth for one in world[:2]]
    for table in tables:
        table.X[5, 9] = np.nan
        table.X[5:9, 20] = np.inf
    found = run(world[:2], {"holes": tables, "whole": [one.truth for one in world[:2]]})
    scores = score_of(found, "model", "holes", "section0", "pcc")
    assert scores.index[scores.isna()].tolist() == [GENES[9], GENES[20]]
    assert found.mean("holes") == found.mean("whole")
    assert (found.summary.query("kind == 'model' and metric == 'pcc'")["n_genes"] == len(GENES) - 2).all()
    assert "holes has NaN for up to 2 genes of a section; these count for no model." in found.notes


def test_a_constant_prediction_counts_as_0_and_changes_no_other_model(world):
    """A competitor that is constant in the genes that are hard must lift neither itself nor others."""
    pair = world[:2]
    alone = run(pair, {"truth": [one.truth for one in pair]})
    hard = np.argsort(score_of(alone, "model", "truth", "section0", "pcc").to_numpy())[:30]
    flat = [one.truth for one in pair]
    for table in flat:
        table.X[:, hard] = 1.0
    found = run(pair, {"truth": [one.truth for one in pair], "flat": flat})
    for metric in ("pcc", "scc", "pcc_given_depth", "scc_given_depth", "pcc_residuals"):
        assert found.mean("truth", metric) == pytest.approx(alone.mean("truth", metric), abs=1e-12)
        own = [score_of(found, "model", "flat", one.slide.name, metric).to_numpy() for one in pair]
        assert all((values[hard] == 0).all() for values in own)
        assert found.mean("flat", metric) == pytest.approx(np.mean(own), abs=1e-9)
    assert found.mean("flat") < found.mean("truth")
    assert any("flat predicts the same in all spots for up to 30 genes" in note for note in found.notes)
    assert not any("truth predicts the same" in note for note in found.notes)


def test_a_gene_measured_as_constant_counts_for_no_model(world):
    one = world[0]
    spots = one.spots.copy()
    counts = spots.layers["counts"].toarray()
    counts[:, 3] = 7
    counts[:, 5] += counts.sum(axis=1).max() - counts.sum(axis=1)  # the same total in all spots
    spots.layers["counts"] = sparse.csr_matrix(counts)
    found = nc.benchmark({"m": one.truth}, [(one.slide, spots)], settings=QUICK, progress=False)
    scores = score_of(found, "model", "m", "section0", "pcc")
    assert scores.index[scores.isna()].tolist() == [GENES[3]]
    assert found.summary.query("kind == 'model' and metric == 'pcc'")["n_genes"].tolist() == [len(GENES) - 1]
    assert "Up to 1 genes of a section are measured as constant; they count for no model." in found.notes


def test_counts_are_normalised_and_sparse_tables_read(world):
    pair = world[:2]
    counts = [one.table(np.rint(5e5 * one.fractions)) for one in pair]
    for table in counts:
        table.X = sparse.csr_matrix(table.X)
    found = run(pair, {"counts": counts, "truth": [one.truth for one in pair]})
    for metric in ("pcc", "scc", "rmse"):
        assert found.mean("counts", metric) == pytest.approx(found.mean("truth", metric), rel=1e-3)


def test_unknown_units_have_no_rmse_and_one_warning(world):
    pair = world[:2]
    predictions = {
        "scaled": [one.table(stats.zscore(one.truth.X, axis=0)) for one in pair],
        "log1p CPM": [one.table(np.log1p(1e6 * one.fractions)) for one in pair],
        "truth": [one.truth for one in pair],
    }
    with pytest.warns(CpnnWarning, match="neither counts nor log1p") as warned:
        found = run(pair, predictions)
    assert len(warned) == 1
    assert "scaled in section0, section1; log1p CPM in section0" in str(warned[0].message)
    assert found.mean("scaled", "pcc") == pytest.approx(found.mean("truth", "pcc"), abs=1e-6)
    assert np.isnan(found.mean("scaled", "rmse"))
    assert np.isfinite(found.mean("truth", "rmse"))
    assert "rmse" not in set(found.scores.query("kind == 'model' and name == 'log1p CPM'")["metric"])


def renamed(table, obs=None, var=None):
    table = table.copy()
    if obs:
        table.obs_names = [f"{obs}{i}" for i in range(table.n_obs)]
    if var:
        table.var_names = [f"{var}{i}" for i in range(table.n_vars)]
    return table


def twice(table):
    table = table.copy()
    table.obs_names = ["0x0"] * table.n_obs
    return table


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: {}, "There are no predictions"),
        (lambda t: {"depth oracle": [t, t]}, "depth oracle is the name of a row that is always there"),
        (lambda t: {"m": t}, "m has one table for 2 sections; give a folder"),
        (lambda t: {"m": [t]}, "There are 1 predictions of m for 2 sections"),
        (lambda t: {"m": {"section0": t}}, "m has no predictions for section1; there are some for section0"),
        (lambda t: {"m": [renamed(t, obs="b"), t]}, "no name in common, for instance b0, b1 against 0x0, 0x1"),
        (lambda t: {"m": [renamed(t, var="X"), t]}, "of m and the spots of section0 share no gene names"),
        (lambda t: {"m": [twice(t), t]}, "two rows called 0x0"),
        (lambda t: {"a": [t[:, :20].copy(), t], "b": [t[:, 20:].copy(), t]}, "predicted by all of a, b"),
        (lambda t: {"m": [t[:2].copy(), t]}, "2 spots of section0 are measured"),
        (lambda t: {"m": [AnnData(obs=t.obs, var=t.var), t]}, "have no numbers in X"),
        (lambda t: {"m": [AnnData(t.X * np.nan, obs=t.obs, var=t.var), t]}, "0 spots of section0"),
        (lambda t: {"m": ["nowhere.h5ad", t]}, "nowhere.h5ad is not the prediction of m for section0"),
        (lambda t: {"m": [t.X, t]}, "predictions of m are of type ndarray; give models, AnnData or paths"),
        (lambda t: {"m": None}, "predictions of m are of type NoneType"),
        (lambda t: {"m": "predictions.csv"}, "m has one table for 2 sections"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_one_sentence_for_each_bad_input(world, make, message):
    with pytest.raises(CpnnError, match=message):
        run(world[:2], make(world[0].truth))


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_of_genes_with_one_name_the_first_counts_and_ensembl_ids_are_matched(world):
    one = world[0]
    table = one.truth
    doubled = AnnData(
        np.c_[table.X, -table.X[:, :5]],
        obs=table.obs,
        var=pd.DataFrame(index=[f"ENSG{i:011d}.2" for i in (*range(50), *range(5))]),
    )
    spots = one.spots.copy()
    spots.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(50)]
    options = {"settings": QUICK.replace(shifts=0), "progress": False}
    found = nc.benchmark({"m": doubled}, [(one.slide, spots)], **options)
    assert found.mean("m") == pytest.approx(run(world[:1], {"m": table}).mean("m"))
    assert list(found.sections["genes"]) == [50]


@pytest.mark.parametrize("spatial", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hardly_any_spots_genes_or_variation_give_a_page_and_no_fault(world, spatial):
    pair = world[:2]
    settings = QUICK.replace(spatial=spatial, bootstraps=0)
    constant = pair[0].spots.copy()
    constant.layers["counts"] = sparse.csr_matrix(np.ones(constant.shape, dtype=np.int32))
    found = nc.benchmark({"m": pair[0].truth}, [(pair[0].slide, constant)], settings=QUICK, progress=False)
    assert np.isnan(found.mean("m"))
    assert html_page(found).endswith("</html>\n")
    for tables in ([one.truth[:4, :2].copy() for one in pair], [one.table(np.ones(one.truth.shape)) for one in pair]):
        found = nc.benchmark({"m": tables}, samples_of(pair), settings=settings, progress=False)
        assert html_page(found).endswith("</html>\n")
        assert found.summary["low"].isna().all()


@pytest.mark.filterwarnings("ignore:Some predictions are neither")
def test_a_model_that_is_constant_throughout_is_uncorrelated(world):
    found = run(world[:2], {"nothing": [one.table(np.zeros(one.truth.shape)) for one in world[:2]]})
    row = found.summary.query("name == 'nothing' and kind == 'model'")
    assert row["metric"].tolist() == ["pcc", "scc", "pcc_given_depth", "scc_given_depth", "pcc_residuals"]
    assert (row["mean"] == 0).all()
    assert "<td>nothing</td><td>0.000<br>" in html_page(found)


def test_bad_sections_and_groups(world):
    truth = [one.truth for one in world[:2]]
    with pytest.raises(CpnnError, match="nothing to compare with"):
        nc.benchmark({"truth": truth}, [])
    with pytest.raises(CpnnError, match="2 sections; give each a name of its own, not A, A"):
        run(world[:2], {"truth": truth}, sections=["A", "A"])
    with pytest.raises(CpnnError, match="There are 3 groups for 2 samples"):
        run(world[:2], {"truth": truth}, groups=["a", "b", "c"])


def test_ranks_of_spatially_variable_genes(world):
    pytest.importorskip("squidpy")
    pair = world[:2]
    settings = QUICK.replace(spatial=True, shifts=0, ceiling_repeats=0)
    found = nc.benchmark({"truth": [one.truth for one in pair]}, samples_of(pair), settings=settings, progress=False)
    both = [
        morans_i(values, pair[0].spots.obsm["spatial"][:, ::-1] * 0.5, "square")
        for values in (pair[0].measured, pair[0].truth.X)
    ]
    row = found.scores.query("kind == 'model' and section == 'section0' and metric == 'svg_ranks'").iloc[0]
    assert row["gene"] == ""
    assert row["value"] == pytest.approx(stats.spearmanr(*both)[0], abs=1e-6)
    np.testing.assert_allclose(score_of(found, "measured", "measured", "section0", "moran"), both[0], atol=1e-6)
    assert "noise ceiling" not in set(found.summary["name"])


def test_without_squidpy_everything_else_is_scored(world, monkeypatch):
    def no_squidpy(*_):
        raise TrainingError("Moran's I needs squidpy.")

    monkeypatch.setattr("napari_cpnn.studies.benchmarking.scores.morans_i", no_squidpy)
    with pytest.warns(CpnnWarning, match="Ranks of spatially variable genes are left out: Moran's I needs squidpy"):
        found = nc.benchmark(
            {"truth": [one.truth for one in world[:2]]},
            samples_of(world[:2]),
            settings=QUICK.replace(spatial=True),
            progress=False,
        )
    assert "svg_ranks" not in set(found.summary["metric"])
