"""Tab Slides of the Cohort dock: the gallery, and below it the table of the same slides."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtGui import QImage, QKeyEvent
from qtpy.QtWidgets import QLineEdit, QSplitter, QTableView, QWidget

from napari_cpnn.painting import Shown
from napari_cpnn.ui.cohort.controller import CohortController
from napari_cpnn.ui.cohort.gallery_view import GalleryView
from napari_cpnn.ui.cohort.slide_colors import ColorKey, slide_colors
from napari_cpnn.ui.cohort.slide_model import SlideModel
from napari_cpnn.ui.cohort.thumbnails import Picture
from napari_cpnn.ui.cohort.words import columns_of, heading
from napari_cpnn.ui.explore import ColorBar
from napari_cpnn.ui.frame import (
    GeneBox,
    TextLabel,
    button,
    choose_data,
    given,
    prepare_table,
    row,
    slim_combo,
    stack,
)

_ROW_PX, _LEAST_TABLE_PX = 20, 100
_MOST_TYPES = 12
_TISSUE, _DOMINANT = "H&E", "Dominant cell type"


class SlideTable(QTableView):
    """Table in which Enter opens a slide, with every style."""

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(event).key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.activated.emit(self.currentIndex())
            return
        super().keyPressEvent(event)


class SlidesPage(QWidget):
    """Gallery and table, with what they show, their filter and their colours.

    Signals
    -------
    wanted
        Name of a slide that is to be opened.
    """

    wanted = Signal(str)

    def __init__(self, controller: CohortController) -> None:
        super().__init__()
        self.controller = controller
        self.model = SlideModel(controller.remarks)
        self._build()
        self._connect()
        self._fill_quantities()

    def _build(self) -> None:
        self.quantity = slim_combo("what all thumbnails show, in the same colours")
        self.gene = GeneBox()
        self.gallery = GalleryView()
        self.gallery.setToolTip("a click opens the slide with its kept map")
        self.bar = ColorBar()
        self.bar.hide()
        self.types = ColorKey(_MOST_TYPES)
        self.types.setToolTip("colours of the dominant cell types, the most frequent in the cohort first")
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("filter: name, patient, group, status")
        self.filter.setClearButtonEnabled(True)
        self.filter.setToolTip("show only slides that have this text in their name or in a column of texts")
        self.color_by = slim_combo("colour of the frame of each thumbnail")
        self.color_by.setMinimumContentsLength(8)
        self.sort_again = button("Sort again", "the run has gone on; rows stay where they are until you sort them")
        self.sort_again.hide()
        self.key = ColorKey()
        self.table = SlideTable()
        self.table.setModel(self.model)
        self.gallery.setModel(self.model)
        self.gallery.setSelectionModel(self.table.selectionModel())
        prepare_table(self.table, _ROW_PX, measured_rows=20)
        self.table.setMinimumHeight(_LEAST_TABLE_PX)
        self.details = TextLabel()
        self.details.hide()
        top, bottom = QWidget(), QWidget()
        stack(row(self.quantity, self.gene), self.gallery, self.bar, self.types, inside=top, spacing=4)
        choice = row(self.filter, self.color_by, self.sort_again)
        stack(choice, self.key, self.table, self.details, inside=bottom, spacing=4)
        self.parts = QSplitter(Qt.Orientation.Vertical)
        self.parts.addWidget(top)
        self.parts.addWidget(bottom)
        self.parts.setChildrenCollapsible(False)
        self.parts.setStretchFactor(0, 3)
        self.parts.setStretchFactor(1, 2)
        stack(self.parts, inside=self, margins=(0, 4, 0, 0))

    def _connect(self) -> None:
        controller = self.controller
        controller.opened.connect(self._run_opened)
        controller.tables_changed.connect(self._tables_changed)
        controller.painted.connect(self._painted)
        self.quantity.activated.connect(self._quantity_chosen)
        self.gene.chosen.connect(controller.show_gene)
        self.filter.textChanged.connect(self._filter_changed)
        self.color_by.activated.connect(lambda _: self._color())
        self.sort_again.clicked.connect(self._sort_again)
        given(self.table.horizontalHeader()).sectionClicked.connect(self._header_clicked)
        for view in (self.table, self.gallery):
            view.activated.connect(self._want)
        self.gallery.clicked.connect(self._want)
        given(self.table.selectionModel()).currentRowChanged.connect(self._row_changed)

    # -- what is shown -------------------------------------------------------------------------------------

    def select(self, name: str) -> None:
        """Select a slide, where it is shown, without opening it."""
        place = self.model.row_of(name)
        if place < 0:
            self.table.clearSelection()
        elif self.table.currentIndex().row() != place or not given(self.table.selectionModel()).hasSelection():
            self.table.setCurrentIndex(self.model.index(place, 0))

    def color(self, column: str | None) -> None:
        """Colour slides by a column; None: by none."""
        choose_data(self.color_by, column)
        self._color()

    @property
    def selected(self) -> str:
        """Name of the selected slide; empty if there is none."""
        rows = given(self.table.selectionModel()).selectedRows()
        return self.model.name_at(rows[0].row()) if rows else ""

    def _want(self, index: QModelIndex) -> None:
        if index.isValid():
            self.wanted.emit(self.model.name_at(index.row()))

    def _run_opened(self) -> None:
        self.model.set_pictures({}, {}, "", 1.0)
        self.model.sorted_by = None
        given(self.table.horizontalHeader()).setSortIndicatorShown(False)
        self.color_by.clear()
        self._fill_quantities()

    def _tables_changed(self) -> None:
        controller, selected = self.controller, self.selected
        columns = list(self.model.columns)
        groups = [] if controller.tables is None else list(controller.tables.groups)
        self.model.set_slides(controller.slides, groups)
        if self.model.columns != columns:
            self.table.resizeColumnsToContents()
            wide = self.table.fontMetrics().horizontalAdvance("m")
            self.table.setColumnWidth(0, min(max(self.table.columnWidth(0), 8 * wide), 14 * wide))
            self.table.setColumnWidth(2, 7 * wide)  # of the quantity on show, which changes
            if selected:
                self.select(selected)
        self._fill_colors(groups)
        self.sort_again.setVisible(self.model.is_stale)
        self._show_details()

    def _painted(self) -> None:
        painted = self.controller.picture
        if painted is None:
            return
        shown = painted.shown
        name, per_unit = ("", 1.0) if shown is None or not shown.has_range else (shown.name, shown.per_unit)
        images = {one: image_of(picture) for one, picture in painted.pictures.items()}
        self.model.set_pictures(images, painted.means, name, per_unit)
        self._fill_quantities()
        self.gene.show_gene(shown.gene if shown is not None else "")
        limits, table = painted.limits, painted.table
        self.bar.setVisible(limits is not None)
        if shown is not None and limits is not None and table is not None:
            self.bar.show_table(table, limits, shown.unit)
        self.types.show_key(painted.colors, None, "")
        self.sort_again.setVisible(self.model.is_stale)
        self._show_details()

    def _fill_quantities(self) -> None:
        """List what can be shown; nothing moves while the list is open, as the types of a run do not change."""
        gallery, shown = self.controller.gallery, self.controller.shown
        entries: list[tuple[str, Shown | None]] = [(_DOMINANT, Shown("dominant")), (_TISSUE, None)]
        entries += [(name, Shown("type", (name,))) for name in gallery.cell_types]
        if shown is not None and shown.kind == "gene":
            entries.insert(0, (f"Gene {shown.gene}", shown))
        if [self.quantity.itemText(i) for i in range(self.quantity.count())] != [text for text, _ in entries]:
            self.quantity.clear()
            for text, value in entries:
                self.quantity.addItem(text, value)
        if self.gene.genes() == [] or not gallery.genes:
            self.gene.set_genes(gallery.genes)
        choose_data(self.quantity, shown)

    def _quantity_chosen(self, index: int) -> None:
        self.controller.show(self.quantity.itemData(index))

    # -- order and colours ---------------------------------------------------------------------------------

    def _header_clicked(self, column: int) -> None:
        """Sort by a column; numbers the largest first, and the other way round with the next click."""
        name = self.model.columns[column]
        numeric = self.model.index(0, column).data(Qt.ItemDataRole.TextAlignmentRole) is not None
        before = self.model.sorted_by
        descending = not before[1] if before is not None and before[0] == name else numeric
        order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
        header = given(self.table.horizontalHeader())
        header.setSortIndicatorShown(True)
        header.setSortIndicator(column, order)
        self.model.sort(column, order)
        self.sort_again.hide()

    def _sort_again(self) -> None:
        self.model.rearrange()
        self.sort_again.hide()

    def _filter_changed(self, text: str) -> None:
        self.model.set_filter(text)
        self._show_details()

    def _fill_colors(self, groups: list[str]) -> None:
        slides = self.controller.slides
        columns = [] if slides is None else columns_of(slides, groups)
        if (
            self.color_by.count() == 0
            or [self.color_by.itemData(i) for i in range(1, self.color_by.count())] != columns
        ):
            chosen = self.color_by.currentData()
            self.color_by.clear()
            self.color_by.addItem("no colour", None)
            for column in columns:
                self.color_by.addItem(f"by {heading(column)}", column)
            choose_data(self.color_by, chosen if chosen in columns else None)
        self._color()

    def _color(self) -> None:
        slides, column = self.controller.slides, self.color_by.currentData()
        if slides is None or column is None or column not in slides:
            self.model.set_colors({})
            self.key.show_key({}, None, "")
            return
        colors, key, limits = slide_colors(slides[column])
        self.model.set_colors(colors)
        self.key.show_key(key, limits, heading(column))

    # -- the selected slide --------------------------------------------------------------------------------

    def _row_changed(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if current.isValid():
            self.gallery.scrollTo(self.model.index(current.row(), 0))
        self._show_details()

    def _show_details(self) -> None:
        index = self.table.currentIndex()
        name = self.model.name_at(index.row()) if index.isValid() else ""
        remarks = self.controller.remarks(name) if name else []
        self.details.show_text("\n".join([f"⚠ {name}: {remarks[0]}", *remarks[1:]]) if remarks else "")


def image_of(picture: Picture) -> QImage:
    """Return a picture ``(h, w, 3)`` as an image of Qt."""
    data = np.ascontiguousarray(picture)
    height, width = data.shape[:2]
    return QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
