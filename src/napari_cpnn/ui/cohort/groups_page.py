"""Tab Groups of the Cohort dock: composition of groups of patients, as in the report of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QModelIndex, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_cpnn.palette import series_colors
from napari_cpnn.texts import shown
from napari_cpnn.ui.cohort.controller import CohortController
from napari_cpnn.ui.cohort.slide_colors import ColorKey
from napari_cpnn.ui.cohort.words import interval_words, p_words
from napari_cpnn.ui.frame import TextLabel, bold_label, given, plain, prepare_table, row, slim_combo, stack

_LINE_PX = 9
_DOTS = Qt.ItemDataRole.UserRole + 1


class DotsDelegate(QStyledItemDelegate):
    """Draws means with their intervals, a line per group, on the scale of the whole table."""

    def sizeHint(self, _option: QStyleOptionViewItem, index: QModelIndex) -> QSize:  # noqa: N802 (Qt's name)
        dots = index.data(_DOTS) or ()
        return QSize(76, _LINE_PX * max(len(dots), 2) + 4)

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        painter = given(painter)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(option.rect).adjusted(5, 2, -5, -2)
        for i, (mean, low, high, color) in enumerate(index.data(_DOTS) or ()):
            y = box.top() + _LINE_PX * (i + 0.5)
            pen = QPen(QColor(color), 2)
            painter.setPen(pen)
            if math.isfinite(low):
                ends = [box.left() + box.width() * min(max(v, 0.0), 1.0) for v in (low, high)]
                painter.drawLine(QPointF(ends[0], y), QPointF(ends[1], y))
            if math.isfinite(mean):
                painter.setBrush(QColor(color))
                painter.drawEllipse(QPointF(box.left() + box.width() * min(max(mean, 0.0), 1.0), y), 2.5, 2.5)
        painter.restore()


class GroupsPage(QWidget):
    """Table of cell types with the mean of each group, its interval over patients, and the comparison."""

    def __init__(self, controller: CohortController) -> None:
        super().__init__()
        self.controller = controller
        self.column = slim_combo("column of the manifest whose groups are compared")
        self.note = TextLabel()
        self.table = QTableWidget()
        self.table.setItemDelegateForColumn(1, DotsDelegate(self.table))
        prepare_table(self.table, 22)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setShowGrid(False)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        given(self.table.horizontalHeader()).setHighlightSections(False)
        choice = row(bold_label("Compare by"), self.column)
        self.key = ColorKey()
        column = stack(choice, self.note, self.key, inside=self, margins=(0, 4, 0, 0), spacing=4)
        column.addWidget(self.table, 1)
        column.addStretch(0)
        self.column.activated.connect(lambda _: self._show())
        controller.tables_changed.connect(self._fill)
        controller.opened.connect(self._fill)
        self._fill()

    def _fill(self) -> None:
        tables, chosen = self.controller.tables, self.column.currentText()
        columns = [] if tables is None else list(tables.groups)
        if [self.column.itemText(i) for i in range(self.column.count())] != columns:
            self.column.clear()
            self.column.addItems(columns)
            self.column.setCurrentIndex(max(self.column.findText(chosen), 0))
        self.column.setEnabled(bool(columns))
        self._show()

    def _show(self) -> None:
        tables, column = self.controller.tables, self.column.currentText()
        table = None if tables is None else tables.groups.get(column)
        groups = [] if table is None else list(dict.fromkeys(table["group"]))
        self.note.setText(self._note(table, groups))
        self.table.setVisible(len(groups) > 1)
        self.key.setVisible(len(groups) > 1)
        if table is not None and len(groups) > 1:
            self._fill_table(table, groups)

    def _note(self, table: pd.DataFrame | None, groups: Sequence[str]) -> str:
        if self.controller.tables is None:
            return "Open the folder of a run."
        if table is None:
            return (
                "The manifest of this run has no groups: call a column group or group_..., or name it by --group "
                "COLUMN when you give the command of the run again."
            )
        if len(groups) < 2:
            return "There are not two groups with mapped slides yet."
        settings: Any = self.controller.tables.run.get("settings", {})
        coverage = 100 * float(settings.get("interval", 0.95))
        test = "Welch's t test" if len(groups) == 2 else "Kruskal-Wallis test"
        return (
            "Patients are the unit: their slides count as one, weighted by mapped tissue. Mean in % with its "
            f"{coverage:g} % interval over patients; p: {test}; q: adjusted over the cell types. Groups may differ in "
            "staining, scanner and site, too."
        )

    def _fill_table(self, table: pd.DataFrame, groups: Sequence[str]) -> None:
        sizes = table.groupby("group", sort=False)["patients"].max()
        colors = series_colors([str(group) for group in groups])
        two = len(groups) == 2
        difference = [f"{shown(groups[1], 18)} less {shown(groups[0], 18)}"] if two else []
        first_mean = 4 + len(difference)
        # p and q first: a narrow dock scrolls what the lines show already.
        heads = ["Cell type", "", "p", "q", *difference, *(f"{shown(g, 18)} ({sizes[g]})" for g in groups)]
        self.key.show_key({f"{g} ({sizes[g]})": colors[str(g)] for g in groups}, None, "")
        parts = list(table.groupby("type", sort=False))
        most = max(float(np.nanmax(table[["mean", "high"]].to_numpy(dtype=float), initial=0.0)), 1e-9)
        self.table.clear()
        self.table.setColumnCount(len(heads))
        self.table.setRowCount(len(parts))
        for i, head in enumerate(heads):
            item = QTableWidgetItem(head)
            if 0 <= i - first_mean < len(groups):
                group = groups[i - first_mean]
                item.setToolTip(plain(f"{group}: {sizes[group]} patients"))
            self.table.setHorizontalHeaderItem(i, item)
        for line, (cell_type, part) in enumerate(parts):
            of_group, first = part.set_index("group"), part.iloc[0]
            numbers = of_group.loc[list(groups), ["mean", "low", "high"]].to_numpy(dtype=float).tolist()
            means = [interval_words(*values) for values in numbers]
            ends = [float(first[f"difference{end}"]) for end in ("", "_low", "_high")]
            apart = [interval_words(ends[0], ends[1], ends[2], signed=True)] if two else []
            cells = [*(p_words(float(first[name])) for name in ("p", "q")), *apart, *means]
            dots = QTableWidgetItem()
            colored = zip(numbers, groups, strict=True)
            dots.setData(_DOTS, [(*(v / most for v in values), colors[str(g)]) for values, g in colored])
            lines = [f"{group}: {text} %" for group, text in zip(groups, means, strict=True)]
            dots.setToolTip(plain("\n".join([*lines, "the full width is the largest value of the table"])))
            self.table.setItem(line, 0, QTableWidgetItem(shown(cell_type, 40)))
            self.table.setItem(line, 1, dots)
            for i, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(line, 2 + i, item)
        rows = given(self.table.verticalHeader())
        rows.setDefaultSectionSize(max(22, _LINE_PX * len(groups) + 4))
        given(self.table.horizontalHeader()).setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
