"""Table of landmarks in the Align dock."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_cpnn.ui.frame import given, prepare_table

_ROW_PX, _ROWS = 22, 5
_COLUMNS = (
    ("Pair", "number of the landmark in both pictures"),
    ("residual µm", "how far the landmark is off after all of them were fitted; 0 for a thin plate, which bends"),
    ("left out µm", "how far it is off after the others were fitted without it: a wrong pair stands out here"),
)


class PairTable(QTableWidget):
    """Table with one row per pair.

    Signals
    -------
    chosen
        The selected rows have changed.
    removed
        Delete was pressed.
    """

    chosen = Signal()
    removed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_COLUMNS), parent)
        prepare_table(self, _ROW_PX)
        for i, (text, tip) in enumerate(_COLUMNS):
            item = QTableWidgetItem(text)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(i, item)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setToolTip("select pairs to see them in both pictures; Delete removes them")
        header = given(self.horizontalHeader())
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        self.setFixedHeight(_ROW_PX * (_ROWS + 1) + 6)
        self.itemSelectionChanged.connect(self.chosen)

    def set_rows(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Show pairs; those that were selected stay selected."""
        before = self.selected()
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for i, texts in enumerate(rows):
            for j, text in enumerate(texts):
                item = QTableWidgetItem(text)
                right = Qt.AlignmentFlag.AlignRight if j else Qt.AlignmentFlag.AlignLeft
                item.setTextAlignment(right | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(i, j, item)
        self.clearSelection()
        mode = self.selectionMode()
        self.setSelectionMode(QAbstractItemView.SelectionMode.MultiSelection)
        for row in before:
            if row < len(rows):
                self.selectRow(row)
        self.setSelectionMode(mode)
        self.blockSignals(False)

    def selected(self) -> list[int]:
        """Return the numbers of the selected rows."""
        return sorted({index.row() for index in self.selectedIndexes()})

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(event).key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace) and self.selected():
            self.removed.emit()
        else:
            super().keyPressEvent(event)
