"""Text from files in the window: shown as it is, never taken for HTML, which Qt would let open files."""

from __future__ import annotations

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QMessageBox, QWidget

from napari_cpnn.texts import shortened

_NO_BREAK = "\u2060"  # a word joiner: it has no width, and a tag cannot begin with it
_MOST_TIP = 1000
_MOST_LABEL = 2000


def plain(text: object) -> str:
    """Text for a tool tip, a notification or another place of Qt that guesses whether a text is HTML.

    What could begin a tag or a character of HTML is followed by a sign without width, so that the text looks as it is.
    """
    text = shortened(str(text), _MOST_TIP)
    return text.replace("<", f"<{_NO_BREAK}").replace("&lt;", f"&{_NO_BREAK}lt;")


class PlainLabel(QLabel):
    """A label whose text is what is read in it."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setText(text)

    def setText(self, text: str | None) -> None:  # noqa: N802 (Qt's name)
        super().setText(shortened(text or "", _MOST_LABEL))


def warn(text: str) -> None:
    """Show a warning as napari shows them."""
    show_warning(plain(text))


def tell(text: str) -> None:
    """Show a note as napari shows them."""
    show_info(plain(text))


def ask(parent: QWidget, title: str, text: str) -> bool:
    """Ask a question that is answered with yes or no."""
    box = QMessageBox(QMessageBox.Icon.Question, title, "", parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(text)
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No)
    return bool(box.exec() == QMessageBox.StandardButton.Yes)
