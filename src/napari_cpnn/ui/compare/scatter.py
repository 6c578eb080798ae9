"""Scatter plot of predicted against measured values of the spots, with a lasso to select some."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.evaluation import SpotPair, draw_scatter
from napari_cpnn.texts import chart_text
from napari_cpnn.ui.frame import DPI, Background, ChartView, Paper

_POINT, _CHOSEN = "#4c9be8", "#ff4500"
_HEIGHT_PX = 215
_NONE: IntArray = np.empty(0, dtype=np.intp)
#: A lasso with fewer points is a click.
_LEAST_STROKE = 3


class Scatter(ChartView):
    """Scatter plot, drawn in another thread; empty without values.

    Signals
    -------
    selected
        Indices ``(k,)`` of the spots inside the lasso; empty when the selection is cleared.
    """

    selected = Signal(object)

    def __init__(self, background: Background) -> None:
        super().__init__(background)
        self.setToolTip(
            "draw around points to highlight their spots on the slide; click beside them to clear the selection"
        )
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.pair: SpotPair | None = None
        self.rows = _NONE
        self._one_scale = True
        self._stroke: list[QPointF] = []

    def set_pair(self, pair: SpotPair | None, *, one_scale: bool = True) -> None:
        """Show another gene or cell type, with the same range on both axes or not; a selection of spots is kept."""
        if pair is None or self.pair is None or len(pair.measured) != len(self.pair.measured):
            self.rows = _NONE
        self.pair, self._one_scale = pair, one_scale
        self._show()

    def select(self, rows: IntArray) -> None:
        """Highlight some of the points."""
        self.rows = rows
        self._show()

    def lasso(self, outline: FloatArray) -> None:
        """Select the spots inside an outline ``(k, 2)`` of measured and predicted values."""
        if self.pair is None:
            return
        rows = _NONE
        if len(outline) >= _LEAST_STROKE:
            points = np.stack([self.pair.measured, self.pair.predicted], axis=1)
            near = ((points >= outline.min(axis=0)) & (points <= outline.max(axis=0))).all(axis=1)
            rows = np.flatnonzero(near)
            rows = rows[Outline(outline).contains_points(points[rows])]
        self.select(rows)
        self.selected.emit(rows)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        if event is not None and event.button() == Qt.MouseButton.LeftButton:
            self._stroke = [event.position()]

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        if self._stroke and event is not None:
            self._stroke.append(event.position())
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        stroke, self._stroke = self._stroke, []
        self.update()
        if self.figure is None or not stroke or event is None or event.button() != Qt.MouseButton.LeftButton:
            return
        ratio = self.figure.dpi / DPI
        height = self.figure.get_figheight() * self.figure.dpi
        pixels = np.array([(point.x() * ratio, height - point.y() * ratio) for point in stroke])
        self.lasso(self.figure.axes[0].transData.inverted().transform(pixels))

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().paintEvent(event)
        if len(self._stroke) > 1:
            painter = QPainter(self)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(QPen(QColor(_CHOSEN), 1.5))
            painter.drawPolygon(QPolygonF(self._stroke))

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
        axes.scatter(pair.measured[rows], pair.predicted[rows], s=16, c=_CHOSEN, edgecolors="black", linewidths=0.4)
        axes.set_xlabel(f"measured, {chart_text(pair.unit)}", fontsize=8, color=paper.ink)
        axes.set_ylabel("predicted", fontsize=8, color=paper.ink)
        axes.tick_params(labelsize=7, colors=paper.ink)
        axes.spines[:].set_color(paper.ink)
        axes.spines[["top", "right"]].set_visible(False)
        if paper.source:
            figure.supxlabel(chart_text(paper.source), fontsize=6, color=paper.ink)
        return figure

    return draw
