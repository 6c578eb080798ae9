"""Rows of gene and cell type with their scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

from napari_cpnn.texts import shown

#: Name, title and tooltip of each column.
COLUMNS = (
    ("gene", "Gene", "gene"),
    ("cell_type", "Cell type", "cell type in which the gene is predicted"),
    ("r", "R", "correlation of predicted and deconvolved expression, over patients that the model had not seen"),
    ("robust", "robust", "R above 0.4 and p below 0.05 after Holm's correction, unless set otherwise"),
    ("specificity", "specificity", "specific R, times how much the gene deviates in this type of all"),
    ("r_given_bulk", "R | bulk", "R, given the gene in the whole sample: what the type's prediction adds to it"),
    ("specific_r", "specific R", "R of the type's deviation from the mean over types; it has no scale"),
    ("confidence", "label", "confidence of the deconvolved label, 0 to 1; low: R says little of the true expression"),
)
#: What is sorted by first, if the table has it.
_FIRST = ("specificity", "r")


class TypedTable(QAbstractTableModel):
    """Scores of genes in cell types; selected rows move with what they show, whatever the order.

    The order changes only by :meth:`sort` and :meth:`keep`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._scores = pd.DataFrame({"gene": [], "cell_type": []})
        self._columns = list(COLUMNS[:2])
        self._cells: dict[str, list[Any]] = {}
        self._order = np.empty(0, dtype=np.intp)
        self._kept = np.empty(0, dtype=bool)
        self.sorted_by = ("r", True)

    @property
    def scores(self) -> pd.DataFrame:
        return self._scores

    @property
    def columns(self) -> list[str]:
        return [name for name, _, _ in self._columns]

    def set_scores(self, scores: pd.DataFrame) -> None:
        """Set the table; columns that say nothing are left out."""
        self.beginResetModel()
        self._scores = scores.reset_index(drop=True)
        known = {name for name in scores if not scores[name].isna().all()}
        self._columns = [c for c in COLUMNS if c[0] in known and (c[0] != "robust" or "r" in known)]
        self._cells = {name: scores[name].tolist() for name, _, _ in self._columns}
        self._kept = np.ones(len(scores), dtype=bool)
        self.sorted_by = (next((name for name in _FIRST if name in known), "gene"), bool(known & set(_FIRST)))
        self._arrange()
        self.endResetModel()

    def keep(self, rows: np.ndarray) -> None:
        """Show only some rows ``(n,)`` of the scores."""
        self._kept = rows
        self._rearrange()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        if 0 <= column < len(self._columns):
            self.sorted_by = (self._columns[column][0], order == Qt.SortOrder.DescendingOrder)
            self._rearrange()

    def number_at(self, row: int) -> int:
        """Return which row of the scores is shown in a row."""
        return int(self._order[row])

    def row_of(self, number: int) -> int:
        """Return where a row of the scores is shown; -1 if it is not."""
        rows = np.flatnonzero(self._order == number)
        return int(rows[0]) if rows.size else -1

    def _rearrange(self) -> None:
        self.layoutAboutToBeChanged.emit()
        before = self._order
        self._arrange()
        row_of = np.full(len(self._scores), -1, dtype=np.intp)
        row_of[self._order] = np.arange(len(self._order))
        old = self.persistentIndexList()
        places = [row_of[before[index.row()]] for index in old]
        moved = [
            self.index(int(place), index.column()) if place >= 0 else QModelIndex()
            for index, place in zip(old, places, strict=True)
        ]
        self.changePersistentIndexList(old, moved)
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        rows = np.flatnonzero(self._kept)
        name, descending = self.sorted_by
        values = self._scores[name].iloc[rows]
        if not pd.api.types.is_numeric_dtype(values):
            values = values.str.upper()
        ranks = values.rank(method="dense", ascending=not descending, na_option="bottom")
        self._order = rows[np.argsort(ranks.to_numpy(), kind="stable")].astype(np.intp)

    # -- Qt ------------------------------------------------------------------------------------------------

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        if orientation == Qt.Orientation.Horizontal and section < len(self._columns):
            if role == Qt.ItemDataRole.DisplayRole:
                return self._columns[section][1]
            if role == Qt.ItemDataRole.ToolTipRole:
                return self._columns[section][2]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        name = self._columns[index.column()][0]
        if role == Qt.ItemDataRole.TextAlignmentRole and name not in ("gene", "cell_type"):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role not in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return None
        value = self._cells[name][self._order[index.row()]]
        if name in ("gene", "cell_type"):
            return shown(value, 40)
        if name == "robust":
            return "yes" if value else "no"
        return "–" if math.isnan(value) else f"{value:z.2f}"
