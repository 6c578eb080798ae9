"""The Prototypes dock: expression profiles of cell types from single cells, with their marker genes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QLabel, QProgressBar, QTabWidget, QWidget
from superqt.utils import qdebounced

from napari_cpnn.palette import type_colors
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.ui.frame import (
    Dock,
    GeneBox,
    GroupedSettings,
    LabelColumns,
    TextLabel,
    WholeNumberBox,
    add,
    bold_label,
    button,
    every,
    given,
    line,
    open_file,
    open_folder,
    row,
    save_file,
    show_dock,
    spacer,
    stack,
    stop_timer,
)
from napari_cpnn.ui.prototypes.controller import PrototypesController
from napari_cpnn.ui.prototypes.heat_map_view import HeatMapView, shade_legend
from napari_cpnn.ui.prototypes.options import WORDS
from napari_cpnn.ui.prototypes.type_table import MarkerTable, TypeTable
from napari_cpnn.ui.prototypes.words import left_out_words, result_words

if TYPE_CHECKING:
    import napari

    from napari_cpnn.prototypes import Prototypes

_PROGRESS_MS = 200
"""Interval between updates of the progress of an estimate."""
_STEPS = 1000

_CELLS = "Single cells, their labels, or prototypes (*.h5ad *.h5 *.RData *.rda *.csv *.tsv *.gz);;All files (*)"
_PROTOTYPES = "Prototypes (*.h5ad)"
_PICTURES = "Picture (*.png);;Vector graphics (*.svg)"


class PrototypesDock(Dock):
    """napari widget with single cells, their labels, the estimate and its result."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "prototypes")
        self.controller = PrototypesController(self.state, self.background, self.notify)
        self.timer = every(_PROGRESS_MS, self._show_progress)
        self._shown: Prototypes | None = None
        self._scroll_later = qdebounced(self._scroll_to_result, timeout=0, parent=self)
        self.accept_drops(lambda paths: self.controller.open(*paths))
        self._build()
        self._connect()
        self._source_changed()
        self._settings_changed()
        self._result_changed()
        self._run_changed()
        self.message.show_text(self.controller.message)
        self.timer.start()

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._build_source()
        self._build_run()
        self._build_result()
        self.column.addStretch(1)

    def _build_source(self) -> None:
        self.file = button("File ...", "labelled single cells (.h5ad, .RData), a table of their labels, or prototypes")
        self.folder = button("Folder ...", "a 10x folder with matrix.mtx, barcodes and features")
        self.source_text = TextLabel()
        self.columns = LabelColumns()
        self.preview = TypeTable(with_results=False)
        first = self.first_row("Single cells", self.file, self.folder, spacer())
        add(self.column, first, self.source_text, self.columns, self.preview, line())

    def _build_run(self) -> None:
        self.hint = TextLabel()
        self.use_hint = button("", "keep genes that are detected in fewer cells, as there are few cells")
        self.settings = GroupedSettings(
            PrototypeSettings,
            WORDS,
            self.controller.editor,
            self.controller.choose_defaults,
            above=(self.hint,),
            beside=(self.use_hint,),
        )
        self.run = button("Run", "estimate the profile of each cell type")
        self.cancel = button("Cancel", "end the estimate; the present result is kept")
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.run_text = TextLabel()
        add(self.column, self.settings, row(self.run, self.cancel, self.bar), self.run_text, self.message)

    def _build_result(self) -> None:
        self.summary, self.notes = TextLabel(), TextLabel()
        self.gene = GeneBox()
        self.gene.setToolTip("any part of a gene's name, then Enter: its values in all cell types")
        self.gene_note = TextLabel()
        self.types = TypeTable(with_results=True)
        self.of_type = bold_label("")
        self.markers = MarkerTable()
        self.save_markers = button("Save table ...", "marker genes of all types as CSV")
        self.heat_map = HeatMapView()
        self.n_shown = WholeNumberBox()
        self.n_shown.setRange(1, 10)
        self.n_shown.setToolTip("number of markers of each cell type")
        self.save_figure = button("Save figure ...", "the heat map as PNG or SVG, on white, with every name in full")
        n_shown = row(QLabel("Markers of each type"), self.n_shown, spacer())
        self.tabs = QTabWidget()
        for title, parts in (
            ("Cell types", (self.types, self.of_type, self.markers, row(self.save_markers, spacer()))),
            ("Heat map", (n_shown, self.heat_map, shade_legend(), row(self.save_figure, spacer()))),
        ):
            page = QWidget()
            stack(*parts, inside=page, margins=(2, 6, 2, 2)).addStretch(1)
            self.tabs.addTab(page, title)
        self.save = button("Save ...", "write the prototypes to an .h5ad")
        self.fine_tune = button("Use for fine-tuning", "pass the saved prototypes to the Fine-tune dock")
        self.result, self.result_line = QWidget(), line()
        save, gene = row(self.save, self.fine_tune, spacer()), row(bold_label("Gene"), self.gene)
        stack(self.summary, self.notes, save, gene, self.gene_note, self.tabs, inside=self.result)
        add(self.column, self.result_line, self.result)

    # -- signals -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        controller = self.controller
        self.file.clicked.connect(lambda: open_file(self, "Open single cells or prototypes", _CELLS, controller.open))
        self.folder.clicked.connect(lambda: open_folder(self, "Open a 10x folder of single cells", controller.open))
        self.columns.chosen.connect(controller.choose_columns)
        self.use_hint.clicked.connect(self._take_hint)
        self.run.clicked.connect(controller.run)
        self.cancel.clicked.connect(controller.cancel)
        self.save.clicked.connect(lambda: self._save())  # noqa: PLW0108 -- clicked passes whether it is checked
        self.fine_tune.clicked.connect(self._use_for_finetuning)
        self.gene.chosen.connect(self._gene_chosen)
        self.gene.textChanged.connect(self._gene_edited)
        self.types.chosen.connect(controller.select_type)
        self.markers.chosen.connect(controller.show_gene)
        self.heat_map.type_chosen.connect(controller.select_type)
        self.heat_map.gene_chosen.connect(controller.show_gene)
        self.n_shown.valueChanged.connect(controller.show_markers)
        self.save_markers.clicked.connect(
            lambda: self._save_file("markers", "markers.csv", "Table (*.csv)", controller.write_markers)
        )
        self.save_figure.clicked.connect(
            lambda: self._save_file("heat map", "markers.png", _PICTURES, controller.write_figure)
        )
        controller.source_changed.connect(self._source_changed)
        controller.settings_changed.connect(self._settings_changed)
        controller.run_changed.connect(self._run_changed)
        controller.result_changed.connect(self._result_changed)
        controller.shown_changed.connect(self._shown_changed)
        controller.message_changed.connect(self.message.show_text)

    def _end(self, *, viewer_lives: bool) -> None:  # noqa: ARG002 -- nothing of the viewer is held
        """Cancel a running estimate."""
        stop_timer(self.timer)
        self._scroll_later.cancel()
        self.controller.close()

    # -- single cells and settings -------------------------------------------------------------------------

    def _source_changed(self) -> None:
        controller, found = self.controller, self.controller.reference
        if found is None:
            self.source_text.setText("none yet; they can also be dropped here")
        else:
            self.source_text.setText(f"{found.path.name}: {found.n_cells:,} cells, {found.n_genes:,} genes")
        self.columns.show_columns(found, controller.cell_type, controller.batch)
        self._show_preview()
        self._run_changed()

    def _show_preview(self) -> None:
        lines = self.controller.preview()
        self.preview.setVisible(bool(lines))
        self.preview.show_types(lines, {})
        better = self.controller.better_min_cells()
        self.hint.setVisible(better is not None)
        self.use_hint.setVisible(better is not None)
        if better is not None and self.controller.reference is not None:
            self.hint.setText(
                f"{self.controller.reference.n_cells:,} cells are few: with {self.controller.settings.min_cells} cells "
                "that must have a gene, many genes are left out."
            )
            self.use_hint.setText(f"Use {better}")

    def _take_hint(self) -> None:
        better = self.controller.better_min_cells()
        if better is not None:
            self.controller.change("min_cells", better)

    def _settings_changed(self) -> None:
        self.settings.show_values(self.controller.settings, PrototypeSettings())
        self._show_preview()

    # -- the estimate --------------------------------------------------------------------------------------

    def _run_changed(self) -> None:
        running = self.controller.running
        self.run.setEnabled(not running and not self.controller.why_not())
        self.cancel.setEnabled(running)
        self.bar.setVisible(running)
        self.run_text.setVisible(running)
        self._show_progress()

    def _show_progress(self) -> None:
        if self.controller.running:
            text, done, seconds = self.controller.progress()
            self.bar.setValue(round(done * _STEPS))
            self.run_text.setText(f"{text} ... {seconds:.0f} s")

    # -- the result ----------------------------------------------------------------------------------------

    def _result_changed(self) -> None:
        result = self.controller.result
        for widget in (self.result, self.result_line):
            widget.setVisible(result is not None)
        if result is None:
            return
        protos = result.prototypes
        self.summary.setText(result_words(result))
        notes = [*protos.provenance.get("notes", []), left_out_words(protos.left_out())]
        self.notes.show_text("\n".join(text for text in notes if text))
        if protos is not self._shown:
            self._shown = protos
            self.gene.set_genes(protos.genes)
            self._scroll_later()
        self._shown_changed()

    def _scroll_to_result(self) -> None:
        """Scroll to a new result, which may be below the visible part of the dock."""
        self.area.updateGeometry()
        given(self.area.verticalScrollBar()).setValue(self.result.y())

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
        self.gene_note.show_text(self.controller.show_gene(text))

    def _gene_edited(self, text: str) -> None:
        if not text:
            self._gene_chosen("")

    # -- files ---------------------------------------------------------------------------------------------

    def _save_file(self, what: str, file_name: str, filters: str, write: Callable[[str], None]) -> None:
        """Ask for a file, by default beside the single cells."""
        result = self.controller.result
        start = Path() if result is None or result.made_from is None else result.made_from[0].parent
        save_file(self, f"Save {what}", str(start / file_name), filters, write)

    def _save(self, then: Callable[[], None] | None = None) -> None:
        write = partial(self.controller.save, then=then)
        self._save_file("prototypes", "prototypes.h5ad", _PROTOTYPES, write)

    def _use_for_finetuning(self) -> None:
        result = self.controller.result
        if result is not None and result.path is not None:
            self._hand_over()
        else:
            self._save(then=self._hand_over)

    def open_fine_tune(self) -> None:
        """Show the Fine-tune dock; open it if there is none."""
        show_dock(self.viewer, "Fine-tune")

    def _hand_over(self) -> None:
        self.open_fine_tune()
        self.controller.use_for_finetuning()
