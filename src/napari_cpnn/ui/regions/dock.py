"""The Regions dock: draw regions, measure and compare them, and explain the expression of a gene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import shapely
from napari.layers import Shapes
from qtpy.QtWidgets import QTabWidget
from superqt.utils import qdebounced

from napari_cpnn.errors import CpnnError
from napari_cpnn.regions import Region
from napari_cpnn.ui.canvas import Halo
from napari_cpnn.ui.frame import (
    Dock,
    TextLabel,
    add,
    button,
    every,
    open_file,
    row,
    save_file,
    slim_combo,
    spacer,
    stop_timer,
)
from napari_cpnn.ui.layers import OVERLAY_KEY, SPOTS_KEY, changed_together, holds_regions, is_click, pointer_um
from napari_cpnn.ui.regions.chosen_outline import ChosenOutline
from napari_cpnn.ui.regions.controller import RegionsController
from napari_cpnn.ui.regions.layer import NAME, Drawn, add_regions, name_all, names_of, new_layer, regions_of, set_names
from napari_cpnn.ui.regions.place_marker import PlaceMarker
from napari_cpnn.ui.regions.table import RegionTable
from napari_cpnn.ui.regions.tabs import ComparisonTab, CompositionTab, ExplanationTab

if TYPE_CHECKING:
    import napari

CHECK_MS, DEBOUNCE_MS = 400, 150
"""Interval between checks for something new to measure, and delay between an edit of a shape and its measurement."""

_GEOJSON = "GeoJSON (*.geojson *.json)"
_UNFINISHED = ("adding", "changing", "removing")


class Regions(Dock):
    """napari widget with a table of regions, and tabs for their composition, comparison and explanation."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "regions")
        self.controller = RegionsController(self.state, self.background, self.notify)
        self.layer: Shapes | None = None
        self._places: list[int] = []
        self._drawn: Drawn | None = None
        self._edited = False
        self._halo: Halo | None = None
        self.marker, self.chosen = PlaceMarker(self.viewer, self.state), ChosenOutline(self.viewer, self.state)
        self._read_layer_later = qdebounced(self._read_layer, timeout=DEBOUNCE_MS, parent=self)
        self._end_drawing_later = qdebounced(self._end_drawing, timeout=0, parent=self)
        self._checks = every(CHECK_MS, self._update, self)
        self._build()
        self._connect()
        self._fill_layers()
        self._recall()
        self._model_changed()
        self._regions_changed()
        self._checks.start()

    @property
    def is_settled(self) -> bool:
        """True when all regions are measured and shown."""
        charts = all(tab.chart.is_settled for tab in self._tabs)
        return charts and self.controller.is_settled and not self._edited

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.layers = slim_combo("the layer with the regions: any Shapes layer")
        self.layers.setMinimumContentsLength(10)  # beside three buttons
        draw_tip = "click around some tissue, and double-click to end; press again to move the slide"
        self.draw = button("Draw", draw_tip, checkable=True)
        self.read = button("Import GeoJSON ...", "annotations of QuPath, in pixels of this slide")
        self.write = button("Export GeoJSON ...", "the regions as annotations that QuPath opens")
        self.map = button("Map regions", "map all tissue of the regions, wherever you look")
        self.explore = button("Open Explore", "choose slide and model in the Explore dock")
        self.table = RegionTable()
        self.composition = CompositionTab(self.controller, self.background)
        self.comparison = ComparisonTab(self.controller, self.background)
        self.explanation = ExplanationTab(self.controller, self.background)
        self._tabs = (self.composition, self.comparison, self.explanation)
        self.tabs = QTabWidget()
        for tab, text, tip in zip(
            self._tabs,
            ("Composition", "Compare", "Explain"),
            (
                "cell types and genes of the selected regions",
                "one region minus another, with intervals",
                "which cell types make a gene high or low: at a click, or in a region",
            ),
            strict=True,
        ):
            self.tabs.addTab(tab, text)
            self.tabs.setTabToolTip(self.tabs.count() - 1, tip)
        self.click = TextLabel()
        add(
            self.column,
            self.first_row("Regions", self.layers, self.draw),
            self.click,
            row(self.read, self.write, spacer()),
        )
        add(self.column, self.message, row(self.map, self.explore, spacer()), self.table, self.tabs)
        self.column.addStretch(1)

    def _connect(self) -> None:
        controller, state = self.controller, self.state
        layers = self.viewer.layers.events
        self.listen(self._layer_added, layers.inserted)
        self.listen(self._fill_layers, layers.removed, layers.renamed)
        self.listen(self._active_changed, self.viewer.layers.selection.events.active)
        self.tabs.currentChanged.connect(self._tab_chosen)
        self.viewer.mouse_drag_callbacks.append(self._pressed)
        self.listen(self._slide_changed, state.slide_changed)
        self.listen(self._model_changed, state.model_changed)
        self.listen(self._update, state.mapper_changed)
        self.listen(self._shown_changed, state.shown_changed)
        self.layers.activated.connect(lambda i: self.choose_layer(self.layers.itemData(i)))
        self.draw.clicked.connect(self._draw_clicked)
        self.read.clicked.connect(lambda: open_file(self, "Import regions", _GEOJSON, self.import_regions))
        self.write.clicked.connect(
            lambda: save_file(self, "Export regions", "regions.geojson", _GEOJSON, controller.write)
        )
        self.map.clicked.connect(controller.map_regions)
        self.explore.clicked.connect(self.open_explore)
        self.table.chosen.connect(self._line_chosen)
        self.table.renamed.connect(self._rename)
        self.table.removed.connect(self._remove)
        controller.rows_changed.connect(self._rows_changed)
        controller.comparison_changed.connect(self.comparison.show_comparison)
        controller.explanation_changed.connect(self.explanation.show_explanation)
        controller.place_changed.connect(self._mode_changed)

    def _end(self, *, viewer_lives: bool) -> None:
        """Disconnect; the regions stay, since their layer belongs to the user."""
        self.controller.close()
        self.state.history.forget(self)
        for tab in self._tabs:
            tab.chart.stop()
        stop_timer(self._checks)
        self._read_layer_later.cancel()
        self._end_drawing_later.cancel()
        self.marker.stop(viewer_lives=viewer_lives)
        self.chosen.stop(viewer_lives=viewer_lives)
        if not viewer_lives:
            if self._halo is not None:
                self._halo.stop(viewer_lives=False)
            return
        self.choose_layer(None)
        with suppress(ValueError):
            self.viewer.mouse_drag_callbacks.remove(self._pressed)

    # -- the layer -----------------------------------------------------------------------------------------

    def _layer_added(self, event: Any) -> None:
        """Keep the regions above maps and spots."""
        layers = self.viewer.layers
        ours = {OVERLAY_KEY, SPOTS_KEY} & set(event.value.metadata)
        if ours and self.layer is not None and layers.index(self.layer) < event.index:
            layers.move(layers.index(self.layer), len(layers))
        self._fill_layers()

    def _fill_layers(self, _event: Any = None) -> None:
        layers = [layer for layer in reversed(self.viewer.layers) if holds_regions(layer)]
        if not any(layer == self.layer for layer in layers):
            self.choose_layer(layers[0] if layers else None)
        self.layers.clear()
        for layer in layers:
            self.layers.addItem(layer.name, layer)
            if layer == self.layer:
                self.layers.setCurrentIndex(self.layers.count() - 1)
        if not layers:
            self.layers.addItem("none yet: press Draw")
        self.layers.setEnabled(bool(layers))

    def choose_layer(self, layer: Shapes | None) -> None:
        """Use the regions of another Shapes layer."""
        if self.layer is not None:
            for source in (self.layer.events.data, self.layer.events.features):
                source.disconnect(self._layer_edited)
            self.layer.events.mode.disconnect(self._mode_changed)
        if self._halo is not None:
            self._halo.stop()
        self.layer = layer
        self._halo = None if layer is None or self._ended else Halo(self.viewer, layer, NAME)
        self._drawn = None if layer is None else Drawn.copy_of(layer)
        if layer is not None:
            for source in (layer.events.data, layer.events.features):
                source.connect(self._layer_edited)
            layer.events.mode.connect(self._mode_changed)
        if not self._ended:
            self._mode_changed()
            self._regions_edited()

    def _layer_edited(self, event: Any) -> None:
        if str(getattr(event, "action", "")) not in _UNFINISHED:
            self._regions_edited()

    def _regions_edited(self) -> None:
        self._edited = True
        self._read_layer_later()

    def _read_layer(self) -> None:
        self._edited = False
        slide_layer, slide = self.state.layer, self.state.slide
        self._places = []
        regions: list[Region] = []
        if self.layer is not None and slide_layer is not None and slide is not None and slide.mpp is not None:
            name_all(self.layer)
            self._places, regions = regions_of(self.layer, slide_layer, slide.mpp)
            self._note_change(self.layer, regions)
        self.controller.set_regions(regions)
        self._regions_changed()

    def _note_change(self, layer: Shapes, regions: list[Region]) -> None:
        """Record a change of the regions for undo, and for the next time that the slide is opened."""
        before, self._drawn = self._drawn, Drawn.copy_of(layer)
        if before is None or before == self._drawn:
            return

        def undo() -> None:
            if layer in self.viewer.layers:
                self._drawn = before  # an undo is not a new change
                before.put_back(layer)

        self.state.history.add("regions", undo, owner=self)
        self.state.remember(regions=tuple((region.name, region.outline.wkt) for region in regions))

    def _recall(self) -> None:
        """Restore the regions of the slide when it was last open, unless there are others."""
        slide_layer, slide, memory = self.state.layer, self.state.slide, self.state.memory
        if self.layer is None and slide_layer is not None and slide is not None and slide.mpp and memory is not None:
            regions = [Region(name, shapely.from_wkt(outline)) for name, outline in memory.regions]
            if regions:
                self.viewer.add_layer(new_layer(slide_layer, regions, slide.mpp))
                self._fill_layers()

    def _draw_clicked(self, on: bool) -> None:
        if not on and self.layer is not None:
            self.layer.mode = "pan_zoom"
        with changed_together(self.viewer):
            layer = self._own_layer() if on else None
            if layer is None:
                self.draw.setChecked(False)
                return
            self.viewer.layers.selection.active = layer
            if not layer.visible:
                layer.visible = True
            layer.mode = "add_polygon"

    def _own_layer(self) -> Shapes | None:
        """Return the layer of the regions, which is created if there is none."""
        if self.layer is None:
            if self.state.layer is None:
                self.notify(CpnnError("Open a slide first and choose it in the Explore dock: regions are drawn on it."))
                return None
            self.viewer.add_layer(new_layer(self.state.layer))  # and chosen: there is no other
        return self.layer

    def _mode_changed(self, _event: Any = None) -> None:
        drawing = self._draws()
        self.draw.setChecked(drawing)
        explains = self.tabs.currentWidget() is self.explanation
        text = "A click draws: press Draw again to end." if drawing else "A click on the slide explains the gene there."
        self.click.show_text(text if drawing or explains else "")
        self.marker.show(self.controller.place if explains else None)

    def _draws(self) -> bool:
        """Return whether a click on the slide draws a region."""
        layer = self.layer
        return layer is not None and str(layer.mode).startswith("add_") and self.viewer.layers.selection.active == layer

    def _active_changed(self, _event: Any = None) -> None:
        """End drawing when another layer is selected, so that two modes are never on at once."""
        self._mode_changed()
        active = self.viewer.layers.selection.active
        if isinstance(active, Shapes) and OVERLAY_KEY not in active.metadata:
            self._end_drawing()
        else:  # later: napari selects a map, halo or outline that is being added, for a moment
            self._end_drawing_later()

    def _end_drawing(self) -> None:
        if self.layer is not None and str(self.layer.mode).startswith("add_") and not self._draws():
            self.layer.mode = "pan_zoom"

    def _tab_chosen(self, _index: int) -> None:
        """End whatever clicks draw when they are to explain."""
        active = self.viewer.layers.selection.active
        if self.tabs.currentWidget() is self.explanation and isinstance(active, Shapes):
            active.mode = "pan_zoom"
        self._mode_changed()

    # -- files ---------------------------------------------------------------------------------------------

    def import_regions(self, path: str) -> None:
        """Add the regions of a GeoJSON file to the layer."""
        self.controller.read(path, self._add)

    def _add(self, regions: list[Region]) -> None:
        layer, slide_layer, slide = self._own_layer(), self.state.layer, self.state.slide
        if layer is not None and slide_layer is not None and slide is not None and slide.mpp is not None:
            add_regions(layer, slide_layer, regions, slide.mpp)

    # -- the table -----------------------------------------------------------------------------------------

    def _line_chosen(self) -> None:
        lines = self.table.selected()
        if self.layer is not None:
            self.layer.selected_data = {self._places[i] for i in lines if i < len(self._places)}
        self._show_composition()

    def _rename(self, line: int, name: str) -> None:
        if self.layer is None or line >= len(self._places):
            return
        names = names_of(self.layer)
        names[self._places[line]] = name
        set_names(self.layer, names)

    def _remove(self) -> None:
        if self.layer is not None:
            self.layer.selected_data = {self._places[i] for i in self.table.selected() if i < len(self._places)}
            self.layer.remove_selected()

    # -- updates -------------------------------------------------------------------------------------------

    def _update(self) -> None:
        self.controller.check()
        self.message.show_text(self.controller.message())
        self.map.setVisible(self.controller.needs_mapping())
        self.explore.setVisible(self.state.layer is None or self.state.model is None)

    def _slide_changed(self) -> None:
        self._recall()
        if isinstance(self.controller.place, tuple):  # on another slide
            self.controller.explain(None)
        self._regions_edited()

    def _model_changed(self) -> None:
        model = self.state.model
        for box in (self.composition.gene, self.explanation.gene):
            box.set_genes([] if model is None else model.genes)
        self._shown_changed()

    def _shown_changed(self) -> None:
        self.explanation.show_gene()
        self.explanation.show_explanation()
        self._update()

    def _regions_changed(self) -> None:
        self.comparison.show_names()
        self.comparison.show_comparison()
        self.explanation.show_names()
        self.explanation.show_explanation()
        self.write.setEnabled(bool(self.controller.regions))
        self._rows_changed()

    def _rows_changed(self) -> None:
        self.table.set_rows(self.controller.rows, self.controller.cells)
        if self.table.rowCount() and not self.table.selected():
            self.table.select([0])  # which shows it
        else:
            self._show_composition()
        self._update()

    def _show_composition(self) -> None:
        chosen = [row for i, row in enumerate(self.controller.rows) if i in self.table.selected()]
        self.composition.show_rows(chosen)
        self.chosen.show([row.region for row in chosen], self.layer)

    # -- clicks on the slide -------------------------------------------------------------------------------

    def _pressed(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Explain the place of a click (not of a drag) when nothing is being drawn."""
        active = self.viewer.layers.selection.active
        if event.button != 1 or not self._explains() or str(getattr(active, "mode", "pan_zoom")) != "pan_zoom":
            return
        at = self._point()
        if (yield from is_click(event)) and at is not None:
            self.controller.explain(at)
            self.explanation.show_names()

    def _explains(self) -> bool:
        return not self._ended and self.isVisible() and self.tabs.currentWidget() is self.explanation

    def _point(self) -> tuple[float, float] | None:
        layer, slide = self.state.layer, self.state.slide
        if layer is None or slide is None or slide.mpp is None:
            return None
        return pointer_um(self.viewer, layer, slide.mpp)
