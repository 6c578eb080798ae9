"""One dock of a kind per viewer, however it is opened, with napari's real menus and command palette."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDockWidget, QLineEdit, QMainWindow

from napari_cpnn.ui.cohort import CohortDock
from napari_cpnn.ui.compare import Compare
from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.finetune import FineTune
from napari_cpnn.ui.frame.dock import Dock
from napari_cpnn.ui.frame.single import frame_of, place_dock
from napari_cpnn.ui.prototypes import PrototypesDock
from napari_cpnn.ui.regions import Regions

KINDS = {
    "Explore": Explore,
    "Compare": Compare,
    "Regions": Regions,
    "Fine-tune": FineTune,
    "Prototypes": PrototypesDock,
    "Cohort": CohortDock,
}


def main_window() -> QMainWindow:
    return next(w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow) and w.isVisible())


def choose_in_menu(*path: str) -> None:
    """Choose an entry of the menu bar, such as ``"Plugins", "CPNN", "Explore (CPNN)"``."""
    menu = main_window().menuBar()
    for name in path[:-1]:
        menu = next(a for a in menu.actions() if a.text().replace("&", "") == name).menu()
        menu.aboutToShow.emit()  # napari fills and ticks its menus then
    next(a for a in menu.actions() if a.text().replace("&", "").rstrip(".") == path[-1]).trigger()


def by_plugins_menu(viewer, title, qtbot):
    choose_in_menu("Plugins", "CPNN", f"{title} (CPNN)")


def by_layers_menu(viewer, title, qtbot):
    choose_in_menu("Layers", "Visualize", f"{title} (CPNN)")


def by_palette(viewer, title, qtbot):
    choose_in_menu("View", "Command Palette")
    edits = main_window().findChildren(QLineEdit)
    line = next(edit for edit in edits if edit.placeholderText().startswith("Type to search commands"))
    qtbot.keyClicks(line, f"{title} CPNN")
    qtbot.keyClick(line, Qt.Key.Key_Return)


def by_script(viewer, title, qtbot):
    viewer.window.add_plugin_dock_widget("napari-cpnn", title)


def by_hand(viewer, title, qtbot):
    viewer.window.add_dock_widget(KINDS[title](viewer), name="mine")


WAYS = [by_plugins_menu, by_layers_menu, by_palette, by_script, by_hand]


def frames(title: str) -> list[QDockWidget]:
    return [frame for frame in main_window().findChildren(QDockWidget) if frame.windowTitle() == title]


def is_in_front(dock: Dock) -> bool:
    return not dock.visibleRegion().isEmpty()


#: Each way is tried second after each; `make test-slow` begins with each, too.
@pytest.mark.parametrize(
    "first", [pytest.param(way, marks=[] if way is by_palette else pytest.mark.slow) for way in WAYS]
)
def test_explore_is_there_once(make_napari_viewer_proxy, qtbot, wait, first):
    viewer = make_napari_viewer_proxy(show=True)
    first(viewer, "Explore", qtbot)
    wait(lambda: len(frames("Explore")) == 1 or first is by_hand)
    (dock,) = main_window().findChildren(Explore)
    wait(lambda: is_in_front(dock))
    for again in WAYS:
        again(viewer, "Explore", qtbot)
        wait(lambda: is_in_front(dock))
        assert main_window().findChildren(Explore) == [dock]
        assert list(viewer.window.dock_widgets.values()) == [dock]
        assert not dock.has_ended
    dock.shut_down()


@pytest.mark.parametrize(
    "title", [pytest.param(t, marks=pytest.mark.slow if t in ("Regions", "Prototypes") else []) for t in KINDS]
)
def test_a_dock_behind_another_comes_in_front(make_napari_viewer_proxy, qtbot, wait, title):
    viewer = make_napari_viewer_proxy(show=True)
    by_plugins_menu(viewer, title, qtbot)
    other = "Explore" if title != "Explore" else "Regions"
    wait(lambda: len(frames(title)) == 1)
    by_plugins_menu(viewer, other, qtbot)
    dock, above = (main_window().findChild(KINDS[name]) for name in (title, other))
    wait(lambda: is_in_front(above) and not is_in_front(dock))
    by_plugins_menu(viewer, title, qtbot)
    wait(lambda: is_in_front(dock))
    assert {type(d) for d in main_window().findChildren(Dock)} == {KINDS[title], KINDS[other]}
    # It can still be hidden and closed, and opened after that.
    frame_of(dock).titleBarWidget().hide_button.click()
    qtbot.wait(50)
    assert not dock.isVisible()
    by_plugins_menu(viewer, title, qtbot)
    wait(lambda: is_in_front(dock))
    frame_of(dock).titleBarWidget().close_button.click()
    assert dock.has_ended
    by_plugins_menu(viewer, title, qtbot)
    wait(lambda: len(main_window().findChildren(KINDS[title])) == 1)
    again = main_window().findChild(KINDS[title])
    assert again is not dock
    for d in (above, again):
        d.shut_down()


def test_a_dock_of_another_viewer_is_another(make_napari_viewer_proxy):
    docks = [Regions(make_napari_viewer_proxy()) for _ in range(2)]
    assert docks[0] is not docks[1]
    for dock in docks:
        dock.shut_down()


def test_layers_and_legend_are_there_once(explore, wait, qtbot, slide_path, model):
    """As `napari-cpnn demo`, then the menu, then closed and opened again."""
    dock = explore(slide_path, show=True)
    dock.controller.use_model(model)
    wait(dock.is_settled)
    viewer = dock.viewer
    dock.finish_drawing()
    names = [layer.name for layer in viewer.layers]
    legend = {name for name in viewer.canvas.overlays if viewer.canvas.overlays[name].visible}
    by_plugins_menu(viewer, "Explore", qtbot)
    qtbot.wait(50)
    dock.finish_drawing()
    assert [layer.name for layer in viewer.layers] == names
    assert {name for name in viewer.canvas.overlays if viewer.canvas.overlays[name].visible} == legend
    frame_of(dock).titleBarWidget().close_button.click()
    assert [layer.name for layer in viewer.layers] == [dock_name for dock_name in names if dock_name == "section"]
    assert not [n for n in viewer.canvas.overlays if n.startswith("napari_cpnn") and viewer.canvas.overlays[n].visible]


def test_the_window_of_open_has_the_dock_that_the_menu_finds(make_napari_viewer_proxy, qtbot, wait):
    viewer = make_napari_viewer_proxy(show=True)
    dock = place_dock(Explore(viewer), "Explore")  # as napari-cpnn open does
    assert list(viewer.window.dock_widgets) == ["Explore (CPNN)"]
    frame = frame_of(dock)
    by_plugins_menu(viewer, "Explore", qtbot)
    qtbot.wait(50)
    assert frame_of(dock) is frame  # it stays in its place
    assert is_in_front(dock)
    dock.shut_down()


def test_buttons_of_docks_open_the_dock_that_is_there(make_napari_viewer_proxy, qtbot, wait):
    viewer = make_napari_viewer_proxy(show=True)
    for title in ("Compare", "Prototypes", "Fine-tune", "Explore"):
        by_plugins_menu(viewer, title, qtbot)
        wait(lambda title=title: len(frames(title)) == 1)
    compare, prototypes, fine_tune, explore = (
        main_window().findChild(kind) for kind in (Compare, PrototypesDock, FineTune, Explore)
    )
    compare.explore.click()
    wait(lambda: is_in_front(explore))
    prototypes.open_fine_tune()
    wait(lambda: is_in_front(fine_tune))
    assert len(main_window().findChildren(Dock)) == 4
    for dock in (compare, prototypes, fine_tune, explore):
        dock.shut_down()
