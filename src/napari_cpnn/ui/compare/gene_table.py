"""Table of the scores of thousands of genes, which can be sorted and filtered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtWidgets import QHeaderView, QLineEdit, QTableView, QWidget

from napari_cpnn.ui.frame import given, prepare_table, stack

_COLUMNS = (
    ("gene", "Gene", "name of the gene"),
    ("pcc", "PCC", "Pearson correlation of predicted and measured expression over the spots"),
    ("scc", "SCC", "Spearman correlation"),
    ("ceiling", "Ceiling", "the largest correlation that the noise of the counts allows"),
    ("held_out_pcc", "Held out", "PCC on held-out slides, of the model's card"),
    ("trusted_um", "From µm", "finest scale at which the gene can be trusted; none: at no scale"),
    ("mean_expression", "Mean", "mean measured expression, log1p CP10k"),
    ("detected", "Spots", "share of the spots with a count of the gene"),
)
_LEAST_ROWS_PX = 180


class ScoreModel(QAbstractTableModel):
    """Rows of a table of scores, sorted and filtered as arrays, which is fast."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._columns: list[tuple[str, str, str]] = [_COLUMNS[0]]
        self._genes: np.ndarray = np.empty(0, dtype=object)
        self._upper: list[str] = []
        self._rank: np.ndarray = np.empty(0, dtype=np.intp)  # of the names, so that they are compared only once
        self._values: dict[str, np.ndarray] = {}
        self._order = np.empty(0, dtype=np.intp)
        self._text = ""
        self._sorted = ("pcc", True)

    def set_scores(self, scores: pd.DataFrame | None) -> None:
        """Set a table of :func:`~napari_cpnn.evaluate`, or none."""
        self.beginResetModel()
        self._columns = [c for c in _COLUMNS if c[0] == "gene" or (scores is not None and c[0] in scores)]
        self._genes = np.empty(0, dtype=object) if scores is None else scores.index.to_numpy(dtype=object)
        self._upper = [str(gene).upper() for gene in self._genes]
        self._rank = np.empty(len(self._upper), dtype=np.intp)
        self._rank[sorted(range(len(self._upper)), key=self._upper.__getitem__)] = np.arange(len(self._upper))
        self._values = {} if scores is None else {c[0]: scores[c[0]].to_numpy(float) for c in self._columns[1:]}
        self._arrange()
        self.endResetModel()

    def set_filter(self, text: str) -> None:
        """Show only genes whose name contains a text."""
        self.beginResetModel()
        self._text = text.strip().upper()
        self._arrange()
        self.endResetModel()

    def gene_at(self, row: int) -> str:
        return str(self._genes[self._order[row]])

    def row_of(self, gene: str) -> int:
        """Return the row of a gene; -1 if it is not shown."""
        rows = np.flatnonzero(self._genes[self._order] == gene)
        return int(rows[0]) if rows.size else -1

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self.layoutAboutToBeChanged.emit()
        self._sorted = (self._columns[column][0], order == Qt.SortOrder.DescendingOrder)
        self._arrange()
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        shown = np.arange(len(self._genes))
        if self._text:
            shown = np.flatnonzero([self._text in name for name in self._upper])
        name, descending = self._sorted
        if name in self._values:
            values = self._values[name][shown]
            # Unknown values are last; equal ones by the correlation.
            known, pcc = -values if descending else values, self._values.get("pcc", values)[shown]
            self._order = shown[np.lexsort((-np.nan_to_num(pcc, nan=-2.0), known, np.isnan(values)))]
        else:
            self._order = shown[np.argsort(-self._rank[shown] if descending else self._rank[shown])]

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._columns[section][1]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole:
            return self._columns[section][2]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        name = self._columns[index.column()][0]
        if role == Qt.ItemDataRole.TextAlignmentRole and name != "gene":
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        at = self._order[index.row()]
        if name == "gene":
            return str(self._genes[at])
        value = self._values[name][at]
        if np.isnan(value):
            return "–"
        if name == "trusted_um":
            return "none" if np.isinf(value) else f"{value:.0f}"
        return f"{100 * value:.0f} %" if name == "detected" else f"{value:z.2f}"


class GeneTable(QWidget):
    """Table with a search box."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.search = QLineEdit()
        self.search.setPlaceholderText("search a gene")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("show only genes whose name has this in it")
        self.model = ScoreModel(self)
        self.view = QTableView()
        self.view.setModel(self.model)
        self.view.setSortingEnabled(True)
        prepare_table(self.view, 20)
        self.view.setMinimumHeight(_LEAST_ROWS_PX)
        given(self.view.horizontalHeader()).setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        stack(self.search, self.view, inside=self, spacing=4)
        self._setting = False
        self.search.textChanged.connect(self.model.set_filter)
        given(self.view.selectionModel()).currentRowChanged.connect(self._row_changed)

    def set_scores(self, scores: pd.DataFrame | None) -> None:
        """Set a table, the best correlation first."""
        self._setting = True
        self.model.set_scores(scores)
        self.view.sortByColumn(min(1, self.model.columnCount() - 1), Qt.SortOrder.DescendingOrder)
        self._setting = False

    def select(self, gene: str) -> None:
        """Select the row of a gene without emitting ``chosen``."""
        row = self.model.row_of(gene)
        self._setting = True
        if row < 0:
            self.view.clearSelection()
        elif self.view.currentIndex().row() != row:
            self.view.setCurrentIndex(self.model.index(row, 0))
        self._setting = False

    def _row_changed(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if current.isValid() and not self._setting:
            self.chosen.emit(self.model.gene_at(current.row()))
