"""List of cell types with colour, name and share in view, which is also the legend of the maps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QRect, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QPainter
from qtpy.QtWidgets import (
    QHeaderView,
    QLineEdit,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_cpnn.ui.frame import given, plain, prepare_table, stack
from napari_cpnn.ui.viewer import TypeRow

_ROW_PX = 22
_LEAST_ROWS = 7
#: napari's themes leave an empty check box as dark as the list.
_STYLE = "QTableView::indicator:unchecked { width: 11px; height: 11px; border: 1px solid #8c8f96; }"
_HINT = "click twice for another colour"
_SHARE = Qt.ItemDataRole.UserRole
_COLOR = Qt.ItemDataRole.UserRole + 1


class TypeModel(QAbstractTableModel):
    """Table of :class:`TypeRow`: check box with colour and name, and share."""

    checked_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[TypeRow] = []
        self.checked: set[str] = set()

    def set_rows(self, rows: list[TypeRow]) -> None:
        """Set the rows; when only shares have changed, selection and scroll position stay."""
        if [r.name for r in rows] == [r.name for r in self._rows]:
            self._rows = rows
            self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, 1))
        else:
            self.beginResetModel()
            self._rows = rows
            self.checked &= {r.name for r in rows}
            self.endResetModel()

    def row_of(self, name: str) -> int:
        return next((i for i, r in enumerate(self._rows) if r.name == name), -1)

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else 2

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row = self._rows[index.row()]
        if role == _SHARE:
            return row.share
        if role == _COLOR:
            return row.color
        if index.column() == 0:
            if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
                return row.name if role == Qt.ItemDataRole.DisplayRole else plain(f"{row.name}\n{_HINT}")
            if role == Qt.ItemDataRole.DecorationRole:
                return QColor(row.color)
            if role == Qt.ItemDataRole.CheckStateRole:
                return Qt.CheckState.Checked if row.name in self.checked else Qt.CheckState.Unchecked
        elif role == Qt.ItemDataRole.DisplayRole:
            return share_text(row.share)
        elif role == Qt.ItemDataRole.ToolTipRole:
            return "mean share of the mapped tissue in view"
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:  # noqa: N802
        if role != Qt.ItemDataRole.CheckStateRole or index.column() != 0:
            return False
        name = self._rows[index.row()].name
        if Qt.CheckState(value) == Qt.CheckState.Checked:
            self.checked.add(name)
        else:
            self.checked.discard(name)
        self.dataChanged.emit(index, index, [role])
        self.checked_changed.emit()
        return True

    def set_checked(self, names: set[str]) -> None:
        """Check exactly these types."""
        self.checked = names & {row.name for row in self._rows}
        if self._rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, 0))
        self.checked_changed.emit()

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == 0 else flags


def share_text(share: float) -> str:
    """Format a share, such as ``46 %``, or ``<1 %`` rather than zero."""
    if math.isnan(share):
        return "–"
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


class ShareDelegate(QStyledItemDelegate):
    """Draws the share as text and as a bar in the colour of the type."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        super().paint(painter, option, index)
        share = index.data(_SHARE)
        if painter is None or share is None or math.isnan(share):
            return
        room = option.rect.adjusted(48, 6, -6, -6)
        painter.save()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(index.data(_COLOR)))
        painter.drawRect(QRect(room.left(), room.top(), max(1, round(room.width() * share)), room.height()))
        painter.restore()


class _Rows(QTableView):
    """List in which arrow keys choose, and the space bar checks."""

    moved = Signal(QModelIndex)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        before = self.currentIndex().row()
        super().keyPressEvent(event)
        if self.currentIndex().row() != before:
            self.moved.emit(self.currentIndex())


class CellTypeList(QWidget):
    """Search box and list.

    Signals
    -------
    chosen
        Name of the cell type that was clicked or reached with the arrow keys.
    checked_changed
        The set of checked types has changed.
    color_wanted
        Name of the cell type that was double-clicked for another colour.
    """

    chosen = Signal(str)
    checked_changed = Signal()
    color_wanted = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.search = QLineEdit()
        self.search.setPlaceholderText("search cell types")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("show only types with this in their name")
        self.model = TypeModel(self)
        self._filter = QSortFilterProxyModel(self)
        self._filter.setSourceModel(self.model)
        self._filter.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.search.textChanged.connect(self._filter.setFilterFixedString)
        self.view = _Rows()
        self.view.setModel(self._filter)
        self.view.setItemDelegateForColumn(1, ShareDelegate(self.view))
        prepare_table(self.view, _ROW_PX)
        self.view.setStyleSheet(_STYLE)
        self.view.setShowGrid(False)
        given(self.view.horizontalHeader()).hide()
        self.view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = given(self.view.horizontalHeader())
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(1, 118)
        self.view.clicked.connect(self._clicked)
        self.view.moved.connect(self._clicked)
        self.search.returnPressed.connect(self._first)
        self.view.doubleClicked.connect(lambda index: self.color_wanted.emit(self._name_at(index.row())))
        self.model.checked_changed.connect(self.checked_changed)
        stack(self.search, self.view, inside=self, spacing=4)
        self.set_rows([])

    def set_rows(self, rows: list[TypeRow]) -> None:
        """Show rows in their order; while the mouse is over the list, the order on screen is kept."""
        if self.view.underMouse() and len(rows) == self.model.rowCount():
            shares = {r.name: r for r in rows}
            order = [self.model.index(i, 0).data() for i in range(len(rows))]
            if set(order) == set(shares):
                rows = [shares[name] for name in order]
        selected = self.selected()
        self.model.set_rows(rows)
        self.select(selected)
        n_rows = max(len(rows), 3)
        self.view.setMinimumHeight(_ROW_PX * min(n_rows, _LEAST_ROWS) + 4)
        # The list fills spare height of the dock, but is not higher than its rows.
        self.setMaximumHeight(self.search.sizeHint().height() + given(self.layout()).spacing() + _ROW_PX * n_rows + 4)

    def checked(self) -> list[str]:
        """Return the checked types in the order of the list."""
        names = [self.model.index(i, 0).data() for i in range(self.model.rowCount())]
        return [name for name in names if name in self.model.checked]

    def check(self, names: Iterable[str]) -> None:
        """Check exactly these types, as if the user had clicked them."""
        self.model.set_checked(set(names))

    def selected(self) -> str:
        """Return the highlighted type, or an empty string."""
        rows = given(self.view.selectionModel()).selectedRows()
        return rows[0].data() if rows else ""

    def select(self, name: str) -> None:
        """Highlight a type without emitting ``chosen``."""
        row = self.model.row_of(name)
        if row < 0:
            self.view.clearSelection()
            return
        index = self._filter.mapFromSource(self.model.index(row, 0))
        if index.isValid() and self.selected() != name:
            self.view.selectRow(index.row())
            self.view.scrollTo(index)

    def _clicked(self, index: QModelIndex) -> None:
        self.chosen.emit(self._name_at(index.row()))

    def _name_at(self, row: int) -> str:
        return str(self._filter.index(row, 0).data())

    def _first(self) -> None:
        """Choose the first match when Enter is pressed in the search box."""
        if self.search.text() and self._filter.rowCount():
            self.view.setFocus()
            self.view.selectRow(0)
            self._clicked(self._filter.index(0, 0))
