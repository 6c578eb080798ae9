"""Tab of the Cells dock: one gene against another, with a lasso that marks cells on the slide, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from qtpy.QtWidgets import QWidget

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.texts import chart_text
from napari_cpnn.ui.cells.controller import CellsController
from napari_cpnn.ui.frame import (
    CHOSEN,
    DPI,
    Background,
    GeneBox,
    LassoChart,
    Paper,
    TextLabel,
    add,
    button,
    find_gene,
    row,
    spacer,
    stack,
    unknown_gene_text,
)

_HEIGHT_PX, _BINS, _MOST_DRAWN = 260, 60, 3000
_NONE: IntArray = np.empty(0, dtype=np.intp)


class GeneScatter(LassoChart):
    """Cells by the expression of two genes: how many there are at each place, and those that are marked."""

    def __init__(self, background: Background) -> None:
        super().__init__(background)
        self.setToolTip("draw around cells to mark them on the slide; click beside them to clear the marks")
        self.names = ("", "")
        self._values: FloatArray | None = None

    def set_values(self, values: FloatArray | None, names: tuple[str, str] = ("", "")) -> None:
        """Show two values per cell, ``(N, 2)``; NaN where they are not known."""
        self._values, self.names = values, names
        self._show()

    def points(self) -> FloatArray | None:
        return self._values

    def _show(self) -> None:
        values, names, rows = self._values, self.names, self.rows
        self.show_chart(None if values is None else lambda paper: scatter_chart(values, names, rows, paper))


def scatter_chart(values: FloatArray, names: tuple[str, str], rows: IntArray, paper: Paper) -> Figure:
    """Draw the number of cells by two values ``(N, 2)``, and some of the marked ones."""
    size = (paper.width_px / DPI, _HEIGHT_PX / DPI)
    figure = Figure(figsize=size, dpi=DPI, facecolor=paper.ground, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.set_facecolor("none")
    known = values[np.isfinite(values).all(axis=1)]
    if len(known):
        x, y = known.T
        axes.hist2d(x, y, bins=_BINS, norm="log", cmap="Blues", cmin=1)
    marked = values[rows]
    marked = marked[np.isfinite(marked).all(axis=1)]
    some = marked[:: max(1, len(marked) // _MOST_DRAWN)]
    axes.scatter(*some.T, s=6, c=CHOSEN, linewidths=0)
    axes.set_xlabel(f"{chart_text(names[0])}, log1p CP10k", fontsize=8, color=paper.ink)
    axes.set_ylabel(chart_text(names[1]), fontsize=8, color=paper.ink)
    axes.tick_params(labelsize=7, colors=paper.ink)
    axes.spines[:].set_color(paper.ink)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


class TwoGenesTab(QWidget):
    """Two genes of all cells.

    Parameters
    ----------
    regions
        Returns the regions that are drawn over the slide.
    """

    def __init__(self, controller: CellsController, background: Background, regions: Callable[[], list[Any]]) -> None:
        super().__init__()
        self.controller = controller
        self.across, self.up = GeneBox(), GeneBox()
        self.chart = GeneScatter(background)
        self.note = TextLabel()
        self.in_regions = button("Mark cells in regions", "of the outlines that are drawn over the slide")
        self.clear = button("Clear", "mark no cells")
        self._genes: list[str] = ["", ""]
        column = stack(inside=self, margins=(4, 6, 4, 4))
        add(column, row(self.across, self.up), self.chart, self.note, row(self.in_regions, self.clear, spacer()))
        column.addStretch(1)
        for place, box in enumerate((self.across, self.up)):
            box.chosen.connect(lambda text, at=place: self.choose_gene(at, text))
        self.chart.selected.connect(controller.choose)
        self.in_regions.clicked.connect(lambda: controller.choose_in(regions()))
        self.clear.clicked.connect(lambda: controller.choose(_NONE))
        controller.content_changed.connect(self._content_changed)
        controller.chosen_changed.connect(self._chosen_changed)
        self._content_changed()

    @property
    def is_settled(self) -> bool:
        return self.chart.is_settled

    def choose_gene(self, place: int, text: str) -> None:
        """Show a gene across (0) or up (1)."""
        content = self.controller.content
        genes = () if content is None or content.cells is None else content.cells.genes
        gene = find_gene(text, genes)
        if gene is None:
            self.note.show_text(unknown_gene_text(text, genes))
            return
        self._genes[place] = gene
        self._fill()

    def _content_changed(self) -> None:
        content = self.controller.content
        genes = () if content is None or content.cells is None else content.cells.genes
        for place, box in enumerate((self.across, self.up)):
            box.set_genes(genes)
            if self._genes[place] not in genes:
                self._genes[place] = ""
            box.show_gene(self._genes[place])
        self._fill()

    def _fill(self) -> None:
        content, (first, second) = self.controller.content, self._genes
        self.across.show_gene(first)
        self.up.show_gene(second)
        cells = None if content is None else content.cells
        if cells is None or not first or not second:
            self.chart.set_values(None)
            self.note.show_text("Type two genes." if cells is not None else "Genes need predicted cells.")
            return

        def ready(values: FloatArray) -> None:
            self.chart.rows = self.controller.chosen
            self.chart.set_values(values, (first, second))
            self._chosen_changed()

        def work() -> FloatArray:
            return np.stack([cells.expression(first), cells.expression(second)], axis=1).astype(np.float64)

        self.controller.tasks.run("two genes", "", work, ready)

    def _chosen_changed(self) -> None:
        chosen = self.controller.chosen
        if self.chart.points() is not None:
            if self.chart.rows is not chosen:
                self.chart.select(chosen)
            n = len(chosen)
            self.note.show_text(f"{n:,} {'cell' if n == 1 else 'cells'} marked" if n else "No cells are marked.")
        self.clear.setEnabled(bool(len(chosen)))
