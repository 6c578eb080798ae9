"""Heat map of marker genes in the dock: names stay visible while it scrolls, and each field can be clicked."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QFontMetrics, QImage, QPainter, QPixmap, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_cpnn.ui.frame import given, plain, spacer
from napari_cpnn.ui.frame import row as row_of
from napari_cpnn.ui.prototypes.marker_chart import COLORMAP, SCALE, HeatMap
from napari_cpnn.ui.prototypes.words import level_words

_ROW_PX, _LEAST_COLUMN_PX, _MOST_COLUMN_PX = 15, 8, 40
_MOST_NAME_PX, _MOST_HEIGHT = 180, 530
_FONT_PX, _LEAST_FONT_PX = 11, 8
_LEGEND = (90, 10)
_N_SHADES = 256


class HeatMapModel(QAbstractTableModel):
    """Table of genes (rows) by cell types (columns)."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.heat: HeatMap | None = None
        self.gene = ""
        self._shades = np.empty((0, 0), dtype=np.intp)
        self._colors = [QColor.fromRgbF(*map(float, rgba)) for rgba in colormaps[COLORMAP](np.arange(_N_SHADES))]

    def set_heat_map(self, heat: HeatMap | None, gene: str) -> None:
        """Set the heat map, and the gene whose name is bold."""
        self.beginResetModel()
        self.heat, self.gene = heat, gene
        shades = np.empty((0, 0)) if heat is None else heat.shades
        self._shades = np.rint(shades * (_N_SHADES - 1)).astype(np.intp)
        self.endResetModel()

    def color(self, index: QModelIndex) -> QColor:
        return self._colors[int(self._shades[index.row(), index.column()])]

    def starts_group(self, row: int) -> bool:
        """Return whether a row is the first marker of another type."""
        return self.heat is not None and row > 0 and self.heat.marked[row] != self.heat.marked[row - 1]

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else self._shades.shape[0]

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else self._shades.shape[1]

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        heat = self.heat
        if heat is None or section >= (len(heat.cell_types), len(heat.genes))[orientation == Qt.Orientation.Vertical]:
            return None
        if orientation == Qt.Orientation.Horizontal:
            texts = (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole)
            name = heat.cell_types[section]
            return name if role == Qt.ItemDataRole.DisplayRole else plain(name) if role in texts else None
        if role == Qt.ItemDataRole.DisplayRole:
            return heat.genes[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain(f"marker of {heat.marked[section]}") if heat.marked[section] else "the chosen gene"
        parent = self.parent()
        if role == Qt.ItemDataRole.FontRole and isinstance(parent, QWidget):
            return _font(parent, bold=heat.genes[section] == self.gene)
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if self.heat is None or role not in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            return None
        level = self.heat.cp10k[index.row(), index.column()]
        return plain(
            f"{self.heat.genes[index.row()]} in {self.heat.cell_types[index.column()]}: "
            f"{level_words(float(level))} counts per 10,000"
        )


class _Shade(QStyledItemDelegate):
    """Fills a field in its colour, whatever the style sheet, and separates groups of rows."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        model, rect = index.model(), QRect(option.rect)
        if not isinstance(model, HeatMapModel):
            return
        if model.starts_group(index.row()):
            rect.setTop(rect.top() + 2)
        given(painter).fillRect(rect, model.color(index))


class _TypeNames(QHeaderView):
    """Header with vertical names."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self.selected = ""
        self.setSectionsClickable(True)
        self.setMinimumSectionSize(_LEAST_COLUMN_PX)
        self.setToolTip("cell types; click one to list its markers")

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        model = self.model()
        names = [str(model.headerData(i, Qt.Orientation.Horizontal)) for i in range(self.count())] if model else []
        metrics = QFontMetrics(_font(self, bold=True))
        width = max((metrics.horizontalAdvance(name) for name in names), default=20)
        return QSize(super().sizeHint().width(), min(width + 12, _MOST_NAME_PX))

    def paintSection(self, painter: QPainter | None, rect: QRect, section: int) -> None:  # noqa: N802 (Qt's name)
        painter, model = given(painter), given(self.model())
        name = str(model.headerData(section, Qt.Orientation.Horizontal))
        painter.save()
        pixels = min(max(rect.width(), _LEAST_FONT_PX), _FONT_PX)
        painter.setFont(_font(self, bold=name == self.selected, pixels=pixels))
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.translate(rect.left(), rect.bottom())
        painter.rotate(-90)
        room = QRect(4, 0, rect.height() - 6, rect.width())
        text = painter.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, room.width())
        painter.drawText(room, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), text)
        painter.restore()


class HeatMapView(QTableView):
    """Heat map that fits the available width.

    Signals
    -------
    gene_chosen, type_chosen
        Name that was clicked; both for a click on a field.
    """

    gene_chosen = Signal(str)
    type_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setTabKeyNavigation(False)  # Tab moves on to the next control
        self.heat_model = HeatMapModel(self)
        self._in_place = False
        self.names = _TypeNames(self)
        self.setHorizontalHeader(self.names)
        self.setModel(self.heat_model)
        self.setItemDelegate(_Shade(self))
        self.setShowGrid(False)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        rows = given(self.verticalHeader())
        rows.setStyleSheet("QHeaderView::section { padding: 0px 3px; border: none; }")
        rows.setMinimumSectionSize(_ROW_PX)
        rows.setDefaultSectionSize(_ROW_PX)
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.sectionClicked.connect(lambda row: self.gene_chosen.emit(given(self.heat_model.heat).genes[row]))
        self.names.sectionClicked.connect(
            lambda column: self.type_chosen.emit(given(self.heat_model.heat).cell_types[column])
        )
        self.clicked.connect(self._clicked)

    def show_heat_map(self, heat: HeatMap | None, gene: str, selected: str) -> None:
        """Show a heat map with the names of a gene and a cell type bold; scroll to them if they are new."""
        model, at = self.heat_model, given(self.verticalScrollBar()).value()
        before, new_gene, new_type = model.heat, gene != model.gene, selected != self.names.selected
        self.names.selected = selected
        model.set_heat_map(heat, gene)
        self._fit()
        if heat is None:
            return
        if before is not None and _markers(before) == _markers(heat):  # only the row of the gene was added or removed
            given(self.verticalScrollBar()).setValue(at + (len(heat.genes) - len(before.genes)) * _ROW_PX)
        if new_type and not self._in_place and selected in heat.marked:
            row, column = heat.marked.index(selected), heat.cell_types.index(selected)
            self.scrollTo(model.index(row, 0), QAbstractItemView.ScrollHint.PositionAtTop)
            self.scrollTo(model.index(row, column))
        if new_gene and gene:
            self.scrollTo(model.index(heat.genes.index(gene), 0))

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().resizeEvent(event)
        self._fit_columns()

    def _clicked(self, index: QModelIndex) -> None:
        heat = self.heat_model.heat
        if heat is not None:
            self._in_place = True
            self.type_chosen.emit(heat.cell_types[index.column()])
            self.gene_chosen.emit(heat.genes[index.row()])
            self._in_place = False

    def _fit(self) -> None:
        self.updateGeometries()
        self._fit_columns()
        height = self.names.sizeHint().height() + self.heat_model.rowCount() * _ROW_PX + 2 * self.frameWidth() + 2
        if given(self.horizontalScrollBar()).isVisible():
            height += given(self.horizontalScrollBar()).sizeHint().height()
        self.setFixedHeight(min(height, _MOST_HEIGHT))

    def _fit_columns(self) -> None:
        n = self.heat_model.columnCount()
        if n:
            width = (given(self.viewport()).width() - 1) // n
            self.names.setDefaultSectionSize(min(max(width, _LEAST_COLUMN_PX), _MOST_COLUMN_PX))


def _markers(heat: HeatMap) -> tuple[str, ...]:
    """Return the rows without that of the chosen gene."""
    return heat.genes[1:] if heat.marked[:1] == ("",) else heat.genes


def _font(widget: QWidget, *, bold: bool, pixels: int = _FONT_PX) -> QFont:
    font = QFont(widget.font())
    font.setPixelSize(pixels)
    font.setBold(bold)
    return font


def shade_legend() -> QHBoxLayout:
    """Create the legend of the shades."""
    low, bar, high = QLabel("0"), QLabel(), QLabel("highest type of the gene")
    pixels = np.ascontiguousarray(np.rint(255 * colormaps[COLORMAP](np.arange(_N_SHADES)))[None].astype(np.uint8))
    image = QImage(pixels.tobytes(), _N_SHADES, 1, 4 * _N_SHADES, QImage.Format.Format_RGBA8888)
    bar.setPixmap(QPixmap.fromImage(image).scaled(*_LEGEND))
    for label in (low, bar, high):
        label.setToolTip(SCALE)
    return row_of(low, bar, high, spacer())
