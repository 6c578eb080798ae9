"""Moves of the mouse that are told to one widget.

``QTest.mouseMove`` leads the pointer of the display there. Test processes that run side by side share one display:
where a window of the other one lies on top, it gets the move, and this one another that was not meant for it.
"""

from __future__ import annotations

from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QWidget


def move_mouse(widget: QWidget, at: QPoint, held: Qt.MouseButton = Qt.MouseButton.NoButton) -> None:
    """Move the mouse to a place in a widget, with a button held or without."""
    none, over = Qt.MouseButton.NoButton, QPointF(widget.mapToGlobal(at))
    event = QMouseEvent(QEvent.Type.MouseMove, QPointF(at), over, none, held, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(widget, event)
    QApplication.processEvents()
