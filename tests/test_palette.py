"""Colours of cell types."""

from __future__ import annotations

import re

import numpy as np
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


def test_first_colours_can_be_told_apart_without_red_or_green() -> None:
    """Okabe and Ito's seven, seen by a deuteranope (Machado et al. 2009, severity 1), keep their distance in Lab."""
    from skimage.color import rgb2lab

    deuteranopia = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    rgb = np.array([[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in COLORS[:7]])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ deuteranopia.T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert distances[np.triu_indices(7, 1)].min() > 12
    assert len(set(COLORS)) == len(COLORS)


def test_grey_is_kept_for_no_type() -> None:
    for color in COLORS:
        values = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
        assert max(values) - min(values) > 20
