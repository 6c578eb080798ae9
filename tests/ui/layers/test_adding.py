"""Layers that are added beside what somebody works with, and when they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Points, Shapes
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication

from napari_cpnn.ui.layers import add_beside, changed_together, draw_next_turn, set_visible

try:
    from napari.utils._proxies import PublicOnlyProxy
except ImportError:  # pragma: no cover -- of another napari
    PublicOnlyProxy = None


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(600, 450)
    for name in ("slide", "top"):
        viewer.add_image(np.zeros((30, 40), np.uint8), name=name)
    viewer.layers.selection.active = viewer.layers["slide"]
    QApplication.processEvents()
    return viewer


@pytest.fixture
def drawn(viewer, qtbot):
    """A list that grows with each frame of the canvas, which is at rest."""
    frames = []
    viewer.window._qt_viewer.canvas.events.draw.connect(lambda _event: frames.append(1), position="last")
    qtbot.waitUntil(lambda: is_at_rest(frames), timeout=120_000)
    return frames


def is_at_rest(frames):
    frames.clear()
    for _ in range(5):
        QApplication.processEvents()
    return not frames


def white(name="white"):
    return Image(np.ones((30, 40), np.float32), contrast_limits=(0, 1), name=name)


def finish_turn():
    """Do what was posted, such as drawing, but fire no timer: the rest of a turn of the event loop."""
    QCoreApplication.sendPostedEvents()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.UpdateRequest)


def names(viewer):
    return [layer.name for layer in viewer.layers]


def test_nothing_else_is_selected_not_even_for_a_moment(viewer, qtbot):
    slide, told = viewer.layers["slide"], []
    viewer.layers.selection.events.active.connect(told.append)
    viewer.layers.selection.events.changed.connect(lambda event: told.extend([*event.added, *event.removed]))
    layer = add_beside(viewer, white())
    add_beside(viewer, Points([[3, 3]], name="points"), 1)
    assert told == []
    assert set(viewer.layers.selection) == {slide}
    assert viewer.layers.selection.active == slide
    assert names(viewer) == ["slide", "points", "top", "white"]
    controls = viewer.window._qt_viewer.controls
    assert controls.currentWidget() is controls.widgets[slide]
    # It is a layer as any other: it can be selected, and the next one that napari adds is selected as ever.
    viewer.layers.selection.active = layer
    assert controls.currentWidget() is controls.widgets[layer]
    assert viewer.add_points([[1, 1]]) is viewer.layers.selection.active
    # Several and none.
    for selected in ({slide, layer}, set()):
        viewer.layers.selection = selected
        add_beside(viewer, white("another"))
        assert set(viewer.layers.selection) == selected
    viewer.layers.clear()
    add_beside(viewer, white())
    assert set(viewer.layers.selection) == set()


@pytest.mark.skipif(PublicOnlyProxy is None, reason="napari has no such proxy")
def test_a_plugin_that_was_handed_a_proxy_adds_as_well(viewer):
    slide = viewer.layers["slide"]
    add_beside(PublicOnlyProxy(viewer), white(), 0)
    assert names(viewer) == ["white", "slide", "top"]
    assert set(viewer.layers.selection) == {slide}


def test_a_layer_that_is_refused_changes_nothing(viewer):
    before = names(viewer), set(viewer.layers.selection)
    with pytest.raises(ValueError, match="already present"):
        add_beside(viewer, viewer.layers["top"])
    assert (names(viewer), set(viewer.layers.selection)) == before
    assert viewer.add_image(np.zeros((3, 3))) is viewer.layers.selection.active  # napari selects again what it adds


def test_a_model_without_a_window_takes_layers_too():
    from napari.components import ViewerModel

    viewer = ViewerModel()
    first = viewer.add_image(np.zeros((3, 3)))
    add_beside(viewer, white())
    assert viewer.layers.selection.active is first
    draw_next_turn(viewer)


def test_it_is_drawn_in_the_next_turn_once(viewer, drawn, qtbot):
    viewer.layers["top"].visible = False
    finish_turn()
    assert len(drawn) == 1  # napari draws in the same turn
    drawn.clear()
    add_beside(viewer, white())
    add_beside(viewer, Shapes([np.array([[0.0, 0], [0, 9], [9, 9]])], shape_type="polygon"))
    draw_next_turn(viewer)
    finish_turn()
    assert drawn == []
    # What happens in between is drawn with it.
    viewer.layers["white"].opacity = 0.5
    finish_turn()
    assert drawn == []
    qtbot.waitUntil(lambda: bool(drawn), timeout=120_000)
    finish_turn()
    assert len(drawn) == 1
    viewer.layers["white"].opacity = 1.0
    finish_turn()
    assert len(drawn) == 2


def test_a_picture_that_is_taken_at_once_shows_the_layer(viewer, qtbot):
    before = viewer.screenshot(canvas_only=True, flash=False)
    add_beside(viewer, white())
    at_once = viewer.screenshot(canvas_only=True, flash=False)
    assert not np.array_equal(at_once, before)
    for _ in range(5):
        QApplication.processEvents()
    np.testing.assert_array_equal(viewer.screenshot(canvas_only=True, flash=False), at_once)


def test_the_first_frame_of_a_window_is_not_put_off(make_napari_viewer):
    viewer = make_napari_viewer(show=False)
    add_beside(viewer, white())
    with changed_together(viewer):
        add_beside(viewer, white())
    assert viewer.window._qt_viewer.canvas.native.updatesEnabled()


def test_a_viewer_that_is_closed_in_between_is_no_fault(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    add_beside(viewer, white())
    viewer.close()
    for _ in range(5):
        QApplication.processEvents()


@pytest.fixture
def arranged(viewer, monkeypatch):
    """A list that grows each time that napari arranges all layers in its scene."""
    canvas, calls = viewer.window._qt_viewer.canvas, []
    plain = canvas._reorder_layers
    monkeypatch.setattr(canvas, "_reorder_layers", lambda: (calls.append(1), plain()))
    return calls


def test_what_is_changed_together_is_arranged_once_and_looks_the_same(viewer, arranged, drawn):
    def change():
        add_beside(viewer, white(), 0)
        viewer.layers["top"].visible = False
        viewer.layers["slide"].visible = False
        viewer.layers.move(0, 3)
        viewer.layers["white"].opacity = 0.7

    def picture():
        return viewer.screenshot(canvas_only=True, flash=False)

    before = picture()
    arranged.clear()
    change()
    one_by_one, n_calls = picture(), len(arranged)
    assert n_calls >= 4
    viewer.layers.remove("white")
    viewer.layers["top"].visible = viewer.layers["slide"].visible = True
    np.testing.assert_array_equal(picture(), before)
    assert is_at_rest(drawn) or is_at_rest(drawn)
    arranged.clear()
    with changed_together(viewer), changed_together(viewer):  # also one in the other
        change()
        assert arranged == []
    assert len(arranged) == 1
    finish_turn()
    assert drawn == []
    np.testing.assert_array_equal(picture(), one_by_one)
    # Nothing to do, and afterwards all is as ever.
    with changed_together(viewer):
        viewer.layers["white"].opacity = 0.7
    assert len(arranged) == 1
    viewer.layers["top"].visible = True
    assert len(arranged) == 2


def test_a_layer_may_go_and_a_change_may_fail_in_between(viewer, arranged):
    def fail():
        with changed_together(viewer):
            viewer.layers.remove("top")
            add_beside(viewer, white())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert len(arranged) == 1
    assert names(viewer) == ["slide", "white"]
    visuals = viewer.window._qt_viewer.canvas.layer_to_visual
    assert visuals[viewer.layers["slide"]].node.order < visuals[viewer.layers["white"]].node.order
    viewer.layers["white"].visible = False
    assert len(arranged) == 2


def test_a_layer_that_is_visible_is_not_shown_again(viewer):
    layer, told = viewer.layers["top"], []
    layer.events.visible.connect(lambda _event: told.append(layer.visible))
    for wanted in (True, False, False, True):
        set_visible(layer, wanted)
        assert layer.visible == wanted
    assert told == [False, True]
