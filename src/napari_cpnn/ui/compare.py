"""The Compare dock: measured spots over the slide, beside what the model predicts there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import ensure_colormap
from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QButtonGroup, QFileDialog, QMenu, QPushButton, QRadioButton

from napari_cpnn import painting
from napari_cpnn.ui.compare_controller import CompareController, Quantity
from napari_cpnn.ui.dock import Dock
from napari_cpnn.ui.gene_table import GeneTable
from napari_cpnn.ui.parts import bold_label, line, row, spacer, text_label
from napari_cpnn.ui.scatter import Scatter
from napari_cpnn.ui.spots_layer import SpotsLayer

if TYPE_CHECKING:
    import napari

_FILES = "Spots (*.h5ad *.h5 *.tsv *.tsv.gz *.csv *.csv.gz);;All files (*)"
_DIFFERENCE = "PiYG"
#: Low values fade as they do on the map, but a spot stays to be seen.
_FAINTEST = 0.15
_QUANTITIES: tuple[tuple[Quantity, str, str], ...] = (
    ("measured", "measured", "what was measured in each spot, in the colours of the map"),
    ("predicted", "predicted", "what the model predicts for each spot, in the colours of the map"),
    ("difference", "difference", "predicted minus measured: green is too much, pink is too little"),
)


class Compare(Dock):
    """napari widget: spots, their fit to the slide, the gene on screen, and a table of all genes.

    Parameters
    ----------
    napari_viewer
        Handed over by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "compare")
        self.controller = CompareController(self.state, self.background, self.notify)
        self.spots_layer = SpotsLayer(napari_viewer)
        self._build()
        self._connect()
        self._spots_changed()
        self._compared_changed()
        self.say(self.controller.message)

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        column = self.column
        self.open_file = QPushButton("Open spots ...")
        self.open_file.setToolTip("a table of legacy ST, .h5ad, or a matrix .h5 of Space Ranger")
        self.open_folder = QPushButton("Open folder ...")
        self.open_folder.setToolTip(
            "the outs folder of Space Ranger, a bin folder of Visium HD, or a SpatialData .zarr"
        )
        self.explore = QPushButton("Open Explore")
        self.explore.setToolTip("choose slide and model in the Explore dock")
        self.spots_text = text_label()
        self.fix = QPushButton("Fix")
        self.fix_menu = QMenu(self)
        self.fix.setMenu(self.fix_menu)
        self.fix.setToolTip("move the spots so that they lie on the tissue")
        column.addLayout(self.first_row("Spots", self.open_file, self.open_folder))
        column.addWidget(self.spots_text)
        column.addWidget(self.message)
        column.addLayout(row(self.fix, self.explore, spacer()))
        column.addWidget(line())
        self.gene_text = text_label()
        column.addWidget(self.gene_text)
        self.quantity_group = QButtonGroup(self)
        self.quantities: dict[str, QRadioButton] = {}
        for name, text, tip in _QUANTITIES:
            button = self.quantities[name] = QRadioButton(text)
            button.setToolTip(tip)
            self.quantity_group.addButton(button)
        self.quantities["measured"].setChecked(True)
        column.addLayout(row(*self.quantities.values(), spacer()))
        self.range_text = text_label()
        column.addWidget(self.range_text)
        self.scatter = Scatter()
        column.addWidget(self.scatter)
        column.addWidget(line())
        self.table_title = bold_label("All genes")
        column.addWidget(self.table_title)
        self.table = GeneTable()
        column.addWidget(self.table, 1)
        self.save_table = QPushButton("Save table ...")
        self.save_table.setToolTip("the scores of all genes as CSV")
        self.save_chart = QPushButton("Save chart ...")
        self.save_chart.setToolTip("the chart as PNG, SVG or PDF")
        column.addLayout(row(self.save_table, self.save_chart, spacer()))

    def _connect(self) -> None:
        controller = self.controller
        self.open_file.clicked.connect(self._choose_file)
        self.open_folder.clicked.connect(self._choose_folder)
        self.explore.clicked.connect(self.open_explore)
        self.quantity_group.buttonClicked.connect(self._quantity_clicked)
        self.table.chosen.connect(controller.choose_gene)
        self.scatter.selected.connect(self.spots_layer.mark)
        self.save_table.clicked.connect(self._save_table)
        self.save_chart.clicked.connect(self._save_chart)
        controller.spots_changed.connect(self._spots_changed)
        controller.compared_changed.connect(self._compared_changed)
        controller.quantity_changed.connect(self._gene_changed)
        controller.message_changed.connect(self.say)
        self.state.look_changed.connect(self._paint_spots)

    def _end(self, *, viewer_lives: bool) -> None:
        """Take our layer away and give the colours back."""
        self.state.look_changed.disconnect(self._paint_spots)
        self.controller.close()
        if viewer_lives:
            self.spots_layer.close()

    # -- spots ---------------------------------------------------------------------------------------------

    def _choose_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open spots", "", _FILES)
        if not name:
            return
        positions = None
        if name.endswith((".tsv", ".tsv.gz", ".csv", ".csv.gz")):
            positions, _ = QFileDialog.getOpenFileName(
                self, "The spot table with the positions", str(Path(name).parent)
            )
        self.controller.open_spots(name, positions or None)

    def _choose_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Open a folder of Space Ranger, or SpatialData")
        if name:
            self.controller.open_spots(name)

    def _spots_changed(self) -> None:
        controller, slide = self.controller, self.state.slide
        spots, fit = controller.spots, controller.fit
        parts = [] if spots is None else [f"{spots.n_obs:,} spots, {spots.n_vars:,} genes"]
        if fit is not None:
            parts.append(f"{fit.on_tissue:.0%} on tissue")
        self.spots_text.setText(" · ".join(parts))
        self.spots_text.setVisible(bool(parts))
        self.fix_menu.clear()
        for fix in () if fit is None else fit.fixes[:5]:
            action = self.fix_menu.addAction(f"{fix.name} ({fix.on_tissue:.0%} on tissue)")
            action.triggered.connect(lambda _=False, chosen=fix: controller.apply_fix(chosen))
        self.fix.setVisible(bool(self.fix_menu.actions()))
        self.explore.setVisible(slide is None or self.state.model is None)
        self._place_spots()

    def _place_spots(self) -> None:
        slide = self.state.slide
        mpp = None if slide is None else slide.mpp
        self.spots_layer.place(self.state.layer, mpp, self.controller.centers_um(), self.controller.diameter_um())

    # -- genes ---------------------------------------------------------------------------------------------

    def _compared_changed(self) -> None:
        scores = self.controller.scores
        self.table.set_scores(scores)
        has = scores is not None
        self.table_title.setText("All genes" if scores is None else f"All genes ({len(scores):,})")
        for widget in (self.save_table, self.save_chart, *self.quantities.values(), self.table):
            widget.setEnabled(has)
        self._place_spots()
        self._gene_changed()

    def _gene_changed(self) -> None:
        controller = self.controller
        self.table.select(controller.gene)
        self.gene_text.setText(controller.gene_text() or self._gene_hint())
        self.scatter.set_values(controller.values("measured"), controller.values("predicted"), controller.gene)
        self._paint_spots()

    def _gene_hint(self) -> str:
        shown = self.state.shown
        if self.controller.compared is None:
            return ""
        if shown is not None and shown.kind == "gene":
            return f"{shown.name} was not measured here; choose a gene of the table."
        return "Choose a gene of the table, or type one in the Explore dock."

    def _paint_spots(self) -> None:
        controller = self.controller
        values = controller.values(controller.quantity)
        if not len(values):
            self.range_text.setText("")
            return
        low, high = limits = controller.limits()
        if controller.quantity == "difference":
            colors = ensure_colormap(_DIFFERENCE).map((values - low) / (high - low))
        else:
            if self.state.look.range_mode == "manual":
                low, high = limits = self.state.look.manual
            table = painting.color_table(self.state.look.colormap).copy()
            at = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * (len(table) - 1)
            colors = table[np.rint(at).astype(np.intp)]
            colors[:, 3] = np.maximum(colors[:, 3], _FAINTEST)
        self.range_text.setText(f"colours from {limits[0]:.2f} to {limits[1]:.2f} log1p CP10k")
        self.spots_layer.paint(np.asarray(colors, dtype=np.float32), f"Spots: {controller.gene} {controller.quantity}")

    def _quantity_clicked(self, button: Any) -> None:
        name = next(name for name, one in self.quantities.items() if one is button)
        self.controller.choose_quantity(name)  # type: ignore[arg-type]

    # -- files ---------------------------------------------------------------------------------------------

    def _save_table(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save the scores of all genes", "scores.csv", "CSV (*.csv)")
        if name:
            self.controller.save_table(name)

    def _save_chart(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, "Save the chart", f"{self.controller.gene or 'chart'}.png", "Pictures (*.png *.svg *.pdf)"
        )
        if name:
            try:
                self.scatter.save(name)
            except (OSError, ValueError) as error:
                show_warning(f"The chart cannot be written to {name}: {error}.")
