"""Small pieces that docks are built of."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, TypeVar

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_cpnn.ui.frame.plain_text import PlainLabel

T = TypeVar("T")

_LONG_WORD = re.compile(r"\S{25,}")
_BREAK = "\u200b"  # a space of no width
_PLACE_TO_BREAK = re.compile(r"[/_.,:-]")


def given(thing: T | None) -> T:
    """What is always there, such as the header of a table, although its type says that it may be missing."""
    if thing is None:
        raise RuntimeError("A part is missing that is always there.")
    return thing


class Column(QScrollArea):
    """Scrolls up and down only, so it is as wide as what it holds (which a change of style sheet can change)."""

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        width = given(self.widget()).minimumSizeHint().width() + given(self.verticalScrollBar()).sizeHint().width()
        return QSize(max(width, 340), 200)

    def event(self, event: QEvent | None) -> bool:
        if given(event).type() in (QEvent.Type.StyleChange, QEvent.Type.Show):
            self.updateGeometry()
        return super().event(event)


def stop_timer(timer: QTimer) -> None:
    """Stop a timer, also while the program ends, when Qt may have deleted it before us."""
    with suppress(RuntimeError):
        timer.stop()


def row(*widgets: QWidget) -> QHBoxLayout:
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for widget in widgets:
        layout.addWidget(widget)
    return layout


class TextLabel(PlainLabel):
    """Text that wraps; a long file name breaks too, so that it does not make the dock wider."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)

    def setText(self, text: str | None) -> None:  # noqa: N802 (Qt's name)
        super().setText(_LONG_WORD.sub(lambda word: _PLACE_TO_BREAK.sub(f"\\g<0>{_BREAK}", word[0]), text or ""))

    def text(self) -> str:
        """What was set, without the places to break."""
        return str(super().text()).replace(_BREAK, "")


def text_label() -> QLabel:
    return TextLabel()


def label(text: str = "") -> QLabel:
    """Plain text on one line."""
    return PlainLabel(text)


def bold_label(text: str) -> QLabel:
    label = PlainLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    return label


def button(text: str, tooltip: str) -> QPushButton:
    found = QPushButton(text)
    found.setToolTip(tooltip)
    return found


def tool_button(text: str, tooltip: str) -> QToolButton:
    """A small one, with a sign in place of a word."""
    found = QToolButton()
    found.setText(text)
    found.setToolTip(tooltip)
    found.setAutoRaise(True)
    return found


def spacer() -> QWidget:
    widget = QWidget()
    widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
    return widget


def slim_combo(tooltip: str) -> QComboBox:
    """A combo box that does not make the dock wider than it is."""
    combo = QComboBox()
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(18)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    combo.setToolTip(tooltip)
    return combo


def choose_data(combo: QComboBox, value: Any) -> None:
    """Choose the entry with this data, or the first; ``findData`` knows Python's objects by identity only."""
    found = (i for i in range(combo.count()) if combo.itemData(i) == value)
    combo.setCurrentIndex(next(found, 0))


def line() -> QFrame:
    frame = QFrame()
    frame.setFrameShape(QFrame.Shape.HLine)
    frame.setFrameShadow(QFrame.Shadow.Sunken)
    return frame
