"""The first guess of a registration: known placements are found, and what cannot be known is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from drawn_tissue import SIDE, UM, picture, similarity, spots_on, turned_picture
from napari_cpnn import Slide, open_slide, read_spots
from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import RegistrationError
from napari_cpnn.registration import guess_registration


def error_um(found, truth: FloatArray, points: FloatArray) -> float:
    return float(np.linalg.norm(found.map(points) - (points @ truth[:, :2].T + truth[:, 2]), axis=1).max())


@pytest.fixture(scope="module")
def slide() -> Slide:
    return Slide.from_arrays([picture(0)], UM, name="first")


def table(positions: FloatArray) -> AnnData:
    spots = AnnData(np.ones((len(positions), 1), np.float32))
    spots.obsm["spatial"] = np.asarray(positions)
    return spots


@pytest.mark.parametrize(("degrees", "mirror"), [(-140, False), (33, True)])
def test_a_turned_picture_is_found(slide, degrees, mirror):
    other, truth = turned_picture(picture(0), similarity(degrees, mirror), (UM, UM))
    found = guess_registration(slide, other)
    assert (found.trusted, found.mirrored, found.why) == (True, mirror, "")
    assert found.evidence.inliers > 0.8 * found.evidence.matches > 10
    assert found.evidence.dice > 0.97
    assert error_um(found, truth, np.random.default_rng(0).uniform(1500, 4500, (50, 2))) < 3 * UM
    assert (found.moving_name, found.fixed_name, found.fixed_mpp) == ("turned", "first", (UM, UM))
    assert "outline alone" not in found.summary


@pytest.mark.parametrize(("degrees", "mirror", "um"), [(90, False, 1.0), (-50, True, 0.02)])
def test_turned_spots_are_found_by_their_outline(slide, degrees, mirror, um):
    """In pixels of any size: without an array of known pitch it comes from the areas."""
    here = spots_on(slide) * UM
    linear = similarity(degrees, mirror)
    spots = table((here[:, ::-1] @ linear.T)[:, ::-1] / um + (-300, 5000))
    found = guess_registration(slide, spots, "mine")
    assert (found.trusted, found.mirrored, found.moving_name) == (True, mirror, "mine")
    assert "found by the outline alone: up to half the distance of two spots off" in found.summary
    assert np.linalg.norm(found.map_px(spots.obsm["spatial"]) * UM - here, axis=1).max() < 100  # half a pitch


@pytest.mark.parametrize("as_float", [False, True])
def test_the_picture_of_spots_decides_where_there_is_one(slide, as_float):
    small = np.asarray(slide.levels[0])[::2, ::2]
    small = np.ascontiguousarray(np.rot90(small))
    here = spots_on(slide)
    spots = table(np.c_[here[:, 1], SIDE - here[:, 0]])
    factors = {"tissue_hires_scalef": 0.5, "microns_per_pixel": UM}
    spots.uns["spatial"] = {"lib": {"images": {"hires": small / 255 if as_float else small}, "scalefactors": factors}}
    found = guess_registration(slide, spots)
    assert found.trusted
    assert found.evidence.correlation > 0.9
    assert np.linalg.norm(found.map_px(spots.obsm["spatial"]) - here, axis=1).max() * UM < 4 * UM


def test_a_round_tissue_without_a_picture_is_not_believed():
    round_slide = Slide.from_arrays([picture(1, lambda _: 0.8)], UM, name="round")
    found = guess_registration(round_slide, table(spots_on(round_slide)))
    assert not found.trusted
    assert found.why.startswith("Turned or mirrored otherwise the outlines fit about as well")


def test_another_tissue_is_not_believed(slide):
    """Of the same outline, and of another one."""
    same = guess_registration(slide, Slide.from_arrays([picture(5)], UM, name="other"))
    assert not same.trusted
    assert same.why.startswith("The pictures hardly resemble each other")
    long = Slide.from_arrays([picture(6, lambda angle: 0.2 + 0.7 * np.abs(np.cos(angle)) ** 3)], UM, name="long")
    other = guess_registration(slide, table(spots_on(long)))
    assert not other.trusted
    assert "overlap" in other.why


def test_spots_that_are_there_twice_lie_where_they_lie_once(slide):
    once = guess_registration(slide, table(spots_on(slide)))
    twice = guess_registration(slide, table(np.repeat(spots_on(slide), 2, axis=0)))
    np.testing.assert_allclose(twice.matrix, once.matrix, atol=1e-6)


def test_too_few_spots_are_a_sentence(slide):
    with pytest.raises(RegistrationError, match=r"Spots at 11 different places are too few .* set landmarks"):
        guess_registration(slide, table(spots_on(slide)[:11]))
    with pytest.raises(RegistrationError, match="Spots at 1 different places are too few"):
        guess_registration(slide, table(np.tile(spots_on(slide)[:1], (50, 1))))
    with pytest.raises(RegistrationError, match="no positions"):
        guess_registration(slide, AnnData(np.ones((20, 1), np.float32)))


# -- real sections: HER2+ breast cancer, Andersson et al. 2021 --------------------------------------------------


def her2st(folder: Path, section: str) -> Slide:
    return open_slide(next((folder / f"her2st/data/ST-imgs/{section[0]}/{section}").glob("*.jpg")), mpp=(0.686, 0.690))


def test_a_real_picture_that_was_turned(shared_data):
    slide = her2st(shared_data, "C4")
    small = slide.thumbnail(1000)
    um = tuple(n * size / m for n, size, m in zip(slide.shape, slide.mpp, small.shape, strict=False))
    other, truth = turned_picture(small, similarity(23, mirror=True), um)
    found = guess_registration(slide, other)
    assert found.trusted
    assert error_um(found, truth, np.random.default_rng(0).uniform(1000, 6000, (100, 2))) < 20


def test_real_spots_that_were_turned_and_mirrored(shared_data):
    folder = shared_data / "her2st/data"
    spots = read_spots(folder / "ST-cnts/B4.tsv.gz", folder / "ST-spotfiles/B4_selection.tsv", check=False)
    here = spots.obsm["spatial"].copy()
    spots.obsm["spatial"] = (here[:, ::-1] @ similarity(-60, mirror=True).T)[:, ::-1] * 3 + 20_000
    found = guess_registration(her2st(shared_data, "B4"), spots)
    assert (found.trusted, found.mirrored) == (True, True)
    away = np.linalg.norm((found.map_px(spots.obsm["spatial"]) - here) * (0.690, 0.686), axis=1)
    assert away.max() < 100  # half the pitch of 200 um


@pytest.mark.slow  # its siblings have real pictures, too
def test_neighbouring_real_sections_are_found(shared_data):
    """From one to the other and back, independently, one arrives where one began."""
    c3, c4 = (her2st(shared_data, name) for name in ("C3", "C4"))
    there, back = guess_registration(c4, c3), guess_registration(c3, c4)
    assert there.trusted
    assert back.trusted
    points = np.random.default_rng(0).uniform(1500, 5000, (100, 2))
    assert np.linalg.norm(back.map(there.map(points)) - points, axis=1).max() < 100
