"""The closed form against numpy's own least squares."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.evaluation.metrics import pearson
from napari_cpnn.training.fit.calibration import MIN_SLOPE, LineFit


def fit(predicted, measured, batches=3):
    lines = LineFit()
    for part in np.array_split(np.arange(len(predicted)), batches):
        lines.add(predicted[part], measured[part])
    return lines.solve()


@pytest.mark.parametrize("batches", [1, 7])
def test_equals_polyfit(batches):
    rng = np.random.default_rng(0)
    predicted = rng.normal(5, 0.3, (101, 12))
    measured = predicted * rng.uniform(0.5, 4, 12) + rng.normal(0, 0.2, (101, 12)) + 2
    slope, intercept = fit(predicted, measured, batches)
    for g in range(12):
        np.testing.assert_allclose([slope[g], intercept[g]], np.polyfit(predicted[:, g], measured[:, g], 1), rtol=1e-9)


def test_small_spread_on_a_large_offset_keeps_its_digits():
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(80, 1))
    slope, intercept = fit(1000 + 1e-2 * signal, 3 * signal + 1)
    assert slope[0] == pytest.approx(300, rel=1e-6)
    assert intercept[0] == pytest.approx(1 - 300 * 1000, rel=1e-6)


def test_a_negative_slope_is_floored_and_the_line_goes_through_the_means():
    rng = np.random.default_rng(2)
    predicted = rng.normal(size=(50, 1))
    measured = 4 - predicted
    slope, intercept = fit(predicted, measured)
    assert slope[0] == MIN_SLOPE
    calibrated = slope * predicted + intercept
    assert calibrated.mean() == pytest.approx(measured.mean())
    np.testing.assert_allclose(pearson(calibrated, measured), pearson(predicted, measured))


def test_constant_prediction_becomes_the_mean():
    measured = np.random.default_rng(3).normal(3, 1, (40, 1))
    slope, intercept = fit(np.full((40, 1), 0.7), measured)
    assert slope[0] == MIN_SLOPE
    assert slope[0] * 0.7 + intercept[0] == pytest.approx(measured.mean())
