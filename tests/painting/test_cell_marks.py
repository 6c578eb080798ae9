"""Outlines and dots of cells: each pixel against geometry."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from scipy import ndimage

from napari_cpnn.painting import dot_picture, outline_picture

RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


def ring(center: tuple[float, float], radius: float, n: int = 9) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.asarray(center) + radius * np.c_[np.sin(angles), np.cos(angles)]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_lines_are_where_the_outlines_are(width):
    polygons = [ring((20.3, 22.7), 12.2), ring((50.0, 60.5), 9.1, 5)]
    starts = np.array([0, 9, 14])
    picture = outline_picture(np.concatenate(polygons), starts, np.array([RED, BLUE], np.uint8), (80, 90), width)
    y, x = np.mgrid[:80, :90] + 0.5
    for polygon, color in zip(polygons, (RED, BLUE), strict=True):
        line = shapely.LinearRing(polygon)
        far = shapely.distance(line, shapely.points(y.ravel(), x.ravel())).reshape(80, 90)
        here = (picture == color).all(axis=-1)
        assert far[here].max() < width / 2 + 1.0
        assert ndimage.binary_dilation(here)[far < 0.3].all()
        assert width == 1 or here[far < 0.3].all()
    blank = picture[..., 3] == 0
    lines = shapely.MultiLineString([np.vstack([p, p[:1]]) for p in polygons])
    far = shapely.distance(lines, shapely.points(y.ravel(), x.ravel())).reshape(80, 90)
    assert blank[far > width / 2 + 2.5].all()


def test_dots_are_discs():
    centers = np.array([[10.5, 10.5], [30.5, 25.5]])
    picture = dot_picture(centers, 4.0, np.array([RED, BLUE], np.uint8), (40, 40))
    y, x = np.mgrid[:40, :40] + 0.5
    for (cy, cx), color in zip(centers, (RED, BLUE), strict=True):
        np.testing.assert_array_equal((picture == color).all(axis=-1), np.hypot(y - cy, x - cx) <= 4.0)
    assert (picture[10, 15] == (255, 255, 255, 130)).all()  # the margin


def test_what_lies_outside_is_cut():
    picture = outline_picture(ring((0, 0), 5), np.array([0, 9]), np.array([RED], np.uint8), (10, 10), 2)
    assert (picture[..., 3] > 0).any()
    assert not dot_picture(np.array([[-50.0, 5.0], [5.0, 99.0]]), 3.0, np.array([RED, BLUE], np.uint8), (10, 10)).any()


def test_nothing_to_draw():
    assert not outline_picture(np.empty((0, 2)), np.array([0]), np.empty((0, 4), np.uint8), (8, 8), 2).any()
    assert not dot_picture(np.empty((0, 2)), 3.0, np.empty((0, 4), np.uint8), (8, 8)).any()
