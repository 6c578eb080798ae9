"""Plain text in the window: text from files is never interpreted as HTML, which could open files."""

from __future__ import annotations

from collections.abc import Callable

from napari.utils.notifications import Notification, notification_manager, show_info, show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QMessageBox, QWidget

from napari_cpnn.texts import shortened

_NO_BREAK = "\u2060"  # a word joiner: it has no width, and no tag starts with it
_MOST_TIP = 1000
_MOST_LABEL = 2000


def plain(text: object) -> str:
    """Protect a text for a tooltip, a notification or another place where Qt guesses whether a text is HTML.

    A character without width follows whatever could start a tag or an entity, so that the text looks unchanged.
    """
    text = shortened(str(text), _MOST_TIP)
    return text.replace("<", f"<{_NO_BREAK}").replace("&lt;", f"&{_NO_BREAK}lt;")


class PlainLabel(QLabel):
    """Label that shows its text literally."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)

    def setText(self, text: str | None) -> None:  # noqa: N802 (Qt's name)
        super().setText(shortened(text or "", _MOST_LABEL))


def warn(text: str) -> None:
    """Show a warning as a notification of napari."""
    show_warning(plain(text))


def tell(text: str) -> None:
    """Show a message as a notification of napari."""
    show_info(plain(text))


class _Offer(Notification):  # type: ignore[misc]  # napari does not type it
    """Notification that names this plugin; napari would write the ``repr`` of an object of its own below the text."""

    @property
    def source(self) -> str:
        return "CPNN"


def offer(text: str, action: str, act: Callable[[], object]) -> None:
    """Show a message as a notification of napari, with a button that does something."""
    notification_manager.dispatch(_Offer(plain(text), "info", actions=((action, lambda _: act()),)))


def ask(parent: QWidget | None, title: str, text: str) -> bool:
    """Ask a question and return whether the answer is yes."""
    box = QMessageBox(QMessageBox.Icon.Question, title, "", parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(text)
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    return bool(box.exec() == QMessageBox.StandardButton.Yes)
