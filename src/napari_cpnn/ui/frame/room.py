"""Size of the window: the slide gets most of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QRect, Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: A window of at least this size (logical pixels) is left as the user made it: with napari's docks at the left and one
#: of ours at the right, the slide has half of it.
ENOUGH = (1300, 760)
WANTED = (1600, 1000)
_TITLE_PX = 40
#: napari leaves a margin of 5 % around the layers.
_FILLED = 0.9
_SIDES = (Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea)
#: The slide gets at least this share of the width of the window, if the docks can be as narrow as that.
SHARE = 0.52
#: napari's layer controls still work at this width; by themselves they take 373 px for an image.
LEAST_PX = 250


def give_room(window: QMainWindow) -> None:
    """Enlarge a small window within its screen, so that the slide has most of the room beside the docks."""
    screen = window.screen()
    if screen is None or window.isMaximized() or window.isFullScreen():
        return
    if window.width() >= ENOUGH[0] and window.height() >= ENOUGH[1]:
        return
    free = screen.availableGeometry()
    frame = window.frameGeometry().height() - window.height() or _TITLE_PX
    width = min(max(window.width(), WANTED[0]), free.width())
    height = min(max(window.height(), WANTED[1]), free.height() - frame)
    box = QRect(0, 0, max(width, window.minimumWidth()), max(height, window.minimumHeight()))
    box.moveCenter(free.center())
    box.moveTop(max(box.top(), free.top() + frame))
    window.setGeometry(box)


def may_be_narrow(window: QMainWindow, mine: QDockWidget) -> None:
    """Let the docks at the other side be as narrow as ``LEAST_PX``; they keep their width until someone takes it."""
    area = window.dockWidgetArea(mine)
    for dock in _docks(window, _SIDES[area == _SIDES[0]]) if area in _SIDES else ():
        inside = dock.widget()
        if inside is not None and dock.minimumSizeHint().width() > LEAST_PX:
            inside.setMinimumWidth(LEAST_PX)
            dock.setMinimumWidth(LEAST_PX)


def fill_view(viewer: ViewerModel) -> None:
    """Fit all layers to a canvas that has become wider, if all of them are in view anyway."""
    (top, left), (bottom, right) = viewer.layers.extent.world[:, -2:]
    height, width, zoom = bottom - top, right - left, float(viewer.scene.camera.zoom)
    rows, columns = viewer.canvas.size
    if not len(viewer.layers) or not min(height, width, zoom) > 0 or viewer.dims.ndisplay != 2:
        return
    largest = min(rows / height, columns / width)
    if zoom < _FILLED * largest and np.allclose(
        viewer.scene.camera.center[-2:], ((top + bottom) / 2, (left + right) / 2)
    ):
        viewer.reset_view()


def share_room(window: QMainWindow, mine: QDockWidget) -> None:
    """Make docks narrower where the slide would get less than half of the width.

    First our own, down to what they need; then those at the other side, which are napari's, down to ``LEAST_PX``. All
    of them can be made wider again with the mouse.
    """
    middle, area = window.centralWidget(), window.dockWidgetArea(mine)
    if middle is None or mine.isFloating() or area not in _SIDES:
        return
    lacking = round(SHARE * window.width()) - middle.width()
    if lacking <= 0:
        return
    least = max(dock.minimumSizeHint().width() for dock in _docks(window, area))
    across = [dock for dock in _docks(window, _SIDES[area == _SIDES[0]]) if dock.isVisible()]
    spared = max(mine.width() - least, 0)
    if across and lacking > spared:
        width = max(across[0].width() - (lacking - spared), LEAST_PX)
        window.resizeDocks(across, [width] * len(across), Qt.Orientation.Horizontal)
    window.resizeDocks([mine], [max(mine.width() - lacking, least)], Qt.Orientation.Horizontal)


def _docks(window: QMainWindow, area: Qt.DockWidgetArea) -> list[QDockWidget]:
    """Return the docks at one side that are not hidden, those behind a tab included."""
    docks = (dock for dock in window.findChildren(QDockWidget) if not dock.isFloating() and not dock.isHidden())
    return [dock for dock in docks if window.dockWidgetArea(dock) == area]
