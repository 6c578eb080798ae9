"""Tab Cell types of the Cohort dock: scores of genes in cell types, and the map of the chosen one."""

from __future__ import annotations

from qtpy.QtCore import QModelIndex, Qt
from qtpy.QtWidgets import QCheckBox, QLineEdit, QSplitter, QTableView, QWidget

from napari_cpnn.ui.cohort.gallery_view import GalleryView
from napari_cpnn.ui.cohort.slides_page import SlidesPage
from napari_cpnn.ui.cohort.typed_controller import TypedController
from napari_cpnn.ui.cohort.typed_files import about_row, matching
from napari_cpnn.ui.cohort.typed_table import TypedTable
from napari_cpnn.ui.explore import ColorBar
from napari_cpnn.ui.frame import (
    TextLabel,
    bold_label,
    button,
    given,
    open_file,
    prepare_table,
    row,
    slim_combo,
    spacer,
    stack,
)

_FILES = "Scores or typed model (*.csv *.safetensors);;All files (*)"
_HINT = (
    "Open the scores or the model that napari-cpnn train-typed has written: how well each gene is predicted in each "
    "cell type, and which tissue makes it high."
)
_ROW_PX, _LEAST_TABLE_PX = 20, 120


class TypedPage(QWidget):
    """Table of genes in cell types, with filters; the gallery of the cohort below shows the chosen one."""

    def __init__(self, typed: TypedController, slides: SlidesPage) -> None:
        super().__init__()
        self.typed, self.slides = typed, slides
        self.model = TypedTable()
        self._number = -1  # row of the scores that is chosen, also while a filter hides it
        self._restoring = False
        self._build()
        self._connect()
        self._files_changed()

    def _build(self) -> None:
        self.open = button("Scores or model ...", "what train-typed wrote: scores (.csv) or a model (.safetensors)")
        self.files_text = TextLabel()
        self.cell_type = slim_combo("show genes in this cell type")
        self.search = QLineEdit()
        self.search.setPlaceholderText("search a gene")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("show only genes whose name has this in it; a synonym such as HER2 finds its gene")
        self.robust = QCheckBox("robust")
        self.robust.setToolTip("show only genes that are robustly predicted in new patients")
        self.table = QTableView()
        self.table.setModel(self.model)
        prepare_table(self.table, _ROW_PX, measured_rows=30)
        self.table.setMinimumHeight(_LEAST_TABLE_PX)
        self.about = TextLabel()
        self.kept = TextLabel()
        self.gallery = GalleryView()
        self.gallery.setModel(self.slides.model)
        self.gallery.setSelectionModel(self.slides.table.selectionModel())
        self.gallery.setToolTip("a click opens the slide with this map")
        self.bar = ColorBar()
        self.cell_type.setMinimumContentsLength(8)
        self.search.setMinimumWidth(110)
        self.filters = row(self.cell_type, self.search, self.robust)
        self.top, self.bottom = QWidget(), QWidget()
        stack(self.filters, self.table, self.about, inside=self.top, spacing=4)
        stack(self.kept, self.gallery, self.bar, inside=self.bottom, spacing=4)
        self.parts = QSplitter(Qt.Orientation.Vertical)
        self.parts.addWidget(self.top)
        self.parts.addWidget(self.bottom)
        self.parts.setChildrenCollapsible(False)
        column = stack(inside=self, margins=(0, 4, 0, 0), spacing=4)
        column.addLayout(row(bold_label("Expression of each cell type"), spacer(), self.open))
        column.addWidget(self.files_text)
        column.addWidget(self.parts, 1)
        column.addStretch(0)

    def _connect(self) -> None:
        typed = self.typed
        self.open.clicked.connect(lambda: open_file(self, "Open scores or a typed model", _FILES, typed.open))
        typed.changed.connect(self._files_changed)
        typed.chosen_changed.connect(self._show_about)
        self.slides.controller.painted.connect(self._show_about)
        self.cell_type.activated.connect(lambda _: self._filter())
        self.search.textChanged.connect(lambda _: self._filter())
        self.robust.toggled.connect(lambda _: self._filter())
        given(self.table.horizontalHeader()).sectionClicked.connect(self._header_clicked)
        given(self.table.selectionModel()).currentRowChanged.connect(self._row_changed)
        for again in (self.table.clicked, self.table.activated):
            again.connect(self._choose_again)
        self.gallery.clicked.connect(self._want)
        self.gallery.activated.connect(self._want)

    # -- files ---------------------------------------------------------------------------------------------

    def _files_changed(self) -> None:
        files = self.typed.files
        self.parts.setVisible(files is not None)
        self._number = -1
        if files is None:
            self.files_text.setText(_HINT)
            return
        names = {"scores": files.scores_path, "model": files.model_path}
        known = [f"{what}: {path.name}" for what, path in names.items() if path is not None]
        lacks = [f"no {what} open" for what, path in names.items() if path is None]
        self.files_text.setText("; ".join([*known, *lacks]))
        self.model.set_scores(files.scores)
        self.cell_type.clear()
        self.cell_type.addItem("all cell types", None)
        for name in files.cell_types:
            self.cell_type.addItem(name, name)
        self.robust.setEnabled(files.scores_path is not None)
        self.robust.setChecked(False)
        self.search.clear()
        self.table.resizeColumnsToContents()
        wide = self.table.fontMetrics().horizontalAdvance("m")
        self.table.setColumnWidth(0, max(self.table.columnWidth(0), 8 * wide))
        self._show_sorted()
        self._show_about()

    # -- rows ----------------------------------------------------------------------------------------------

    def _filter(self) -> None:
        rows = matching(self.model.scores, self.cell_type.currentData(), self.search.text(), self.robust.isChecked())
        self._restoring = True
        try:
            self.model.keep(rows)
            place = self.model.row_of(self._number)
            if place < 0:
                self.table.clearSelection()
                self.table.setCurrentIndex(QModelIndex())
            else:
                self.table.setCurrentIndex(self.model.index(place, 0))
                self.table.scrollTo(self.model.index(place, 0))
        finally:
            self._restoring = False

    def _header_clicked(self, column: int) -> None:
        """Sort by a column; numbers the largest first, and the other way round with the next click."""
        name = self.model.columns[column]
        before = self.model.sorted_by
        descending = not before[1] if before[0] == name else name not in ("gene", "cell_type")
        self.model.sort(column, Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder)
        self._show_sorted()
        if self.table.currentIndex().isValid():
            self.table.scrollTo(self.table.currentIndex())

    def _show_sorted(self) -> None:
        name, descending = self.model.sorted_by
        header = given(self.table.horizontalHeader())
        header.setSortIndicatorShown(True)
        order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
        header.setSortIndicator(self.model.columns.index(name), order)

    def _row_changed(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if self._restoring or not current.isValid():
            return
        number = self.model.number_at(current.row())
        if number != self._number:
            self._number = number
            self._choose()

    def _choose_again(self, index: QModelIndex) -> None:
        """Come back to the chosen row, after something else was shown."""
        if index.isValid() and self.model.number_at(index.row()) == self._number:
            self._choose()

    def _choose(self) -> None:
        chosen = self.model.scores.iloc[self._number]
        self.typed.choose(str(chosen["cell_type"]), str(chosen["gene"]))

    # -- what is known of the chosen one -------------------------------------------------------------------

    def _show_about(self) -> None:
        files, typed = self.typed.files, self.typed
        if files is None:
            return
        if self._number < 0:
            self.about.show_text("Choose a row: the open slide and the gallery show which tissue makes it high.")
        else:
            self.about.show_text(about_row(self.model.scores.iloc[self._number].to_dict(), files))
        text = ""
        if typed.n_kept is not None and typed.n_kept[0] < typed.n_kept[1]:
            text = (
                f"Features of {typed.n_kept[0]} of {typed.n_kept[1]} slides are kept on this computer; napari-cpnn "
                "predict-typed computes those of the others. A slide that is opened is mapped in any case."
            )
        self.kept.show_text(text)
        self.bottom.setVisible(typed.model is not None and bool(self.slides.model.rowCount()))
        self._show_bar()

    def _show_bar(self) -> None:
        self.bar.setVisible(self.slides.bar.isVisibleTo(self.slides) and self.typed.is_on)
        painted = self.slides.controller.picture
        if (
            painted is not None
            and painted.shown is not None
            and painted.limits is not None
            and painted.table is not None
        ):
            self.bar.show_table(painted.table, painted.limits, painted.shown.unit)

    def _want(self, index: QModelIndex) -> None:
        if index.isValid():
            self.slides.wanted.emit(self.slides.model.name_at(index.row()))
