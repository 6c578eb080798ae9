"""Slides of a cohort as rows, for the table and the gallery, which share their order, filter and selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QColor, QImage

from napari_cpnn.texts import shown
from napari_cpnn.ui.cohort.words import columns_of, heading, is_number, tip, value_words
from napari_cpnn.ui.frame import plain

#: Roles of the gallery: the picture of a slide (QImage), whether there is something to be said of it, and its status.
PICTURE, MARKED, STATUS = (Qt.ItemDataRole.UserRole + i for i in (1, 2, 3))
#: Columns before those of the cohort.
NAME, REMARKS, VALUE = "slide", "⚠", "value"


class SlideModel(QAbstractTableModel):
    """Rows of a table of slides.

    The order changes only by :meth:`sort` and :meth:`set_filter`; new values of a run that goes on leave every row
    where it is. Selection and current row are persistent indexes, which move with their slides.

    Parameters
    ----------
    remarks
        Returns the sentences on a slide.
    """

    def __init__(self, remarks: Callable[[str], list[str]]) -> None:
        super().__init__()
        self._remarks_of = remarks
        self._slides = pd.DataFrame()
        self._names: list[str] = []
        self._columns: list[str] = [NAME, REMARKS, VALUE]
        self._cells: dict[str, list[Any]] = {}
        self._right = {REMARKS, VALUE}
        self._remarks: list[list[str]] = []
        self._order = np.empty(0, dtype=np.intp)
        self._means: dict[str, float] = {}
        self._value_name, self._per_unit = "", 1.0
        self._pictures: dict[str, QImage] = {}
        self._colors: dict[str, QColor] = {}
        self._words: list[str] = []
        self._text = ""
        self.sorted_by: tuple[str, bool] | None = None  # column, and whether the largest come first
        self.is_stale = False

    # -- content -------------------------------------------------------------------------------------------

    def set_slides(self, slides: pd.DataFrame | None, groups: Sequence[str] = ()) -> None:
        """Set the table; rows of the same slides stay where they are."""
        slides = pd.DataFrame() if slides is None else slides
        names = [str(name) for name in slides.index]
        columns = [NAME, REMARKS, VALUE, *columns_of(slides, groups)]
        keep = names == self._names and columns == self._columns
        if not keep:
            self.beginResetModel()
        self._slides, self._names, self._columns = slides, names, columns
        self._cells = {column: slides[column].tolist() for column in columns[3:]}
        self._right = {REMARKS, VALUE, *(column for column in columns[3:] if is_number(slides[column]))}
        self._remarks = [self._remarks_of(name) for name in names]
        texts = slides[[c for c in columns[3:] if not is_number(slides[c])]].astype(str)
        self._words = [" ".join((name, *row)).upper() for name, row in zip(names, texts.to_numpy(), strict=True)]
        if keep:
            self.is_stale = self.sorted_by is not None or bool(self._text)
            self._all_changed()
        else:
            if self.sorted_by is not None and self.sorted_by[0] not in columns:
                self.sorted_by = None
            self._arrange()
            self.endResetModel()

    def set_pictures(self, pictures: dict[str, QImage], means: dict[str, float], name: str, per_unit: float) -> None:
        """Set the thumbnails, and the mean of the quantity that they show."""
        self._pictures, self._means, self._value_name, self._per_unit = pictures, means, name, per_unit
        self._remarks = [self._remarks_of(one) for one in self._names]
        self.is_stale |= self.sorted_by is not None and self.sorted_by[0] == VALUE
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 2, 2)
        self._all_changed()

    def set_colors(self, colors: dict[str, QColor]) -> None:
        """Set the colour of each slide, of the column that they are coloured by."""
        self._colors = colors
        self._all_changed()

    def set_filter(self, text: str) -> None:
        """Show only slides that have a text in their name or in a column of texts."""
        self._text = text.strip().upper()
        self.rearrange()

    @property
    def columns(self) -> list[str]:
        return self._columns

    @property
    def slides(self) -> pd.DataFrame:
        return self._slides

    def name_at(self, row: int) -> str:
        return self._names[int(self._order[row])]

    def row_of(self, name: str) -> int:
        """Return the row of a slide; -1 if it is not shown."""
        at = self._names.index(name) if name in self._names else -1
        rows = np.flatnonzero(self._order == at)
        return int(rows[0]) if rows.size else -1

    # -- order ---------------------------------------------------------------------------------------------

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        if 0 <= column < len(self._columns):
            self.sorted_by = (self._columns[column], order == Qt.SortOrder.DescendingOrder)
            self.rearrange()

    def rearrange(self) -> None:
        """Sort and filter anew; selected rows move with their slides."""
        self.layoutAboutToBeChanged.emit()
        before = self._order
        self._arrange()
        row_of = np.full(len(self._names), -1, dtype=np.intp)
        row_of[self._order] = np.arange(len(self._order))
        old = self.persistentIndexList()
        moved = [
            self.index(int(row_of[before[i.row()]]), i.column()) if row_of[before[i.row()]] >= 0 else QModelIndex()
            for i in old
        ]
        self.changePersistentIndexList(old, moved)
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        self.is_stale = False
        rows = np.flatnonzero([self._text in words for words in self._words]) if self._names else np.empty(0, np.intp)
        self._order = rows.astype(np.intp)
        if self.sorted_by is None or not rows.size:
            return
        column, descending = self.sorted_by
        keys = self._sort_keys(column).iloc[self._order]
        ranks = keys.rank(method="dense", ascending=not descending, na_option="bottom")
        self._order = self._order[np.argsort(ranks.to_numpy(), kind="stable")]

    def _sort_keys(self, column: str) -> pd.Series:
        if column == NAME:
            return pd.Series([name.upper() for name in self._names])
        if column == REMARKS:
            return pd.Series([len(texts) for texts in self._remarks])
        if column == VALUE:
            return pd.Series([self._means.get(name, np.nan) for name in self._names], dtype=float)
        values = self._slides[column]
        return values if is_number(values) else values.map(lambda v: None if pd.isna(v) else str(v).upper())

    # -- Qt ------------------------------------------------------------------------------------------------

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 (Qt's name)
        return 0 if parent is not None and parent.isValid() else len(self._columns)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        if orientation != Qt.Orientation.Horizontal or section >= len(self._columns):
            return None
        column = self._columns[section]
        if role == Qt.ItemDataRole.DisplayRole:
            own = {NAME: "Slide", REMARKS: REMARKS, VALUE: shown(self._value_name, 16) or "–"}
            return own.get(column) or heading(column)
        if role == Qt.ItemDataRole.ToolTipRole:
            value = f"{self._value_name}: mean over the mapped tissue" if self._value_name else "mean of what is shown"
            own = {
                NAME: "a double click or Enter opens the slide with its kept map",
                REMARKS: "number of remarks: why it failed, quality control, what is missing",
                VALUE: value,
            }
            return plain(own.get(column) or tip(column))
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        at, column = int(self._order[index.row()]), self._columns[index.column()]
        name = self._names[at]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text_of(at, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain("\n".join([name, *self._remarks[at]]))
        if role == Qt.ItemDataRole.DecorationRole and column == NAME:
            return self._colors.get(name)
        if role == Qt.ItemDataRole.TextAlignmentRole and column in self._right:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role == STATUS:
            status = str(self._cells["status"][at]) if "status" in self._cells else ""
            return {"waiting": "not mapped yet", "done": "map is being read"}.get(status, status)
        if role == PICTURE:
            return self._pictures.get(name)
        if role == MARKED:
            return bool(self._remarks[at])
        return None

    def _text_of(self, at: int, column: str) -> str:
        name = self._names[at]
        if column == NAME:
            return shown(name, 60)
        if column == REMARKS:
            return str(len(self._remarks[at]) or "")
        if column == VALUE:
            mean = self._means.get(name)
            return "–" if mean is None else f"{100 * mean:.1f} %" if self._per_unit != 1 else f"{mean:z.2f}"
        return value_words(column, self._cells[column][at])

    def _all_changed(self) -> None:
        if len(self._order):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._order) - 1, len(self._columns) - 1))
