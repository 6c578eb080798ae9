from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.lattice import Lattice
from napari_cpnn.mapping.scheduler import BLOCK, Scheduler, Viewport
from napari_cpnn.settings import MappingSettings

GRID = Grid((64, 48), 100.0)
TISSUE = np.random.default_rng(0).random(GRID.shape) < 0.6


def scheduler(tissue=TISSUE, grid=GRID, **changes):
    return Scheduler(grid, Lattice(tissue), MappingSettings(**changes))


def view(y0, x0, y1, x1, px_per_um=1.0, pointer=None):
    return Viewport(Rect(y0, x0, y1, x1), px_per_um, pointer)


views = st.tuples(st.floats(-500, 6500), st.floats(-500, 5000), st.floats(1, 4000), st.floats(1, 4000))


@given(views, st.sampled_from([1.0, 0.02, 0.005]), st.booleans())
def test_order_is_tissue_only_each_cell_once(box, px_per_um, whole):
    y, x, height, width = box
    order = scheduler().order(view(y, x, y + height, x + width, px_per_um), TISSUE, whole)
    assert len(np.unique(order)) == len(order)
    assert TISSUE.ravel()[order].all()
    if whole:
        assert len(order) == TISSUE.sum()


@given(views)
def test_all_tissue_in_view_comes_before_anything_else(box):
    y, x, height, width = box
    order = scheduler().order(view(y, x, y + height, x + width), TISSUE, whole_slide=True)
    in_view = np.zeros(GRID.shape, dtype=bool)
    in_view[GRID.window(Rect(y, x, y + height, x + width))] = True
    wanted = np.flatnonzero((in_view & TISSUE).ravel())
    # A coarse block that the view cuts may be represented by a cell just outside it: at most one per block.
    outside = len(np.setdiff1d(order[: len(wanted)], wanted))
    rows, cols = GRID.window(Rect(y, x, y + height, x + width))
    blocks = sum(((rows.stop - rows.start) // s + 2) * ((cols.stop - cols.start) // s + 2) for s in (16, 8, 4, 2))
    assert outside <= blocks
    assert set(wanted) <= set(order[: len(wanted) + outside + blocks])


def test_coarse_comes_before_fine():
    order = scheduler().order(view(0, 0, 6400, 4800), TISSUE)
    lattice = Lattice(TISSUE)
    start = 0
    seen: set[int] = set()
    for size in (16, 8, 4, 2, 1):
        expected = {int(c) for c in lattice.representatives(size).ravel() if c >= 0} - seen
        assert set(order[start : start + len(expected)]) == expected
        seen |= expected
        start += len(expected)
    assert start == len(order)


@pytest.mark.parametrize(("px_per_um", "finest"), [(1.0, 1), (0.039, 2)])
def test_a_large_view_is_covered_then_completed_block_by_block(px_per_um, finest):
    grid = Grid((150, 160), 100.0)
    tissue = np.random.default_rng(1).random(grid.shape) < 0.6
    s = scheduler(tissue, grid, margin=0.0)
    pointer = (4050.0, 12050.0)
    order = s.order(view(0, 0, 15_000, 16_000, px_per_um, pointer), tissue)
    of = {size: {int(c) for c in s.lattice.representatives(size).ravel() if c >= 0} for size in s.lattice.sizes}
    assert set(order[: len(of[16])]) == of[16]
    assert set(order[: len(of[8])]) == of[8]
    assert len(of[8]) <= 19 * 20  # seconds, also at 100 patches per second
    assert set(order) == of[finest]
    row, col = np.divmod(order[len(of[8]) :], grid.shape[1])
    blocks = row // BLOCK * 10 + col // BLOCK
    first = np.flatnonzero(np.diff(blocks, prepend=-1))
    assert len(first) == len(np.unique(blocks)) == 100  # each block in one go
    away = np.hypot((row[first] // BLOCK + 0.5) * 1600 - pointer[0], (col[first] // BLOCK + 0.5) * 1600 - pointer[1])
    assert (np.diff(away) > -1).all()  # from the pointer outwards


def test_finest_lattice_follows_the_zoom():
    s = scheduler(min_screen_px=4.0)
    assert s.finest(1.0) == 1  # a patch is 100 px on screen
    assert s.finest(0.04) == 1  # 4 px
    assert s.finest(0.039) == 2
    assert s.finest(0.011) == 4
    assert s.finest(1e-9) == 16
    order = s.order(view(0, 0, 6400, 4800, 0.011), TISSUE)
    lattice = Lattice(TISSUE)
    assert set(order) == {int(c) for c in lattice.representatives(4).ravel() if c >= 0}


def test_near_the_pointer_first():
    s = scheduler(coarsest=1, margin=0.0)
    order = s.order(view(0, 0, 6400, 4800, pointer=(850.0, 950.0)), TISSUE)
    distance = np.linalg.norm(GRID.centers_um(np.stack(np.divmod(order, GRID.shape[1]), axis=1)) - (850, 950), axis=1)
    assert distance[:16].max() < 800 < distance[-16:].min()
    assert s.order(view(0, 0, 6400, 4800), TISSUE)[0] != order[0]


def test_neighbours_stay_together():
    """A batch of 16 at the finest lattice is one tile, so that its patches share a region read."""
    full = np.ones(GRID.shape, dtype=bool)
    order = scheduler(full, coarsest=1, margin=0.0).order(view(0, 0, 6400, 4800), full)
    for start in range(0, 160, 16):
        row, col = np.divmod(order[start : start + 16], GRID.shape[1])
        assert np.ptp(row) == np.ptp(col) == 3


def test_margin_follows_the_view():
    s = scheduler(coarsest=1, margin=0.5)
    order = s.order(view(2000, 2000, 3000, 3000), TISSUE)
    row, col = np.divmod(order, GRID.shape[1])
    assert row.min() == 15
    assert row.max() == 34
    n_view = TISSUE[20:30, 20:30].sum()
    assert ((row[:n_view] >= 20) & (row[:n_view] < 30) & (col[:n_view] >= 20) & (col[:n_view] < 30)).all()


def test_done_cells_are_left_out_and_nothing_in_view_gives_nothing():
    pending = TISSUE.copy()
    pending[:, :24] = False
    order = scheduler().order(view(0, 0, 6400, 4800), pending)
    assert (order % GRID.shape[1] >= 24).all()
    assert scheduler().order(None, TISSUE).size == 0
    assert scheduler().order(view(-900, -900, -800, -800), TISSUE).size == 0


def test_order_of_a_large_slide_is_quick():
    import time

    grid = Grid((900, 900), 112.0)
    tissue = np.random.default_rng(0).random(grid.shape) < 0.3
    s = scheduler(tissue, grid)
    start = time.process_time()
    order = s.order(view(0, 0, 9e4, 9e4), tissue, whole_slide=True)
    assert len(order) == tissue.sum()
    assert time.process_time() - start < 5  # 0.2 s here; a quadratic slip would take minutes


@pytest.mark.parametrize("pointer", [(150.0, 250.0), (9e9, 0.0), None])
def test_focus_is_the_pointer_in_view_else_the_centre(pointer):
    focus = view(100, 200, 300, 400, pointer=pointer).focus
    assert focus == ((150.0, 250.0) if pointer and pointer[0] < 300 else (200.0, 300.0))


def test_the_first_picture_of_a_very_large_slide_has_few_patches():
    full = np.ones((670, 670), dtype=bool)
    s = scheduler(full, Grid(full.shape, 100.0), margin=0.0)
    stride = s.grid.stride_um
    order = s.order(view(0, 0, 670 * stride, 670 * stride, 1e-3), full)
    first = s.lattice.representatives(128)
    assert set(order[: first.size]) == set(first.ravel())
    near = s.order(view(0, 0, 40 * stride, 40 * stride), full)  # a part of it begins as on any slide
    assert set(near[:9]) == set(s.lattice.representatives(16)[:3, :3].ravel())
