"""The Cells dock: find or open the nuclei of a slide, see them coloured, count them, and look at the most typical."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtWidgets import QCheckBox, QProgressBar, QTabWidget

from napari_cpnn.cells import ENOUGH, FORMATS, percent_words
from napari_cpnn.errors import CpnnError
from napari_cpnn.painting import color_table
from napari_cpnn.texts import counted
from napari_cpnn.ui.cells.canvas import CellsOnCanvas
from napari_cpnn.ui.cells.color_box import ColorBox
from napari_cpnn.ui.cells.colored import CellContent, CellShown
from napari_cpnn.ui.cells.controller import CellsController
from napari_cpnn.ui.cells.count_table import CountTable
from napari_cpnn.ui.cells.sources import FOUND
from napari_cpnn.ui.cells.tabs import GalleryTab, NeighboursTab, NucleiTab
from napari_cpnn.ui.cells.two_genes import TwoGenesTab
from napari_cpnn.ui.cells.words import note_of
from napari_cpnn.ui.explore import ColorBar
from napari_cpnn.ui.frame import (
    Dock,
    TextLabel,
    add,
    bold_label,
    button,
    every,
    open_file,
    open_folder,
    row,
    save_file,
    spacer,
    stop_timer,
)
from napari_cpnn.ui.layers import holds_regions, um_to_world
from napari_cpnn.ui.regions import regions_of
from napari_cpnn.ui.viewer import OPEN, ModelEntry, ModelPicker, recent_models

if TYPE_CHECKING:
    import napari

LOOK_MS = 250
"""Interval between looks at the progress of a search, and at what is to be found live."""

#: Part of the slide that is in view after a click in the gallery, at most, in um.
_CLOSE_UM = 160.0
_FILES = (
    "Nuclei and cells (*.geojson *.json *.geojson.gz *.json.gz *.csv *.tsv *.txt *.csv.gz *.parquet);;All files (*)"
)
_EXPORTS = "AnnData (*.h5ad);;QuPath detections (*.geojson);;SpatialData (*.zarr);;Table (*.csv)"
_NUCLEI_EXPORTS = "QuPath detections (*.geojson);;Table (*.csv)"
_NO_MODEL = "no model: nuclei only"


class CellsDock(Dock):
    """napari widget with the source of cells, their colours and counts, a gallery, neighbours and measurements."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "cells")
        self.controller = CellsController(self.state, self.background, self.notify)
        self.canvas = CellsOnCanvas(self.viewer, self.controller)
        self._timer = every(LOOK_MS, self._look, self)
        self._filling = False
        self._build()
        self._connect()
        self.accept_drops(self._dropped)
        self._show_models()
        self._content_changed()
        self._drawn()
        self.canvas.read_view()
        self._timer.start()

    @property
    def is_settled(self) -> bool:
        """True when nothing is being found, drawn or measured."""
        charts = all(tab.is_settled for tab in (self.gallery, self.neighbours, self.nuclei, self.two_genes))
        return charts and self.controller.is_settled and not self.canvas.is_pending

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.find_view = button("Find in view", "find the nuclei of what is in view, with the detector of napari-cpnn")
        self.find_slide = button("On the slide", "find the nuclei of all tissue of the slide, in the background")
        self.live = QCheckBox("Live")
        self.live.setToolTip("find the nuclei of each view as you look, once it is zoomed in to 5x or more")
        self.open = button("Open ...", "nuclei of QuPath, CellViT, HoVer-Net, Xenium, Visium HD, or a table of centres")
        tip = "a map of cells, nuclei of napari-cpnn, a SpatialData, or an output folder of Xenium"
        self.open_zarr = button("Open .zarr ...", tip)
        self.model = ModelPicker(self.background, "a model of single cells", ModelEntry.why_no_cells)
        self.model.setMinimumContentsLength(10)  # beside a button
        self.predict = button("Predict", "types and genes of all cells, by this model; nuclei are found first")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.stop = button("Stop", "what was found until then is kept")
        self.source = TextLabel()
        self.color = ColorBox(self.controller)
        self.visible = QCheckBox("Show")
        self.visible.setChecked(True)
        self.visible.setToolTip("show the cells, or the map of Explore in their place")
        self.colors = ColorBar()
        self.drawn = TextLabel()
        self.table = CountTable()
        self.gallery = GalleryTab(self.controller)
        self.neighbours = NeighboursTab(self.controller, self.background)
        self.nuclei = NucleiTab(self.controller, self.background)
        self.two_genes = TwoGenesTab(self.controller, self.background, self._regions)
        self.tabs = QTabWidget()
        for tab, text, tip in (
            (self.gallery, "Gallery", "crops of the cells with the highest values; a click goes there"),
            (self.neighbours, "Neighbours", "which cells are next to which, against shuffled types"),
            (self.nuclei, "Nuclei", "size and stain of the nuclei, by type or class"),
            (self.two_genes, "Two genes", "one gene against another; a lasso marks cells on the slide"),
        ):
            self.tabs.addTab(tab, text)
            self.tabs.setTabToolTip(self.tabs.count() - 1, tip)
        self.save = button("Save ...", "a .zarr folder with all that is known of the cells; this dock opens it again")
        self.export = button("Export ...", "for squidpy (.h5ad), QuPath (.geojson), SpatialData (.zarr), tables (.csv)")
        add(
            self.column,
            self.first_row("Cells", spacer(), self.visible),
            row(self.find_view, self.find_slide, self.live, spacer()),
            row(self.open, self.open_zarr, spacer()),
            row(bold_label("Model"), self.model, self.predict),
            self.message,
            row(self.bar, self.stop),
            self.source,
            self.color,
            self.colors,
            self.drawn,
            self.table,
            self.tabs,
            row(self.save, self.export, spacer()),
        )
        self.column.addStretch(1)

    def _connect(self) -> None:
        controller, state = self.controller, self.state
        self.find_view.clicked.connect(lambda: controller.sources.find("view"))
        self.find_slide.clicked.connect(lambda: controller.sources.find("slide"))
        self.live.toggled.connect(controller.sources.set_live)
        self.open.clicked.connect(lambda: open_file(self, "Open nuclei or cells", _FILES, controller.sources.open))
        self.open_zarr.clicked.connect(lambda: open_folder(self, "Open cells (.zarr)", controller.sources.open))
        self.model.activated.connect(self._model_chosen)
        self.predict.clicked.connect(self._predict)
        self.stop.clicked.connect(controller.sources.stop)
        self.visible.toggled.connect(self.canvas.set_visible)
        self.canvas.deleted.connect(self._layer_deleted)
        self.color.selected_type = lambda: self.table.selected
        self.color.gene.chosen.connect(self._gene_chosen)
        self.table.chosen.connect(self._row_chosen)
        self.gallery.wanted.connect(self.go_to)
        self.tabs.currentChanged.connect(lambda _: self._fill_tab())
        self.save.clicked.connect(self._save)
        self.export.clicked.connect(self._export)
        controller.message_changed.connect(self.message.show_text)
        controller.content_changed.connect(self._content_changed)
        controller.shown_changed.connect(self.color.update_shown)
        controller.colored_changed.connect(self._colored_changed)
        controller.drawn.connect(self._drawn)
        controller.counted.connect(lambda: self.table.set_rows(controller.rows))
        controller.tasks.changed.connect(self._busy_changed)
        self.listen(self._slide_changed, state.slide_changed)
        self.listen(controller.recolor, state.look_changed)
        self.listen(self._show_models, state.model_changed)

    # -- requests ------------------------------------------------------------------------------------------

    def _dropped(self, paths: list[Path]) -> None:
        if paths:
            self.controller.sources.open(paths[0])

    def _show_models(self) -> None:
        slide = self.state.slide
        path = None if slide is None else slide.path
        self.model.show_models(recent_models.known_models(), path, self._chosen_model(), [(_NO_MODEL, None)])
        self.predict.setEnabled(isinstance(self.model.currentData(), Path))

    def _chosen_model(self) -> Path | None:
        path = self.model.currentData()
        return path if isinstance(path, Path) else None

    def _model_chosen(self, index: int) -> None:
        if self.model.itemText(index) == OPEN:
            self.model.setCurrentIndex(0)
            open_file(self, "Open a model of cells", "Models (*.safetensors)", self.use_model)
        self.predict.setEnabled(isinstance(self.model.currentData(), Path))

    def use_model(self, name: str | Path) -> None:
        """Offer a model file, and choose it."""
        path = Path(name)
        recent_models.remember(path)
        slide = self.state.slide
        first = [(_NO_MODEL, None)]
        self.model.show_models(recent_models.known_models(), None if slide is None else slide.path, path, first)
        self.predict.setEnabled(isinstance(self.model.currentData(), Path))

    def _predict(self) -> None:
        path = self._chosen_model()
        if path is not None:
            self.controller.predict(path)

    def _gene_chosen(self, text: str) -> None:
        self.message.show_text(self.controller.show_gene(text) or self.controller.tasks.message)

    def _layer_deleted(self) -> None:
        if self.state.layer is not None and self.state.layer in self.viewer.layers:  # not with its slide
            self.visible.setChecked(False)

    def _row_chosen(self, name: str) -> None:
        self.tabs.setCurrentWidget(self.gallery)
        self.controller.make_gallery(name)

    def restore(self, path: Path | None, shown: CellShown, *, visible: bool) -> None:
        """Open the cells of a session, of a file or those found on this slide, in the colours that it names."""
        self.visible.setChecked(visible)
        self.controller.set_shown(shown)
        if path is None:
            self.controller.sources.recall()
        else:
            self.controller.sources.open(path)

    def go_to(self, number: int) -> None:
        """Put a cell into the middle of the view, and zoom in if it cannot be seen."""
        content, layer, slide = self.controller.content, self.state.layer, self.controller.slide
        if content is None or layer is None or slide is None or slide.mpp is None:
            return
        center = content.nuclei.centers_um[number].astype(np.float64)
        around = um_to_world(layer, slide.mpp, np.array([center, center + np.array([_CLOSE_UM, 0.0])]))
        camera = self.viewer.scene.camera
        size = min(self.viewer.canvas.viewbox_size(self.viewer.layers))
        camera.center = (float(around[0, 0]), float(around[0, 1]))
        close = float(size / max(np.linalg.norm(around[1] - around[0]), 1e-9))
        camera.zoom = max(float(camera.zoom), close)

    def _save(self) -> None:
        save_file(self, "Save cells", f"{self._stem()}.zarr", "Cells (*.zarr)", self._save_as)

    def _save_as(self, name: str) -> None:
        self.controller.save(name if name.lower().endswith(".zarr") else f"{name}.zarr")

    def _export(self) -> None:
        content = self.controller.content
        predicted = content is not None and content.cells is not None
        suggested = f"{self._stem()}{'.h5ad' if predicted else '.geojson'}"
        save_file(self, "Export cells", suggested, _EXPORTS if predicted else _NUCLEI_EXPORTS, self.export_as)

    def export_as(self, name: str) -> None:
        """Write the cells to a file, with the region of each where there are some."""
        endings = FORMATS if self.controller.content is not None and self.controller.content.cells else None
        if endings is not None and not name.lower().endswith(endings):
            self.notify(CpnnError(f"{Path(name).name} has no known ending; use {', '.join(endings)}."))
            return
        self.controller.export(name, regions=self._regions())

    def _regions(self) -> list[Any]:
        """The regions that are drawn over the slide."""
        layer, slide = self.state.layer, self.controller.slide
        shapes = [one for one in self.viewer.layers if isinstance(one, Shapes) and holds_regions(one) and one.visible]
        if not shapes or layer is None or slide is None or slide.mpp is None:
            return []
        return [region for one in shapes for region in regions_of(one, layer, slide.mpp)[1]]

    def _stem(self) -> str:
        slide = self.state.slide
        return "cells" if slide is None else f"{Path(slide.name).stem}-cells"

    # -- updates -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Show how far a search is, and look for nuclei of the view."""
        progress = self.controller.sources.progress
        if progress is not None:
            self.bar.setValue(round(1000 * min(max(progress[1], 0.0), 1.0)))
        self.controller.look()

    def _busy_changed(self) -> None:
        busy = self.controller.sources.is_busy
        for part in (self.bar, self.stop):
            part.setVisible(busy)
        for part in (self.find_view, self.find_slide, self.open, self.open_zarr):
            part.setEnabled(not busy)
        self.predict.setEnabled(not busy and self._chosen_model() is not None)
        self.message.show_text(self.controller.tasks.message)
        self.color.update_shown()  # a signature without genes was not taken

    def _slide_changed(self) -> None:
        self.controller.slide_changed()
        self._show_models()
        self.canvas.read_view()

    def _content_changed(self) -> None:
        controller, content = self.controller, self.controller.content
        self.source.show_text("" if content is None else f"{counted(len(content), 'cell')} {self._from(content)}")
        self.color.update_content()
        for part in (self.save, self.export, self.tabs):
            part.setEnabled(content is not None)
        self.message.show_text(controller.tasks.message)
        self._busy_changed()

    def _from(self, content: CellContent) -> str:
        """Say where the cells are from, and how much tissue was searched where that is not all."""
        source, searched = self.controller.source, content.nuclei.searched
        part = searched is not None and searched.share < ENOUGH
        if part and source == FOUND:
            source = "found in the views that were searched and around them"
        text = source if source.startswith(("found", "predicted")) or not source else f"of {source}"
        return f"{text}; {percent_words(searched.share)} of the tissue is searched" if part and searched else text

    def _colored_changed(self) -> None:
        self._show_bar()
        self._fill_tab()

    def _show_bar(self) -> None:
        colored, drawing = self.controller.colored, self.controller.drawing
        means = drawing is not None and drawing.style == "mean"
        limits = None if colored is None else colored.mean_limits if means else colored.limits
        self.colors.setVisible(limits is not None)
        if colored is not None and limits is not None:
            table = color_table(colored.colormap).copy()
            if not means:  # single cells do not fade where values are low
                table[:, 3] = 1.0
            self.colors.show_table(table, limits, colored.shown.unit)

    def _drawn(self) -> None:
        self._show_bar()
        drawing, colored = self.controller.drawing, self.controller.colored
        note = note_of(self.controller.content, self.controller.shown)
        if drawing is None or colored is None:
            self.drawn.show_text("")
        elif drawing.style == "mean":
            side = colored.grid.stride_um
            names = {"plain": "Density", "type": "Most common type", "class": "Most common class"}
            what = names.get(colored.shown.kind, "Mean")
            self.drawn.show_text(f"{what} of the cells in each {side:g} µm; zoom in to see single cells. {note}")
        else:
            self.drawn.show_text(note)

    def _fill_tab(self) -> None:
        """Fill the gallery for what is shown, if it is on top."""
        controller = self.controller
        if controller.content is None or controller.colored is None or not len(controller.content):
            return
        if self.tabs.currentWidget() is self.gallery and self.isVisible():
            controller.make_gallery(self.table.selected)

    def _end(self, *, viewer_lives: bool) -> None:
        stop_timer(self._timer)
        for tab in (self.neighbours, self.nuclei, self.two_genes):
            tab.chart.stop()
        self.controller.close()
        self.canvas.stop(viewer_lives=viewer_lives)
