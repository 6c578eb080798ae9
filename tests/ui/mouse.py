"""Moves of the mouse that are told to one widget.

``QTest.mouseMove`` leads the pointer of the display there. Test processes that run side by side share one display:
where a window of the other one lies on top, it gets the move, and this one another that was not meant for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QWidget


def move_mouse(widget: QWidget, at: QPoint, held: Qt.MouseButton = Qt.MouseButton.NoButton) -> None:
    """Move the mouse to a place in a widget, with a button held or without."""
    none, over = Qt.MouseButton.NoButton, QPointF(widget.mapToGlobal(at))
    event = QMouseEvent(QEvent.Type.MouseMove, QPointF(at), over, none, held, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(widget, event)
    QApplication.processEvents()


def place_on_canvas(viewer: Any, world: np.ndarray, qtbot: Any) -> QPoint:
    """Lead the mouse to a place of the world as by hand, and return its pixel of the canvas."""
    native = getattr(viewer, "__wrapped__", viewer).window._qt_viewer.canvas.native
    at = native.rect().center()

    def is_there() -> bool:
        nonlocal at
        # Where the last move has led must not be taken for where this one leads, if that is not told.
        viewer.cursor.position = nowhere = (-1e9, -1e9)
        move_mouse(native, at)
        if tuple(viewer.cursor.position) == nowhere:
            return False
        y, x = (world - np.array(viewer.cursor.position[-2:])) * viewer.scene.camera.zoom
        at += QPoint(round(x), round(y))
        return max(abs(x), abs(y)) < 1

    qtbot.waitUntil(is_there, timeout=120_000)
    return at
