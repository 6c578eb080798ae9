"""One slide at a time: what is opened hides what lies below it, and the dock follows what is selected."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication, QPushButton
from tests.ui.conftest import MPP, SHAPE, tissue_image, write_slide
from tests.ui.mouse import move_mouse

from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.layers import slide_switch
from napari_cpnn.ui.layers.reader import read_slides


@pytest.fixture
def two(tmp_path):
    image = tissue_image()
    return write_slide(tmp_path / "first.tif", image), write_slide(tmp_path / "second.tif", image[:, ::-1])


def opened(viewer, path):
    """Open as File > Open does."""
    viewer.open(str(path), plugin="napari-cpnn")
    return viewer.layers[path.stem]


def seen(viewer):
    return {layer.name for layer in viewer.layers if layer.visible}


def test_a_slide_that_is_opened_hides_the_other_and_is_explored(explore, wait, two, model):
    dock = explore(two[0])
    viewer = dock.viewer
    dock.controller.use_model(model)
    wait(dock.is_settled)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (100.0, 100.0), 20.0
    second = opened(viewer, two[1])
    wait(lambda: dock.state.slide is not None and dock.state.slide.path == two[1])
    wait(lambda: dock.is_settled() and dock.is_drawn())
    dock._update()
    assert dock.slide.currentText().startswith("second")
    assert "first" not in seen(viewer)
    assert viewer.layers.selection.active == second
    assert viewer.scene.camera.zoom < 20  # all of it is in view
    overlay = dock.session.overlays.layer_of("dominant")
    assert overlay in viewer.layers
    assert overlay.visible
    assert sum("ominant" in layer.name for layer in viewer.layers) == 1


def test_the_dock_follows_what_is_selected_and_visible(explore, wait, two):
    dock = explore(two[0])
    viewer = dock.viewer
    first = viewer.layers["first"]
    second = opened(viewer, two[1])
    wait(lambda: dock.state.layer == second)
    # A hidden slide that is selected is not explored ...
    viewer.layers.selection.active = first
    # ... until its eye is clicked.
    first.visible = True
    wait(lambda: dock.state.layer == first)
    assert dock.slide.currentText().startswith("first")
    first.visible = False
    wait(lambda: dock.state.layer == second)
    # Choosing in the dock shows the slide, and undo the one before.
    dock.slide.setCurrentIndex(dock.slide.findText("first"))
    dock.slide.activated.emit(dock.slide.currentIndex())
    assert first.visible
    assert not second.visible
    dock.undo.click()
    assert dock.state.layer == second
    assert second.visible
    assert not first.visible


def test_side_by_side_slides_and_pictures_of_others_are_left_alone(explore, wait, two):
    dock = explore(two[0])
    viewer = dock.viewer
    wait(lambda: dock.state.slide is not None)
    viewer.add_image(tissue_image(), rgb=True, name="result of a plugin")
    viewer.add_points([[1.0, 1.0]])
    first = viewer.layers["first"]
    assert dock.state.layer == first
    assert first.visible
    viewer.layers.remove("result of a plugin")
    viewer.canvas.grid.enabled = True
    opened(viewer, two[1])
    assert first.visible
    viewer.canvas.grid.enabled = False


def test_without_the_dock_the_other_slide_is_hidden_too(make_napari_viewer_proxy, two):
    viewer = make_napari_viewer_proxy()
    opened(viewer, two[0])
    opened(viewer, two[1])
    assert seen(viewer) == {"second"}
    first = viewer.layers["first"]
    viewer.layers.remove("second")
    slide_switch(viewer).show_only(first)
    first.translate = (10 * SHAPE[0] * MPP, 0.0)
    opened(viewer, two[1])
    assert seen(viewer) == {"first", "second"}  # they do not lie over one another


def test_the_scale_bar_stays_right_beside_a_slide_without_pixel_size(explore, wait, two, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("napari._vispy.canvas.show_warning", said.append)
    dock = explore(two[0], show=True)
    viewer = dock.viewer
    wait(lambda: dock.state.slide is not None)
    bar = viewer.canvas.overlays.scale_bar
    bare = opened(viewer, write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None))
    wait(lambda: dock.state.layer == bare and dock.state.slide is not None)
    viewer.screenshot(flash=False)  # draws
    assert not dock.mpp_row.isHidden()
    assert not bar.visible
    assert [str(unit) for unit in viewer.layers.extent.units] == ["micrometer", "micrometer"]
    first = viewer.layers["first"]
    first.visible, bare.visible = True, False
    wait(lambda: dock.state.layer == first and dock.state.slide is not None)
    wait(lambda: bar.visible)
    assert dock.mpp_row.isHidden()
    bare.visible, first.visible = True, False
    wait(lambda: dock.state.layer == bare and dock.state.slide is not None)
    dock.mpp_row.usual["40x"].click()
    assert dock.state.slide.mpp == (0.25, 0.25)
    assert tuple(bare.scale) == (0.25, 0.25)
    wait(lambda: bar.visible)
    viewer.screenshot(flash=False)
    assert said == []  # "Inconsistent units"
    dock.undo.click()
    assert dock.state.slide.mpp is None
    assert not bar.visible
    # Alone it is in pixels again.
    viewer.layers.remove("first")
    assert [str(unit) for unit in bare.units] == ["pixel", "pixel"]


@pytest.fixture
def canvas_click(qtbot, wait):
    def click(viewer, y, x):
        """Click on the canvas at a place of the world."""
        windows = [w for w in QApplication.topLevelWidgets() if w.isVisible()]
        canvas = next(c for w in windows for c in w.findChildren(QOpenGLWidget))
        camera, seen = viewer.scene.camera, []

        def settled() -> bool:  # what was shown beside the canvas may have changed its size
            seen.append((canvas.size(), camera.zoom, tuple(camera.center)))
            return len(seen) > 20 and all(one == seen[-1] for one in seen[-20:])

        wait(settled)
        size = np.array([canvas.height(), canvas.width()])
        place = (np.array([y, x]) - camera.center[-2:]) * camera.zoom + size / 2
        pos = QPoint(round(place[1]), round(place[0]))
        move_mouse(canvas, pos)
        qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=pos)

    return click


def test_a_ruler_of_two_clicks_gives_the_pixel_size(explore, wait, tmp_path, canvas_click):
    dock = explore(write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None), show=True)
    viewer = dock.viewer
    wait(lambda: dock.state.slide is not None)
    box = dock.mpp_row
    assert box.isVisible()
    box.measure.click()
    assert "Click one end" in box.ruler_text.text()
    canvas_click(viewer, 300.0, 400.0)
    assert "other end" in box.ruler_text.text()
    assert not box.length_row.isVisible()
    assert "ruler" in viewer.layers
    canvas_click(viewer, 300.0, 1400.0)
    pixels = box._pixels
    assert pixels == pytest.approx(1000.0, abs=6)  # a pixel of the screen
    assert "pixels long" in box.ruler_text.text()
    box.length.setValue(500.0)
    box.length_set.click()
    assert dock.state.slide.mpp == pytest.approx((0.5, 0.5), rel=0.01)
    assert np.allclose(dock.state.slide.mpp, 500 / pixels, rtol=1e-4)
    assert "ruler" not in viewer.layers
    assert not box.isVisible()
    dock.undo.click()
    box.measure.click()
    canvas_click(viewer, 300.0, 400.0)
    box.measure.click()  # taken back
    assert "ruler" not in viewer.layers
    assert not box.ruler.is_on


def test_opening_a_slide_offers_to_explore_it_once(make_napari_viewer_proxy, wait, two, tmp_path):
    from napari.utils.notifications import notification_manager

    def offers():
        return [n for n in notification_manager.records if n.actions and n.actions[0][0] == "Explore this slide"]

    before = len(offers())
    viewer = make_napari_viewer_proxy(show=True)
    first = opened(viewer, two[0])
    wait(lambda: len(offers()) == before + 1)
    opened(viewer, two[1])
    bare = opened(viewer, write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None))
    wait(lambda: len(offers()) == before + 2)  # not for the second; for this one, whose pixel size is not known
    assert "pixel size" in offers()[-1].message
    wait(lambda: len(buttons(viewer)) > 0)
    buttons(viewer)[-1].click()
    wait(lambda: "Explore (CPNN)" in viewer.window.dock_widgets)
    dock = viewer.window.dock_widgets["Explore (CPNN)"]
    assert isinstance(dock, Explore)
    wait(lambda: dock.state.slide is not None)
    assert dock.state.layer in (first, bare)
    viewer.layers.remove("second")
    opened(viewer, two[1])
    wait(lambda: dock.state.layer == viewer.layers["second"])
    assert len(offers()) == before + 2  # the dock is open
    dock.shut_down()


def buttons(viewer):
    windows = [w for w in QApplication.topLevelWidgets() if w.isVisible()]
    found = [b for w in windows for b in w.findChildren(QPushButton) if b.text() == "Explore this slide"]
    return [b for b in found if b.isVisible()]


def test_spots_of_a_slide_leave_the_slide_explored(explore, wait, two):
    dock = explore(two[0])
    wait(lambda: dock.state.slide is not None)
    dock.viewer.add_points([[100.0, 100.0]], name="spots")
    second = opened(dock.viewer, two[1])
    dock.viewer.layers.selection.active = dock.viewer.layers["spots"]
    wait(lambda: dock.state.layer == second)


def test_the_toast_of_an_implausible_size_comes_once(tmp_path):
    import warnings

    path = write_slide(tmp_path / "odd.tif", tissue_image(), mpp=300.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            read_slides(str(path))
    assert sum("implausible" in str(w.message) for w in caught) == 1


def test_spots_are_hidden_with_their_slide_and_come_back_with_it(explore, wait, two):
    dock = explore(two[0])
    viewer = dock.viewer
    metadata = {"napari_cpnn_spots": True}
    spots = viewer.add_points([[100.0, 100.0]], name="spots", metadata=metadata, units=("um", "um"))
    unwanted = viewer.add_points([[100.0, 100.0]], name="hidden by hand", metadata=metadata, units=("um", "um"))
    other = viewer.add_points([[100.0, 100.0]], name="other points", units=("um", "um"))
    unwanted.visible = False
    second = opened(viewer, two[1])
    wait(lambda: dock.state.layer == second)
    assert not spots.visible
    assert other.visible
    of_second = viewer.add_points([[200.0, 200.0]], name="of the second", metadata=metadata, units=("um", "um"))
    dock.session.choose(viewer.layers["first"])
    assert spots.visible
    assert not unwanted.visible
    assert not of_second.visible
    dock.session.choose(second)
    assert not spots.visible
    assert of_second.visible
