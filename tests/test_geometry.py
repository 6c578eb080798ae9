"""Micrometres, pixels, grids and layers, as properties."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from napari_cpnn.errors import SettingsError
from napari_cpnn.geometry import (
    MAX_CELLS,
    Grid,
    LayerFrame,
    PatchSpec,
    Rect,
    as_mpp,
    is_plausible_mpp,
    spatial_to_um,
    um_to_spatial,
)

MPP = st.tuples(st.floats(0.1, 2), st.floats(0.1, 2)).filter(is_plausible_mpp)
UM = st.floats(-1e4, 1e5)
POINTS = st.lists(st.tuples(UM, UM), min_size=1, max_size=5)
SHAPE = st.tuples(st.integers(1, 60_000), st.integers(1, 60_000))
STRIDE = st.floats(20, 500)


@given(POINTS, MPP)
def test_pixels_and_um_are_inverse_and_swap_axes(points: list[tuple[float, float]], mpp: tuple[float, float]) -> None:
    um = spatial_to_um(points, mpp)
    np.testing.assert_allclose(um_to_spatial(um, mpp), points, atol=1e-6)
    x, y = points[0]
    np.testing.assert_allclose(um[0], [y * mpp[0], x * mpp[1]])


@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), 352.8, (0.5, 2.0), (0.5,), (0.5, 0.5, 0.5), "half", None]
)
def test_pixel_sizes_that_no_slide_has(value: float | tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="not plausible"):
        as_mpp(value)


def test_as_mpp() -> None:
    assert as_mpp(0.5) == (0.5, 0.5)
    assert as_mpp((0.69, 0.686)) == (0.69, 0.686)
    assert as_mpp("0,69") == (0.69, 0.69)
    assert as_mpp([0.69, 0.686]) == (0.69, 0.686)  # type: ignore[arg-type]


def test_patch_spec() -> None:
    assert PatchSpec(224, 0.5).size_um == 112.0
    for wrong in ((4, 0.5), (224, 0.0), (224, 50.0)):
        with pytest.raises(SettingsError):
            PatchSpec(*wrong)


def test_rect() -> None:
    rect = Rect(10, 20, 40, 100)
    assert (rect.height, rect.width, rect.center) == (30, 80, (25, 60))
    assert rect.grown(5) == Rect(5, 15, 45, 105)


@given(SHAPE, MPP, STRIDE)
def test_a_grid_covers_its_slide_and_no_more(shape: tuple[int, int], mpp: tuple[float, float], stride: float) -> None:
    assume(shape[0] * mpp[0] * shape[1] * mpp[1] < 0.9 * MAX_CELLS * stride**2)
    grid = Grid.over(shape, mpp, stride)
    assert grid.origin_um == (0, 0)
    for n, px, size in zip(grid.shape, shape, mpp, strict=True):
        assert n >= 1
        assert n * stride >= px * size - 1e-3  # nothing of the slide is left out
        assert n == 1 or (n - 1) * stride < px * size  # each cell touches the slide


@given(SHAPE, MPP, STRIDE, st.data())
def test_a_region_is_a_window_of_the_slides_grid(
    shape: tuple[int, int], mpp: tuple[float, float], stride: float, data: st.DataObject
) -> None:
    assume(shape[0] * mpp[0] * shape[1] * mpp[1] < 0.9 * MAX_CELLS * stride**2)
    whole = Grid.over(shape, mpp, stride)
    assume(whole.n_cells < 1_000_000)
    extent = (shape[0] * mpp[0], shape[1] * mpp[1])
    y0, y1 = sorted(data.draw(st.lists(st.floats(0, extent[0]), min_size=2, max_size=2)))
    x0, x1 = sorted(data.draw(st.lists(st.floats(0, extent[1]), min_size=2, max_size=2)))
    assume(y1 - y0 > 1 and x1 - x0 > 1)
    part = Grid.over(shape, mpp, stride, Rect(y0, x0, y1, x1))
    row, col = (round(o / stride) for o in part.origin_um)
    np.testing.assert_allclose(part.origin_um, (row * stride, col * stride), atol=1e-6)
    assert row + part.shape[0] <= whole.shape[0]
    assert col + part.shape[1] <= whole.shape[1]
    np.testing.assert_allclose(part.centers_um([(0, 0)]), whole.centers_um([(row, col)]), atol=1e-6)
    assert part.origin_um[0] <= y0 + 1e-3
    assert part.origin_um[0] + part.shape[0] * stride >= min(y1, whole.shape[0] * stride) - 1e-3


def test_a_stride_that_would_exhaust_memory_is_refused_with_one_that_works() -> None:
    shape, mpp = (100_000, 100_000), (0.5, 0.5)
    with pytest.raises(SettingsError, match=r"2,500,000,000 patches.*at least 16 um"):
        Grid.over(shape, mpp, 1.0)
    assert Grid.over(shape, mpp, 16.0).n_cells <= MAX_CELLS
    assert Grid.over(shape, mpp, 1.0, Rect(0, 0, 2000, 2000)).n_cells == 4_000_000


def test_regions_outside_and_bad_strides() -> None:
    with pytest.raises(SettingsError, match="lies outside the slide"):
        Grid.over((1000, 1000), (0.5, 0.5), 100.0, Rect(600, 0, 700, 100))
    with pytest.raises(SettingsError, match="lies outside the slide"):
        Grid.over((1000, 1000), (0.5, 0.5), 100.0, Rect(-300, -300, -200, -200))
    for region in (Rect(0, 0, float("nan"), 100), Rect(0, 0, float("inf"), 100), Rect(100, 0, 0, 100)):
        with pytest.raises(SettingsError, match="y0 x0 y1 x1"):
            Grid.over((1000, 1000), (0.5, 0.5), 100.0, region)
    for stride in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="stride"):
            Grid.over((1000, 1000), (0.5, 0.5), stride)


GRIDS = st.builds(
    Grid, st.tuples(st.integers(1, 20), st.integers(1, 20)), STRIDE, st.tuples(st.floats(0, 5000), st.floats(0, 5000))
)


@given(GRIDS)
def test_each_centre_lies_in_its_cell(grid: Grid) -> None:
    centers = grid.centers_um()
    assert centers.shape == (grid.n_cells, 2)
    for i in {0, grid.n_cells // 2, grid.n_cells - 1}:
        assert grid.cell_at(*centers[i]) == divmod(i, grid.shape[1])
    np.testing.assert_array_equal(centers, grid.centers_um(np.argwhere(np.ones(grid.shape))))
    y, x = grid.origin_um
    assert grid.cell_at(y - 1, x) is None
    assert grid.cell_at(y + grid.shape[0] * grid.stride_um + 1, x) is None


@given(GRIDS, st.floats(-1000, 8000), st.floats(-1000, 8000), st.floats(1, 3000), st.floats(1, 3000))
def test_window_is_the_cells_that_touch(grid: Grid, y0: float, x0: float, height: float, width: float) -> None:
    rect = Rect(y0, x0, y0 + height, x0 + width)
    inside = np.zeros(grid.shape, dtype=bool)
    inside[grid.window(rect)] = True
    low = grid.centers_um().reshape(*grid.shape, 2) - grid.stride_um / 2
    high = low + grid.stride_um
    touches = ((high - 1e-6 > (rect.y0, rect.x0)) & (low + 1e-6 < (rect.y1, rect.x1))).all(axis=2)
    barely = ((high + 1e-6 > (rect.y0, rect.x0)) & (low - 1e-6 < (rect.y1, rect.x1))).all(axis=2)
    assert (inside | ~touches).all()  # all that touch are in
    assert (barely | ~inside).all()  # and no others, but for rounding at the edge


@given(GRIDS)
def test_grid_as_json(grid: Grid) -> None:
    assert Grid.from_dict(json.loads(json.dumps(grid.to_dict()))) == grid


FRAMES = st.builds(
    LayerFrame,
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000)),
    MPP,
)


@given(FRAMES, POINTS)
def test_world_and_um_are_inverse(frame: LayerFrame, points: list[tuple[float, float]]) -> None:
    np.testing.assert_allclose(frame.world_to_um(frame.um_to_world(points)), points, atol=1e-5)


@given(MPP, POINTS)
def test_the_world_of_our_own_slides_is_um(mpp: tuple[float, float], points: list[tuple[float, float]]) -> None:
    np.testing.assert_allclose(LayerFrame.of_slide(mpp).um_to_world(points), points, atol=1e-6)


@given(FRAMES, GRIDS, st.integers(0, 19), st.integers(0, 19))
def test_the_grids_layer_lies_on_the_slides_layer(frame: LayerFrame, grid: Grid, row: int, col: int) -> None:
    """A cell's centre, placed by its own layer, is where the slide's layer has the pixel under it."""
    scale, translate = frame.grid_transform(grid)
    placed = np.array([row, col]) * scale + translate
    center_um = (np.array([row, col]) + 0.5) * grid.stride_um + grid.origin_um
    pixel = center_um / frame.mpp - 0.5  # index of level 0 whose centre this is
    np.testing.assert_allclose(placed, pixel * frame.scale + frame.translate, rtol=1e-9, atol=1e-6)
