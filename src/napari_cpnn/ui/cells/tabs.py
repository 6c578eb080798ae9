"""Tabs of the Cells dock: gallery, neighbours, and measurements of nuclei."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem, QWidget

from napari_cpnn.errors import CellMapError
from napari_cpnn.painting import format_value
from napari_cpnn.storage import write_csv
from napari_cpnn.ui.cells.charts import neighbour_chart, nuclei_chart
from napari_cpnn.ui.cells.controller import WITHIN_UM, CellsController
from napari_cpnn.ui.frame import (
    Background,
    ChartView,
    DecimalBox,
    TextLabel,
    add,
    button,
    row,
    save_file,
    spacer,
    stack,
)

_TABLE = "Table (*.csv)"
_PICTURES = "Picture (*.png);;Vector graphics (*.svg)"
_CROP_PX, _GALLERY_PX = 64, 330


class GalleryTab(QWidget):
    """Crops of cells, the highest first.

    Signals
    -------
    wanted
        Number of a cell that was clicked.
    """

    wanted = Signal(int)

    def __init__(self, controller: CellsController) -> None:
        super().__init__()
        self.controller = controller
        self.title = TextLabel()
        self.crops = QListWidget()
        self.crops.setViewMode(QListView.ViewMode.IconMode)
        self.crops.setResizeMode(QListView.ResizeMode.Adjust)
        self.crops.setMovement(QListView.Movement.Static)
        self.crops.setUniformItemSizes(True)
        self.crops.setIconSize(QSize(_CROP_PX, _CROP_PX))
        self.crops.setSpacing(2)
        self.crops.setMinimumHeight(_GALLERY_PX)
        self.crops.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.crops.setAccessibleName("crops of cells")
        add(stack(inside=self, margins=(4, 6, 4, 4)), self.title, self.crops)
        self.crops.itemClicked.connect(self._clicked)
        self.crops.itemActivated.connect(self._clicked)
        controller.crops_changed.connect(self._fill)
        self._fill()

    @property
    def is_settled(self) -> bool:
        return not self.controller.tasks.is_running("gallery")

    def _fill(self) -> None:
        found = self.controller.crops
        self.crops.clear()
        self.title.show_text("" if found is None else f"{found.title}: {len(found.numbers)} crops of 32 µm")
        if found is None:
            return
        unit = self.controller.shown.unit
        for picture, number, value in zip(found.pictures, found.numbers.tolist(), found.values.tolist(), strict=True):
            data = np.ascontiguousarray(picture)
            height, width = data.shape[:2]
            image = QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
            text = format_value(value, unit or "share") if np.isfinite(value) else ""
            text = f"{value:.0f}" if unit == "µm²" and text else text
            item = QListWidgetItem(QIcon(QPixmap.fromImage(image)), text)
            item.setData(Qt.ItemDataRole.UserRole, number)
            item.setToolTip(f"cell {number}; a click goes there")
            self.crops.addItem(item)

    def _clicked(self, item: QListWidgetItem) -> None:
        self.wanted.emit(int(item.data(Qt.ItemDataRole.UserRole)))


class _ChartTab(QWidget):
    """Tab with a button that measures, a chart, and buttons that save it."""

    def __init__(self, controller: CellsController, background: Background) -> None:
        super().__init__()
        self.controller = controller
        self.chart = ChartView(background)
        self.save_figure = button("Save figure ...", "the chart as PNG or SVG, on white")
        self.save_table = button("Save table ...", "all numbers as CSV")
        self.save_figure.clicked.connect(lambda: save_file(self, "Save figure", "", _PICTURES, self.write_figure))
        controller.measured.connect(self.fill)
        self.column = stack(inside=self, margins=(4, 6, 4, 4))

    @property
    def is_settled(self) -> bool:
        return self.chart.is_settled

    def fill(self) -> None:
        """Show the last result."""

    def _may_save(self, can: bool) -> None:
        self.save_figure.setEnabled(can)
        self.save_table.setEnabled(can)

    def write_figure(self, name: str | Path) -> None:
        """Draw the chart into a file in the background."""
        path = Path(name)
        path = path if path.suffix.lower() in (".png", ".svg") else path.with_name(f"{path.name}.png")
        slide = self.controller.slide
        source = "" if slide is None else slide.name
        self.controller.tasks.run("figure", "", lambda: self.chart.save(path, source), lambda _: None)


class NeighboursTab(_ChartTab):
    """Who is next to whom."""

    def __init__(self, controller: CellsController, background: Background) -> None:
        super().__init__(controller, background)
        self.within = DecimalBox()
        self.within.setRange(2.0, 500.0)
        self.within.setDecimals(1)
        self.within.setValue(WITHIN_UM)
        self.within.setSuffix(" µm")
        self.within.setToolTip("largest distance between the centres of neighbours")
        self.count = button("Count neighbours", "and compare with 200 shuffles of the types over the same places")
        self.count.clicked.connect(lambda: controller.measure_neighbours(self.within.value()))
        self.save_table.clicked.connect(
            lambda: save_file(self, "Save table", "neighbours.csv", _TABLE, self.write_table)
        )
        add(self.column, row(self.within, self.count, spacer()), self.chart)
        add(self.column, row(self.save_table, self.save_figure, spacer()))
        self.column.addStretch(1)
        self.fill()

    def fill(self) -> None:
        found = self.controller.neighbours
        self.chart.show_chart(None if found is None else lambda paper: neighbour_chart(found, paper))
        self._may_save(found is not None)

    def write_table(self, name: str) -> None:
        """Write the pairs of types as CSV."""
        found = self.controller.neighbours
        if found is not None:
            table = found.to_frame().assign(within_um=found.within_um)
            work = lambda: write_csv(table, name, CellMapError, index=False)  # noqa: E731
            self.controller.tasks.run("figure", "", work, lambda _: None)


class NucleiTab(_ChartTab):
    """Size and stain of the nuclei."""

    def __init__(self, controller: CellsController, background: Background) -> None:
        super().__init__(controller, background)
        self.measure = button("Measure nuclei", "area and roundness of all nuclei, stain of a sample of each type")
        self.measure.clicked.connect(controller.measure_nuclei)
        self.save_table.clicked.connect(lambda: save_file(self, "Save table", "nuclei.csv", _TABLE, self.write_table))
        add(self.column, row(self.measure, spacer()), self.chart)
        add(self.column, row(self.save_table, self.save_figure, spacer()))
        self.column.addStretch(1)
        self.fill()

    def fill(self) -> None:
        table, content = self.controller.morphology, self.controller.content
        colors = {} if content is None else content.colors_of(self.controller.category or "plain")
        self.chart.show_chart(None if table is None else lambda paper: nuclei_chart(table, colors, paper))
        self._may_save(table is not None)

    def write_table(self, name: str) -> None:
        """Write the measurements as CSV."""
        table = self.controller.morphology
        if table is not None:
            named = table.rename_axis("type").reset_index()
            work = lambda: write_csv(named, name, CellMapError, index=False)  # noqa: E731
            self.controller.tasks.run("figure", "", work, lambda _: None)
