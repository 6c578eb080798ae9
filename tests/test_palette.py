"""Colours of cell types."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cpnn.palette import COLORS, type_colors


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=75))
def test_each_type_has_a_colour_of_its_own_that_depends_on_its_place(names: list[str]) -> None:
    colors = type_colors(names)
    assert list(colors) == names
    assert all(re.fullmatch("#[0-9A-F]{6}", c) for c in colors.values())
    assert len(set(colors.values())) == len(names)
    assert list(type_colors([f"other {n}" for n in names]).values()) == list(colors.values())


#: Machado, Oliveira, Fernandes 2009, severity 1; they multiply linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def least_distance(colors: Sequence[str], vision: str) -> float:
    """Smallest CIEDE2000 of two colours as they are seen."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    rgb = np.array([[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(VISION[vision]).T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
    pairs = deltaE_ciede2000(lab[:, None], lab[None])[np.triu_indices(len(colors), 1)]
    return float(pairs.min())


@pytest.mark.parametrize(
    ("n", "normal", "deficient"), [(8, 21, 10.5), (12, 21, 10), (16, 18, 9), (22, 17, 7.5), (25, 16, 7.5)]
)
def test_colours_can_be_told_apart(n: int, normal: float, deficient: float) -> None:
    for vision in VISION:
        least = least_distance(COLORS[:n], vision)
        assert least >= (normal if vision == "normal" else deficient), f"{vision}: {least:.1f}"


@pytest.mark.parametrize("vision", VISION)
def test_no_colour_is_that_of_the_tissue_or_of_unreadable_patches(vision: str) -> None:
    for other in ("#ECD6E2", "#595959", "#FFFFFF"):
        assert min(least_distance([color, other], vision) for color in COLORS) > 5


def test_grey_is_kept_for_no_type() -> None:
    for color in COLORS:
        values = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
        assert max(values) - min(values) > 20
