"""Parts of a benchmark: baselines, negative controls, image statistics, sources of predictions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmark_world import GENES, QUICK, known_section
from napari_cpnn.errors import CpnnError
from napari_cpnn.studies.benchmarking.baselines import (
    COLOURS,
    DEPTH,
    NUCLEI,
    PENALTIES,
    TRAIN_MEAN,
    baseline_predictions,
    choose_penalty,
    ridge,
    sums_of,
)
from napari_cpnn.studies.benchmarking.controls import donors_of, laid_onto, torus_shifts
from napari_cpnn.studies.benchmarking.image_statistics import colour_statistics, find_nuclei, image_statistics
from napari_cpnn.studies.benchmarking.sections import align, open_sections
from napari_cpnn.studies.benchmarking.sources import find_predictions, read_prediction
from napari_cpnn.studies.benchmarking.units import expected_counts, in_log_cp10k


@pytest.fixture(scope="module")
def prepared():
    """Three sections with the sums of their baselines."""
    world = [known_section(seed, rows=8 + seed, cols=9) for seed in range(3)]
    sections = open_sections([one.sample for one in world], None, None)
    images = [image_statistics(one.slide, one.centers_um, QUICK.patch) for one in sections]
    aligned = [
        align(section, {"truth": one.truth}, ~image.ok, ignore_case=False)
        for section, one, image in zip(sections, world, images, strict=True)
    ]
    return world, aligned, images, [sums_of(s, i) for s, i in zip(sections, images, strict=True)]


def standardised(values):
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)


def test_baselines_are_regressions_on_the_other_sections(prepared):
    world, aligned, images, sums = prepared
    predictions, fitted = baseline_predictions(aligned[0], sums[0], sums[1:])
    assert fitted
    stacked = np.concatenate([one.measured for one in world[1:]])
    centred = np.concatenate([one.measured - one.measured.mean(axis=0) for one in world[1:]])
    mean = stacked.mean(axis=0)
    np.testing.assert_allclose(predictions[TRAIN_MEAN][0], mean, rtol=1e-5)
    for name, numbers in ((DEPTH, lambda i: world[i].log_totals), (NUCLEI, lambda i: np.log1p(images[i].nuclei))):
        x = [standardised(np.asarray(numbers(i))[:, None]) for i in range(3)]
        slopes = np.linalg.lstsq(np.concatenate(x[1:]), centred, rcond=None)[0]
        np.testing.assert_allclose(predictions[name], mean + x[0] @ slopes, atol=1e-5)
    x = [standardised(image.colours) for image in images]
    grams, targets = (
        [f.T @ f for f in x[1:]],
        [f.T @ (one.measured - one.measured.mean(axis=0)) for f, one in zip(x[1:], world[1:], strict=True)],
    )
    penalty = choose_penalty(grams, targets, [len(f) for f in x[1:]]) * len(stacked)
    both = np.concatenate(x[1:])
    slopes = np.linalg.solve(both.T @ both + penalty * np.eye(21), both.T @ centred)
    np.testing.assert_allclose(predictions[COLOURS], mean + x[0] @ slopes, atol=1e-4)


def test_the_penalty_has_the_least_error_when_sections_are_left_out():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 4))
    x = [rng.normal(size=(n, 6)) for n in (9, 12, 10)]
    y = [f @ truth + rng.normal(0, 6, (len(f), 4)) for f in x]
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for i in range(3):
            fx, fy = (np.concatenate([part for j, part in enumerate(parts) if j != i]) for parts in (x, y))
            slopes = np.linalg.solve(fx.T @ fx + penalty * len(fx) * np.eye(6), fx.T @ fy)
            error += ((y[i] - x[i] @ slopes) ** 2).sum()
        errors.append(error)
    found = choose_penalty([f.T @ f for f in x], [f.T @ t for f, t in zip(x, y, strict=True)], [len(f) for f in x])
    assert found == PENALTIES[int(np.argmin(errors))]
    assert found > PENALTIES[0]


def test_ridge_gives_0_in_directions_without_information():
    gram = np.diag([4.0, 0.0])
    np.testing.assert_allclose(ridge(gram, np.array([[2.0], [0.0]]), 0.0), [[0.5], [0.0]])


def test_a_gene_that_a_training_table_lacks_was_not_detected_there(prepared):
    world, aligned, _, sums = prepared
    fewer = world[1].spots[:, GENES[10:]].copy()
    (section,) = open_sections([(world[1].slide, fewer)], None, None)
    without = sums_of(section, image_statistics(section.slide, section.centers_um, QUICK.patch))
    predictions, _ = baseline_predictions(aligned[0], sums[0], [without])
    assert (predictions[TRAIN_MEAN][:, :10] == 0).all()
    assert (predictions[DEPTH][:, :10] == 0).all()
    assert (predictions[TRAIN_MEAN][:, 10:] > 0).any()


def test_shifts_on_a_torus_keep_every_value_and_move_it_far():
    rows, cols = 8, 12
    centers = np.stack([c.ravel() for c in np.mgrid[:rows, :cols]], axis=1) * 200.0 + 37
    shifts = torus_shifts(centers, 4)
    assert len(shifts) == 15
    assert torus_shifts(centers, 0) == torus_shifts(centers, 1) == []
    for places in shifts:
        assert sorted(places) == list(range(rows * cols))  # on a whole array, each prediction is used once
        step = np.abs(centers[places] - centers) / 200
        step = np.minimum(step, [rows, cols] - step)
        assert (step.max(axis=1) >= 2).all()
        # All spots move alike: the same as rolling the array.
        down, right = (centers[places] - centers)[0] / 200
        rolled = np.roll(np.arange(rows * cols).reshape(rows, cols), (-round(down), -round(right)), (0, 1))
        np.testing.assert_array_equal(places, rolled.ravel())


def test_another_section_is_stretched_over_this_one(prepared):
    _, aligned, _, _ = prepared
    target, donor = aligned[0], aligned[2]
    laid = laid_onto(target, donor, "truth")
    assert laid.shape == target.measured.shape
    corners = [np.lexsort(one.centers_um.T[::-1])[[0, -1]] for one in (target, donor)]
    np.testing.assert_array_equal(laid[corners[0]], donor.predicted["truth"][corners[1]])


def test_donors_are_of_other_patients_where_there_are_any():
    world = [known_section(seed, rows=5, cols=5) for seed in range(4)]
    sections = open_sections([one.sample for one in world], ["A", "A", "B", "A"], None)
    none = np.zeros(25, dtype=bool)
    aligned = [align(s, {"m": one.truth}, none, ignore_case=False) for s, one in zip(sections, world, strict=True)]
    assert [one.section.name for one in donors_of(aligned, 0)] == ["section2"]
    assert [one.section.name for one in donors_of(aligned, 2)] == ["section3", "section0"]
    assert [one.section.name for one in donors_of(aligned[:2], 1)] == ["section0"]


def test_colour_statistics_are_those_of_numpy():
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3)).astype(np.uint8)
    pixels = image.reshape(-1, 3).astype(float)
    density = -np.log10((pixels + 1) / 256)
    percentiles = np.percentile(pixels, [10, 50, 90], axis=0, method="inverted_cdf")
    wanted = [pixels.mean(0), pixels.std(0), *percentiles, density.mean(0), density.std(0)]
    np.testing.assert_allclose(colour_statistics(image), np.concatenate(wanted), atol=1e-9)


def test_nuclei_are_found_where_they_were_drawn():
    image = Image.new("RGB", (224, 224), (235, 190, 215))
    draw = ImageDraw.Draw(image)
    centers = [(y, x) for y in range(25, 220, 40) for x in range(25, 220, 40)]
    for y, x in centers:
        draw.ellipse([x - 7, y - 7, x + 7, y + 7], fill=(90, 60, 140))
    draw.rectangle([0, 0, 224, 6], fill=(200, 60, 120))  # a band of eosin is no nucleus
    found = find_nuclei(np.asarray(image), 0.5)
    assert len(found) == len(centers)
    nearest = np.abs(found[:, None] - np.asarray(centers)[None]).max(axis=2).min(axis=0)
    assert nearest.max() <= 2
    assert not len(find_nuclei(np.full((64, 64, 3), 240, np.uint8), 0.5))


def test_expected_counts_invert_the_normalisation():
    counts = np.random.default_rng(0).poisson(3, (10, 5)).astype(np.float32)
    totals = counts.sum(axis=1).astype(float) * 2
    log = np.log1p(1e4 * counts / totals[:, None]).astype(np.float32)
    np.testing.assert_allclose(expected_counts(log, totals), counts, rtol=1e-4)
    assert (expected_counts(-log, totals) == 0).all()
    back, known = in_log_cp10k(counts, log, share=0.5)
    assert known
    np.testing.assert_allclose(back, log, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (lambda v: v, True),
        (lambda v: v - 0.3, True),
        (np.expm1, False),
        (lambda v: v + 5, False),
        (lambda v: v - v.mean(), False),
        (lambda v: np.where(v > 1, np.nan, v), True),
        (lambda v: np.full_like(v, np.nan), False),
    ],
)
def test_units_by_range_and_mean(change, known):
    measured = np.random.default_rng(0).gamma(1, 0.8, (50, 30)).astype(np.float32)
    values = change(measured).astype(np.float32)
    found, is_known = in_log_cp10k(values, measured)
    assert is_known is known
    np.testing.assert_array_equal(found, values)


def test_folders_of_predictions(tmp_path):
    one = known_section(0, name="scan_C2.tif", rows=4, cols=5)
    (section,) = open_sections([one.sample], None, ["C2"])
    with pytest.raises(CpnnError, match=r"there must be a file C2\.h5ad, and there is none"):
        find_predictions("m", tmp_path, [section])
    for name in ("C2", "scan_C2", "scan_C2_tif"):  # by its name, its slide, and as cross_validate writes it
        folder = tmp_path / name / "fold"
        folder.mkdir(parents=True)
        one.truth.write_h5ad(folder / f"{name}.h5ad")
        (found,) = find_predictions("m", tmp_path / name, [section])
        table = read_prediction("m", found, section, QUICK)
        np.testing.assert_array_equal(np.asarray(table.X), one.truth.X)
    again = tmp_path / "C2" / "again"
    again.mkdir()
    one.truth.write_h5ad(again / "C2.h5ad")
    with pytest.raises(CpnnError, match="has 2 files of m for C2"):
        find_predictions("m", tmp_path / "C2", [section])
    (tmp_path / "broken.h5ad").write_bytes(b"no table")
    (found,) = find_predictions("m", tmp_path / "broken.h5ad", [section])
    with pytest.raises(CpnnError, match=r"broken\.h5ad"):
        read_prediction("m", found, section, QUICK)
