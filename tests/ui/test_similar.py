"""Tissue like a clicked patch in the Explore dock, with real clicks."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from napari_cpnn.errors import MappingError
from napari_cpnn.ui.layers import um_to_world


@pytest.fixture
def dock(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None and dock.is_settled() and dock.is_drawn())
    return dock


def click(dock, at_um, drag_px=0):
    """Press, move by some pixels, and release at a place, as napari calls back."""
    dock.viewer.cursor.position = tuple(um_to_world(dock.state.layer, dock.state.slide.mpp, np.array([at_um]))[0])
    event = SimpleNamespace(button=1, pos=np.array([100, 100]), type="mouse_press")
    steps = dock.similar_box._pressed(dock.viewer, event)
    next(steps, None)
    event.type, event.pos = "mouse_move", np.array([100 + drag_px, 100])
    next(steps, None)
    event.type = "mouse_release"
    next(steps, None)


def layer(dock):
    return next((one for one in dock.viewer.layers if one.name.startswith("Tissue like this")), None)


def test_a_click_shows_similar_tissue_and_a_gallery_that_jumps_there(dock, wait, qtbot):
    box, similar = dock.similar_box, dock.similar
    click(dock, (300.0, 300.0))
    assert similar.found is None  # the button is off
    box.on.click()
    wait(lambda: not similar.is_running)
    assert box.note.text() == "Click a place on the tissue."
    click(dock, (300.0, 300.0), drag_px=30)
    assert not similar.is_running  # a drag pans
    click(dock, (300.0, 300.0))
    wait(lambda: similar.pictures is not None)
    found = similar.found
    assert found.at == dock.state.map.grid.cell_at(300.0, 300.0)
    np.testing.assert_array_equal(layer(dock).data, found.values)
    others = [one for one in dock.viewer.layers if one.name == "Dominant cell type"]
    assert [one.visible for one in others] == [False]
    dock.finish_drawing()
    assert dock.session.legend._wanted == [("tissue like this · cosine similarity", "#FFFFFF")]
    assert box.gallery.count() == 1 + len(found.places) > 5
    assert box.gallery.item(0).text() == "here"
    assert box.gallery.item(1).text() == f"{found.scores[0]:.2f}"
    # The left part of the tissue has another colour than the right one: like is found with like.
    x_um = dock.state.map.grid.centers_um(found.places)[:, 1]
    assert (x_um < 512).mean() > 0.9
    box.gallery.itemClicked.emit(box.gallery.item(1))
    place = dock.state.map.grid.centers_um([found.places[0]])
    expected = um_to_world(dock.state.layer, dock.state.slide.mpp, place)[0]
    np.testing.assert_allclose(dock.viewer.scene.camera.center[-2:], expected)
    assert dock.viewer.layers.selection.active == dock.state.layer


def test_another_click_moves_the_map_and_glass_is_refused(dock, wait):
    box, similar = dock.similar_box, dock.similar
    box.on.click()
    click(dock, (300.0, 300.0))  # while the features are computed
    wait(lambda: similar.pictures is not None)
    first = layer(dock)
    click(dock, (300.0, 800.0))
    wait(lambda: similar.found.at == dock.state.map.grid.cell_at(300.0, 800.0))
    assert layer(dock) == first
    click(dock, (10.0, 10.0))
    wait(lambda: "no tissue of the map at this place" in box.note.text())
    assert similar.found.at == dock.state.map.grid.cell_at(300.0, 800.0)
    box.on.click()
    assert layer(dock) is None
    assert not box.gallery.isVisibleTo(box)
    assert all(one.visible for one in dock.viewer.layers if one.name == "Dominant cell type")
    assert box.note.text() == ""


def test_a_map_that_is_chosen_before_stays_below_and_deleting_the_layer_shows_it(dock, wait):
    dock.similar_box.on.click()
    wait(lambda: not dock.similar.is_running)
    overlays = dock.session.overlays
    overlays._timer.stop()  # a slow machine
    dock.controller.show_gene("ERBB2")
    gene = overlays.layer_of("gene")
    dock.similar_box.on.click()
    click(dock, (300.0, 300.0))
    wait(lambda: layer(dock) is not None)
    assert gene not in dock.viewer.layers
    overlays._timer.start()
    wait(lambda: gene in dock.viewer.layers and dock.is_drawn())
    assert not gene.visible
    assert [one.name for one in dock.viewer.layers if one.visible] == ["section", layer(dock).name]
    dock.viewer.layers.remove(layer(dock))
    wait(lambda: gene.visible)
    assert not dock.similar_box.on.isChecked()
    assert [one.name for one in dock.viewer.layers if one.visible] == ["section", gene.name]
    assert dock.state.instead == ()


@pytest.mark.slow  # test_reused_layers has it for maps
def test_another_map_takes_its_place(dock, wait):
    dock.similar_box.on.click()
    click(dock, (300.0, 300.0))
    wait(lambda: dock.similar.pictures is not None)
    assert dock.controller.show_gene("ERBB2")
    assert layer(dock) is None
    assert not dock.similar_box.on.isChecked()
    dock.finish_drawing()
    assert [one.name for one in dock.viewer.layers if one.visible] == ["section", "Gene: ERBB2 (log1p CP10k)"]
    assert dock.session.legend._wanted[0][0] == "ERBB2 · log1p CP10k"


def test_it_ends_with_the_slide(dock, wait):
    dock.similar_box.on.click()
    click(dock, (300.0, 300.0))
    wait(lambda: dock.similar.pictures is not None)
    dock.viewer.layers.remove(dock.state.layer)
    wait(lambda: dock.state.mapper is None)
    wait(lambda: layer(dock) is None)
    assert dock.similar_box.note.text() == "Open a slide and a model first."
    n = len(dock.viewer.mouse_drag_callbacks)
    dock.shut_down()
    assert len(dock.viewer.mouse_drag_callbacks) == n - 1


def test_the_dock_says_how_long_is_left(dock, wait, monkeypatch):
    go, done, now = threading.Event(), threading.Event(), [100.0]

    def slow(*_arguments):
        progress = _arguments[-1]
        progress("0 of 90 patches", 0.0)
        now[0] += 60.0
        progress("30 of 90 patches", 1 / 3)
        done.set()
        go.wait(60)
        raise MappingError("That was all.")

    monkeypatch.setattr("napari_cpnn.ui.explore.similar._features", slow)
    monkeypatch.setattr("napari_cpnn.ui.explore.similar.time", SimpleNamespace(monotonic=lambda: now[0]))
    dock.similar_box.on.click()
    wait(done.is_set)
    dock.similar.update()
    told = "Looking at all tissue, once per slide: 30 of 90 patches, about 2 min left ..."
    assert dock.similar_box.note.text() == told
    go.set()
    wait(lambda: dock.similar_box.note.text() == "That was all.")
