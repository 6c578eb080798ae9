"""Dialog of *Export ...*: format, content, area and file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QWidget,
)
from superqt.utils import qdebounced

from napari_cpnn.ui.export.controller import GENES, KINDS, LEAST_PCC, ExportController, Request
from napari_cpnn.ui.export.marks import marks_on_screen
from napari_cpnn.ui.export.names_edit import NamesEdit
from napari_cpnn.ui.frame import (
    DecimalBox,
    TextLabel,
    ask,
    button,
    every,
    open_file,
    row,
    show_guide,
    slim_combo,
    spacer,
    stack,
    stop_timer,
    tool_button,
)
from napari_cpnn.ui.layers import holds_regions, read_viewport
from napari_cpnn.ui.regions import regions_of
from napari_cpnn.ui.viewer import ExploreState, state_of

if TYPE_CHECKING:
    import napari

    from napari_cpnn.export import Area, Marks
    from napari_cpnn.ui.frame import Background

_PROGRESS_MS = 150
_AMOUNT_MS = 200
_VIEW = "the present view"
_WIDTHS = {"by the number of panels": None, "88 mm, one column": 88.0, "180 mm, two columns": 180.0}
_DPI = (150, 300, 600)


class ExportDialog(QDialog):
    """Dialog that writes the map and shows the progress, while the window stays usable."""

    def __init__(self, viewer: napari.viewer.Viewer, background: Background, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export the map")
        self.viewer = viewer
        self.state: ExploreState = state_of(viewer)
        self.controller = ExportController(self.state, background)
        self._progress_timer = every(_PROGRESS_MS, self._update, self)
        self._amount_later = qdebounced(self._show_amount, timeout=_AMOUNT_MS, parent=self)
        self._build()
        self.controller.changed.connect(self._update)
        self.refresh()

    def _build_choices(self) -> None:
        self.kind = QComboBox()
        for kind in KINDS:
            self.kind.addItem(kind.name, kind)
        self.kind.setToolTip("the format; the guide (?) lists the programs that open it")
        self.genes = QComboBox()
        self.genes.setToolTip("the genes in the table, or the panels of the figure")
        self.names = NamesEdit()
        self.names.setToolTip("names, separated by commas; a list of genes can be pasted")
        self.names_file = button("File ...", "read the names from a text file, one a line")
        self.least_pcc = DecimalBox()
        self.least_pcc.setRange(-1.0, 1.0)
        self.least_pcc.setDecimals(2)
        self.least_pcc.setSingleStep(0.05)
        self.least_pcc.setValue(LEAST_PCC)
        self.least_pcc.setToolTip("correlation of predicted with measured expression on spots that were held out")
        self.amount = TextLabel()
        self.area = slim_combo("only mapped patches whose centre lies in this part are written")
        self.figure_width = QComboBox()
        for text, width in _WIDTHS.items():
            self.figure_width.addItem(text, width)
        self.figure_width.setToolTip("width of the figure; its text is always 7 pt")
        self.dpi = QComboBox()
        for dpi in _DPI:
            self.dpi.addItem(f"{dpi} dpi", dpi)
        self.dpi.setCurrentIndex(_DPI.index(300))
        self.dpi.setToolTip("pixels per inch: 150 for slides, 300 for print, 600 for posters")
        self.path = QLineEdit()
        self.path.setToolTip("the file or folder to write; it appears when it is complete")
        self.browse = button("...", "choose folder and name")
        self.browse.setFixedWidth(36)
        self._size = QWidget()
        self._size.setLayout(row(self.figure_width, self.dpi))
        self._size_label = QLabel("Size")
        self._choices: tuple[QWidget, ...] = (self.kind, self.genes, self.names, self.names_file, self.least_pcc)
        self._choices += (self.area, self._size, self.path, self.browse)

    def _build(self) -> None:
        self._build_choices()
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.setTextVisible(False)
        self.message, self.lines_note = TextLabel(), TextLabel()
        self.start = button("Export", "write the file")
        self.start.setDefault(True)
        self.cancel = button("Cancel", "stop writing; no file is left")
        self.folder = button("Show folder", "open the folder of the file")
        self.help = tool_button("?", "formats and their content: the page of the user guide")
        for widget in (self.browse, self.cancel, self.folder, self.names_file):
            widget.setAutoDefault(False)
        form = QFormLayout()
        form.addRow("What", self.kind)
        form.addRow("Shows", row(self.genes, self.least_pcc, self.names, self.names_file))
        form.addRow("", self.amount)
        form.addRow("Part", self.area)
        form.addRow(self._size_label, self._size)
        form.addRow("File", row(self.path, self.browse))
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        buttons = row(self.help, spacer(), self.folder, self.cancel, self.start)
        stack(form, self.lines_note, self.progress, self.message, buttons, inside=self, margins=(9, 9, 9, 9))
        self.setMinimumWidth(520)
        self.kind.currentIndexChanged.connect(self._kind_changed)
        self.genes.currentIndexChanged.connect(self._genes_changed)
        self.browse.clicked.connect(self._browse)
        self.names_file.clicked.connect(self._read_names)
        self.names.textChanged.connect(self._amount_later)
        self.least_pcc.valueChanged.connect(self._amount_later)
        self.area.currentIndexChanged.connect(self._amount_later)
        self.start.clicked.connect(self._start)
        self.cancel.clicked.connect(self.controller.cancel)
        self.folder.clicked.connect(self._show_folder)
        self.help.clicked.connect(lambda: show_guide("export", self))

    # -- choices -------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Update the choices: genes of the model, and regions."""
        chosen = self.area.currentText()
        self.area.clear()
        self.area.addItem("all that is mapped", None)
        self.area.addItem(_VIEW, None)
        for name, outline in self._regions():
            self.area.addItem(f"region {name}", outline)
        self.area.setCurrentIndex(max(0, self.area.findText(chosen)))
        if not self.controller.running:
            self.controller.forget()
        self._kind_changed()

    def _regions(self) -> list[tuple[str, Area]]:
        slide, layer = self.state.slide, self.state.layer
        if slide is None or layer is None or slide.mpp is None:
            return []
        found = []
        for shapes in self.viewer.layers:
            if holds_regions(shapes):
                found += [(region.name, region.outline) for region in regions_of(shapes, layer, slide.mpp)[1]]
        return found

    def _kind_changed(self) -> None:
        kind = self.kind.currentData()
        chosen = self.genes.currentData()
        self.genes.blockSignals(True)
        self.genes.clear()
        for choice in kind.genes:
            self.genes.addItem(GENES[choice], choice)
        if chosen in kind.genes:
            self.genes.setCurrentIndex(kind.genes.index(chosen))
        self.genes.blockSignals(False)
        for widget in (self._size, self._size_label):
            widget.setVisible(kind.key == "figure")
        self._show_notes()
        self.names.set_names(self.controller.names(kind))
        text = self.path.text()
        default = self.controller.default_path(kind)
        self.path.setText(str(self.controller.path_of(text, kind) if self._is_own(text) else default))
        self._genes_changed()

    def _show_notes(self) -> None:
        """Say in what a figure differs from the screen."""
        notes, instead = [], self.state.instead
        if self.kind.currentData().key == "figure":
            if self.state.look.style == "patches":
                notes.append("Figures show patches as a wash of colours, not as outlines.")
            if instead:
                notes.append(f"The figure has the map, not what is on screen in its place ({instead[0][0]}).")
        self.lines_note.show_text(" ".join(notes))

    def _is_own(self, text: str) -> bool:
        """Return whether the user has typed or chosen this path."""
        return bool(text.strip()) and all(text != str(self.controller.default_path(kind)) for kind in KINDS)

    def _genes_changed(self) -> None:
        chosen = self.genes.currentData()
        for widget in (self.names, self.names_file):
            widget.setVisible(chosen == "some")
        self.least_pcc.setVisible(chosen == "above")
        self._show_amount()
        self._update()

    def _show_amount(self) -> None:
        """Say how much would be written."""
        self.amount.show_text(self.controller.describe(self._request(self.path.text())))

    def _read_names(self) -> None:
        title = "A list of genes"
        open_file(self, title, "Text (*.txt *.csv *.tsv);;All files (*)", self.take_names_of)

    def take_names_of(self, path: str) -> None:
        """Put the names of a file into the list."""
        if names := self.controller.read_names(path):
            self.names.setText(names)

    def _browse(self) -> None:
        kind = self.kind.currentData()
        endings = " ".join(f"*{ending}" for ending in kind.endings)
        ask_later = QFileDialog.Option.DontConfirmOverwrite
        filters = f"{kind.name} ({endings})"
        name, _ = QFileDialog.getSaveFileName(self, kind.name, self.path.text(), filters, options=ask_later)
        if name:
            self.path.setText(str(self.controller.path_of(name, kind)))

    # -- writing -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        kind = self.kind.currentData()
        path = self.controller.path_of(self.path.text(), kind)
        self.path.setText(str(path))
        overwrite = self.controller.is_there(path)
        if overwrite is None or (overwrite and not self._may_replace(path)):
            return
        marks = self._marks(kind.key, self.genes.currentData())
        self.controller.export(dataclasses.replace(self._request(str(path)), overwrite=overwrite, marks=marks))
        self._update()

    def _request(self, path: str) -> Request:
        """Return what is chosen."""
        area = self._view() if self.area.currentText() == _VIEW else self.area.currentData()
        kind, genes, width, dpi = (box.currentData() for box in (self.kind, self.genes, self.figure_width, self.dpi))
        target = self.controller.path_of(path, kind)
        return Request(
            kind, target, genes, self.names.text(), area, False, width, dpi, least_pcc=self.least_pcc.value()
        )

    def _marks(self, kind: str, genes: str) -> Marks | None:
        """Return the spots and regions on screen for a figure of what is on screen."""
        layer, slide = self.state.layer, self.state.slide
        if kind != "figure" or genes != "shown" or layer is None or slide is None or slide.mpp is None:
            return None
        return marks_on_screen(self.viewer, layer, slide.mpp)

    def _view(self) -> Area | None:
        layer, slide = self.state.layer, self.state.slide
        if layer is None or slide is None or slide.mpp is None:
            return None
        viewport = read_viewport(self.viewer, layer, slide.mpp)
        return None if viewport is None else viewport.rect

    def _may_replace(self, path: Path) -> bool:
        return ask(self, "Export", f"{path} exists already. Replace it?")

    def _show_folder(self) -> None:
        if self.controller.written is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.controller.written.parent)))

    def _update(self) -> None:
        controller = self.controller
        running = controller.running
        self.progress.setVisible(running)
        self.progress.setValue(round(1000 * controller.share))
        self.message.setText(controller.message)
        self._show_notes()
        self.start.setEnabled(not running and self.state.map is not None)
        self.cancel.setEnabled(running)
        self.folder.setVisible(controller.written is not None)
        for widget in self._choices:
            widget.setEnabled(not running)
        if len(self.kind.currentData().genes) < 2:
            self.genes.setEnabled(False)
        if running and not self._progress_timer.isActive():
            self._progress_timer.start()
        elif not running:
            stop_timer(self._progress_timer)

    def reject(self) -> None:
        """Close the dialog and cancel the export, whose result nobody would see."""
        self.controller.cancel()
        super().reject()

    def end(self) -> None:
        """Release everything, since the dock is closed."""
        self.controller.changed.disconnect(self._update)
        self._amount_later.cancel()
        stop_timer(self._progress_timer)
        self.controller.close()
        self.close()
