"""What all docks share: they lie over one another as tabs, and end with their viewer."""

from __future__ import annotations

import threading

from qtpy.QtWidgets import QDockWidget, QMainWindow
from tests.ui.conftest import SETTINGS, tissue_image, write_slide

from napari_cpnn.ui.frame.parts import TextLabel
from napari_cpnn.ui.regions.dock import Regions


def frame_of(dock) -> QDockWidget:
    parent = dock.parentWidget()
    while not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


def test_docks_become_tabs_of_one_place(explore, wait, slide_path):
    first = explore(slide_path, show=True)
    second = Regions(first.viewer)
    first.viewer.window.add_dock_widget(second, name="Regions")
    window = frame_of(first).parentWidget()
    assert isinstance(window, QMainWindow)
    wait(lambda: window.tabifiedDockWidgets(frame_of(first)) == [frame_of(second)])
    first.viewer.window.remove_dock_widget(frame_of(second))
    assert second._ended
    assert not window.tabifiedDockWidgets(frame_of(first))


def test_a_floating_dock_is_left_alone(explore, wait, qtbot, slide_path):
    first = explore(slide_path, show=True)
    frame_of(first).setFloating(True)
    second = Regions(first.viewer)
    first.viewer.window.add_dock_widget(second, name="Regions")
    qtbot.wait(200)
    assert frame_of(first).isFloating()
    assert not frame_of(second).parentWidget().tabifiedDockWidgets(frame_of(second))
    second.shut_down()


def test_a_picture_that_napari_opened_gets_a_scale_bar_with_its_pixel_size(explore, wait, tmp_path):
    dock = explore()
    layer = dock.viewer.add_image(tissue_image(), rgb=True, name="photo")
    wait(lambda: dock.state.slide is not None)
    assert not dock.viewer.canvas.overlays.scale_bar.visible
    dock.session.set_mpp(0.5)
    assert tuple(layer.scale) == (0.5, 0.5)
    wait(lambda: dock.viewer.canvas.overlays.scale_bar.visible)
    dock.undo.click()
    assert tuple(layer.scale) == (1.0, 1.0)
    # Beside a layer that lies on its pixels it stays as it is.
    dock.viewer.add_points([[5.0, 5.0]], name="marks")
    dock.session.set_mpp(0.5)
    assert tuple(layer.scale) == (1.0, 1.0)
    assert dock.state.slide.mpp == (0.5, 0.5)


def test_a_viewer_that_is_closed_ends_its_docks(explore, wait, tmp_path):
    dock = explore(write_slide(tmp_path / "a.tiff", tissue_image()))
    wait(lambda: dock.state.slide is not None)
    dock.end(viewer_lives=False)
    assert dock._ended
    assert dock.state.history.text == ""
    dock.end(viewer_lives=True)  # a second end is none


def test_the_explore_dock_that_is_there_is_shown_whoever_opened_it(explore, wait, slide_path):
    first = explore(slide_path)
    second = Regions(first.viewer)
    first.viewer.window.add_dock_widget(second, name="Regions")
    second.open_explore()
    assert frame_of(first).parentWidget().findChildren(type(first)) == [first]
    second.shut_down()


def test_explore_docks_of_one_viewer_leave_one_mapper(explore, wait, slide_path, model_path):
    """A second one is the first, and no mapper runs when it is closed."""
    before = set(threading.enumerate())

    def mapper_threads():
        names = [t.name for t in threading.enumerate() if t not in before and t.name.startswith("napari-cpnn")]
        return [name for name in names if not name.startswith("napari-cpnn ui")]

    first = explore(slide_path)
    wait(lambda: first.state.slide is not None)
    assert type(first)(first.viewer, SETTINGS) is first
    first.state.want_model(model_path)
    wait(lambda: first.state.mapper is not None and first.state.mapper.progress().done > 0)
    wait(lambda: len(mapper_threads()) == 3)  # of one mapper: plan, read and model
    first.shut_down()
    wait(lambda: not mapper_threads())
    second = type(first)(first.viewer, SETTINGS)
    assert second is not first
    second.shut_down()


def test_a_long_file_name_does_not_make_the_dock_wider(qtbot):
    label = TextLabel()
    qtbot.addWidget(label)
    label.setText("starts from " + "weights_of_a_network_with_a_long_name" * 3 + ".h5")
    assert label.minimumSizeHint().width() < 300
    label.setText("No model yet.")
    assert label.text() == "No model yet."
