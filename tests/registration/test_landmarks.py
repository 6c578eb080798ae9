"""Registrations from landmarks, against independent computations."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
import skimage.transform
from scipy.optimize import least_squares
from skimage.transform import AffineTransform, SimilarityTransform

from napari_cpnn.errors import RegistrationError
from napari_cpnn.registration import KINDS, Registration, fit_landmarks


def places(seed: int, n: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 6000, (n, 2))


def turned(points: np.ndarray, degrees: float, scale: float = 1.0, shift=(0.0, 0.0), mirror: bool = False):
    """Independent of the package: (y, x) turned counter-clockwise as seen, after mirroring left to right."""
    angle = np.radians(degrees)
    x, y = points[:, 1] * (-1 if mirror else 1), -points[:, 0]  # y up
    across, up = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    return scale * np.c_[-up, across] + shift


def of_skimage(transform, moving, fixed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from_estimate is in newer versions only
        transform.estimate(moving, fixed)
    return transform


def noisy(seed: int, sd: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    moving = places(seed)
    return moving, turned(moving, 37, 1.05, (400, -90)) + np.random.default_rng(seed + 1).normal(0, sd, moving.shape)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, -135, 17.5])
def test_a_known_similarity_is_found(degrees, mirror):
    moving = places(0)
    fixed = turned(moving, degrees, 0.97, (1000, -200), mirror)
    found = fit_landmarks(moving, fixed)
    assert (found.mirrored, found.scale, found.turn_deg) == (mirror, pytest.approx(0.97), pytest.approx(degrees))
    more = places(1)
    np.testing.assert_allclose(found.map(more), turned(more, degrees, 0.97, (1000, -200), mirror), atol=1e-6)
    np.testing.assert_allclose(found.inverse(found.map(more)), more, atol=1e-6)
    assert found.rms_um < 1e-6 > found.left_out_rms_um


def test_the_similarity_is_that_of_least_squares():
    moving, fixed = noisy(2)
    found = fit_landmarks(moving, fixed)

    def off(p):
        return (
            np.c_[p[0] * moving[:, 0] - p[1] * moving[:, 1] + p[2], p[1] * moving[:, 0] + p[0] * moving[:, 1] + p[3]]
            - fixed
        ).ravel()

    best = least_squares(off, [1, 0, 0, 0], x_scale=[1, 1, 1e3, 1e3], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(found.residuals_um, np.linalg.norm(best.fun.reshape(-1, 2), axis=1), rtol=1e-5)
    theirs = of_skimage(SimilarityTransform(), moving, fixed)
    np.testing.assert_allclose(np.vstack([found.matrix, (0, 0, 1)]), theirs.params, atol=1e-6)
    assert found.rms_um == pytest.approx(np.sqrt(np.mean(best.fun.reshape(-1, 2) ** 2) * 2))


def test_a_mirrored_similarity_is_that_of_mirrored_points():
    moving, fixed = noisy(3)
    found = fit_landmarks(moving * (1, -1), fixed)
    assert found.mirrored
    np.testing.assert_allclose(found.matrix[:, :2] * (1, -1), fit_landmarks(moving, fixed).matrix[:, :2], atol=1e-9)
    with pytest.raises(RegistrationError, match="the picture is mirrored; allow that"):
        fit_landmarks(moving * (1, -1), fixed, mirror=False)


def test_the_affine_map_is_that_of_least_squares():
    moving, fixed = noisy(4)
    found = fit_landmarks(moving, fixed, "affine")
    expected = np.linalg.lstsq(np.c_[moving, np.ones(9)], fixed, rcond=None)[0].T
    np.testing.assert_allclose(found.matrix, expected, atol=1e-6)
    exact = AffineTransform(scale=(1.1, 0.8), rotation=0.3, shear=0.2, translation=(50, 70))
    sheared = fit_landmarks(moving, exact(moving), "affine")
    np.testing.assert_allclose(sheared.matrix, exact.params[:2], atol=1e-6)
    assert fit_landmarks(moving, exact(moving)).rms_um > 50 * sheared.rms_um


def test_the_spline_is_that_of_bookstein():
    """His linear equations, solved here in their own words; skimage's spline is the same where it has one."""
    moving, fixed = noisy(5, sd=120)
    found = fit_landmarks(moving, fixed, "thin-plate")

    def bending(r):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(r > 0, r**2 * np.log(r**2), 0)

    unit = moving / 1000  # bending energy does not depend on the unit
    kernel = bending(np.linalg.norm(unit[:, None] - unit[None], axis=2))
    plane = np.c_[np.ones(9), unit]
    left = np.block([[kernel, plane], [plane.T, np.zeros((3, 3))]])
    weights = np.linalg.solve(left, np.r_[fixed, np.zeros((3, 2))])
    more = places(6, 40)
    rows = np.c_[bending(np.linalg.norm(more[:, None] / 1000 - unit[None], axis=2)), np.ones(40), more / 1000]
    np.testing.assert_allclose(found.map(more), rows @ weights, atol=1e-5)
    np.testing.assert_allclose(found.map(moving), fixed, atol=1e-6)
    np.testing.assert_allclose(found.inverse(found.map(more)), more, atol=1e-2)
    assert found.rms_um < 1e-6 < 1 < found.left_out_rms_um

    if hasattr(skimage.transform, "ThinPlateSplineTransform"):
        theirs = of_skimage(skimage.transform.ThinPlateSplineTransform(), moving, fixed)
        np.testing.assert_allclose(found.map(more), theirs(more), atol=0.02)


def test_three_landmarks_make_a_spline_an_affine_map():
    moving, fixed = (points[:3] for points in noisy(7))
    found, plain = (fit_landmarks(moving, fixed, kind) for kind in ("thin-plate", "affine"))
    np.testing.assert_allclose(found.map(places(8)), plain.map(places(8)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_is_predicted_by_the_others(kind):
    moving, fixed = noisy(9)
    found = fit_landmarks(moving, fixed, kind)
    for i in (0, 5):
        rest = np.delete(np.arange(9), i)
        alone = fit_landmarks(moving[rest], fixed[rest], kind)
        assert found.left_out_um[i] == pytest.approx(np.linalg.norm(alone.map(moving[[i]]) - fixed[i]), rel=1e-6)
    assert found.left_out_rms_um > found.rms_um


def test_a_wrong_pair_stands_out():
    moving, fixed = noisy(10, sd=5)
    fixed[4] += (0, 700)
    found = fit_landmarks(moving, fixed)
    assert found.left_out_um.argmax() == found.residuals_um.argmax() == 4


def test_two_landmarks_do_not_tell_a_mirrored_picture():
    moving = places(11, 2)
    found = fit_landmarks(moving, turned(moving, 30, mirror=True))
    assert not found.mirrored
    assert np.isnan(found.left_out_um).all()
    assert fit_landmarks(moving, turned(moving, 30, mirror=True), mirror=True).mirrored


def test_pixels_that_are_not_square():
    """Landmarks in um, positions in pixels: y and x of both pictures have sizes of their own."""
    moving, fixed = noisy(12)
    found = fit_landmarks(moving, fixed, mpp=((0.5, 0.25), (0.7, 0.6)))
    px = moving[:, ::-1] / (0.25, 0.5)
    here = found.map(moving)[:, ::-1] / (0.6, 0.7)
    np.testing.assert_allclose(found.map_px(px), here, atol=1e-6)
    np.testing.assert_allclose(px @ found.pixel_matrix[:, :2].T + found.pixel_matrix[:, 2], here, atol=1e-6)


SQUARE = [(0, 0), (0, 100), (100, 0), (100, 100)]


@pytest.mark.parametrize(
    ("moving", "fixed", "kind", "said"),
    [
        ([], [], "similarity", "takes two pairs of landmarks, but has 0"),
        (SQUARE[:1], SQUARE[:1], "similarity", "but has 1"),
        (SQUARE[:2], SQUARE[:2], "affine", "takes three pairs of landmarks that are not on a line"),
        (SQUARE[:2], SQUARE[:2], "thin-plate", "three pairs"),
        (SQUARE, SQUARE[:3], "affine", "pairs of points"),
        ([(0, 0, 0)], [(0, 0, 0)], "affine", "pairs of points"),
        ([*SQUARE, (np.nan, 1)], [*SQUARE, (5, 5)], "similarity", "Landmark 5 has a coordinate that is not a number"),
        ([*SQUARE, ("a", 1)], [*SQUARE, (5, 5)], "similarity", "not numbers"),
        ([(7, 7)] * 3, SQUARE[:3], "similarity", "at one place of the moving picture"),
        (SQUARE[:3], [(7, 7)] * 3, "similarity", "at one place of the fixed picture"),
        ([(0, 0), (50, 50), (100, 100.2)], SQUARE[:3], "affine", "moving picture lie on a line"),
        (SQUARE[:3], [(0, 0), (50, 50), (100, 100.2)], "thin-plate", "fixed picture lie on a line"),
        ([*SQUARE, (100, 100)], [*SQUARE, (90, 90)], "thin-plate", "Landmarks 4 and 5 lie at one place of the moving"),
        (SQUARE, SQUARE, "rigid", "of the kind similarity, affine, thin-plate"),
        ([*SQUARE, (50, 50), (52, 50)], [*SQUARE, (52, 50), (50, 50)], "thin-plate", "folds the tissue over near"),
        (np.zeros((1001, 2)), np.zeros((1001, 2)), "affine", "1,000 at most"),
    ],
)  # fmt: skip
def test_landmarks_that_say_nothing(moving, fixed, kind, said):
    with pytest.raises(RegistrationError, match=said):
        fit_landmarks(moving, fixed, kind)


def test_a_mirror_that_is_denied():
    moving = places(13)
    with pytest.raises(RegistrationError, match="the picture is mirrored; allow that, or check the pairs"):
        fit_landmarks(moving, moving * (1, -1), "affine", mirror=False)
    with pytest.raises(RegistrationError, match="the picture is not mirrored"):
        fit_landmarks(moving, moving, "thin-plate", mirror=True)


def test_a_similarity_of_the_wrong_hand_is_refused():
    """Turned over by force, landmarks would be drawn together to almost a point."""
    moving = places(14, 4)
    with pytest.raises(RegistrationError, match="the picture is not mirrored; allow that, or check the pairs"):
        fit_landmarks(moving, moving + np.array([40, 10]), mirror=True)
    line = [(0.0, 0.0), (100.0, 100.0), (300.0, 300.0)]  # says nothing about it
    assert fit_landmarks(line, line, mirror=True).mirrored


def test_what_is_left_out_of_many_landmarks_is_known_at_once():
    """Of 500 landmarks each is left out in seconds, not by 500 splines of 499; a few are checked so."""
    moving, fixed = places(15, 500), places(15, 500) * 1.1 + np.random.default_rng(15).normal(0, 0.2, (500, 2))
    began = time.process_time()
    found = fit_landmarks(moving, fixed, "thin-plate")
    assert time.process_time() - began < 20
    for i in (3, 251):
        rest = np.delete(np.arange(500), i)
        alone = Registration("thin-plate", found.matrix, moving[rest], fixed[rest], np.empty(0))
        away = np.linalg.norm(alone.map(moving[[i]]) - fixed[i])
        assert found.left_out_um[i] == pytest.approx(away, rel=1e-4)


def test_a_landmark_that_holds_the_others_off_a_line_has_no_rest():
    moving = np.array([(0.0, 0.0), (0.0, 50.0), (0.0, 100.0), (70.0, 30.0)])
    found = fit_landmarks(moving, moving * 2, "thin-plate")
    assert np.isnan(found.left_out_um).tolist() == [False, False, False, True]


def test_a_spline_that_cannot_be_inverted_says_so(monkeypatch):
    moving = np.array([*SQUARE, (50, 50)], dtype=float)
    found = fit_landmarks(moving, moving + np.array([[0, 0]] * 4 + [[0, 12]]), "thin-plate")
    near = found.inverse([(50, 62), (np.nan, 1.0)])
    np.testing.assert_allclose(near[0], (50, 50), atol=1e-4)
    assert np.isnan(near[1]).all()
    monkeypatch.setattr("napari_cpnn.registration.registration._STEPS", 1)
    with pytest.raises(RegistrationError, match="cannot be inverted so far away"):
        found.inverse([(500, 500)])
    with pytest.raises(RegistrationError, match="shape"):
        found.map([1.0, 2.0])
