"""Tree of cell types with colour, name and share in view, which is also the legend of the maps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from typing import Any

from qtpy.QtCore import QAbstractItemModel, QModelIndex, QRect, QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter
from qtpy.QtWidgets import (
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeView,
    QWidget,
)

from napari_cpnn.palette import Level
from napari_cpnn.ui.frame import given, plain, stack
from napari_cpnn.ui.viewer import TypeRow

_ROW_PX = 22
_LEAST_ROWS = 7
#: napari's themes leave an empty check box as dark as the list.
_STYLE = "QTreeView::indicator:unchecked { width: 11px; height: 11px; border: 1px solid #8c8f96; }"
#: Colour of shares that are not to be believed.
_GREY = "#8c8f96"
_HINT = "click twice for another colour"
_SHARE = Qt.ItemDataRole.UserRole
_COLOR = Qt.ItemDataRole.UserRole + 1
#: Internal id of the rows that are below no other.
_TOP = 2**31 - 1


class TypeModel(QAbstractItemModel):
    """Tree of :class:`TypeRow`: check box with colour and name, and share; minor types are below their major types."""

    checked_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[TypeRow] = []
        self.checked: set[str] = set()
        self.faded = False

    def set_rows(self, rows: list[TypeRow]) -> None:
        """Set the rows; when only shares have changed, selection and scroll position stay."""
        if _names(rows) == _names(self._rows):
            self._rows = rows
            self.tell_all(None)
        else:
            self.beginResetModel()
            self._rows = rows
            self.checked &= {row.name for row in self.every()}
            self.endResetModel()

    def tell_all(self, role: int | None) -> None:
        """Tell that all data, or those of a role, have changed."""
        roles = [] if role is None else [role]
        for above in (QModelIndex(), *(self.index(i, 0) for i, row in enumerate(self._rows) if row.parts)):
            if n := self.rowCount(above):
                self.dataChanged.emit(self.index(0, 0, above), self.index(n - 1, 1, above), roles)

    @property
    def rows(self) -> list[TypeRow]:
        """Rows of major types in their order."""
        return self._rows

    def every(self) -> list[TypeRow]:
        """Return the rows of all types, each major type before its minor types."""
        return [row for one in self._rows for row in (one, *one.parts)]

    @property
    def is_tree(self) -> bool:
        """True if there are minor types below major types."""
        return any(row.parts for row in self._rows)

    def level_of(self, index: QModelIndex) -> Level:
        """Return the level of a row; all types are minor where there is no hierarchy."""
        return "major" if self.is_tree and not index.parent().isValid() else "minor"

    def find(self, name: str, level: Level = "major") -> QModelIndex:
        """Return the index of a type, first of one of the level; invalid if there is none."""
        own = [self.index(i, 0) for i, row in enumerate(self._rows) if row.name == name]
        below = [
            self.index(k, 0, self.index(i, 0))
            for i, row in enumerate(self._rows)
            for k, part in enumerate(row.parts)
            if part.name == name
        ]
        return next(iter(own + below if level == "major" else below + own), QModelIndex())

    def row_at(self, index: QModelIndex) -> TypeRow:
        """Return the row of an index."""
        above = index.internalId()
        return self._rows[index.row()] if above == _TOP else self._rows[above].parts[index.row()]

    def index(self, row: int, column: int, parent: QModelIndex | None = None) -> QModelIndex:
        if parent is None or not parent.isValid():
            return self.createIndex(row, column, _TOP) if 0 <= row < len(self._rows) else QModelIndex()
        return self.createIndex(row, column, parent.row()) if 0 <= row < self.rowCount(parent) else QModelIndex()

    def parent(self, index: QModelIndex | None = None) -> Any:
        if index is None:
            return super().parent()
        above = index.internalId() if index.isValid() else _TOP
        return QModelIndex() if above == _TOP else self.createIndex(above, 0, _TOP)

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        if parent is None or not parent.isValid():
            return len(self._rows)
        is_top = parent.internalId() == _TOP and parent.column() == 0
        return len(self._rows[parent.row()].parts) if is_top else 0

    def columnCount(self, _parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 2

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row = self.row_at(index)
        if role == Qt.ItemDataRole.ForegroundRole and self.faded:
            return QColor(_GREY)
        if role in (_SHARE, _COLOR):
            return row.share if role == _SHARE else _GREY if self.faded else row.color
        return self._name_data(row, role) if index.column() == 0 else self._share_data(row, role)

    def _name_data(self, row: TypeRow, role: int) -> Any:
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return row.name if role == Qt.ItemDataRole.DisplayRole else plain(f"{row.name}\n{_HINT}")
        if role == Qt.ItemDataRole.DecorationRole:
            return QColor(row.color)
        if role == Qt.ItemDataRole.CheckStateRole:
            return Qt.CheckState.Checked if row.name in self.checked else Qt.CheckState.Unchecked
        return None

    def _share_data(self, row: TypeRow, role: int) -> Any:
        if role == Qt.ItemDataRole.DisplayRole:
            return share_text(row.share)
        if role == Qt.ItemDataRole.ToolTipRole:
            return "not to be believed on this tissue" if self.faded else "mean share of the mapped tissue in view"
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:  # noqa: N802
        if role != Qt.ItemDataRole.CheckStateRole or index.column() != 0:
            return False
        name = self.row_at(index).name
        if Qt.CheckState(value) == Qt.CheckState.Checked:
            self.checked.add(name)
        else:
            self.checked.discard(name)
        self.dataChanged.emit(index, index, [role])
        self.checked_changed.emit()
        return True

    def set_checked(self, names: set[str]) -> None:
        """Check exactly these types."""
        self.checked = names & {row.name for row in self.every()}
        self.tell_all(Qt.ItemDataRole.CheckStateRole)
        self.checked_changed.emit()

    def in_order(self, names: Collection[str]) -> list[str]:
        """Return names in the order of the rows."""
        return list(dict.fromkeys(row.name for row in self.every() if row.name in names))

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == 0 else flags


def _names(rows: Iterable[TypeRow]) -> list[Any]:
    return [(row.name, [part.name for part in row.parts]) for row in rows]


def share_text(share: float) -> str:
    """Format a share, such as ``46 %``, or ``<1 %`` rather than zero."""
    if math.isnan(share):
        return "–"
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


class _RowHeight(QStyledItemDelegate):
    """Gives all rows one height."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:  # noqa: N802 (Qt's name)
        return QSize(super().sizeHint(option, index).width(), _ROW_PX)


class ShareDelegate(_RowHeight):
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


class _Rows(QTreeView):
    """Tree in which arrow keys choose (left and right: close and open), and the space bar checks."""

    moved = Signal(QModelIndex)
    in_click = by_check = False  # whether the present click has changed a check box: Qt then reports it as one, too

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        self.in_click, self.by_check = True, False
        super().mouseReleaseEvent(event)
        self.in_click = self.by_check = False

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        before = self.currentIndex().siblingAtColumn(0)
        if event is not None and event.key() == Qt.Key.Key_Space and before.isValid():  # also from the column of shares
            on = Qt.CheckState(before.data(Qt.ItemDataRole.CheckStateRole)) == Qt.CheckState.Checked
            state = Qt.CheckState.Unchecked if on else Qt.CheckState.Checked
            given(self.model()).setData(before, state.value, Qt.ItemDataRole.CheckStateRole)
            return
        super().keyPressEvent(event)
        if self.currentIndex().siblingAtColumn(0) != before:
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
        self.n_checked = QLabel()
        self.n_checked.setToolTip("checked types, which the blend shows")
        self.model = TypeModel(self)
        self._filter = QSortFilterProxyModel(self)
        self._filter.setSourceModel(self.model)
        self._filter.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self._filter.setRecursiveFilteringEnabled(True)
        self._filter.setAutoAcceptChildRows(True)
        self.search.textChanged.connect(self._search)
        self.view = _Rows()
        self.view.setModel(self._filter)
        self.view.setItemDelegateForColumn(0, _RowHeight(self.view))
        self.view.setItemDelegateForColumn(1, ShareDelegate(self.view))
        self.view.setUniformRowHeights(True)
        self.view.setExpandsOnDoubleClick(False)  # a double click asks for a colour
        self.view.setIndentation(14)
        self.view.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.view.setStyleSheet(_STYLE)
        self.view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = given(self.view.header())
        header.hide()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(1, 118)
        for changed in (self.view.expanded, self.view.collapsed):
            changed.connect(self._fit_height)
        self.view.clicked.connect(self._clicked)
        self.view.moved.connect(self._clicked)
        self.search.returnPressed.connect(self._first)
        self.view.doubleClicked.connect(lambda index: self.color_wanted.emit(self._name_at(index)))
        self.model.checked_changed.connect(self._show_checked)
        self.model.checked_changed.connect(self.checked_changed)
        self.model.modelReset.connect(self._show_checked)
        above = QHBoxLayout()
        above.addWidget(self.search, 1)
        above.addWidget(self.n_checked)
        self.n_checked.hide()
        stack(above, self.view, inside=self, spacing=4)
        self.set_rows([])

    def set_rows(self, rows: list[TypeRow]) -> None:
        """Show rows in their order; while the mouse is over the list, the order on screen is kept."""
        rows = _in_order_of(self.model.rows, rows) if self.view.underMouse() else rows
        if rows and rows == self.model.rows:
            return
        selected, level = self.selected(), self.selected_level()
        opened = {row.name for i, row in enumerate(self.model.rows) if self.view.isExpanded(self._shown_at(i))}
        self.model.set_rows(rows)
        for i, row in enumerate(rows):
            if row.name in opened:
                self.view.setExpanded(self._shown_at(i), True)
        self.view.setRootIsDecorated(self.model.is_tree)
        self.select(selected, level)
        self._fit_height()

    def _shown_at(self, row: int) -> QModelIndex:
        return self._filter.mapFromSource(self.model.index(row, 0))

    def _fit_height(self) -> None:
        opened = (row for i, row in enumerate(self.model.rows) if self.view.isExpanded(self._shown_at(i)))
        n_rows = max(len(self.model.rows) + sum(len(row.parts) for row in opened), 3)
        self.view.setMinimumHeight(_ROW_PX * min(n_rows, _LEAST_ROWS) + 4)
        # The list fills spare height of the dock, but is not higher than its rows.
        self.setMaximumHeight(self.search.sizeHint().height() + given(self.layout()).spacing() + _ROW_PX * n_rows + 4)

    def set_faded(self, faded: bool) -> None:
        """Show shares in grey, because they are not to be believed."""
        if faded != self.model.faded:
            self.model.faded = faded
            self.model.tell_all(None)

    def checked(self) -> list[str]:
        """Return the checked types in the order of the list."""
        return self.model.in_order(self.model.checked)

    def _show_checked(self) -> None:
        self.view.by_check = self.view.in_click
        n, n_all = len(self.checked()), len(self.model.in_order({row.name for row in self.model.every()}))
        self.n_checked.setText(f"{n} of {n_all} checked" if n else "")
        self.n_checked.setVisible(n > 0)

    def checked_level(self) -> Level:
        """Return the level of the checked types: major if none is a minor type alone."""
        majors = {row.name for row in self.model.rows}
        return "major" if self.model.is_tree and self.model.checked <= majors else "minor"

    def check(self, names: Iterable[str]) -> None:
        """Check exactly these types, as if the user had clicked them."""
        self.model.set_checked(set(names))

    def selected(self) -> str:
        """Return the highlighted type, or an empty string."""
        index = self._selected()
        return index.data() if index.isValid() else ""

    def selected_level(self) -> Level:
        """Return the level of the highlighted type."""
        return self.model.level_of(self._filter.mapToSource(self._selected()))

    def _selected(self) -> QModelIndex:
        rows = given(self.view.selectionModel()).selectedRows()
        return rows[0] if rows else QModelIndex()

    def select(self, name: str, level: Level = "major") -> None:
        """Highlight a type without emitting ``chosen``."""
        found = self.model.find(name, level)
        if not found.isValid():
            self.view.clearSelection()
            return
        index = self._filter.mapFromSource(found)
        if index.isValid() and self._selected() != index:
            self.view.setCurrentIndex(index)
            self.view.scrollTo(index)

    def _search(self, text: str) -> None:
        self._filter.setFilterFixedString(text)
        if text and self.model.is_tree:
            self.view.expandAll()

    def _clicked(self, index: QModelIndex) -> None:
        if self.view.by_check:  # a blend was chosen, and no type alone
            return
        self.view.setCurrentIndex(index.siblingAtColumn(0))
        self.chosen.emit(self._name_at(index))

    def _name_at(self, index: QModelIndex) -> str:
        return str(index.siblingAtColumn(0).data())

    def _first(self) -> None:
        """Choose the first match when Enter is pressed in the search box."""
        if not self.search.text() or not self._filter.rowCount():
            return
        index = self._filter.index(0, 0)
        if self.search.text().casefold() not in self._name_at(index).casefold() and self._filter.rowCount(index):
            index = self._filter.index(0, 0, index)  # the minor type that matches
        self.view.setFocus()
        self._clicked(index)


def _in_order_of(shown: list[TypeRow], rows: list[TypeRow]) -> list[TypeRow]:
    """Return rows in the order in which they are shown, if they are the same."""
    new = {row.name: row for row in rows}
    if len(shown) != len(rows) or {row.name for row in shown} != set(new):
        return rows
    pairs = [(row, new[row.name]) for row in shown]
    return [dataclasses.replace(row, parts=tuple(_in_order_of(list(old.parts), list(row.parts)))) for old, row in pairs]
