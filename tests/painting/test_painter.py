from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from napari_cpnn import painting
from napari_cpnn.painting import FAILED_COLOR, FAINTEST, AutoRange, Painter, color_table


def painter_of(donors, done=None, failed=None, tissue=None):
    donors = np.asarray(donors)
    flat = np.arange(donors.size).reshape(donors.shape)
    painter = Painter(np.ones(donors.shape, dtype=bool) if tissue is None else tissue)
    nothing = np.zeros(donors.shape, dtype=bool)
    painter.update(donors, donors == flat if done is None else done, nothing if failed is None else failed)
    return painter


def paint(values, limits=(0.0, 1.0), name="magma", **state):
    """Every finite value is a computed cell."""
    values = np.asarray(values, dtype=np.float32)
    known = np.isfinite(values)
    donors = np.where(known, np.arange(values.size).reshape(values.shape), -1)
    painter = painter_of(donors, tissue=known, **state)
    painter.paint_values(painter.shown(values), color_table(name), limits)
    return painter.rgba


def test_unknown_cells_are_transparent_and_low_values_fade():
    alpha = paint([[0.0, 0.25, 1.0, np.nan]])[0, :, 3]
    assert alpha[0] == 0
    assert 0 < alpha[1] < 1
    assert alpha[2] == 1
    assert alpha[3] == 0


@pytest.mark.parametrize("name", painting.COLORMAPS)
@pytest.mark.parametrize("limits", [(0.0, 1.0), (2.0, 6.0)])
def test_colours_are_those_of_matplotlib_between_the_limits(name, limits):
    from matplotlib import colormaps

    low, high = limits
    rgba = paint(np.linspace(low, high, 11)[None], limits, name)
    on_screen = (rgba[0, :, :3] - low) / (high - low)  # what napari makes of it
    assert np.allclose(on_screen, colormaps[name](np.linspace(0, 1, 11))[:, :3], atol=0.02)


def test_values_beyond_the_range_take_the_end_colours():
    assert np.allclose(paint([[-5.0, 9.0]], name="viridis")[0], color_table("viridis")[[0, -1]])


def test_painting_again_gives_the_same_picture():
    values = np.array([[0.2, np.nan, 0.8]], dtype=np.float32)
    painter = painter_of([[0, -1, 2]])
    pictures = []
    for _ in range(3):
        painter.paint_values(painter.shown(values), color_table("magma"), (0.1, 0.9))
        pictures.append(painter.rgba.copy())
    assert np.array_equal(pictures[0], pictures[2])


def test_transparent_neighbours_take_the_colour_of_the_map():
    values = np.full((5, 5), np.nan)
    values[2, 2] = 1.0
    rgba = paint(values)
    ring = [(r, c) for r in (1, 2, 3) for c in (1, 2, 3) if (r, c) != (2, 2)]
    assert all(np.array_equal(rgba[cell][:3], rgba[2, 2, :3]) for cell in ring)
    assert all(rgba[cell][3] == 0 for cell in ring)
    assert (rgba[0] == 0).all()


def test_cells_show_their_donor():
    painter = painter_of([[0, 0], [-1, 3]])
    values = np.array([[1.0, np.nan], [np.nan, 4.0]], dtype=np.float32)
    assert np.array_equal(painter.shown(values), [1, 1, 4])
    assert painter.n_done == 2


def solidity(done, tissue):
    """Alpha of a fully coloured map."""
    painter = painter_of(np.where(tissue, 0, -1), done=done, tissue=tissue)
    painter.paint_values(np.ones(painter.n_visible, np.float32), color_table("magma"), (0.0, 1.0))
    return painter.rgba[..., 3]


def test_an_area_is_solid_when_it_is_done_and_faint_before():
    tissue = np.ones((20, 20), dtype=bool)
    done = np.zeros_like(tissue)
    assert np.allclose(solidity(done, tissue), FAINTEST)
    done[::4, ::4] = True
    sparse = solidity(done, tissue)
    assert FAINTEST < sparse[8:12, 8:12].mean() < 0.6
    assert np.ptp(sparse[4:16, 4:16]) < 0.15  # no polka dots
    expected = FAINTEST + (1 - FAINTEST) * uniform_filter(done.astype(float), 5)
    assert np.allclose(sparse[4:16, 4:16], expected[4:16, 4:16], atol=1e-5)
    assert np.array_equal(solidity(tissue, tissue), np.ones((20, 20)))


def test_background_does_not_make_an_edge_faint():
    tissue = np.zeros((20, 20), dtype=bool)
    tissue[:10] = True
    done = tissue.copy()
    done[0, 0] = False  # not all done
    assert solidity(done, tissue)[9, 10] == pytest.approx(1.0)


def test_dominant_takes_the_colour_of_the_type():
    painter = painter_of([[0, 1, -1]])
    margins = np.array([0.25, 0.9], np.float32)
    painter.paint_dominant(painter.shown(np.array([[0, 1, -1]])), margins, painting.hex_colors(["#FF0000", "#0000FF"]))
    alpha = painter.rgba[0, 0, 3]
    assert np.allclose(painter.rgba[0, :2], [[1, 0, 0, alpha], [0, 0, 1, alpha]])
    assert painter.rgba[0, 2, 3] == 0


@pytest.mark.parametrize(("margin", "strength"), [(0.0, 0.15), (0.03, 0.252), (0.125, 0.575), (0.25, 1.0), (0.8, 1.0)])
def test_a_dominant_type_is_the_paler_the_less_it_leads(margin, strength):
    painter = painter_of([[0]])
    red = painting.hex_colors(["#FF0000"])
    painter.paint_dominant(np.array([0]), np.array([1.0], np.float32), red)
    full = painter.rgba[0, 0, 3]
    painter.paint_dominant(np.array([0]), np.array([margin], np.float32), red)
    assert painter.rgba[0, 0, 3] == pytest.approx(strength * full, rel=1e-5)


def test_blend_mixes_by_share():
    painter = painter_of([[0, 1]])
    shares = np.array([[0.6, 0.2], [0.0, 0.0]], dtype=np.float32)
    painter.paint_blend(shares, painting.hex_colors(["#FF0000", "#0000FF"]))
    assert np.allclose(painter.rgba[0, 0], [0.75, 0, 0.25, 0.8])
    assert painter.rgba[0, 1, 3] == 0


@pytest.mark.parametrize("limits", [(0.0, 1.0), (1.0, 5.0)])
def test_failed_cells_stand_out(limits):
    painter = painter_of([[0, -1]], failed=np.array([[False, True]]))
    painter.paint_values(np.ones(1, np.float32), color_table("magma"), limits)
    on_screen = (painter.rgba[0, 1, :3] - limits[0]) / (limits[1] - limits[0])
    assert (*on_screen, painter.rgba[0, 1, 3]) == pytest.approx(FAILED_COLOR)


def test_auto_range_holds_still_while_a_map_fills():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 1.0, 4000).astype(np.float32)
    auto = AutoRange(from_zero=False, least=0.1)
    ranges = [auto.update(values[:n], n, False) for n in range(100, 4000, 50)]
    assert len(set(ranges)) <= 7  # it may change when the number of cells has doubled, no more often
    low, high = auto.update(values, len(values), True)
    assert low == pytest.approx(np.percentile(values, 2), abs=0.15)
    assert high == pytest.approx(np.percentile(values, 99), abs=0.25)


def test_auto_range_settles_when_coarse_values_are_replaced():
    auto = AutoRange(from_zero=True, least=0.05)
    auto.update(np.full(1000, 0.9, np.float32), 4, False)
    assert auto.update(np.full(1000, 0.3, np.float32), 1000, True) == pytest.approx((0.0, 0.3))


def test_auto_range_of_a_flat_map_is_not_blown_up():
    flat = np.full(100, 2.0, dtype=np.float32)
    assert AutoRange(from_zero=False, least=0.1).update(flat, 100, True) == pytest.approx((1.95, 2.05))
    assert AutoRange(from_zero=True, least=0.05).update(flat * 0, 100, True) == (0.0, 0.05)


def test_auto_range_of_nothing_is_usable():
    low, high = AutoRange(from_zero=False, least=0.1).update(np.empty(0, np.float32), 0, True)
    assert high > low
