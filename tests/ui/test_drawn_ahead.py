"""Shaders are compiled ahead without a trace."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components.overlays import TextOverlay
from napari.layers import Points, Shapes
from qtpy.QtWidgets import QApplication
from vispy.gloo import Program

from napari_cpnn.ui.canvas import Vectors
from napari_cpnn.ui.explore.drawn_ahead import drawings_ahead
from napari_cpnn.ui.explore.hatching import hatching_of
from napari_cpnn.ui.explore.overlay import map_layer, style_bar
from napari_cpnn.ui.frame import WARM_UP, when_still
from napari_cpnn.ui.viewer import draw_ahead


@pytest.fixture
def open_viewer(make_napari_viewer):
    def open_viewer():
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(600, 450)
        rng = np.random.default_rng(0)
        viewer.add_image(rng.integers(0, 255, (64, 64, 3), np.uint8), scale=(10, 10), units=("um", "um"))
        QApplication.processEvents()
        return viewer

    return open_viewer


@pytest.fixture
def compiled(monkeypatch):
    """The source texts of all programs, as they are made."""
    texts, plain = [], Program.set_shaders

    def noted(self, vert, frag, geom=None, update_variables=True):
        texts.append((vert, frag))
        plain(self, vert, frag, geom, update_variables=update_variables)

    monkeypatch.setattr(Program, "set_shaders", noted)
    return texts


def picture(viewer):
    return viewer.screenshot(canvas_only=True, flash=False)


def use_everything(viewer):
    """Show what the docks show sooner or later."""
    viewer.canvas.overlays["ours"] = TextOverlay(text="ERBB2: 2.50", box=True, position="top_left", visible=True)
    bar = viewer.canvas.overlays.scale_bar
    bar.box, bar.visible = True, True
    colors = map_layer((30, 30), "map")
    colors.scale, colors.interpolation2d = (10, 10), "linear"
    colors.data[...] = np.linspace(0, 1, 30)[:, None, None]
    style_bar(colors, "viridis")
    corners = np.array([[0.0, 0.0], [0.0, 200.0], [200.0, 200.0], [200.0, 0.0]])
    lines = Vectors(np.stack([corners, corners], axis=1), vector_style="line")
    regions = Shapes([corners + 90], shape_type="polygon", edge_width=5.0, features={"name": ["B"]}, text="name")
    for layer in (colors, hatching_of(np.eye(30, dtype=np.uint8)), lines, Points(corners, size=30), regions):
        viewer.add_layer(layer)
    colors.colorbar.visible = True
    return picture(viewer)


def traces(viewer):
    """What could be left in a viewer: layers, visuals, connections."""
    canvas = viewer.window._qt_viewer.canvas
    emitters = (viewer.events, viewer.layers.events, viewer.dims.events, viewer.canvas.events)
    emitters += (viewer.scene.camera.events, viewer.canvas.overlay_tiling.events)
    connected = [len(emitter.callbacks) for events in emitters for emitter in events.emitters.values()]
    visuals = len(canvas.view.children), len(canvas.view.scene.children)
    return list(viewer.layers), set(viewer.layers.selection), list(viewer.canvas.overlays), visuals, connected


def test_what_is_drawn_ahead_is_never_seen(open_viewer):
    viewer = open_viewer()
    before, trace = picture(viewer), traces(viewer)
    told = []
    for events in (viewer.events, viewer.layers.events, viewer.scene.camera.events):
        events.connect(lambda event: told.append(event.type))
    trace_now = traces(viewer)

    kinds = []
    for kind in drawings_ahead(viewer):
        if kind not in kinds:  # napari draws a frame in between
            kinds.append(kind)
            np.testing.assert_array_equal(picture(viewer), before)
    assert kinds == ["text", "scale bar", "map", "colour bar", "hatching", "lines", "points", "shapes"]
    assert told == []
    assert traces(viewer) == trace_now
    assert trace_now[:4] == trace[:4]
    np.testing.assert_array_equal(picture(viewer), before)


def test_its_programs_are_those_of_later_pictures_which_are_the_same(open_viewer, compiled):
    viewer = open_viewer()
    picture(viewer)
    compiled.clear()
    for _ in drawings_ahead(viewer):
        pass
    ahead = set(compiled)
    compiled.clear()
    later = use_everything(viewer)
    assert len(compiled) > 20
    assert set(compiled) <= ahead
    viewer.close()
    np.testing.assert_array_equal(later, use_everything(open_viewer()))  # where nothing was drawn ahead


def test_an_early_end_leaves_nothing(open_viewer):
    viewer = open_viewer()
    before = traces(viewer)
    for n_pieces in (1, 6):
        pieces = drawings_ahead(viewer)
        for _ in range(n_pieces):
            next(pieces)
        assert traces(viewer) != before
        pieces.close()
        assert traces(viewer) == before


def test_it_is_done_once_while_the_window_is_at_rest(open_viewer, make_napari_viewer, qtbot, monkeypatch):
    monkeypatch.setattr(when_still, "STILL_S", 0.0)
    drawn = []
    monkeypatch.setattr("napari_cpnn.ui.explore.drawings_ahead", lambda viewer: map(drawn.append, [id(viewer)]))
    assert draw_ahead(make_napari_viewer(show=False)) is None  # as for `napari-cpnn open --screenshot`
    viewer = open_viewer()
    first = draw_ahead(viewer)
    assert draw_ahead(viewer) is first
    qtbot.waitUntil(lambda: first.is_done and not WARM_UP.is_running, timeout=120_000)
    assert draw_ahead(viewer) is first
    assert drawn == [id(viewer)]
