"""Tables of the Prototypes dock: cell types, and the markers of one type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_cpnn.ui.frame import given, plain, prepare_table
from napari_cpnn.ui.prototypes.words import TypeLine, level_words, number_words

if TYPE_CHECKING:
    import pandas as pd

_ROW_PX = 20
_LEAST_ROWS = 3
_FEW = "⚠"


class _Marker(Protocol):
    """Row of :meth:`napari_cpnn.Prototypes.markers`."""

    gene: str
    cp10k: float
    log2_fold_change: float
    next_type: str
    next_cp10k: float
    counts: float


class _Item(QTableWidgetItem):
    """Table item that is sorted by its value rather than its text."""

    def __init__(self, text: str, value: str | float, tip: str = "") -> None:
        super().__init__(text)
        self.value = value
        self.setToolTip(plain(tip or text))
        self.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
        if not isinstance(value, str):
            self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def __lt__(self, other: QTableWidgetItem) -> bool:
        if not isinstance(other, _Item):
            return super().__lt__(other)
        if isinstance(self.value, str) or isinstance(other.value, str):
            return str(self.value).lower() < str(other.value).lower()
        return bool(self.value < other.value)


class _Table(QTableWidget):
    """Read-only table that can be sorted.

    Signals
    -------
    chosen
        Name in the first column of the selected row.
    """

    chosen = Signal(str)

    def __init__(self, columns: Sequence[tuple[str, str]], most_rows: int) -> None:
        super().__init__(0, len(columns))
        prepare_table(self, _ROW_PX)
        self._most_rows = most_rows
        for i, (text, tip) in enumerate(columns):
            self.set_header(i, text, tip)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = given(self.horizontalHeader())
        header.setStyleSheet(
            "QHeaderView::section { padding: 2px; } QHeaderView::up-arrow, QHeaderView::down-arrow { width: 8px; }"
        )
        header.setMinimumSectionSize(30)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        header.setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        # Not setSortingEnabled: Qt would sort again whenever a value changes, under the pointer, too.
        header.setSortIndicatorShown(True)
        header.setSectionsClickable(True)
        header.sortIndicatorChanged.connect(self._sort)
        self.itemSelectionChanged.connect(self._selected)
        self.fit()

    def set_header(self, column: int, text: str, tip: str) -> None:
        item = QTableWidgetItem(text)
        item.setToolTip(plain(tip))
        self.setHorizontalHeaderItem(column, item)

    def fill(self, rows: Sequence[Sequence[_Item]]) -> None:
        """Show rows in the order that the user has chosen; the selection stays with its name.

        While the mouse is over the table, rows that it had already stay where they are.
        """
        selected = self._name(given(self.selectionModel()).currentIndex().row()) if self.selectedItems() else ""
        places = {self._name(i): i for i in range(self.rowCount())}
        in_place = self.underMouse() and {row[0].text() for row in rows} == places.keys()
        if in_place:
            rows = sorted(rows, key=lambda row: places[row[0].text()])
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for i, row in enumerate(rows):
            for j, item in enumerate(row):
                self.setItem(i, j, item)
        if not in_place:
            self._sort()
        self.blockSignals(False)
        self.select(selected)
        self.fit()

    def select(self, name: str) -> None:
        """Select the row of a name without emitting ``chosen``."""
        self.blockSignals(True)
        self.clearSelection()
        for i in range(self.rowCount()):
            if self._name(i) == name:
                self.selectRow(i)
        self.blockSignals(False)

    def _sort(self) -> None:
        header = given(self.horizontalHeader())
        self.sortItems(header.sortIndicatorSection(), header.sortIndicatorOrder())

    def fit(self) -> None:
        """Adapt the height to the number of rows, within limits."""
        n = min(max(self.rowCount(), _LEAST_ROWS), self._most_rows)
        self.setFixedHeight(given(self.horizontalHeader()).sizeHint().height() + n * _ROW_PX + 4)

    def _selected(self) -> None:
        rows = given(self.selectionModel()).selectedRows()
        if rows:
            self.chosen.emit(self._name(rows[0].row()))

    def _name(self, row: int) -> str:
        item = self.item(row, 0)
        return str(item.value) if isinstance(item, _Item) else ""


class TypeTable(_Table):
    """Table of cell types; those with few cells are flagged, and a gene can have a column.

    Parameters
    ----------
    with_results
        Add columns of counts and of the gene.
    """

    _COUNTS, _GENE = 2, 3

    def __init__(self, *, with_results: bool) -> None:
        columns = [
            ("Cell type", "a click lists its markers" if with_results else "labels of the chosen column"),
            ("Cells", f"number of cells; {_FEW}: few, so that the prototype is uncertain"),
        ]
        if with_results:
            columns.append(("Counts", "total counts of its cells in the genes that passed the filters"))
            columns.append(("", ""))
        super().__init__(columns, most_rows=9 if with_results else 7)
        self._with_results = with_results
        if with_results:
            self.setColumnHidden(self._GENE, True)

    def show_types(
        self,
        lines: Sequence[TypeLine],
        colors: Mapping[str, str],
        gene: str = "",
        values: Mapping[str, float] | None = None,
    ) -> None:
        """Show cell types, and the values of a gene (counts per 10,000)."""
        rows = []
        for line in lines:
            name = _Item(line.name, line.name)
            if line.name in colors:
                patch = QPixmap(10, 10)
                patch.fill(QColor(colors[line.name]))
                name.setData(Qt.ItemDataRole.DecorationRole, patch)
            tip = "few cells: the prototype is uncertain" if line.thin else ""
            row = [name, _Item(f"{_FEW} {line.n_cells:,}" if line.thin else f"{line.n_cells:,}", line.n_cells, tip)]
            if self._with_results:
                row.append(_Item(number_words(line.counts), line.counts, f"{line.counts:,.0f}"))
                value = (values or {}).get(line.name, 0.0)
                row.append(_Item(level_words(value) if gene else "", value, f"{value:.4g} counts per 10,000"))
            rows.append(row)
        if self._with_results:
            self.set_header(self._GENE, gene, f"{gene}, counts per 10,000; click the header to sort")
            self.setColumnHidden(self._GENE, not gene)
            self.setColumnHidden(self._COUNTS, bool(gene))  # names need the room
        self.fill(rows)


class MarkerTable(_Table):
    """Table of the markers of one cell type."""

    def __init__(self) -> None:
        columns = (
            ("Marker", "a gene that is highest in this type; a click shows its values in all types"),
            ("CP10k", "counts per 10,000 in this type"),
            ("×", "how many times the mean of the other types; 1 count per 10,000 is added to both"),
            ("next highest", "the other type with the highest expression, with its counts per 10,000"),
        )
        super().__init__(columns, most_rows=7)
        header = given(self.horizontalHeader())
        header.setSortIndicator(2, Qt.SortOrder.DescendingOrder)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(3, QHeaderView.ResizeMode.Stretch)

    def show_markers(self, markers: pd.DataFrame) -> None:
        """Show markers of :meth:`napari_cpnn.Prototypes.markers`."""
        rows = []
        lines = cast("Iterable[_Marker]", markers.itertuples())
        for line in lines:
            times, level = 2.0**line.log2_fold_change, level_words(line.next_cp10k)
            other = _Item(f"{_short(line.next_type)} {level}", float(line.next_cp10k), f"{line.next_type}: {level}")
            known = "" if line.counts != line.counts else f"{line.counts:,.0f} counts"  # NaN is not equal to itself
            rows.append(
                [
                    _Item(line.gene, line.gene),
                    _Item(level_words(line.cp10k), float(line.cp10k), known),
                    _Item(f"{times:.0f}" if times >= 10 else f"{times:.1f}", times),
                    other,
                ]
            )
        self.fill(rows)


def _short(name: str, n: int = 16) -> str:
    return name if len(name) <= n else f"{name[: n // 2]}…{name[len(name) - n // 2 + 1 :]}"
