"""Contours and borders against independent computations."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.painting import border_lines, contour_levels, contour_lines


def test_contour_of_a_cone_is_a_circle():
    y, x = np.mgrid[-20:21, -20:21]
    lines = contour_lines(np.hypot(y, x).astype(np.float32), 12.0)
    ends = np.concatenate([lines[:, 0], lines.sum(axis=1)]) - 20
    assert np.allclose(np.hypot(*ends.T), 12.0, atol=0.03)
    assert np.linalg.norm(lines[:, 1], axis=1).sum() == pytest.approx(2 * np.pi * 12, rel=0.01)


def test_contours_end_where_nothing_is_known():
    field = np.tile(np.arange(10.0, dtype=np.float32), (10, 1))
    field[5:] = np.nan
    lines = contour_lines(field, 4.5)
    assert np.allclose(lines[:, 0, 1], 4.5)
    assert lines[:, 0, 0].max() <= 4.0
    assert len(contour_lines(field[:1], 4.5)) == 0


@pytest.mark.parametrize(
    ("limits", "levels"),
    [((0.0, 1.0), [0.2, 0.4, 0.6, 0.8]), ((1.9, 3.1), [2.0, 2.5, 3.0]), ((-0.3, 0.3), [-0.2, 0.0, 0.2]), ((2, 2), [])],
)
def test_levels_are_round_and_inside(limits, levels):
    assert contour_levels(limits) == levels


def test_borders_lie_inside_the_patches_of_their_group():
    groups = np.array([[0, 0, 1], [0, -1, 1]])
    lines, owners = border_lines(groups, 0.1)
    # Group 0: an L of three patches has 8 sides; group 1: two patches have 6.
    assert (groups.reshape(-1)[owners] == 0).sum() == 8
    assert (groups.reshape(-1)[owners] == 1).sum() == 6
    middle = lines[:, 0] + lines[:, 1] / 2
    assert np.array_equal(np.rint(middle).astype(int) @ (3, 1), owners)
    assert np.allclose(np.abs(middle - np.rint(middle)).max(axis=1), 0.4)
    ends = [sorted(map(tuple, points.round(9))) for points in (lines[:, 0], lines.sum(axis=1))]
    assert ends[0] == ends[1]  # rings without gaps, also around the inner corner
    every, _ = border_lines(groups, 0.1, every=True)
    assert len(every) == 4 * 5
