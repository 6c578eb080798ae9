"""Table of the scores of thousands of genes, which can be sorted and filtered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtWidgets import QHeaderView, QLineEdit, QTableView, QWidget

from napari_cpnn.ui.frame import button, given, prepare_table, row, stack

_COLUMNS = (
    ("gene", "Gene", "name of the gene"),
    ("pcc", "PCC", "Pearson correlation of predicted and measured expression over the spots"),
    ("scc", "SCC", "Spearman correlation"),
    ("pcc_counts", "Counts", "PCC of counts, not of their logarithms"),
    ("ceiling", "Ceiling", "the largest correlation that the noise of the counts allows"),
    ("held_out_pcc", "Held out", "PCC on held-out slides, of the model's card"),
    ("trusted_um", "From µm", "finest scale at which the gene can be trusted; none: at no scale"),
    ("mean_expression", "Mean", "mean measured expression, log1p CP10k"),
    ("detected", "Spots", "share of the spots with a count of the gene"),
)
_LEAST_ROWS_PX = 180
#: Columns that always fit; rows by whose texts others are measured; a name as long as most.
_FEW_COLUMNS, _MEASURED_ROWS, _LONG_NAME = 3, 100, "HLA-DQB1 m"


class ScoreModel(QAbstractTableModel):
    """Rows of a table of scores, sorted and filtered as arrays, which is fast.

    The order changes only by :meth:`sort`, :meth:`set_filter` and :meth:`set_scores`; selection and current row are
    persistent indexes, which :meth:`sort` moves with their genes.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._columns: list[tuple[str, str, str]] = [_COLUMNS[0]]
        self._genes: np.ndarray = np.empty(0, dtype=object)
        self._gone: np.ndarray = np.empty(0, dtype=bool)  # rows that new scores no longer have, see update_scores
        self._upper: list[str] = []
        self._rank: np.ndarray = np.empty(0, dtype=np.intp)  # of the names, so that they are compared only once
        self._values: dict[str, np.ndarray] = {}
        self._order = np.empty(0, dtype=np.intp)
        self._text = ""
        self.sorted_by = ("pcc", True)

    def set_scores(self, scores: pd.DataFrame | None) -> None:
        """Set a table of :func:`~napari_cpnn.evaluate`, or none, and sort it."""
        self.beginResetModel()
        self._take(scores, np.empty(0, dtype=object) if scores is None else scores.index.to_numpy(dtype=object))
        self._arrange()
        self.endResetModel()

    def update_scores(self, scores: pd.DataFrame) -> None:
        """Set another table without moving a row: new genes come last, missing ones stay, and cannot be chosen."""
        shown = self._genes[self._order]
        known = scores.index.to_numpy(dtype=object)
        hidden = self._genes[np.setdiff1d(np.arange(len(self._genes)), self._order)]
        genes = np.array(list(dict.fromkeys([*shown, *hidden, *known])), dtype=object)
        self.beginResetModel()
        self._take(scores.reindex(genes), genes)
        self._gone = ~np.isin(genes.astype(str), known.astype(str))
        rest = np.arange(len(shown), len(genes))
        matching = rest[[self._text in self._upper[i] for i in rest]] if len(rest) else rest
        self._order = np.concatenate([np.arange(len(shown)), matching])
        self.endResetModel()

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Name, title and tooltip of each column."""
        return self._columns

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
        self.sorted_by = (self._columns[column][0], order == Qt.SortOrder.DescendingOrder)
        before = self._order
        self._arrange()
        row_of = np.full(len(self._genes), -1, dtype=np.intp)
        row_of[self._order] = np.arange(len(self._order))
        old = self.persistentIndexList()
        moved = [self.index(int(row_of[before[index.row()]]), index.column()) for index in old]
        self.changePersistentIndexList(old, moved)
        self.layoutChanged.emit()

    def _take(self, scores: pd.DataFrame | None, genes: np.ndarray) -> None:
        self._columns = [c for c in _COLUMNS if c[0] == "gene" or (scores is not None and c[0] in scores)]
        self._genes, self._gone = genes, np.zeros(len(genes), dtype=bool)
        self._upper = [str(gene).upper() for gene in self._genes]
        self._rank = np.empty(len(self._upper), dtype=np.intp)
        self._rank[sorted(range(len(self._upper)), key=self._upper.__getitem__)] = np.arange(len(self._upper))
        self._values = {} if scores is None else {c[0]: scores[c[0]].to_numpy(float) for c in self._columns[1:]}

    def _arrange(self) -> None:
        shown = np.arange(len(self._genes))
        if self._text:
            shown = np.flatnonzero([self._text in name for name in self._upper])
        name, descending = self.sorted_by
        if name in self._values:
            values, pcc = self._values[name][shown], self._values.get("pcc", self._values[name])[shown]
            # Unknown values are last; equal ones by the correlation.
            known = -values if descending else values
            self._order = shown[np.lexsort((-np.nan_to_num(pcc, nan=-2.0), known, np.isnan(values)))]
        else:
            self._order = shown[np.argsort(-self._rank[shown] if descending else self._rank[shown])]

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        if index.isValid() and self._gone[self._order[index.row()]]:
            return Qt.ItemFlag.NoItemFlags
        return super().flags(index)

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
        if role == Qt.ItemDataRole.ToolTipRole and self._gone[self._order[index.row()]]:
            return "measured, but the model does not predict it; it leaves the table when it is sorted again"
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
    """Table with a search box, in which no row moves under the pointer.

    New scores are sorted unless the mouse is over the table: then they are filled in, and *Sort again* is offered.
    """

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.search = QLineEdit()
        self.search.setPlaceholderText("search a gene")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("show only genes whose name has this in it")
        self.sort_again = button("Sort again", "there are new values; they were not sorted while the mouse was here")
        self.sort_again.setVisible(False)
        self.model = ScoreModel(self)
        self.view = QTableView()
        self.view.setModel(self.model)
        self.view.setSortingEnabled(True)
        prepare_table(self.view, 20, measured_rows=_MEASURED_ROWS)
        self.view.setMinimumHeight(_LEAST_ROWS_PX)
        given(self.view.horizontalHeader()).setStyleSheet(
            "QHeaderView::section { padding: 2px; } QHeaderView::up-arrow, QHeaderView::down-arrow { width: 8px; }"
        )
        stack(row(self.search, self.sort_again), self.view, inside=self, spacing=4)
        self._setting, self._user_sorted = False, False
        self._fitted: list[str] = []
        self._fit_columns()
        self._gene = ""
        self._waiting: pd.DataFrame | None = None  # scores that are filled in, but not sorted
        self.search.textChanged.connect(self._filter)
        self.sort_again.clicked.connect(self._take_waiting)
        given(self.view.horizontalHeader()).sectionClicked.connect(self._header_clicked)
        given(self.view.selectionModel()).currentRowChanged.connect(self._row_changed)

    def set_scores(self, scores: pd.DataFrame | None) -> None:
        """Set a table, by the column that the user has chosen, or else the best correlation first."""
        in_place = self.view.underMouse() and self.model.rowCount() > 0
        if scores is not None and in_place and scores.index.is_unique:
            self._waiting = scores
            with self._rows_kept():
                self.model.update_scores(scores)
        else:
            self._waiting = None
            with self._rows_kept(scroll=False):
                self.model.set_scores(scores)
                names = [column[0] for column in self.model.columns]
                name, descending = self.model.sorted_by
                if not self._user_sorted or name not in names:
                    name, descending = names[min(1, len(names) - 1)], True
                    self._user_sorted = False
                order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
                self.view.sortByColumn(names.index(name), order)
        self._fit_columns()
        self.sort_again.setVisible(self._waiting is not None)

    def _fit_columns(self) -> None:
        """Make columns as wide as their texts, when there are others: the names are read, and the rest is scrolled."""
        columns = [name for name, _, _ in self.model.columns]
        if columns == self._fitted:
            return
        self._fitted = columns
        header, few = given(self.view.horizontalHeader()), len(columns) <= _FEW_COLUMNS
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch if few else QHeaderView.ResizeMode.Interactive)
        if not few:
            self.view.resizeColumnsToContents()
            self.view.setColumnWidth(0, self.view.fontMetrics().horizontalAdvance(_LONG_NAME))

    def select(self, gene: str) -> None:
        """Select the row of a gene without emitting ``chosen``."""
        self._gene = gene
        place = self.model.row_of(gene)
        self._setting = True
        if place < 0:
            self.view.clearSelection()
        elif self.view.currentIndex().row() != place or not given(self.view.selectionModel()).hasSelection():
            self.view.setCurrentIndex(self.model.index(place, 0))
        self._setting = False

    @contextmanager
    def _rows_kept(self, *, scroll: bool = True) -> Iterator[None]:
        """Keep the chosen gene, and where the table is scrolled to, over a reset of the model."""
        bar = given(self.view.verticalScrollBar())
        at = bar.value()
        self._setting = True
        yield
        self.select(self._gene)
        if scroll:
            bar.setValue(at)
        self._setting = False

    def _filter(self, text: str) -> None:
        with self._rows_kept(scroll=False):
            self.model.set_filter(text)

    def _take_waiting(self) -> None:
        """Sort the scores that came while the mouse was over the table; genes that they lack leave it."""
        scores, self._waiting = self._waiting, None
        self.sort_again.setVisible(False)
        if scores is not None:
            with self._rows_kept(scroll=False):
                self.model.set_scores(scores)

    def _header_clicked(self, _column: int) -> None:
        self._user_sorted = True
        self._take_waiting()

    def _row_changed(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if current.isValid() and not self._setting:
            self._gene = self.model.gene_at(current.row())
            self.chosen.emit(self._gene)
