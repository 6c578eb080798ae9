"""The first guess of a registration: known placements are found, and what cannot be known is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from scipy import ndimage

from napari_cpnn import Slide, open_slide, read_spots
from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import RegistrationError
from napari_cpnn.registration import guess_registration

#: um per pixel of the pictures that are drawn here, and their side in pixels.
UM, SIDE = 6.0, 700
WHITE = 244


def similarity(degrees: float, mirror: bool, scale: float = 1.0) -> FloatArray:
    """(2, 2) on (y, x): mirrored left to right, then turned."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return scale * np.array([[c, -s], [s, c]]) @ np.diag([1.0, -1.0 if mirror else 1.0])


def snail(angle):
    return 0.35 + 0.6 * (angle + np.pi) / (2 * np.pi)


def picture(seed: int, outline=snail) -> np.ndarray:
    """Pink tissue with purple spots, of an outline (radius by angle) that has no symmetry."""
    rng = np.random.default_rng(seed)
    y, x = (np.indices((SIDE, SIDE)) - SIDE / 2) / (SIDE / 2)
    inside = np.hypot(y, x) < outline(np.arctan2(y, x)) * 0.9
    noise = [ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma) for sigma in (2, 6, 20)]
    dark = sum(one / one.std() for one in noise)
    tissue = np.stack([215 - 22 * dark, 150 - 26 * dark, 190 - 10 * dark], axis=-1)
    shown = np.where(inside[..., None], tissue, WHITE + rng.normal(0, 1, (SIDE, SIDE, 1)))
    return shown.clip(0, 255).astype(np.uint8)


def turned_picture(pixels: np.ndarray, linear: FloatArray, um: tuple[float, float]) -> tuple[Slide, FloatArray]:
    """A picture turned about its middle, square pixels of ``um[0]``; and the (2, 3) from its um back to the first."""
    side = int(max(pixels.shape) * 1.45)
    middle = np.array(pixels.shape[:2]) / 2 * um
    shift = middle - linear @ np.full(2, side / 2 * um[0]) + (90, -60)
    into = linear * um[0] / np.array(um)[:, None]
    offset = (linear @ np.full(2, um[0] / 2) + shift) / np.array(um) - 0.5
    planes = [
        ndimage.affine_transform(pixels[..., k].astype(float), into, offset, (side, side), order=1, cval=WHITE)
        for k in range(3)
    ]
    new = np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    return Slide.from_arrays([new], um[0], name="turned"), np.column_stack([linear, shift])


def error_um(found, truth: FloatArray, points: FloatArray) -> float:
    return float(np.linalg.norm(found.map(points) - (points @ truth[:, :2].T + truth[:, 2]), axis=1).max())


@pytest.fixture(scope="module")
def slide() -> Slide:
    return Slide.from_arrays([picture(0)], UM, name="first")


def spots_on(slide: Slide, pitch: float = 200.0) -> FloatArray:
    """(x, y) pixels of an array of spots on the drawn tissue."""
    grid = np.stack(np.meshgrid(*[np.arange(0, SIDE * UM, pitch)] * 2), axis=-1).reshape(-1, 2) / UM
    pixels = np.asarray(slide.levels[0])
    return grid[pixels[grid[:, 1].astype(int), grid[:, 0].astype(int), 1] < 220]


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


@pytest.mark.parametrize(("degrees", "mirror", "um"), [(90, False, 1.0), (-50, True, 0.02)])
def test_turned_spots_are_found_by_their_outline(slide, degrees, mirror, um):
    """In pixels of any size: without an array of known pitch it comes from the areas."""
    here = spots_on(slide) * UM
    linear = similarity(degrees, mirror)
    spots = table((here[:, ::-1] @ linear.T)[:, ::-1] / um + (-300, 5000))
    found = guess_registration(slide, spots, "mine")
    assert (found.trusted, found.mirrored, found.moving_name) == (True, mirror, "mine")
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


def test_too_few_spots_are_a_sentence(slide):
    with pytest.raises(RegistrationError, match=r"11 spots are too few .* set landmarks instead"):
        guess_registration(slide, table(spots_on(slide)[:11]))
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


def test_neighbouring_real_sections_are_found(shared_data):
    """From one to the other and back, independently, one arrives where one began."""
    c3, c4 = (her2st(shared_data, name) for name in ("C3", "C4"))
    there, back = guess_registration(c4, c3), guess_registration(c3, c4)
    assert there.trusted
    assert back.trusted
    points = np.random.default_rng(0).uniform(1500, 5000, (100, 2))
    assert np.linalg.norm(back.map(there.map(points)) - points, axis=1).max() < 100
