from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from napari_cpnn import open_slide, read_spots
from napari_cpnn.errors import SpotsError
from napari_cpnn.slides import Slide, find_tissue
from napari_cpnn.spots import SpotFix, check_fit, estimate_mpp, move_back, move_of


@pytest.fixture(scope="module")
def section(request: pytest.FixtureRequest) -> tuple[Slide, ad.AnnData, object]:
    import os

    root = Path(__file__).parents[2]
    data = Path(os.environ.get("NAPARI_CPNN_DATA", root.parent / "shared" / "data"))
    if not data.is_dir():
        pytest.skip(f"the real data are not at {data}; set NAPARI_CPNN_DATA")
    folder = data / "her2st" / "data"
    spots = read_spots(folder / "ST-cnts/C4.tsv.gz", positions=folder / "ST-spotfiles/C4_selection.tsv")
    slide = open_slide(folder / "ST-imgs/C/C4/5714_HE_BT_D2.jpg", mpp=estimate_mpp(spots))
    return slide, spots, find_tissue(slide)


def test_spots_of_the_slide_fit(section) -> None:
    fit = check_fit(*section)
    assert fit.problem == ""
    assert fit.inside == 1
    assert fit.on_tissue > 0.9
    assert fit.fixes == ()


def test_names_of_the_columns_of_positions_decide(section) -> None:
    slide, spots, tissue = section
    named = spots.copy()
    del named.obsm["spatial"]
    rows_first = spots.obsm["spatial"][:, ::-1]
    named.obsm["spatial"] = pd.DataFrame(rows_first, columns=["pxl_row", "pxl_col"], index=spots.obs_names)
    assert check_fit(slide, named, tissue).on_tissue == check_fit(slide, spots, tissue).on_tissue
    fix = SpotFix("twice", np.array([[2.0, 0, 0], [0, 2, 0]]), 1.0)
    np.testing.assert_array_equal(fix.apply(named).obsm["spatial"], 2 * spots.obsm["spatial"])


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        (lambda p, w, h: p * 0.2, "scaling positions by 5"),
        (lambda p, w, h: np.column_stack([w - p[:, 0], p[:, 1]]), "mirroring left and right"),
        (lambda p, w, h: np.column_stack([p[:, 0], h - p[:, 1]]), "mirroring top and bottom"),
        (lambda p, w, h: p[:, ::-1], "swapping x and y"),
        (lambda p, w, h: np.column_stack([w - p[:, 0], h - p[:, 1]]) * 3, "scaling positions by 0.333"),
    ],
)
def test_a_simple_mistake_is_found_and_undone(section, mistake, named: str) -> None:
    slide, spots, tissue = section
    wrong = spots.copy()
    wrong.obsm["spatial"] = mistake(spots.obsm["spatial"], slide.shape[1], slide.shape[0])
    fit = check_fit(slide, wrong, tissue)
    assert fit.problem
    assert named in fit.fixes[0].name
    assert named in fit.problem
    right = fit.fixes[0].apply(wrong)
    assert check_fit(slide, right, tissue).problem == ""
    # The pitch of the array is only known to a thousandth.
    np.testing.assert_allclose(right.obsm["spatial"], spots.obsm["spatial"], atol=30)
    assert estimate_mpp(right)[0] == pytest.approx(slide.mpp[0], rel=0.02)


def test_spots_of_another_slide(section) -> None:
    slide, spots, tissue = section
    wrong = spots.copy()
    wrong.obsm["spatial"] = spots.obsm["spatial"] + 50_000
    fit = check_fit(slide, wrong, tissue)
    assert fit.problem == f"100% of the spots lie outside the slide {slide.name}; is it the right slide?"
    with pytest.raises(SpotsError, match="No spots with positions"):
        check_fit(slide, spots[:0].copy(), tissue)


def test_scale_factors_change_with_the_positions(section) -> None:
    slide, spots, tissue = section
    wrong = spots.copy()
    wrong.obsm["spatial"] = spots.obsm["spatial"] * 0.2
    name = next(iter(wrong.uns["spatial"]))
    wrong.uns["spatial"][name]["scalefactors"] = {"spot_diameter_fullres": 29.0, "tissue_hires_scalef": 0.5}
    right = check_fit(slide, wrong, tissue).fixes[0].apply(wrong)
    factors = right.uns["spatial"][name]["scalefactors"]
    assert factors["spot_diameter_fullres"] == pytest.approx(145, rel=0.01)
    assert factors["tissue_hires_scalef"] == pytest.approx(0.1, rel=0.01)
    assert wrong.uns["spatial"][name]["scalefactors"]["spot_diameter_fullres"] == 29.0


def test_moves_are_noted_as_one_and_taken_back() -> None:
    positions = np.random.default_rng(0).uniform(0, 30_000, (50, 2))
    spots = ad.AnnData(np.ones((50, 2), np.float32), obsm={"spatial": positions}, uns={"napari_cpnn": {"dropped": {}}})
    assert move_of(spots) is None
    assert move_back(spots) is None
    turned = SpotFix("turning", np.array([[0.0, -1, 500], [1, 0, 20]]), 1.0).apply(spots)
    moved = SpotFix("stretching", np.array([[2.0, 0.1, -7], [0, 3, 9]]), 1.0).apply(turned)
    move = move_of(moved)
    assert move.name == "turning, then stretching"
    np.testing.assert_allclose(move.apply(spots).obsm["spatial"], moved.obsm["spatial"])
    assert (move_of(spots), moved.uns["napari_cpnn"]["dropped"]) == (None, {})
    back = move_back(moved).apply(moved)
    np.testing.assert_allclose(back.obsm["spatial"], positions)
    assert move_of(back) is None
