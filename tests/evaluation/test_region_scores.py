"""Scores within regions, and the figure of one gene, against slides and spots made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from matplotlib.collections import EllipseCollection
from scipy.stats import pearsonr, spearmanr

from napari_cpnn.errors import ExportError, GenesError, RegionsError
from napari_cpnn.evaluation.comparison_figure import draw_comparison, save_comparison
from napari_cpnn.evaluation.evaluation import score, summarise
from napari_cpnn.evaluation.region_scores import score_regions, score_summary, spots_inside
from napari_cpnn.evaluation.spot_pair import SpotPair, gene_pair
from napari_cpnn.regions import Region
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.slides import Slide
from napari_cpnn.spots import expression

MPP = (0.5, 0.4)
GENES = [f"G{i}" for i in range(12)]


@pytest.fixture(scope="module")
def pair() -> tuple[AnnData, AnnData]:
    """400 spots on a lattice, 100 px apart, with counts; and predictions that are the measurement with noise."""
    rng = np.random.default_rng(0)
    y, x = np.divmod(np.arange(400), 20)
    counts = rng.poisson(rng.gamma(2.0, 10.0, (400, 12)))
    spots = AnnData(sp.csr_matrix(counts), var=pd.DataFrame(index=GENES))
    spots.layers["counts"] = spots.X
    spots.obsm["spatial"] = np.stack([x, y], axis=1) * 100.0
    measured = expression(spots, GENES)
    compared = AnnData(
        measured + rng.normal(0, 0.5, measured.shape).astype(np.float32),
        obs=pd.DataFrame({"row": np.arange(400), "total_counts": counts.sum(axis=1)}, index=spots.obs_names),
        var=pd.DataFrame(index=GENES),
        layers={"measured": measured, "counts": spots.layers["counts"]},
        obsm={"spatial": spots.obsm["spatial"]},
    )
    compared.uns["comparison"] = {"slide": "made", "mpp": np.asarray(MPP), "n_spots": 400}
    return compared, spots


def box(name: str, y0: float, x0: float, y1: float, x1: float) -> Region:
    return Region.from_vertices(name, [(y0, x0), (y0, x1), (y1, x1), (y1, x0)])


def test_spots_of_a_region_are_those_whose_centre_is_inside(pair) -> None:
    compared, spots = pair
    # 100 px are 50 um down and 40 um across.
    region = box("a", -1, -1, 4.5 * 50, 2.5 * 40)
    tables = score_regions(compared, spots, [region], EvaluationSettings(ceiling_repeats=2))
    rows = [r * 20 + c for r in range(5) for c in range(3)]
    table = tables["a"]
    assert table.attrs["n_spots"] == len(rows) == table["n_spots"].iloc[0]
    measured, predicted = compared.layers["measured"][rows], compared.X[rows]
    for g, gene in enumerate(GENES):
        assert table.loc[gene, "pcc"] == pytest.approx(pearsonr(predicted[:, g], measured[:, g])[0], abs=1e-5)
        assert table.loc[gene, "scc"] == pytest.approx(spearmanr(predicted[:, g], measured[:, g])[0], abs=1e-5)
    assert "ceiling" in table


def test_holes_are_outside() -> None:
    ring = Region("ring", box("o", 0, 0, 10, 10).outline.difference(box("i", 4, 4, 6, 6).outline))
    np.testing.assert_array_equal(spots_inside(ring, [(5, 5), (1, 5), (11, 5), (5, 1)]), [False, True, False, True])


def test_the_summary_has_a_row_for_each_and_says_what_is_too_small(pair) -> None:
    compared, spots = pair
    whole = score(compared, spots)
    tables = {"all": whole, **score_regions(compared, spots, [box("few", -1, -1, 1, 100), box("none", 9e5, 0, 9e6, 9)])}
    summary = score_summary(tables, "G3")
    assert list(summary.index) == ["all", "few", "none"]
    assert list(summary["n_spots"]) == [400, 3, 0]
    assert summary.loc["all", "pcc"] == summarise(whole)["pcc"]
    assert summary.loc["all", "ceiling"] == summarise(whole)["ceiling"]
    assert summary.loc["all", "gene_pcc"] == whole.loc["G3", "pcc"]
    assert summary.loc["all", "n_genes"] == 12
    assert summary.loc[["few", "none"], ["pcc", "scc", "ceiling", "gene_pcc"]].isna().all(axis=None)
    assert "gene_pcc" not in score_summary(tables)
    assert np.isnan(score_summary(tables, "no such gene").loc["all", "gene_pcc"])
    with pytest.raises(RegionsError, match="no regions"):
        score_regions(compared, spots, [])


def test_pairs(pair) -> None:
    compared, _ = pair
    one = gene_pair(compared, "G2")
    pcc, scc = one.correlations()
    assert pcc == pytest.approx(pearsonr(compared.X[:, 2], compared.layers["measured"][:, 2])[0], abs=1e-5)
    assert scc == pytest.approx(spearmanr(compared.X[:, 2], compared.layers["measured"][:, 2])[0], abs=1e-5)
    low, high = one.difference_limits()
    assert low == -high
    with pytest.raises(GenesError, match="XX is not among the 12"):
        gene_pair(compared, "XX")
    flat = SpotPair("flat", "", np.zeros(5, np.float32), np.arange(5, dtype=np.float32))
    assert np.isnan(flat.correlations()).all()
    assert flat.limits()[1] > flat.limits()[0]
    holes = SpotPair("holes", "", np.array([0, 1, np.nan, 3], np.float32), np.array([0, 1, 9, 3], np.float32))
    assert holes.correlations()[0] == pytest.approx(1)


def test_the_figure_has_the_values_on_their_places_and_one_scale(pair, tmp_path: Path) -> None:
    compared, _ = pair
    slide = Slide.from_arrays([np.full((2000, 2000, 3), 200, dtype=np.uint8)], MPP, name="made")
    figure = draw_comparison(slide, compared, "G1", note="made · model")
    spots = [next(c for c in axes.collections if isinstance(c, EllipseCollection)) for axes in figure.axes[:3]]
    np.testing.assert_array_equal(spots[0].get_array(), compared.layers["measured"][:, 1])
    np.testing.assert_array_equal(spots[1].get_array(), compared.X[:, 1])
    np.testing.assert_allclose(spots[2].get_array(), compared.X[:, 1] - compared.layers["measured"][:, 1])
    assert spots[0].get_clim() == spots[1].get_clim()
    np.testing.assert_array_equal(spots[0].get_offsets(), compared.obsm["spatial"])
    ((x0, x1), _) = figure.axes[0].lines[0].get_data()
    assert (x1 - x0) * MPP[1] == pytest.approx(200)  # the bar says so
    assert "200 µm" in [text.get_text() for text in figure.axes[0].texts]
    assert save_comparison(tmp_path / "a.svg", slide, compared, "G1").stat().st_size > 10_000
    assert save_comparison(tmp_path / "b", slide, compared, "G1").name == "b.png"
    named = SpotPair("$x_{2$" + "y" * 5000, "$", compared.layers["measured"][:, 1], compared.X[:, 1])
    assert save_comparison(tmp_path / "c.png", slide, compared, named, note="$\\frac{").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="could not be written"):
        save_comparison(tmp_path / "file" / "a.png", slide, compared, "G1")
