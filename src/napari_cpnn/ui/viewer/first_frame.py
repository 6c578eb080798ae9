"""Work that waits until a new window has been drawn, because it would keep the window waiting."""

from __future__ import annotations

import threading

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

#: A window that is not drawn by then is perhaps minimised.
_PATIENCE_S = 3.0


class FirstFrame(QObject):
    """Notices the first frame of a window.

    Importing torch in another thread takes Python's lock away from drawing, which asks for it at each call of OpenGL:
    together both take longer than one after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self._drawn = threading.Event()

    def watch(self, canvas: QWidget | None) -> None:
        """Wait for the first frame of a canvas; where there is none, nothing waits."""
        if canvas is None:
            self._drawn.set()
        else:
            canvas.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Look for the first request to draw; it is served before the timer fires."""
        if watched is not None and event is not None and event.type() == QEvent.Type.Paint:
            watched.removeEventFilter(self)
            QTimer.singleShot(0, self._drawn.set)
        return False

    @property
    def is_drawn(self) -> bool:
        """Whether the frame has been drawn."""
        return self._drawn.is_set()

    def wait(self) -> None:
        """Wait for the frame, in another thread than the one that draws, or for a few seconds if there is none."""
        self._drawn.wait(_PATIENCE_S)
