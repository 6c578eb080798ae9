"""The slide has half of the window, on a small screen, too."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRect
from qtpy.QtWidgets import QDockWidget

from napari_cpnn.ui.canvas.overview import canvas_of
from napari_cpnn.ui.cohort.dock import CohortDock
from napari_cpnn.ui.compare.dock import Compare
from napari_cpnn.ui.finetune.dock import FineTune
from napari_cpnn.ui.frame import room
from napari_cpnn.ui.frame.single import place_dock
from napari_cpnn.ui.panels.dock import Panels
from napari_cpnn.ui.prototypes.dock import PrototypesDock
from napari_cpnn.ui.regions.dock import Regions

#: A dock of ours needs no more at the size of letters of most computers; this allows for larger ones.
NARROW_EM = 33


class _Screen:
    """Stands for a screen of 1366 x 768, whatever the real one is."""

    def availableGeometry(self) -> QRect:  # noqa: N802 (Qt's name)
        return QRect(0, 0, 1366, 768)


def slide_um(dock) -> np.ndarray:
    top_left, bottom_right = dock.viewer.layers.extent.world[:, -2:]
    return bottom_right - top_left


def test_the_slide_has_half_of_a_small_window(explore, wait, slide_path, monkeypatch):
    monkeypatch.setattr(room, "SHARE", 0.5)
    dock = explore(slide_path, show=True)
    window = dock.window()
    monkeypatch.setattr(type(window), "screen", lambda _: _Screen())
    docks = [dock, *(kind(dock.viewer) for kind in (Compare, Regions, Panels, PrototypesDock, FineTune, CohortDock))]
    for one in docks[1:]:
        place_dock(one, type(one).__name__)
        wait(lambda one=one: one.window() is window)
    canvas, wide = canvas_of(window), window.fontMetrics().horizontalAdvance("m")
    wait(lambda: canvas.width() >= 0.49 * window.width())
    for one in docks:
        assert one.area.minimumSizeHint().width() <= NARROW_EM * wide, type(one).__name__
    # A slide that was in view as a whole fills what it has now.
    wait(lambda: dock.viewer.scene.camera.zoom > 0.85 * min(dock.viewer.canvas.size / slide_um(dock)))
    left = next(frame for frame in window.findChildren(QDockWidget) if frame.objectName() == "layer controls")
    assert left.width() >= room.LEAST_PX
    for one in docks[1:]:
        one.shut_down()


def test_no_group_of_explore_makes_it_wider(explore, wait, slide_path):
    dock = explore(slide_path, show=True)
    width = dock.fontMetrics().horizontalAdvance("m") * NARROW_EM
    for title in ("Colours and drawing", "Value, scale and stride", "On the slide"):
        fold = next(fold for fold in dock.folds if fold.title == title)
        fold.set_open(True)
        wait(fold.inside.isVisible)
        assert dock.area.minimumSizeHint().width() <= width, title
