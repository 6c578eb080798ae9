"""Maps end at the tissue and at the edge of the slide."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.geometry import Grid
from napari_cpnn.painting import magnified, paintable
from napari_cpnn.slides import Slide, TissueMask

GRID = Grid((3, 4), 100.0)


def places(n, shape=GRID.shape):
    return tuple((np.arange(n * size) + 0.5) * 100.0 / n for size in shape)


def test_only_tissue_on_the_slide_may_be_coloured():
    slide = Slide.from_arrays([np.zeros((250, 330, 3), np.uint8)], mpp=1.0)
    mask = np.zeros((25, 33), bool)
    mask[5:, :28] = True  # from 50 um down, to 280 um
    mask[:5, :1] = True
    tissue = TissueMask(mask, (10.0, 10.0))
    y, x = places(10)
    allowed = paintable(GRID, y, x, slide, slide.mpp, tissue)
    expected = ((y >= 50)[:, None] & (x < 280)) | ((y < 50)[:, None] & (x < 10))
    # The last column of patches has less than 30 % tissue by this mask, and is kept to the edge of the slide.
    expected |= x >= 300
    np.testing.assert_array_equal(allowed, expected & (y < 250)[:, None] & (x < 330))
    assert paintable(GRID, y, x, None, None, None).all()


@pytest.mark.parametrize("n", [1, 2, 8])
def test_a_linear_filter_reaches_zero_at_the_edge_of_what_may_be_coloured(n):
    rgba = np.ones((3, 4, 4), np.float32)
    allowed = np.ones((3 * n, 4 * n), bool)
    allowed[:, 2 * n :] = False
    alpha = magnified(rgba, n, allowed, smooth=True)[0, :, 3]
    half = (alpha[2 * n - 1] + alpha[2 * n]) / 2  # what the graphics card draws between the pixels
    assert half == 0
    assert (alpha[: 2 * n] == 1).all()
    assert (magnified(rgba, n, allowed, smooth=False)[:, 2 * n :, 3] == 0).all()


def test_colours_between_patches_are_interpolated():
    rgba = np.zeros((1, 3, 4), np.float32)
    rgba[0, :, 0] = 0.0, 1.0, 4.0
    picture = magnified(rgba, 4, np.ones((4, 12), bool), smooth=True)
    at = np.clip((np.arange(12) + 0.5) / 4 - 0.5, 0, 2)
    np.testing.assert_allclose(picture[2, :, 0], np.interp(at, [0, 1, 2], [0, 1, 4]), rtol=1e-6)
    assert (magnified(rgba, 4, np.ones((4, 12), bool), smooth=False)[0, :, 0] == np.repeat([0, 1, 4], 4)).all()
