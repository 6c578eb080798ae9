"""Question when napari is closed while a training run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QMainWindow, QMessageBox, QWidget

from napari_cpnn.ui.frame import given

Answer = Literal["leave", "stop", "stay"]


def ask_before_leaving(parent: QWidget, folder: str) -> Answer:
    """Ask what is to become of a run when the window closes."""
    box = QMessageBox(QMessageBox.Icon.Question, "Training goes on", "", parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText("The training run goes on by itself when napari is closed.")
    box.setInformativeText(
        f"Its folder is {folder}\n\nOpen the Fine-tune dock again, today or later: it offers to watch the run, to stop "
        "it, or to open its model."
    )
    leave = box.addButton("Close napari, go on training", QMessageBox.ButtonRole.AcceptRole)
    stop = box.addButton("Stop training and close", QMessageBox.ButtonRole.DestructiveRole)
    stay = box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(leave)
    box.setEscapeButton(stay)
    box.exec()
    clicked = box.clickedButton()
    return "leave" if clicked is leave else "stop" if clicked is stop else "stay"


class LeaveGuard(QObject):
    """Asks before the window of a dock closes while its run goes on.

    Parameters
    ----------
    folder
        Returns the folder of the run that goes on; None if none does.
    stop
        Stops it.
    """

    def __init__(self, folder: Callable[[], str | None], stop: Callable[[], None]) -> None:
        super().__init__()
        self._folder, self._stop = folder, stop
        self._window: QMainWindow | None = None

    def watch(self, widget: QWidget) -> None:
        """Watch the main window that a widget is in."""
        window = widget.window()
        while window is not None and not isinstance(window, QMainWindow):  # a dock that floats
            parent = window.parentWidget()
            window = None if parent is None else parent.window()
        if isinstance(window, QMainWindow) and window is not self._window:
            self.release()
            self._window = window
            window.installEventFilter(self)

    def release(self) -> None:
        """Watch no window any longer."""
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        # Of a guard that Python is collecting, with the attributes gone, Qt may still send events.
        if event is None or event.type() != QEvent.Type.Close or watched is not vars(self).get("_window"):
            return False
        folder = self._folder()
        if folder is None:
            return False
        answer = ask_before_leaving(given(self._window), folder)
        if answer == "stay":
            event.ignore()
            return True
        if answer == "stop":
            self._stop()
        return False
