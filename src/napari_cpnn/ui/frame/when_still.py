"""Work of the window's thread that is done in small steps while nobody uses mouse or keyboard."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QApplication, QWidget

from napari_cpnn.ui.frame.parts import every, stop_timer

_LOG = logging.getLogger(__name__)

STILL_S = 1.0
"""How long mouse and keyboard are still before the next step."""

BETWEEN_MS = 30
"""Interval between two steps, in which the window answers."""

_INPUT = frozenset(
    {
        QEvent.Type.MouseMove,
        QEvent.Type.MouseButtonPress,
        QEvent.Type.MouseButtonRelease,
        QEvent.Type.MouseButtonDblClick,
        QEvent.Type.Wheel,
        QEvent.Type.KeyPress,
        QEvent.Type.KeyRelease,
        QEvent.Type.TouchBegin,
        QEvent.Type.TouchUpdate,
        QEvent.Type.NativeGesture,
        QEvent.Type.Resize,
    }
)


class WhenStill(QObject):
    """Takes the steps of an iterator one at a time, with the event loop in between, while a window is at rest.

    An event of mouse or keyboard postpones the next step. With the window, the iterator is closed. A step that fails
    ends the work: whoever needs it will see the reason.

    Parameters
    ----------
    window
        The window; it owns this object.
    steps
        Makes the iterator, when the window is at rest for the first time.
    is_busy
        Returns whether something else goes first.
    """

    def __init__(self, window: QWidget, steps: Callable[[], Iterator[object]], is_busy: Callable[[], bool]) -> None:
        super().__init__(window)
        self._window: QWidget | None = window
        self._make: Callable[[], Iterator[object]] | None = steps
        self._is_busy: Callable[[], bool] | None = is_busy
        self._steps: Iterator[object] | None = None
        self._last_input = time.monotonic()
        self.is_done = False
        self._watched = [one for one in (window, window.windowHandle()) if one is not None]
        for one in self._watched:
            one.installEventFilter(self)
        self._timer = every(BETWEEN_MS, self._look, self)
        self._timer.start()

    def stop(self) -> None:
        """Take no further step."""
        if self.is_done:
            return
        self.is_done = True
        stop_timer(self._timer)
        for one in self._watched:
            one.removeEventFilter(self)
        self._watched.clear()  # what is kept of the work keeps no window
        self._window = self._make = self._is_busy = None
        steps, self._steps = self._steps, None
        if steps is not None and hasattr(steps, "close"):
            steps.close()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Notice input, which the window itself gets before its widgets, and the end of the window."""
        if event is not None and event.type() in _INPUT:
            self._last_input = time.monotonic()
        elif event is not None and event.type() == QEvent.Type.Close and watched is self._window:
            self.stop()
        return False

    def _is_still(self) -> bool:
        if self._window is None or self._is_busy is None or not self._window.isVisible():
            return False
        if QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton:
            return False
        if QApplication.activeModalWidget() is not None or QApplication.activePopupWidget() is not None:
            return False
        return time.monotonic() - self._last_input >= STILL_S and not self._is_busy()

    def _look(self) -> None:
        if self._make is None or not self._is_still():
            return
        try:
            if self._steps is None:
                self._steps = self._make()
            next(self._steps)
        except StopIteration:
            self.stop()
        except Exception:  # noqa: BLE001 -- nobody waits for it
            _LOG.debug("work of a window at rest failed", exc_info=True)
            self.stop()
