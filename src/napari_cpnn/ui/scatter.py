"""Predicted against measured expression of a gene, a point per spot; a lasso selects spots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.widgets import LassoSelector
from qtpy.QtCore import QEvent, Signal
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

Values = npt.NDArray[np.float32]

_POINT, _CHOSEN = "#4c9be8", "#ff4500"
_HEIGHT_PX = 230


class Scatter(QWidget):
    """The chart; empty until it is given values.

    Signals
    -------
    selected
        Positions ``(k,)`` of the spots inside the lasso; none to give the selection up.
    """

    selected = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.figure = Figure(figsize=(3.6, 2.3), dpi=100, layout="constrained")
        self.canvas = FigureCanvasQTAgg(self.figure)
        self.canvas.setMinimumHeight(_HEIGHT_PX)
        self.canvas.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip("draw around points to light up their spots on the slide; click beside them to let go")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas)
        self.axes = self.figure.add_subplot()
        self._measured: Values = np.empty(0, dtype=np.float32)
        self._predicted: Values = np.empty(0, dtype=np.float32)
        self._title = ""
        self._rows: npt.NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._lasso: LassoSelector | None = None

    def set_values(self, measured: Values, predicted: Values, title: str) -> None:
        """Show another gene: ``(n,)`` each, log1p CP10k; a selection of the same spots stays."""
        if len(measured) != len(self._measured):
            self._rows = np.empty(0, dtype=np.intp)
        self._measured, self._predicted, self._title = measured, predicted, title
        self._draw()

    def select(self, rows: npt.NDArray[np.intp]) -> None:
        """Mark some of the points."""
        self._rows = rows
        self._draw()

    def save(self, path: str | Path) -> None:
        """The chart as PNG, SVG or PDF, by the ending, dark on white."""
        self._colour("black")
        self.figure.savefig(path, facecolor="white", dpi=200)
        self._draw()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 (Qt's name)
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._draw()

    def _draw(self) -> None:
        axes = self.axes
        axes.clear()
        if len(self._measured):
            axes.scatter(self._measured, self._predicted, s=9, c=_POINT, alpha=0.7, linewidths=0)
            rows = self._rows
            axes.scatter(
                self._measured[rows], self._predicted[rows], s=22, c=_CHOSEN, edgecolors="black", linewidths=0.5
            )
            both = np.concatenate([self._measured, self._predicted])
            low, high = float(both.min()), float(both.max())
            pad = 0.04 * max(high - low, 0.1)
            axes.plot([low, high], [low, high], lw=0.8, ls="--", c="gray", zorder=0)
            axes.set_xlim(low - pad, high + pad)
            axes.set_ylim(low - pad, high + pad)
        axes.set_xlabel("measured, log1p CP10k", fontsize=8)
        axes.set_ylabel("predicted", fontsize=8)
        axes.set_title(self._title, fontsize=9)
        axes.tick_params(labelsize=7)
        self._colour(self.palette().text().color().name())
        self._lasso = LassoSelector(axes, self._lassoed)
        self.canvas.draw_idle()

    def _colour(self, ink: str) -> None:
        """Texts and lines; the background is the dock's own."""
        axes = self.axes
        self.figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        self.canvas.setStyleSheet("background: transparent;")
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_color(ink)
        axes.tick_params(colors=ink)
        for spine in axes.spines.values():
            spine.set_color(ink)

    def _lassoed(self, vertices: list[tuple[float, float]]) -> None:
        points = np.stack([self._measured, self._predicted], axis=1)
        inside = Outline(vertices).contains_points(points) if len(vertices) > 2 else np.zeros(len(points), dtype=bool)
        self._rows = np.flatnonzero(inside)
        self._draw()
        self.selected.emit(self._rows)
