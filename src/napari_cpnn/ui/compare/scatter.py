"""Scatter plot of predicted against measured values of the spots, with a lasso to select some."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.evaluation import SpotPair, draw_scatter
from napari_cpnn.texts import chart_text
from napari_cpnn.ui.frame import CHOSEN, DPI, Background, LassoChart, Paper

_POINT = "#4c9be8"
_HEIGHT_PX = 215
_NONE: IntArray = np.empty(0, dtype=np.intp)


class Scatter(LassoChart):
    """Scatter plot, drawn in another thread; empty without values.

    Its lasso selects spots.
    """

    def __init__(self, background: Background) -> None:
        super().__init__(background)
        self.setToolTip(
            "draw around points to highlight their spots on the slide; click beside them to clear the selection"
        )
        self.pair: SpotPair | None = None
        self._one_scale = True

    def set_pair(self, pair: SpotPair | None, *, one_scale: bool = True) -> None:
        """Show another gene or cell type, with the same range on both axes or not; a selection of spots is kept."""
        if pair is None or self.pair is None or len(pair.measured) != len(self.pair.measured):
            self.rows = _NONE
        self.pair, self._one_scale = pair, one_scale
        self._show()

    def points(self) -> FloatArray | None:
        return None if self.pair is None else np.stack([self.pair.measured, self.pair.predicted], axis=1)

    def _show(self) -> None:
        self.show_chart(None if self.pair is None else scatter_chart(self.pair, self.rows, self._one_scale))


def scatter_chart(pair: SpotPair, rows: IntArray, one_scale: bool) -> Callable[[Paper], Figure]:
    """Return a function that draws the chart with some points highlighted."""

    def draw(paper: Paper) -> Figure:
        figure = Figure(
            figsize=(paper.width_px / DPI, _HEIGHT_PX / DPI), dpi=DPI, facecolor=paper.ground, layout="constrained"
        )
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        draw_scatter(axes, pair, (_POINT, paper.ink), one_scale=one_scale)
        axes.scatter(pair.measured[rows], pair.predicted[rows], s=16, c=CHOSEN, edgecolors="black", linewidths=0.4)
        axes.set_xlabel(f"measured, {chart_text(pair.unit)}", fontsize=8, color=paper.ink)
        axes.set_ylabel("predicted", fontsize=8, color=paper.ink)
        axes.tick_params(labelsize=7, colors=paper.ink)
        axes.spines[:].set_color(paper.ink)
        axes.spines[["top", "right"]].set_visible(False)
        if paper.source:
            figure.supxlabel(chart_text(paper.source), fontsize=6, color=paper.ink)
        return figure

    return draw
