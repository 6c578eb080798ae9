"""Spots that fill a square lattice are found as one, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from napari_cpnn.spots import Bins, bins_of, read_spots
from napari_cpnn.spots import bins as module

SIDE, MPP = 8.0, (0.5, 0.48)


def binned(turn: float = 3.0, rows: int = 60, cols: int = 45, share: float = 0.6, mirrored: bool = True) -> AnnData:
    """Bins of 8 um on a turned and mirrored lattice, of which only a part is there, in any order."""
    rng = np.random.default_rng(1)
    at = rng.permutation(rows * cols)[: int(share * rows * cols)]
    row, col = np.divmod(at, cols)
    angle = np.deg2rad(turn)
    down = SIDE * np.array([np.cos(angle), np.sin(angle)])
    right = SIDE * np.array([-np.sin(angle), np.cos(angle)]) * (-1 if mirrored else 1)
    um = np.outer(row, down) + np.outer(col, right) + [900.0, 1200.0]
    obs = pd.DataFrame({"array_row": row + 7, "array_col": col + 90}, index=[f"b{i}" for i in at])
    return AnnData(sp.csr_matrix((len(at), 2), dtype=np.int32), obs=obs, obsm={"spatial": (um / MPP)[:, ::-1]})


def um_of(spots: AnnData) -> np.ndarray:
    return spots.obsm["spatial"][:, ::-1] * np.array(MPP)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("turn", "mirrored"), [(0.0, False), (3.0, True), (-44.0, False), (91.0, True)])
def test_each_bin_has_a_pixel_whose_centre_is_its_own(turn, mirrored, known):
    spots = binned(turn, mirrored=mirrored)
    um = um_of(spots)
    if not known:  # the lattice follows from the positions alone
        spots.obs = pd.DataFrame(index=spots.obs_names)
    bins = bins_of(spots, MPP, SIDE, at_least=100)
    assert len(set(bins.pixels.tolist())) == spots.n_obs
    rows = {60, 45} if not known else {60}
    assert bins.shape[0] in rows
    for i in range(0, spots.n_obs, 7):  # one by one, apart from the vectors of centers_um
        row, col = divmod(int(bins.pixels[i]), bins.shape[1])
        place = bins.affine @ [row, col, 1.0]
        assert place[:2] == pytest.approx(um[i], abs=1e-6)
    np.testing.assert_allclose(bins.centers_um(), um, atol=1e-6)
    assert bins.side_um == pytest.approx(SIDE)


def test_the_picture_is_clear_where_there_is_no_bin():
    spots = binned()
    bins = bins_of(spots, MPP, SIDE, at_least=100)
    colors = np.random.default_rng(0).integers(1, 256, (spots.n_obs, 4), dtype=np.uint8)
    picture = bins.picture(colors)
    expected = np.zeros((60, 45, 4), dtype=np.uint8)
    rows, cols = spots.obs["array_row"] - 7, spots.obs["array_col"] - 90
    for row, col, color in zip(rows, cols, colors, strict=True):
        expected[row, col] = color
    np.testing.assert_array_equal(picture, expected)
    moved = bins.moved(5.0, -3.0)
    np.testing.assert_allclose(moved.centers_um() - bins.centers_um(), [[5.0, -3.0]] * spots.n_obs)


def test_positions_in_whole_pixels_still_lie_on_a_lattice():
    spots = binned()
    um = um_of(spots)
    spots.obsm["spatial"] = np.rint(spots.obsm["spatial"])
    for obs in (spots.obs, pd.DataFrame(index=spots.obs_names)):
        spots.obs = obs
        np.testing.assert_allclose(bins_of(spots, MPP, SIDE, at_least=100).centers_um(), um, atol=0.1)


def _moved_some(spots: AnnData) -> None:
    spots.obsm["spatial"][3] += 12.0


def _bent(spots: AnnData) -> None:
    at = spots.obsm["spatial"] - spots.obsm["spatial"].mean(axis=0)
    spots.obsm["spatial"] += 0.0004 * at**2


def _same_place(spots: AnnData) -> None:
    spots.obsm["spatial"][1], spots.obs.iloc[1] = spots.obsm["spatial"][0], spots.obs.iloc[0]


def _of_cells(spots: AnnData) -> None:
    spots.uns["napari_cpnn"] = {"of": "cells"}


def _without_place(spots: AnnData) -> None:
    spots.obsm["spatial"][5] = np.nan


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("spoil", [_moved_some, _bent, _same_place, _of_cells, _without_place])
def test_what_lies_on_no_lattice_is_not_bins(spoil, known):
    spots = binned()
    spoil(spots)
    if not known:
        spots.obs = pd.DataFrame(index=spots.obs_names)
    assert bins_of(spots, MPP, SIDE, at_least=100) is None


def test_spots_with_gaps_hexagons_and_few_bins_are_not_bins(monkeypatch):
    spots = binned()
    assert bins_of(spots, MPP, SIDE) is None  # too few to be worth it
    assert bins_of(spots, MPP, SIDE / 2, at_least=100) is None  # as the spots of Spatial Transcriptomics
    assert bins_of(spots, MPP, 0.0, at_least=100) is None  # of unknown size
    row, col = np.divmod(np.arange(2000), 40)
    hexagonal = np.c_[2 * col + row % 2, row] * [SIDE / 2, SIDE * np.sqrt(0.75)]
    obs = pd.DataFrame({"array_row": row, "array_col": 2 * col + row % 2}, index=[f"h{i}" for i in range(2000)])
    visium = AnnData(sp.csr_matrix((2000, 1)), obs=obs, obsm={"spatial": hexagonal / np.array(MPP)[::-1]})
    assert bins_of(visium, MPP, SIDE, at_least=100) is None
    visium.obs = pd.DataFrame(index=obs.index)
    assert bins_of(visium, MPP, SIDE, at_least=100) is None
    monkeypatch.setattr(module, "LARGEST_SIDE", 50)
    assert bins_of(spots, MPP, SIDE, at_least=100) is None
    monkeypatch.undo()
    sparse = binned(share=0.04)
    assert bins_of(sparse, MPP, SIDE, at_least=100) is None  # almost empty


def test_the_real_bins_of_visium_hd(shared_data: Path) -> None:
    run = shared_data / "visium-hd-human-colon-p2-subset" / "tests" / "data" / "hdvisium"
    spots = read_spots(run / "binned_outputs" / "square_002um")
    factors = next(iter(spots.uns["spatial"].values()))["scalefactors"]
    mpp = (factors["microns_per_pixel"],) * 2
    diameter = factors["spot_diameter_fullres"] * mpp[0]
    bins = bins_of(spots, mpp, diameter)
    assert isinstance(bins, Bins)
    assert bins.side_um == pytest.approx(2.0, rel=1e-3)
    assert bins.shape == (np.ptp(spots.obs["array_row"]) + 1, np.ptp(spots.obs["array_col"]) + 1)
    np.testing.assert_allclose(bins.centers_um(), spots.obsm["spatial"][:, ::-1] * mpp[0], atol=0.01)
    assert np.linalg.det(bins.affine) < 0  # its rows run from the bottom up
    spots.obs = pd.DataFrame(index=spots.obs_names)
    np.testing.assert_allclose(bins_of(spots, mpp, diameter).centers_um(), bins.centers_um(), atol=0.01)
