"""Stain and sharpness of patches, and the reasons that they give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_cpnn.prediction import appearance, ordinary_range, reasons_unlike

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


def patches(haematoxylin: float, eosin: float, n: int = 12, seed: int = 0) -> np.ndarray:
    """Nuclei-like blobs of one stain on a background of the other, with mean optical densities as given."""
    rng = np.random.default_rng(seed)
    amount = gaussian_filter(rng.random((n, 64, 64)), (0, 1.5, 1.5))
    amount /= amount.mean(axis=(1, 2), keepdims=True)
    density = haematoxylin * amount[..., None] * STAINS[0] + eosin * STAINS[1]
    return np.clip(np.rint(256 * 10**-density - 1), 0, 255).astype(np.uint8)


def test_strength_of_both_stains_is_measured():
    values = appearance(patches(0.30, 0.15))
    assert values[:, 0] == pytest.approx(0.30, abs=0.01)
    assert values[:, 1] == pytest.approx(0.15, abs=0.01)
    assert appearance(np.empty((0, 8, 8, 3), np.uint8)).shape == (0, 3)


def test_sharpness_does_not_depend_on_contrast_but_on_blur():
    sharp, pale = patches(0.3, 0.1), patches(0.2, 0.1)
    blurred = gaussian_filter(sharp.astype(float), (0, 2, 2, 0)).astype(np.uint8)
    assert appearance(pale)[:, 2] == pytest.approx(appearance(sharp)[:, 2], abs=0.15)
    assert (appearance(blurred)[:, 2] < appearance(sharp)[:, 2] - 0.5).all()
    assert np.isfinite(appearance(np.full((2, 16, 16, 3), 255, np.uint8))).all()


def training() -> np.ndarray:
    strengths = np.random.default_rng(1).uniform((0.25, 0.1), (0.35, 0.2), (30, 2))
    return np.concatenate([patches(h, e, 4, seed) for seed, (h, e) in enumerate(strengths)])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (patches(0.30, 0.15, seed=99), []),
        (patches(0.60, 0.15), ["its haematoxylin is stronger than in training"]),
        (patches(0.30, 0.02), ["its eosin is weaker than in training"]),
        (
            gaussian_filter(patches(0.3, 0.15).astype(float), (0, 3, 3, 0)).astype(np.uint8),
            ["it is blurred, or its pixel size is wrong"],
        ),
        (patches(0.3, 0.15)[:, ::2, ::2], ["it is sharper than in training, or its pixel size is wrong"]),
        (patches(0.3, 0.15)[:0], []),
    ],
)
def test_reasons(images, expected):
    assert reasons_unlike(images, ordinary_range(training())) == expected


def test_a_card_without_ranges_gives_no_reason():
    for card in ({}, {"eosin": 5}, {"eosin": [1]}, {"eosin": ["a", "b"]}, {"eosin": [5, -5]}, {"eosin": None}):
        assert reasons_unlike(patches(0.9, 0.9), card) == []
