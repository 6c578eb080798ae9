"""Table of the Cells dock: cells by type or class."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

from napari_cpnn.ui.cells.counts import ALL, CountRow
from napari_cpnn.ui.frame import given, prepare_table

_ROW_PX, _SWATCH_PX = 22, 12
_LEAST_ROWS, _MOST_ROWS = 3, 9
_COLUMNS = (
    ("", "a click shows such cells in the gallery"),
    ("cells", "on the slide, where nuclei were looked for"),
    ("%", "share of all cells"),
    ("/mm²", "cells per mm² of tissue where nuclei were looked for"),
    ("in view", "cells in the present view"),
)


class CountTable(QTableWidget):
    """Table with one row per type or class.

    Signals
    -------
    chosen
        Name of the row that was chosen; empty for all cells.
    """

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS))
        prepare_table(self, _ROW_PX)
        for i, (text, tip) in enumerate(_COLUMNS):
            item = QTableWidgetItem(text)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(i, item)
        self.setShowGrid(False)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("counts of cells")
        header = given(self.horizontalHeader())
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        self.cellClicked.connect(self._clicked)
        self._fit()

    @property
    def selected(self) -> str:
        """Name of the chosen type or class; empty for none, or all cells."""
        line = self.currentRow()
        item = self.item(line, 0) if line > 0 and self.selectedItems() else None
        return "" if item is None else item.text()

    def set_rows(self, rows: Sequence[CountRow]) -> None:
        """Show counts; the selected type stays selected."""
        selected = self.selected
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for line, one in enumerate(rows):
            density = "–" if math.isnan(one.per_mm2) else f"{one.per_mm2:,.0f}"
            texts = (one.name, f"{one.n:,}", f"{100 * one.share:.1f}", density, f"{one.in_view:,}")
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                elif one.color:
                    swatch = QPixmap(_SWATCH_PX, _SWATCH_PX)
                    swatch.fill(QColor(one.color))
                    item.setIcon(QIcon(swatch))
                self.setItem(line, column, item)
            if selected and one.name == selected:
                self.selectRow(line)
        if not selected:
            self.clearSelection()
        self.blockSignals(False)
        self._fit()

    def _clicked(self, line: int, _column: int) -> None:
        item = self.item(line, 0)
        name = "" if item is None else item.text()
        self.chosen.emit("" if name == ALL else name)

    def _fit(self) -> None:
        n = min(max(self.rowCount(), _LEAST_ROWS), _MOST_ROWS)
        self.setFixedHeight(given(self.horizontalHeader()).sizeHint().height() + n * _ROW_PX + 4)
