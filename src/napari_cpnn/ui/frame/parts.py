"""Small widgets and layouts that docks are built from."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QBoxLayout,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLayout,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_cpnn.ui.frame.plain_text import PlainLabel
from napari_cpnn.ui.viewer import SlimCombo

T = TypeVar("T")

_LONG_WORD = re.compile(r"\S{25,}")
_BREAK = "\u200b"  # a space of no width
_PLACE_TO_BREAK = re.compile(r"[/_.,:-]")


def given(thing: T | None) -> T:
    """Return what always exists, such as the header of a table, although its type allows ``None``."""
    if thing is None:
        raise RuntimeError("A part is missing that is always there.")
    return thing


class ScrollColumn(QScrollArea):
    """Area that scrolls vertically only and is as wide as its content, also after a change of style sheet."""

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


# -- timers ------------------------------------------------------------------------------------------------


def every(interval_ms: int, call: Callable[[], Any], parent: QObject | None = None) -> QTimer:
    """Create a repeating timer, which is not started yet."""
    timer = QTimer(parent)
    timer.setInterval(interval_ms)
    timer.timeout.connect(call)
    return timer


def stop_timer(timer: QTimer) -> None:
    """Stop a timer, also while the program ends, when Qt may have deleted it already."""
    with suppress(RuntimeError):
        timer.stop()


# -- layouts -----------------------------------------------------------------------------------------------


def add(layout: QBoxLayout, *parts: QWidget | QLayout) -> None:
    """Append widgets and layouts to a layout."""
    for part in parts:
        if isinstance(part, QWidget):
            layout.addWidget(part)
        else:
            layout.addLayout(part)


def row(*parts: QWidget | QLayout) -> QHBoxLayout:
    """Lay parts out side by side."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    add(layout, *parts)
    return layout


def stack(
    *parts: QWidget | QLayout,
    inside: QWidget | None = None,
    margins: tuple[int, int, int, int] = (0, 0, 0, 0),
    spacing: int = 6,
) -> QVBoxLayout:
    """Lay parts out one below the other, in the widget ``inside`` if one is given."""
    layout = QVBoxLayout(inside)
    layout.setContentsMargins(*margins)
    layout.setSpacing(spacing)
    add(layout, *parts)
    return layout


def spacer() -> QWidget:
    widget = QWidget()
    widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
    return widget


def line() -> QFrame:
    frame = QFrame()
    frame.setFrameShape(QFrame.Shape.HLine)
    frame.setFrameShadow(QFrame.Shadow.Sunken)
    return frame


# -- widgets -----------------------------------------------------------------------------------------------


class TextLabel(PlainLabel):
    """Label that wraps its text and also breaks long file names, so that they do not make the dock wider."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)

    def setText(self, text: str | None) -> None:  # noqa: N802 (Qt's name)
        super().setText(_LONG_WORD.sub(lambda word: _PLACE_TO_BREAK.sub(f"\\g<0>{_BREAK}", word[0]), text or ""))

    def text(self) -> str:
        """Return the text without the break opportunities."""
        return str(super().text()).replace(_BREAK, "")

    def show_text(self, text: str) -> None:
        """Show a text; without one, hide the label."""
        self.setText(text)
        self.setVisible(bool(text))


def bold_label(text: str) -> QLabel:
    label = PlainLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    return label


def button(text: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    found = QPushButton(text)
    found.setToolTip(tooltip)
    found.setCheckable(checkable)
    return found


def tool_button(text: str, tooltip: str) -> QToolButton:
    """Create a small flat button that shows a symbol."""
    found = QToolButton()
    found.setText(text)
    found.setToolTip(tooltip)
    found.setAutoRaise(True)
    return found


def slim_combo(tooltip: str) -> QComboBox:
    """Create a combo box whose entries do not make the dock wider."""
    combo = SlimCombo()
    combo.setMinimumContentsLength(18)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    combo.setToolTip(tooltip)
    return combo


def choose_data(combo: QComboBox, value: Any) -> None:
    """Choose the entry with this data, or the first; ``findData`` compares Python objects by identity only."""
    found = (i for i in range(combo.count()) if combo.itemData(i) == value)
    combo.setCurrentIndex(next(found, 0))


def prepare_table(table: QTableView, row_px: int, measured_rows: int = 0) -> None:
    """Style a table of rows: no row headers, rows of one height, one row selected at a time, Tab leaves the table.

    With ``measured_rows``, it is a table of many columns that is only read: its columns are as wide as the texts of so
    many rows, can be dragged and scrolled, and their headers can be clicked.
    """
    table.setTabKeyNavigation(False)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setWordWrap(False)
    table.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # long names differ at their ends as often as at their starts
    given(table.verticalHeader()).hide()
    given(table.verticalHeader()).setMinimumSectionSize(row_px)
    given(table.verticalHeader()).setDefaultSectionSize(row_px)
    if measured_rows:
        table.setShowGrid(False)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        header = given(table.horizontalHeader())
        header.setSectionsClickable(True)
        header.setHighlightSections(False)
        header.setResizeContentsPrecision(measured_rows)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
