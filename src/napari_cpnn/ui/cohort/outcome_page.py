"""Tab Outcome of the Cohort dock: whether a column of the manifest follows from what slides or bulk samples say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QListWidget,
    QListWidgetItem,
    QStyledItemDelegate,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_cpnn.errors import CohortError, CpnnError
from napari_cpnn.texts import shown
from napari_cpnn.ui.cohort.controller import CohortController
from napari_cpnn.ui.cohort.words import HIDDEN
from napari_cpnn.ui.frame import (
    TextLabel,
    add,
    bold_label,
    button,
    choose_data,
    given,
    open_file,
    prepare_table,
    row,
    slim_combo,
    spacer,
    stack,
)

if TYPE_CHECKING:
    from napari_cpnn.prototypes import TypedExpression
    from napari_cpnn.studies import OutcomeStudy

_AUC = Qt.ItemDataRole.UserRole + 1
_TYPED_FILES = "Typed expression (*.h5ad);;All files (*)"
_OWN = ("status", "sample", "patient", "mpp", *HIDDEN)
_COLUMNS = ("auc", "low", "high", "n_positive", "n_negative", "difference", "difference_low", "difference_high")


class AucDelegate(QStyledItemDelegate):
    """Draws an AUC with its interval between 0 and 1, and a line at 0.5."""

    def paint(self, painter: QPainter | None, option: Any, index: Any) -> None:
        values = index.data(_AUC)
        painter = given(painter)
        if values is None:
            return
        auc, low, high = values
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(option.rect).adjusted(5, 3, -5, -3)
        middle = box.center()
        ink = QColor(option.palette.text().color())
        faint = QColor(ink)
        faint.setAlphaF(0.4)
        painter.setPen(QPen(faint, 1, Qt.PenStyle.DotLine))
        painter.drawLine(QPointF(middle.x(), box.top()), QPointF(middle.x(), box.bottom()))
        painter.setPen(QPen(ink, 2))
        ends = [QPointF(box.left() + end * box.width(), middle.y()) for end in (low, high)]
        painter.drawLine(ends[0], ends[1])
        painter.setBrush(ink)
        painter.drawEllipse(QRectF(box.left() + auc * box.width() - 2.5, middle.y() - 2.5, 5, 5))
        painter.restore()


class OutcomePage(QWidget):
    """Choice of the outcome, the typed expression and clinical columns; the AUC of each set of features."""

    def __init__(self, controller: CohortController) -> None:
        super().__init__()
        self.controller = controller
        self.typed: TypedExpression | None = None
        self.study: pd.DataFrame | None = None
        self.column = slim_combo("column of the manifest with two values, such as pCR")
        self.clinical = QListWidget()
        self.clinical.setMaximumHeight(110)
        self.clinical.setToolTip("clinical columns to compare with")
        self.choose = button("Typed expression ...", "an .h5ad of deconvolve --typed, or predicted from slides")
        self.file_text = TextLabel()
        self.run = button("Cross-validate", "nested, by patient: 5 folds, 5 repeats; minutes for thousands of genes")
        self.load = button("Open result ...", "a table (.csv) that napari-cpnn outcome has written")
        self.note = TextLabel()
        self.table = QTableWidget(0, 4)
        self.table.setHorizontalHeaderLabels(["Features", "", "AUC [95 %]", "from the first"])
        self.table.setItemDelegateForColumn(1, AucDelegate(self.table))
        prepare_table(self.table, 22)
        self.table.setShowGrid(False)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        column = stack(inside=self, margins=(0, 4, 0, 0), spacing=4)
        add(column, row(bold_label("Outcome"), self.column), row(bold_label("From"), self.choose, spacer()))
        add(column, self.file_text, bold_label("Compared with"), self.clinical, row(self.run, self.load, spacer()))
        add(column, self.note)
        column.addWidget(self.table, 1)
        column.addStretch(0)
        self._connect()
        self._fill()

    def _connect(self) -> None:
        self.choose.clicked.connect(lambda: open_file(self, "Open typed expression", _TYPED_FILES, self.open_typed))
        self.load.clicked.connect(lambda: open_file(self, "Open a result", "Tables (*.csv)", self.open_result))
        self.run.clicked.connect(self.start)
        self.column.activated.connect(lambda _: self._hide_outcome())
        self.controller.opened.connect(self._forget)
        self.controller.tables_changed.connect(self._fill)

    def _forget(self) -> None:
        self.controller.tasks.forget("outcome")
        self._show(None, "")
        self._fill()

    # -- choices -------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        slides = self.controller.slides
        own = [] if slides is None else [c for c in slides.columns if c not in _OWN]
        if slides is not None and self.controller.tables is not None:
            own = [c for c in own if c not in self.controller.quality]
        two = [] if slides is None else [c for c in own if _values(slides[c]) == 2]
        if [self.column.itemData(i) for i in range(self.column.count())] != two:
            chosen = self.column.currentData()
            self.column.clear()
            for name in two:
                self.column.addItem(shown(name, 40), name)
            choose_data(self.column, chosen)
        self.column.setEnabled(bool(two))
        if [given(self.clinical.item(i)).data(_AUC) for i in range(self.clinical.count())] != own:
            checked = set(self.chosen_clinical())
            self.clinical.clear()
            for name in own:
                item = QListWidgetItem(shown(name, 40))
                item.setData(_AUC, name)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Checked if name in checked else Qt.CheckState.Unchecked)
                self.clinical.addItem(item)
        self._hide_outcome()
        self._refresh()

    def _hide_outcome(self) -> None:
        """Offer every column but the outcome itself to be compared with it."""
        for i in range(self.clinical.count()):
            item = given(self.clinical.item(i))
            item.setHidden(item.data(_AUC) == self.column.currentData())

    def chosen_clinical(self) -> list[str]:
        """Return the columns that are ticked, but for the outcome itself."""
        items = [self.clinical.item(i) for i in range(self.clinical.count())]
        ticked = [i.data(_AUC) for i in items if i is not None and i.checkState() == Qt.CheckState.Checked]
        return [name for name in ticked if name != self.column.currentData()]

    def open_typed(self, path: str | Path) -> None:
        """Read typed expression."""
        path = Path(path)

        def read() -> TypedExpression:
            from napari_cpnn.prototypes import TypedExpression

            return TypedExpression.load(path)

        def ready(typed: TypedExpression) -> None:
            self.typed = typed
            n = (len(typed.samples), len(typed.cell_types), len(typed.genes))
            self.file_text.setText(f"{path.name}: {n[0]:,} samples, {n[1]} cell types, {n[2]:,} genes")
            self._refresh()

        self.controller.tasks.run("typed", f"Reading {shown(path.name, 60)} ...", read, ready)

    def open_result(self, path: str | Path) -> None:
        """Show a table that ``napari-cpnn outcome`` has written."""
        path = Path(path)
        self._task(f"Reading {shown(path.name, 60)} ...", lambda: read_result(path), lambda t: self._show(t, path.name))

    def start(self) -> None:
        """Cross-validate the chosen outcome."""
        slides, typed, column = self.controller.slides, self.typed, self.column.currentData()
        if slides is None or typed is None or column is None:
            return
        clinical = self.chosen_clinical()

        def work() -> tuple[OutcomeStudy, int]:
            from napari_cpnn.studies import cohort_outcome

            return cohort_outcome(slides, typed, column, clinical)

        def ready(found: tuple[OutcomeStudy, int]) -> None:
            study, n_left_out = found
            left = f" {n_left_out} samples have no typed expression and are left out." if n_left_out else ""
            self._show(study.table, f"{column} = {study.positive}", left)

        self._show(None, "")
        self._task(f"Cross-validating {shown(column, 40)} by patient ...", work, ready)

    def _task(self, text: str, work: Callable[[], Any], ready: Callable[[Any], None]) -> None:
        def done(found: Any) -> None:
            ready(found)
            self._refresh()

        self.controller.tasks.run("outcome", text, work, done)
        self._refresh()

    # -- the result ----------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        running = self.controller.tasks.is_running("outcome")
        self.run.setEnabled(self.typed is not None and self.column.currentData() is not None)
        self.table.setVisible(self.study is not None and not running)
        if self.study is None and not running:
            lacking = "The manifest has no column with two values. " if not self.column.count() else ""
            self.note.setText(
                f"{lacking}Choose typed expression of the samples (napari-cpnn deconvolve --typed), or open a result. "
                "Expression from slides must come from a model that has not seen these patients; else it is refused."
            )

    def _show(self, table: pd.DataFrame | None, title: str, left: str = "") -> None:
        self.study = table
        self.table.setRowCount(0 if table is None else len(table))
        if table is None:
            self.note.setText("")
            return
        first = table.iloc[0]
        self.note.setText(
            f"{title}: {first['n_positive']:.0f} patients with, {first['n_negative']:.0f} without. AUC over patients "
            f"that the regression has not seen, with its 95 % interval; 0.5 is chance.{left}"
        )
        for line, (name, values) in enumerate(table.iterrows()):
            auc, low, high = (float(values[key]) for key in ("auc", "low", "high"))
            apart = [float(values[f"difference{end}"]) for end in ("", "_low", "_high")]
            difference = "–" if line == 0 else f"{apart[0]:+z.2f} [{apart[1]:+z.2f}, {apart[2]:+z.2f}]"
            drawn = QTableWidgetItem()
            drawn.setData(_AUC, (auc, low, high))
            cells = [QTableWidgetItem(shown(name, 60)), drawn, QTableWidgetItem(f"{auc:.2f} [{low:.2f}, {high:.2f}]")]
            for i, item in enumerate([*cells, QTableWidgetItem(difference)]):
                self.table.setItem(line, i, item)
        self.table.resizeColumnsToContents()
        self.table.setColumnWidth(1, 90)


def read_result(path: Path) -> pd.DataFrame:
    """Read a table of an outcome study; :class:`CohortError` if it is none."""
    from napari_cpnn.storage import table_of_csv

    try:
        table = pd.DataFrame(table_of_csv(pd.read_csv(path)))
        table = table.set_index(table.columns[0])[list(_COLUMNS)].astype(float)
    except (CpnnError, KeyError, ValueError, IndexError, TypeError, OSError) as error:
        text = f"{path} is no result of napari-cpnn outcome: it needs the columns features, {', '.join(_COLUMNS)}."
        raise CohortError(text) from error
    if table.empty or table.isna().to_numpy()[:, :5].any():
        raise CohortError(f"{path} is no result of napari-cpnn outcome: it has no rows, or empty cells.")
    return table


def _values(column: pd.Series) -> int:
    texts = column.dropna().astype(str).str.strip()
    return int(texts[texts != ""].nunique())
