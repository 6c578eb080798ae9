"""Spots and regions moved by a registration."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData, read_h5ad

from napari_cpnn import Slide
from napari_cpnn.errors import CpnnWarning, RegistrationError, SpotsError
from napari_cpnn.regions import Region
from napari_cpnn.registration import (
    Registration,
    apply_registration,
    fit_landmarks,
    register_regions,
    warp_of,
    with_moving_mpp,
)
from napari_cpnn.spots import SpotFix, move_back, move_of

MPP = ((0.5, 0.5), (1.0, 1.0))


def table() -> AnnData:
    spots = AnnData(np.ones((4, 2), np.float32))
    spots.obsm["spatial"] = np.array([[0, 0], [4000, 0], [0, 4000], [2000, 2000]], dtype=float)
    factors = {"spot_diameter_fullres": 200.0, "tissue_hires_scalef": 0.1}
    spots.uns["spatial"] = {"lib": {"scalefactors": factors}}
    return spots


def bent(sd: float = 60.0):
    moving = np.array([(0, 0), (0, 2000), (2000, 0), (2000, 2000), (900, 1100)], dtype=float)
    fixed = moving[:, ::-1] + np.random.default_rng(0).normal(0, sd, (5, 2))
    return fit_landmarks(moving, fixed, "thin-plate", mpp=MPP)


def test_spots_of_finer_pixels_come_to_lie_on_a_coarser_slide():
    moving = np.array([(0, 0), (0, 1000), (1000, 0)], dtype=float)
    turned = fit_landmarks(moving, [(10, 20), (1010, 20), (10, -980)], mpp=MPP)
    moved = apply_registration(table(), turned)
    np.testing.assert_allclose(moved.obsm["spatial"][1], (20, 10 + 2000))  # 2000 um to the right, now downwards
    factors = moved.uns["spatial"]["lib"]["scalefactors"]
    assert factors == {"spot_diameter_fullres": pytest.approx(100), "tissue_hires_scalef": pytest.approx(0.2)}
    assert move_of(moved).name == "a registration (similarity)"
    np.testing.assert_allclose(move_back(moved).apply(moved).obsm["spatial"], table().obsm["spatial"], atol=1e-9)
    assert warp_of(moved) is None


def test_a_spline_bends_the_positions_and_is_noted(tmp_path):
    before, registration = table(), bent()
    moved = apply_registration(before, registration)
    um = before.obsm["spatial"][:, ::-1] * 0.5
    np.testing.assert_allclose(moved.obsm["spatial"], registration.map(um)[:, ::-1], atol=1e-9)
    assert moved.uns["spatial"]["lib"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(100, rel=0.05)
    assert before.uns["spatial"]["lib"]["scalefactors"]["spot_diameter_fullres"] == 200
    moved.write_h5ad(tmp_path / "moved.h5ad")
    noted = warp_of(read_h5ad(tmp_path / "moved.h5ad"))
    np.testing.assert_allclose(noted.map(um), registration.map(um), atol=1e-9)
    with pytest.raises(RegistrationError, match="take that back before you register them again"):
        apply_registration(moved, registration)
    with pytest.raises(SpotsError, match="take that back before you move them otherwise"):
        SpotFix("", np.eye(2, 3), 0.0).apply(moved)


def test_another_slide_is_refused():
    slide = Slide.from_arrays([np.zeros((2100, 2100, 3), np.uint8)], 0.5, name="other")
    with pytest.raises(RegistrationError, match=r"1 um per pixel, but other has 0\.5; is it the right slide"):
        apply_registration(table(), bent(), slide)
    apply_registration(table(), bent(), slide.with_mpp(1.001))
    with pytest.raises(RegistrationError, match="no positions"):
        apply_registration(AnnData(np.ones((2, 2), np.float32)), bent())


def test_landmarks_outside_the_slide_are_of_another_one():
    shift = fit_landmarks([(0, 0), (0, 40)], [(5, 5), (5, 45)], mpp=((0.5, 0.5), (0.5, 0.5)), names=("a", "wide"))
    wide, narrow = (Slide.from_arrays([np.zeros((100, width, 3), np.uint8)], 0.5, name="wide") for width in (100, 80))
    apply_registration(table(), shift, wide)
    with pytest.raises(RegistrationError, match=r"Landmark 2 is at x = 90, y = 10 px, outside wide \(80 x 100 px\)"):
        apply_registration(table(), shift, narrow)


def test_a_slide_of_another_name_is_a_warning():
    shift = fit_landmarks([(0, 0), (0, 40)], [(5, 5), (5, 45)], mpp=((0.5, 0.5), (0.5, 0.5)), names=("a", "one"))
    other = Slide.from_arrays([np.zeros((100, 100, 3), np.uint8)], 0.5, name="other")
    with pytest.warns(CpnnWarning, match="made on one, and is used on other; is it the right slide"):
        apply_registration(table(), shift, other)


@pytest.mark.parametrize("kind", ["similarity", "thin-plate", "guess"])
def test_pixels_keep_their_places_when_the_pixel_size_is_known_later(kind):
    moving = np.array([(0, 0), (0, 2000), (2000, 0), (2000, 2000), (900, 1100)], dtype=float)
    fixed = moving[:, ::-1] + np.random.default_rng(0).normal(0, 60, (5, 2))
    found = fit_landmarks(moving, fixed, "thin-plate" if kind == "thin-plate" else "similarity", mpp=MPP)
    if kind == "guess":
        found = Registration("similarity", found.matrix, moving[:0], moving[:0], np.empty(0), *MPP)
    other = with_moving_mpp(found, (0.25, 0.25))
    places = np.random.default_rng(1).uniform(0, 4000, (9, 2))
    np.testing.assert_allclose(other.map_px(places), found.map_px(places), atol=1e-6)
    assert other.moving_mpp == (0.25, 0.25)
    assert with_moving_mpp(found, MPP[0]) is found


def test_regions_move_with_the_tissue():
    region = Region.from_vertices("margin", [(0, 0), (0, 2000), (2000, 2000), (2000, 0)])
    (straight,) = register_regions([region], fit_landmarks([(0, 0), (0, 100)], [(5, 7), (100, 7)]))
    assert straight.area_mm2 == pytest.approx(4 * 0.95**2)
    registration = bent()
    (curved,) = register_regions([region], registration)
    grid = np.stack(np.meshgrid(np.linspace(0, 2000, 401), np.linspace(0, 2000, 401), indexing="ij"), axis=-1)
    there = registration.map(grid.reshape(-1, 2)).reshape(grid.shape)
    a, b = there[1:, :-1] - there[:-1, :-1], there[:-1, 1:] - there[:-1, :-1]
    area = np.abs(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum()  # cell by cell
    assert curved.area_mm2 == pytest.approx(area / 1e6, rel=2e-3)
    assert curved.name == "margin"
