from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.ui import painting

NAN = np.float32(np.nan)


def test_unknown_cells_are_transparent_and_low_values_fade():
    values = np.array([[0.0, 0.25, 1.0, NAN]], dtype=np.float32)
    rgba = painting.paint_values(values, painting.color_table("magma"), (0.0, 1.0), np.ones((1, 4), np.float32))
    assert rgba[0, 0, 3] == 0
    assert 0 < rgba[0, 1, 3] < 1
    assert rgba[0, 2, 3] == 1
    assert rgba[0, 3, 3] == 0


@pytest.mark.parametrize("name", painting.COLORMAPS)
def test_colours_are_those_of_matplotlib(name):
    from matplotlib import colormaps

    values = np.linspace(2.0, 6.0, 11, dtype=np.float32)[None]
    rgba = painting.paint_values(values, painting.color_table(name), (2.0, 6.0), np.ones_like(values))
    assert np.allclose(rgba[0, :, :3], colormaps[name](np.linspace(0, 1, 11))[:, :3], atol=0.02)


def test_values_beyond_the_range_take_the_end_colours():
    values = np.array([[-5.0, 9.0]], dtype=np.float32)
    table = painting.color_table("viridis")
    rgba = painting.paint_values(values, table, (0.0, 1.0), np.ones((1, 2), np.float32))
    assert np.array_equal(rgba[0], table[[0, -1]])


def test_transparent_neighbours_take_the_colour_of_the_map():
    values = np.full((5, 5), NAN)
    values[2, 2] = 1.0
    rgba = painting.paint_values(values, painting.color_table("magma"), (0.0, 1.0), np.ones((5, 5), np.float32))
    assert np.allclose(rgba[1, 1, :3], rgba[2, 2, :3], atol=1e-3)
    assert rgba[1, 1, 3] == 0


def test_certainty_is_full_only_when_the_surroundings_are_done():
    tissue = np.ones((20, 20), dtype=bool)
    done = np.zeros_like(tissue)
    assert np.allclose(painting.certainty(done, tissue), painting.FAINTEST)
    done[::4, ::4] = True
    sparse = painting.certainty(done, tissue)
    assert painting.FAINTEST < sparse[8:12, 8:12].mean() < 0.6
    assert np.ptp(sparse[4:16, 4:16]) < 0.15  # no polka dots
    assert np.array_equal(painting.certainty(tissue, tissue), np.ones((20, 20)))


def test_certainty_ignores_background():
    tissue = np.zeros((20, 20), dtype=bool)
    tissue[:10] = True
    done = tissue.copy()
    done[0, 0] = False  # not all done, so the filter is used
    assert painting.certainty(done, tissue)[9, 10] == pytest.approx(1.0)


def test_borrowed_cells_show_their_donor():
    values = np.array([[1.0, NAN], [NAN, 4.0]], dtype=np.float32)
    donors = np.array([[0, 0], [-1, 3]])
    assert np.array_equal(painting.borrowed(values, donors), [[1, 1], [NAN, 4]], equal_nan=True)


def test_dominant_takes_the_colour_of_the_type():
    colors = painting.hex_colors(["#FF0000", "#0000FF"])
    rgba = painting.paint_dominant(np.array([[0, 1, -1]]), colors, np.full((1, 3), 0.5, np.float32))
    assert np.array_equal(rgba[0], [[1, 0, 0, 0.5], [0, 0, 1, 0.5], [0, 0, 0, 0]])


def test_blend_mixes_by_share():
    colors = painting.hex_colors(["#FF0000", "#0000FF"])
    shares = np.array([[[0.6, 0.2], [0.0, 0.0]]], dtype=np.float32)
    rgba = painting.paint_blend(shares, colors, np.ones((1, 2), np.float32))
    assert np.allclose(rgba[0, 0], [0.75, 0, 0.25, 0.8])
    assert rgba[0, 1, 3] == 0


def test_failed_cells_stand_out():
    rgba = np.zeros((1, 2, 4), dtype=np.float32)
    painting.mark_failed(rgba, np.array([[False, True]]))
    assert rgba[0, 0, 3] == 0
    assert tuple(rgba[0, 1]) == pytest.approx(painting.FAILED_COLOR)


def test_auto_range_holds_still_while_a_map_fills():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 1.0, 4000).astype(np.float32)
    auto = painting.AutoRange(from_zero=False, least=0.1)
    ranges = [auto.update(values[:n], at_rest=False) for n in range(100, 4000, 50)]
    assert len(set(ranges)) <= 7  # it may change when the number of cells has doubled, no more often
    low, high = auto.update(values, at_rest=True)
    assert low == pytest.approx(np.percentile(values, 2), abs=0.15)
    assert high == pytest.approx(np.percentile(values, 99), abs=0.25)


def test_auto_range_of_a_flat_map_is_not_blown_up():
    flat = np.full(100, 2.0, dtype=np.float32)
    low, high = painting.AutoRange(from_zero=False, least=0.1).update(flat, at_rest=True)
    assert (low, high) == pytest.approx((1.95, 2.05))
    assert painting.AutoRange(from_zero=True, least=0.05).update(flat * 0, at_rest=True) == (0.0, 0.05)


def test_auto_range_of_nothing_is_usable():
    low, high = painting.AutoRange(from_zero=False, least=0.1).update(np.full(4, NAN), at_rest=True)
    assert high > low
