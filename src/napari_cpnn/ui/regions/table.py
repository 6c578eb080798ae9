"""Table of regions in the Regions dock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from qtpy.QtCore import QItemSelection, QItemSelectionModel, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_cpnn.cells import RegionCells
from napari_cpnn.ui.frame import given, prepare_table
from napari_cpnn.ui.regions.charts import share_words
from napari_cpnn.ui.regions.rows import RegionRow

_ROW_PX = 22
_LEAST_ROWS, _MOST_ROWS = 3, 8
_COLUMNS = (
    ("Region", "double-click to rename"),
    ("mm²", "area of the outline"),
    ("mapped", "share of its tissue that is mapped; all numbers are of this part"),
    (
        "unlike",
        "share of its mapped tissue that is unlike the training tissue of the model; do not trust the model there",
    ),
    (
        "cells/mm²",
        "cells of the Cells dock per mm² of tissue that was searched for nuclei, or of the outline if not known",
    ),
)


class RegionTable(QTableWidget):
    """Table with one row per region.

    Signals
    -------
    chosen
        The selected rows have changed.
    renamed
        Row and new name.
    removed
        Delete was pressed.
    """

    chosen = Signal()
    renamed = Signal(int, str)
    removed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_COLUMNS), parent)
        self._names: list[str] = []
        prepare_table(self, _ROW_PX)
        for i, (text, tip) in enumerate(_COLUMNS):
            item = QTableWidgetItem(text)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(i, item)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setShowGrid(False)
        self.setToolTip("select one or more regions; Delete removes them, a double click renames")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = given(self.horizontalHeader())
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        self.itemSelectionChanged.connect(self.chosen)
        self.itemChanged.connect(self._changed)
        self._fit()

    def set_rows(self, rows: Sequence[RegionRow], cells: Mapping[str, RegionCells] | None = None) -> None:
        """Show regions, and the density of their cells where it is known; the selection follows the regions."""
        counted = {} if cells is None else cells
        self.setColumnHidden(len(_COLUMNS) - 1, not counted)
        selected = self._follow([row.region.name for row in rows])
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for i, row in enumerate(rows):
            mapped = "no tissue" if np.isfinite(row.tissue_mm2) and row.tissue_mm2 == 0 else _text(row.mapped)
            found = counted.get(row.region.name)
            density = "–" if found is None else _density(found)
            texts = (row.region.name, f"{row.region.area_mm2:.2f}", mapped, _text(row.value("unlike")), density)
            for column, text in enumerate(texts):
                self._put(i, column, text)
        self.select(selected)
        self.blockSignals(False)
        self._fit()

    def selected(self) -> list[int]:
        """Return the selected rows."""
        return sorted({index.row() for index in given(self.selectionModel()).selectedRows()})

    def select(self, lines: Sequence[int]) -> None:
        """Select exactly these rows."""
        model, flag = given(self.model()), QItemSelectionModel.SelectionFlag
        wanted = QItemSelection()  # in one go: each change outlines regions on the slide
        for line in lines:
            if line < self.rowCount():
                wanted.select(model.index(line, 0), model.index(line, 0))
        given(self.selectionModel()).select(wanted, flag.ClearAndSelect | flag.Rows)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(event).key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace) and self.selected():
            self.removed.emit()
        else:
            super().keyPressEvent(event)

    def _follow(self, names: Sequence[str]) -> list[int]:
        """Return where the selected regions are among ``names``; if none is left, the row in their place."""
        selected, before = self.selected(), self._names
        self._names = list(names)
        if len(before) == len(names) and Counter(before) != Counter(names):  # some were renamed
            return selected
        places: dict[tuple[str, int], int] = {}
        seen: Counter[str] = Counter()
        for line, name in enumerate(names):
            places[name, seen[name]] = line
            seen[name] += 1
        asked = [(before[line], before[:line].count(before[line])) for line in selected if line < len(before)]
        found = [places[key] for key in asked if key in places]
        return found or [min(line, len(names) - 1) for line in selected[:1] if names]

    def _put(self, line: int, column: int, text: str) -> None:
        item = self.item(line, column)
        if item is None:
            item = QTableWidgetItem()
            if column:
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.setItem(line, column, item)
        if item.text() != text:
            item.setText(text)

    def _changed(self, item: QTableWidgetItem) -> None:
        if item.column() == 0:
            self.renamed.emit(item.row(), item.text().strip())

    def _fit(self) -> None:
        n = min(max(self.rowCount(), _LEAST_ROWS), _MOST_ROWS)
        self.setFixedHeight(given(self.horizontalHeader()).sizeHint().height() + n * _ROW_PX + 4)


def _density(cells: RegionCells) -> str:
    number = f"{cells.per_mm2:,.0f}" if np.isfinite(cells.per_mm2) else "–"
    if not cells.is_searched:
        return "not searched"
    return f"{number} ({cells.note})" if cells.note else number


def _text(share: float) -> str:
    return share_words(share) if np.isfinite(share) else "–"
