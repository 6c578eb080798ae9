"""The stride of maps in the Explore dock: what it costs, and that view and quantity stay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.ui.conftest import SETTINGS

from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import DONE
from napari_cpnn.ui.explore.finer import Cost, stride_text
from napari_cpnn.ui.viewer import Shown


@pytest.fixture
def dock(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    wait(dock.is_settled)
    return dock


def texts(dock):
    return [dock.stride.stride.itemText(i) for i in range(dock.stride.stride.count())]


def choose(dock, row):
    dock.stride.stride.setCurrentIndex(row)
    dock.stride.stride.activated.emit(row)


def test_a_finer_map_keeps_the_view_and_what_is_shown(dock, wait):
    dock.controller.show_gene("EPCAM")
    camera = dock.viewer.scene.camera
    camera.center, camera.zoom = (400.0, 500.0), 3.0
    before, coarse = (camera.center, camera.zoom), dock.state.map
    choose(dock, 1)
    wait(lambda: dock.state.map is not None and dock.state.map is not coarse)
    wait(dock.is_settled)
    fine = dock.state.map
    assert (coarse.grid.stride_um, fine.grid.stride_um) == (64.0, 32.0)
    assert (camera.center, camera.zoom) == before
    assert dock.state.shown == Shown("gene", ("EPCAM",))
    assert (fine.state == DONE).any()
    assert dock.stride.note.text() == "patches of 64 µm, every 32 µm"
    assert "patches of 64 µm, every 32 µm" in dock.controller.readout((400.0, 400.0))
    dock.undo.click()
    wait(lambda: dock.state.map is not None and dock.state.map is not fine)
    assert dock.state.map.grid == coarse.grid
    assert dock.stride.stride.currentIndex() == 0
    assert "every" not in dock.controller.readout((400.0, 400.0))


def test_patches_of_a_finer_map_are_those_of_the_coarse_one_where_both_have_one(dock, wait):
    coarse = dock.state.map
    choose(dock, 2)  # centres at 1/8, 3/8, ...: none is shared; values must still lie near
    wait(lambda: dock.state.map is not None and dock.state.map is not coarse)
    wait(dock.is_settled)
    fine = dock.state.map
    rows, cols = coarse.grid.shape
    mean = fine.expression("EPCAM")[: 4 * rows, : 4 * cols].reshape(rows, 4, cols, 4).mean(axis=(1, 3))
    both = np.isfinite(mean) & np.isfinite(coarse.expression("EPCAM")) & (coarse.state == DONE)
    assert both.any()
    assert (
        abs(mean[both].mean() - coarse.expression("EPCAM")[both].mean()) < 0.5 * coarse.expression("EPCAM")[both].mean()
    )


def test_the_cost_is_said_beforehand_at_the_measured_rate(dock):
    n = int(dock.state.map.tissue.sum())
    dock.finer.rate = 25.0
    dock.stride.update_costs()
    assert texts(dock)[2].startswith("1/4 of a patch: 16 times as many patches, about ")
    assert " here at 25/s, " in texts(dock)[2]
    cost = dock.finer.cost(4)
    assert (cost.n_patches, cost.seconds) == (16 * n, 16 * n / 25)
    assert (
        Cost(16, 18_000, 720.0, 40 * 2**20).text(25.0) == "16 times as many patches, about 12 min here at 25/s, 40 MB"
    )
    assert Cost(4, 100, float("nan"), 2**20).text(0.0) == "4 times as many patches, 1 MB"


def test_a_map_of_too_many_patches_is_not_offered_and_says_why(dock, monkeypatch):
    over = Grid.over
    monkeypatch.setattr("napari_cpnn.geometry.MAX_CELLS", 4 * dock.state.map.grid.n_cells + 1000)
    dock.stride.update_costs()
    now = dock.state.map
    assert "too many for the memory" in texts(dock)[2]
    assert not dock.stride.stride.model().item(2).isEnabled()
    dock.finer.choose(4)
    assert dock.state.map is now
    assert dock.stride.stride.currentIndex() == 0
    assert over((10, 10), (1.0, 1.0), 1.0).n_cells == 100


@pytest.mark.slow  # its siblings change the stride, too
def test_maps_of_each_stride_are_kept(explore, wait, slide_path, model, tmp_path):
    dock = explore(slide_path)
    kept = dataclasses.replace(SETTINGS, cache=True, cache_dir=str(tmp_path))
    dock._settings = kept
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    wait(dock.is_settled)
    first = dock.state.map
    for row in (1, 0):
        before = dock.state.map
        choose(dock, row)
        wait(lambda before=before: dock.state.map is not None and dock.state.map is not before)
        if row:
            wait(dock.is_settled)
    assert dock.state.map is not first
    assert ((dock.state.map.state == DONE) >= (first.state == DONE)).all()  # at once, before anything is computed
    wait(lambda: len([*tmp_path.rglob("*.zarr")]) == 2)


def test_patch_and_stride_in_words():
    assert stride_text(112.0, 112.0) == "patches of 112 µm"
    assert stride_text(112.0, 28.0) == "patches of 112 µm, every 28 µm"
