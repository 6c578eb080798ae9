"""The Prototypes dock: from single cells to the profiles of cell types, with their marker genes to judge them by."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QLabel, QProgressBar, QTabWidget, QVBoxLayout, QWidget

from napari_cpnn.palette import type_colors
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.ui.frame import (
    Column,
    Dock,
    GeneBox,
    SettingsForm,
    WholeNumberBox,
    bold_label,
    button,
    choose_data,
    given,
    line,
    row,
    slim_combo,
    spacer,
    stop_timer,
    text_label,
)
from napari_cpnn.ui.prototypes.controller import PrototypesController
from napari_cpnn.ui.prototypes.heat_map_view import HeatMapView, shade_legend
from napari_cpnn.ui.prototypes.type_table import MarkerTable, TypeTable
from napari_cpnn.ui.prototypes.words import left_out_words, result_words

if TYPE_CHECKING:
    import napari

    from napari_cpnn.prototypes import Prototypes

#: How often the dock looks how far an estimate is.
_LOOK_MS = 200
_STEPS = 1000

_CELLS = "Single cells, their labels, or prototypes (*.h5ad *.h5 *.RData *.rda *.csv *.tsv *.gz);;All files (*)"
_PROTOTYPES = "Prototypes (*.h5ad)"
_PICTURES = "Picture (*.png);;Vector graphics (*.svg)"
_SHORT = ("method", "min_cells", "min_genes")


class PrototypesDock(Dock):
    """napari widget: single cells with their labels, the estimate, and what came out.

    Parameters
    ----------
    napari_viewer
        Handed over by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "prototypes")
        self.controller = PrototypesController(self.state, self.background, self.notify)
        self.timer = QTimer()
        self.timer.setInterval(_LOOK_MS)
        self._seen: Prototypes | None = None
        self._new = QTimer(self)
        self._new.setSingleShot(True)
        self._new.setInterval(0)
        self._new.timeout.connect(self._scroll_to_result)
        self.setAcceptDrops(True)
        self._build()
        self._connect()
        self._source_changed()
        self._settings_changed()
        self._result_changed()
        self._run_changed()
        self.say(self.controller.message)
        self.timer.start()

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._build_source(self.column)
        self.column.addWidget(line())
        self._build_run(self.column)
        self.result_line = line()
        self.column.addWidget(self.result_line)
        self._build_result(self.column)
        self.column.addStretch(1)

    def _build_source(self, column: QVBoxLayout) -> None:
        self.file = button("File ...", "labelled single cells (.h5ad, .RData), a table of their labels, or prototypes")
        self.folder = button("Folder ...", "a 10x folder with matrix.mtx, barcodes and features")
        self.source_text = text_label()
        self.cell_type = slim_combo("column of the single cells that names the cell type, with numbers of cells")
        self.batch = slim_combo("column that names the batch, such as the patient; counts are compared within batches")
        self.columns = QWidget()
        inside = QVBoxLayout(self.columns)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addLayout(row(QLabel("Cell type"), self.cell_type))
        inside.addLayout(row(QLabel("Batch"), self.batch))
        self.preview = TypeTable(with_results=False)
        column.addLayout(self.first_row("Single cells", self.file, self.folder, spacer()))
        column.addWidget(self.source_text)
        column.addWidget(self.columns)
        column.addWidget(self.preview)

    def _build_run(self, column: QVBoxLayout) -> None:
        others = [f.name for f in dataclasses.fields(PrototypeSettings) if f.name not in _SHORT]
        change, refuse = self.controller.change, self.controller.refuse
        self.form, self.more_form = (SettingsForm(PrototypeSettings, n, change, refuse) for n in (_SHORT, others))
        self.hint = text_label()
        self.use_hint = button("", "keep genes that are seen in fewer cells, as there are few cells")
        self.more = button("More ...", "all settings of the estimate")
        self.more.setCheckable(True)
        self.more_form.setVisible(False)
        self.run = button("Run", "estimate the profile of each cell type")
        self.cancel = button("Cancel", "end the estimate; what is shown stays")
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.run_text = text_label()
        column.addWidget(self.form)
        column.addWidget(self.hint)
        column.addLayout(row(self.use_hint, self.more, spacer()))
        column.addWidget(self.more_form)
        column.addLayout(row(self.run, self.cancel, self.bar))
        column.addWidget(self.run_text)
        column.addWidget(self.message)

    def _build_result(self, column: QVBoxLayout) -> None:
        self.summary, self.notes = text_label(), text_label()
        self.gene = GeneBox()
        self.gene.setToolTip("any part of a gene's name, then Enter: its values in all cell types")
        self.gene_note = text_label()
        self.types = TypeTable(with_results=True)
        self.of_type = bold_label("")
        self.markers = MarkerTable()
        self.save_markers = button("Save table ...", "marker genes of all types as CSV")
        self.heat_map = HeatMapView()
        self.n_shown = WholeNumberBox()
        self.n_shown.setRange(1, 10)
        self.n_shown.setToolTip("so many markers of each cell type")
        self.save_figure = button("Save figure ...", "the heat map as PNG or SVG, on white, with every name in full")
        tables, picture = QWidget(), QWidget()
        for page, parts in (
            (tables, (self.types, self.of_type, self.markers, row(self.save_markers, spacer()))),
            (
                picture,
                (
                    row(QLabel("Markers of each type"), self.n_shown, spacer()),
                    self.heat_map,
                    shade_legend(),
                    row(self.save_figure, spacer()),
                ),
            ),
        ):
            inside = QVBoxLayout(page)
            inside.setContentsMargins(2, 6, 2, 2)
            inside.setSpacing(6)
            for item in parts:
                inside.addWidget(item) if isinstance(item, QWidget) else inside.addLayout(item)
            inside.addStretch(1)
        self.tabs = QTabWidget()
        self.tabs.addTab(tables, "Cell types")
        self.tabs.addTab(picture, "Heat map")
        self.save = button("Save ...", "write the prototypes to an .h5ad")
        self.fine_tune = button("Use for fine-tuning", "hand the saved prototypes to the Fine-tune dock")
        self.result = QWidget()
        inside = QVBoxLayout(self.result)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(6)
        inside.addWidget(self.summary)
        inside.addWidget(self.notes)
        inside.addLayout(row(self.save, self.fine_tune, spacer()))
        inside.addLayout(row(bold_label("Gene"), self.gene))
        inside.addWidget(self.gene_note)
        inside.addWidget(self.tabs)
        column.addWidget(self.result)

    # -- signals -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        controller = self.controller
        self.file.clicked.connect(self._choose_file)
        self.folder.clicked.connect(self._choose_folder)
        for combo in (self.cell_type, self.batch):
            combo.activated.connect(self._columns_chosen)
        self.more.toggled.connect(self.more_form.setVisible)
        self.use_hint.clicked.connect(self._take_hint)
        self.run.clicked.connect(controller.run)
        self.cancel.clicked.connect(controller.cancel)
        self.save.clicked.connect(lambda: self._choose_target())  # noqa: PLW0108 -- clicked says whether checked
        self.fine_tune.clicked.connect(self._use_for_finetuning)
        self.gene.chosen.connect(self._gene_chosen)
        self.gene.textChanged.connect(self._gene_edited)
        self.types.chosen.connect(controller.select_type)
        self.markers.chosen.connect(controller.show_gene)
        self.heat_map.type_chosen.connect(controller.select_type)
        self.heat_map.gene_chosen.connect(controller.show_gene)
        self.n_shown.valueChanged.connect(controller.show_markers)
        self.save_markers.clicked.connect(self._choose_table)
        self.save_figure.clicked.connect(self._choose_figure)
        controller.source_changed.connect(self._source_changed)
        controller.settings_changed.connect(self._settings_changed)
        controller.run_changed.connect(self._run_changed)
        controller.result_changed.connect(self._result_changed)
        controller.shown_changed.connect(self._shown_changed)
        controller.message_changed.connect(self.say)
        self.timer.timeout.connect(self._look)

    def _end(self, *, viewer_lives: bool) -> None:  # noqa: ARG002 -- nothing of the viewer is held
        """End an estimate that is under way."""
        stop_timer(self.timer)
        self.controller.close()

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Take files."""
        event = given(event)
        if given(event.mimeData()).hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Single cells, a table of their labels, or prototypes."""
        event = given(event)
        self.controller.open(*(url.toLocalFile() for url in given(event.mimeData()).urls() if url.isLocalFile()))
        event.acceptProposedAction()

    # -- single cells and settings -------------------------------------------------------------------------

    def _choose_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open single cells or prototypes", "", _CELLS)
        if name:
            self.controller.open(name)

    def _choose_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Open a 10x folder of single cells")
        if name:
            self.controller.open(name)

    def _source_changed(self) -> None:
        controller, found = self.controller, self.controller.reference
        if found is None:
            self.source_text.setText("none yet; they can also be dropped here")
        else:
            self.source_text.setText(f"{found.path.name}: {found.n_cells:,} cells, {found.n_genes:,} genes")
        self.columns.setVisible(found is not None and bool(found.columns))
        for combo, chosen in ((self.cell_type, controller.cell_type), (self.batch, controller.batch)):
            combo.clear()
            if combo is self.batch:
                combo.addItem("none", None)
            for column in () if found is None else found.columns:
                combo.addItem(column.text, column.name)
            choose_data(combo, chosen)
        self._show_preview()
        self._run_changed()

    def _columns_chosen(self) -> None:
        self.controller.choose_columns(self.cell_type.currentData(), self.batch.currentData())

    def _show_preview(self) -> None:
        lines = self.controller.preview()
        self.preview.setVisible(bool(lines))
        self.preview.show_types(lines, {})
        better = self.controller.better_min_cells()
        self.hint.setVisible(better is not None)
        self.use_hint.setVisible(better is not None)
        if better is not None and self.controller.reference is not None:
            self.hint.setText(
                f"{self.controller.reference.n_cells:,} cells are few: with min cells "
                f"{self.controller.settings.min_cells}, many genes are left out."
            )
            self.use_hint.setText(f"Use {better}")

    def _take_hint(self) -> None:
        better = self.controller.better_min_cells()
        if better is not None:
            self.controller.change("min_cells", better)

    def _settings_changed(self) -> None:
        self.form.show_values(self.controller.settings)
        self.more_form.show_values(self.controller.settings)
        self._show_preview()

    # -- the estimate --------------------------------------------------------------------------------------

    def _run_changed(self) -> None:
        running = self.controller.running
        self.run.setEnabled(not running and not self.controller.why_not())
        self.cancel.setEnabled(running)
        self.bar.setVisible(running)
        self.run_text.setVisible(running)
        self._look()

    def _look(self) -> None:
        if self.controller.running:
            text, done, seconds = self.controller.progress()
            self.bar.setValue(round(done * _STEPS))
            self.run_text.setText(f"{text} ... {seconds:.0f} s")

    # -- what came out -------------------------------------------------------------------------------------

    def _result_changed(self) -> None:
        result = self.controller.result
        for widget in (self.result, self.result_line):
            widget.setVisible(result is not None)
        if result is None:
            return
        protos = result.prototypes
        self.summary.setText(result_words(result))
        said = [*protos.provenance.get("notes", []), left_out_words(protos.left_out())]
        self.notes.setText("\n".join(text for text in said if text))
        self.notes.setVisible(any(said))
        if protos is not self._seen:
            self._seen = protos
            self.gene.set_genes(protos.genes)
            self._new.start()
        self._shown_changed()

    def _scroll_to_result(self) -> None:
        """What is new must be seen, also where the dock is lower than what it holds."""
        area = self.findChild(Column)
        area.updateGeometry()
        given(area.verticalScrollBar()).setValue(self.result.y())

    def _shown_changed(self) -> None:
        controller, result = self.controller, self.controller.result
        if result is None:
            return
        self.types.show_types(
            controller.types(), type_colors(result.prototypes.cell_types), controller.gene, controller.values()
        )
        self.types.select(controller.selected)
        mine = result.markers[result.markers["cell_type"] == controller.selected]
        self.of_type.setText(f"Markers of {controller.selected}" if len(mine) else f"{controller.selected}: no markers")
        self.markers.show_markers(mine)
        self.markers.select(controller.gene)
        if self.gene.text() != controller.gene:
            self.gene.setText(controller.gene)
        self.gene_note.setVisible(False)
        self.n_shown.setValue(controller.n_shown)
        self.heat_map.show_heat_map(controller.heat_map(), controller.gene, controller.selected)

    def _gene_chosen(self, text: str) -> None:
        problem = self.controller.show_gene(text)
        self.gene_note.setText(problem)
        self.gene_note.setVisible(bool(problem))

    def _gene_edited(self, text: str) -> None:
        if not text:
            self._gene_chosen("")

    # -- files ---------------------------------------------------------------------------------------------

    def _suggested(self, ending: str) -> str:
        result = self.controller.result
        start = Path() if result is None or result.made_from is None else result.made_from[0].parent
        return str(start / ending)

    def _choose_target(self) -> str:
        name, _ = QFileDialog.getSaveFileName(self, "Save prototypes", self._suggested("prototypes.h5ad"), _PROTOTYPES)
        if name:
            self.controller.save(name)
        return name

    def _use_for_finetuning(self) -> None:
        result = self.controller.result
        if result is not None and result.path is not None:
            self._hand_over()
            return
        name, _ = QFileDialog.getSaveFileName(self, "Save prototypes", self._suggested("prototypes.h5ad"), _PROTOTYPES)
        if name:
            self.controller.save(name, then=self._hand_over)

    def open_fine_tune(self) -> None:
        """Open the Fine-tune dock, or show the one that is there."""
        self.viewer.window.add_plugin_dock_widget("napari-cpnn", "Fine-tune")

    def _hand_over(self) -> None:
        self.open_fine_tune()
        self.controller.use_for_finetuning()

    def _choose_table(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save markers", self._suggested("markers.csv"), "Table (*.csv)")
        if name:
            self.controller.write_markers(name)

    def _choose_figure(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save heat map", self._suggested("markers.png"), _PICTURES)
        if name:
            self.controller.write_figure(name)
