"""The Compare dock: measured spots over the slide, compared with predictions there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtWidgets import QButtonGroup, QCheckBox, QMenu, QProgressBar, QRadioButton, QTabWidget, QWidget

from napari_cpnn import painting
from napari_cpnn.arrays import IntArray
from napari_cpnn.texts import file_name
from napari_cpnn.ui.compare.controller import CompareController
from napari_cpnn.ui.compare.gene_table import GeneTable
from napari_cpnn.ui.compare.scatter import Scatter
from napari_cpnn.ui.compare.signature_choice import SignatureChoice
from napari_cpnn.ui.compare.spots_box import SpotsBox
from napari_cpnn.ui.compare.spots_key import SpotsKey
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.compare.where_table import WhereTable
from napari_cpnn.ui.compare.words import PAIRED, Painted, Quantity
from napari_cpnn.ui.explore import ColorBar, Signatures
from napari_cpnn.ui.frame import (
    Dock,
    TextLabel,
    add,
    button,
    every,
    given,
    line,
    row,
    save_file,
    spacer,
    stack,
    stop_timer,
)
from napari_cpnn.ui.layers import holds_regions
from napari_cpnn.ui.regions import regions_of

if TYPE_CHECKING:
    import napari

_QUANTITIES: tuple[tuple[Quantity, str, str], ...] = (
    ("measured", "measured", "measured value of each spot; for a cell type, its share deconvolved from the counts"),
    ("predicted", "predicted", "prediction of the model for each spot, in the same colours"),
    ("difference", "difference", "predicted minus measured: orange is too high, blue is too low"),
    ("counts", "counts", "total counts of each spot"),
    ("genes", "genes", "number of genes with a count in each spot"),
)
_UNITS = {"counts": "counts per {}", "genes": "genes per {}"}
_STEPS, _PROGRESS_MS = 1000, 100
_FIGURES = "Figure (*.png *.svg *.pdf)"


class Compare(Dock):
    """napari widget with spots, their fit to the slide, the gene on screen, and a table of all genes."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "compare")
        self.controller = CompareController(self.state, self.background, self.notify)
        self.painted: Painted | None = None
        self.spots_layer, self.spots_key = SpotsLayer(napari_viewer), SpotsKey(napari_viewer)
        self.spots = SpotsBox(napari_viewer, self.controller.spots, self.spots_layer)
        self._build()
        self._connect()
        self._compared_changed()
        self._run_changed()
        self.message.show_text(self.controller.message)
        self.controller.spots.recall()

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.explore = button("Open Explore", "choose slide and model in the Explore dock")
        self.predict = button("Predict", "predict at the spots and compare")
        self.cancel = button("Cancel", "end the prediction")
        self.by_cells = QCheckBox("with the predicted cells")
        self.by_cells.setToolTip("of the Cells dock, each with the nearest measured one; off: with the map's model")
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self._progress_timer = every(_PROGRESS_MS, self._show_progress, self)
        self.gene_text, self.range_text, self.colors = TextLabel(), TextLabel(), ColorBar()
        self.chosen = TextLabel()
        self.colors.hide()
        self.quantity_group = QButtonGroup(self)
        self.quantities: dict[Quantity, QRadioButton] = {}
        for name, text, tip in _QUANTITIES:
            radio = self.quantities[name] = QRadioButton(text)
            radio.setToolTip(tip)
            self.quantity_group.addButton(radio)
        self.quantities["measured"].setChecked(True)
        self.scatter = Scatter(self.background)
        tip = "drag a box around spots on the slide to highlight them in the chart"
        self.pick = button("Select spots on the slide", tip, checkable=True)
        self.one_scale = QCheckBox("one scale")
        self.one_scale.setChecked(True)
        self.one_scale.setToolTip("the same colours and axes for measured and predicted; off: each has its own range")
        self.tabs = QTabWidget()
        self.table = GeneTable()
        self.signatures = Signatures(self.state, self.background, self.notify)
        self.signature = SignatureChoice(self.state, self.signatures)
        genes = QWidget()
        stack(self.signature, self.table, inside=genes, margins=(0, 4, 0, 0), spacing=4)
        self.tabs.addTab(genes, "Genes")
        self.tabs.addTab(self._where_tab(), "Regions and slides")
        self.save = button("Save ...", "scores and figure of the comparison")
        menu = QMenu(self)
        self.save.setMenu(menu)
        for text, act in (
            ("Scores of all genes (CSV) ...", lambda: self._save_csv("scores.csv", self.controller.save_table)),
            (
                "Scores of regions and slides (CSV) ...",
                lambda: self._save_csv("regions.csv", self.controller.save_region_scores),
            ),
            ("Figure: measured, predicted, difference, chart ...", self._save_figure),
        ):
            given(menu.addAction(text)).triggered.connect(lambda _=False, act=act: act())
        first = self.first_row("Spots", self.spots.open_file, self.spots.open_folder)
        add(self.column, first, self.spots, self.message, row(self.explore, spacer()))
        add(self.column, row(self.predict, self.cancel, self.bar), self.by_cells, line(), self.gene_text)
        radios = [self.quantities[name] for name, _, _ in _QUANTITIES]
        add(self.column, row(*radios[:3], spacer()), row(*radios[3:], spacer()))  # side by side they make it wide
        add(self.column, self.range_text, self.colors, self.scatter)
        add(self.column, self.chosen, row(self.pick, spacer(), self.one_scale))
        self.column.addWidget(self.tabs, 1)
        self.column.addLayout(row(self.save, spacer()))

    def _where_tab(self) -> QWidget:
        tab = QWidget()
        self.where = WhereTable()
        self.where_text = TextLabel()
        self.score_regions = button("Score regions", "score all genes over the spots in each region that is drawn")
        buttons = row(self.score_regions, spacer())
        stack(self.where_text, self.where, buttons, inside=tab, margins=(0, 4, 0, 0), spacing=4)
        return tab

    def _connect(self) -> None:
        controller = self.controller
        self.explore.clicked.connect(self.open_explore)
        self.quantity_group.buttonClicked.connect(self._quantity_clicked)
        self.table.chosen.connect(controller.choose_gene)
        self.scatter.selected.connect(self._selected_in_chart)
        self.spots_layer.chosen.connect(self._selected_on_slide)
        self.pick.toggled.connect(self._pick_toggled)
        self.one_scale.toggled.connect(controller.set_one_scale)
        self.score_regions.clicked.connect(self._score_regions)
        self.tabs.currentChanged.connect(self._show_where)
        self.predict.clicked.connect(controller.compare)
        self.cancel.clicked.connect(controller.cancel)
        self.by_cells.toggled.connect(controller.compare_by_cells)
        controller.cells_changed.connect(self._cells_changed)
        controller.run_changed.connect(self._run_changed)
        controller.spots.spots_changed.connect(self._spots_changed)
        controller.compared_changed.connect(self._compared_changed)
        controller.quantity_changed.connect(self._gene_changed)
        self.signatures.changed.connect(self._gene_changed)
        controller.region_scores.changed.connect(self._show_where)
        controller.message_changed.connect(self.message.show_text)
        self.listen(self._paint_spots, self.state.look_changed)

    def _end(self, *, viewer_lives: bool) -> None:
        """Remove our layer and restore the colours of the map."""
        stop_timer(self._progress_timer)
        self.scatter.stop()
        self.spots.end(viewer_lives=viewer_lives)
        self.signatures.close()
        self.controller.close()
        if viewer_lives:
            self.pick.setChecked(False)
            self.spots_key.close()
            self.spots_layer.close()

    # -- spots ---------------------------------------------------------------------------------------------

    def _spots_changed(self) -> None:
        self._place_spots()
        self._paint_spots()

    def _place_spots(self) -> None:
        spots = self.controller.spots
        self.explore.setVisible(self.state.slide is None or self.state.model is None)
        layer = self.state.layer if spots.is_of_slide else None
        before = self.spots_layer.layer
        at = spots.places
        if at is None:
            self.spots_layer.place(None)
        else:
            self.spots_layer.place(layer, at.mpp, at.centers_um, at.diameter_um, at.rows, at.bins)
        if self.spots_layer.layer is not before:
            self.pick.setChecked(False)
        self._cells_changed()

    def _cells_changed(self) -> None:
        """Offer the predicted cells where there are measured ones."""
        self.by_cells.setVisible(self.controller.cells is not None)
        self.by_cells.setChecked(self.controller.by_cells)

    def _selected_in_chart(self, points: IntArray) -> None:
        self.spots_layer.mark(self.controller.comparison.rows()[points])
        self._show_chosen()

    def _selected_on_slide(self, spots: IntArray) -> None:
        self.scatter.select(np.flatnonzero(np.isin(self.controller.comparison.rows(), spots)))
        self._show_chosen()

    def _show_chosen(self) -> None:
        n, n_all = len(self.scatter.rows), len(self.controller.comparison.rows())
        self.chosen.show_text(f"{n:,} of {n_all:,} {self.controller.spots.noun} selected" if n else "")

    def _pick_toggled(self, on: bool) -> None:
        layer = self.spots_layer.layer
        if layer is None:
            self.pick.setChecked(False)
            return
        self.spots_layer.pick(on)
        self.viewer.layers.selection.active = layer if on else self.state.layer

    # -- predicting ----------------------------------------------------------------------------------------

    def _run_changed(self) -> None:
        running = self.controller.comparing
        self.predict.setVisible(self.controller.can_compare)
        self.cancel.setVisible(running)
        self.bar.setVisible(running)
        if running == self._progress_timer.isActive():
            return
        if running:
            self._show_progress()
            self._progress_timer.start()
        else:
            self._progress_timer.stop()

    def _show_progress(self) -> None:
        run = self.controller.run
        self.bar.setValue(round(run.done * _STEPS))
        self.bar.setFormat(run.text or "reading the first patches")

    # -- genes ---------------------------------------------------------------------------------------------

    def _compared_changed(self) -> None:
        scores, measured = self.controller.comparison.scores, self.controller.measured
        table = measured if scores is None else scores
        self.table.set_scores(table)
        self.table.setEnabled(table is not None)
        self.tabs.setTabText(0, "Genes" if table is None else f"Genes ({len(table):,})")
        for widget in (self.save, self.score_regions, self.pick):
            widget.setEnabled(scores is not None)
        self._place_spots()
        self._gene_changed()

    def _gene_changed(self) -> None:
        comparison = self.controller.comparison
        self.table.select(comparison.gene or comparison.gene_alone)
        self.signature.update_sets()
        self.gene_text.show_text(comparison.text() or self._gene_hint())
        for name in PAIRED:
            self.quantities[name].setEnabled(len(comparison.values(name)) > 0)
        for name in ("counts", "genes"):
            self.quantities[name].setEnabled(comparison.genes is not None)
        self.quantities[comparison.quantity].setChecked(True)
        self.scatter.set_pair(comparison.pair, one_scale=comparison.one_scale)
        self._show_chosen()
        self._show_where()
        self._paint_spots()

    def _gene_hint(self) -> str:
        shown = self.state.shown
        if self.signatures.message:
            return self.signatures.message
        if self.controller.comparison.compared is None:
            return "" if self.controller.measured is None else "Choose a gene in the table to show its measurement."
        if shown is not None and shown.kind == "gene":
            return f"{shown.name} was not measured here; choose a gene in the table."
        if shown is not None and shown.kind == "signature":
            return f"No gene of {shown.name} that counts in Explore was measured here and varies; choose another set."
        return "Choose a gene in the table, or a gene or cell type in the Explore dock."

    def _paint_spots(self) -> None:
        comparison, quantity = self.controller.comparison, self.controller.comparison.quantity
        values = comparison.drawn_values(quantity)
        self.painted = None
        if not len(values):
            self.range_text.setText("")
            self.colors.hide()
            self.spots_key.hide()
            self.spots_layer.forget_colors()
            return
        limits = comparison.limits(quantity)
        look, pair = self.state.look, comparison.pair
        like_map = quantity == "predicted" or (quantity == "measured" and comparison.one_scale)
        if pair is not None and like_map and look.range_mode == "manual":
            limits = look.manual
        colormap = painting.DIFFERENCE if quantity == "difference" else look.colormap
        colors = painting.spot_colors(values, limits, colormap)
        noun = self.controller.spots.noun
        unit = _UNITS.get(quantity, "").format(noun[:-1]) or ("log1p CP10k" if pair is None else pair.unit)
        low, high = (f"{v:,.0f}" if quantity in _UNITS else painting.format_value(v, unit) for v in limits)
        self.range_text.setText(f"{noun}: {low} to {high} {unit}")
        scale = np.linspace(*limits, 256, dtype=np.float32)
        table = painting.spot_colors(scale, limits, colormap)
        self.colors.show_table(table, limits, unit)
        self.colors.show()
        name = comparison.gene_alone if pair is None else pair.name
        title = f"{name} {quantity}" if quantity in PAIRED else quantity
        self.painted = Painted(quantity, name, limits, colormap)
        self.spots_layer.paint(colors, f"Spots: {title}")
        if look.legend and not like_map:
            self.spots_key.show(self.spots_layer.layer, table, limits, f"{noun}: {title} · {unit}")
        else:
            self.spots_key.hide()

    def _quantity_clicked(self, clicked: Any) -> None:
        name = next(name for name, one in self.quantities.items() if one is clicked)
        self.controller.choose_quantity(name)

    # -- regions and slides --------------------------------------------------------------------------------

    def _score_regions(self) -> None:
        layer, slide_layer, mpp = self._regions_layer(), self.state.layer, self.controller.spots.mpp()
        if layer is None or slide_layer is None or mpp is None:
            self.where_text.setText("No regions yet: draw some in the Regions dock.")
            return
        regions = regions_of(layer, slide_layer, mpp)[1]
        self.controller.region_scores.score(regions)
        if not regions:
            self.where_text.setText(f"Layer {layer.name} has no closed outline: draw some regions in the Regions dock.")

    def _regions_layer(self) -> Shapes | None:
        """Return the selected Shapes layer, or the topmost."""
        layers = [layer for layer in reversed(self.viewer.layers) if holds_regions(layer) and len(layer.data)]
        active = self.viewer.layers.selection.active
        return next((layer for layer in layers if layer == active), layers[0] if layers else None)

    def _show_where(self, _tab: int = 1) -> None:
        if self.tabs.currentIndex() != 1:  # do not average many tables for every gene that is clicked
            return
        self.where_text.setText(
            "Means over the genes that vary there; they are lower in a region than on its whole slide."
        )
        self.where.show_scores(self.controller.region_scores.table(), self.controller.comparison.gene)

    # -- files ---------------------------------------------------------------------------------------------

    def _save_csv(self, file_name: str, write: Callable[[str], None]) -> None:
        save_file(self, "Save the scores", file_name, "CSV (*.csv)", write)

    def _save_figure(self) -> None:
        pair = self.controller.comparison.pair
        start = f"{file_name('' if pair is None else pair.name, 'comparison')}.png"
        save_file(self, "Save the figure", start, _FIGURES, self.controller.save_figure)
