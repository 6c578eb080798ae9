"""Loss and held-out correlation over the epochs of a run, as it goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

_LOSS, _EXPRESSION, _PCC, _SCC = "#888888", "#E69F00", "#56B4E9", "#009E73"
_HEIGHT_PX = 170


class Curves(QWidget):
    """The chart; empty until a first epoch is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.figure = Figure(figsize=(3.6, 1.7), dpi=100, layout="constrained")
        self.canvas = FigureCanvasQTAgg(self.figure)
        self.canvas.setMinimumHeight(_HEIGHT_PX)
        self.canvas.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("left: loss on the training spots; right: mean correlation over genes in the held-out spots")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas)
        self.loss, self.score = self.figure.subplots(1, 2)
        self._history: Sequence[dict[str, float]] = ()

    def set_history(self, history: Sequence[dict[str, float]]) -> None:
        """Show a run: rows of its ``metrics.csv``."""
        if tuple(history) != tuple(self._history):
            self._history = history
            self._draw()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 (Qt's name)
        """Follow napari's theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._draw()

    def _draw(self) -> None:
        rows = self._history
        epochs = [row["epoch"] for row in rows]
        for axes, title in ((self.loss, "loss"), (self.score, "held-out correlation")):
            axes.clear()
            axes.set_title(title, fontsize=8)
            axes.set_xlabel("epoch", fontsize=8)
        if rows:
            _line(self.loss, epochs, rows, "loss", _LOSS, "total")
            _line(self.loss, epochs, rows, "expression_loss", _EXPRESSION, "expression")
            pcc = np.array([row.get("held_out_pcc", np.nan) for row in rows])
            if np.isfinite(pcc).any():
                _line(self.score, epochs, rows, "held_out_pcc", _PCC, "PCC")
                _line(self.score, epochs, rows, "held_out_scc", _SCC, "SCC")
                best = int(np.nanargmax(pcc))
                self.score.plot(epochs[best], pcc[best], "o", color=_PCC, markersize=7, fillstyle="none")
        self._colour()
        self.canvas.draw_idle()

    def _colour(self) -> None:
        palette = self.palette()
        ink, ground = palette.color(palette.ColorRole.WindowText).name(), palette.color(palette.ColorRole.Window).name()
        self.figure.set_facecolor(ground)
        for axes in (self.loss, self.score):
            axes.set_facecolor(ground)
            axes.tick_params(colors=ink, labelsize=7)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.title.set_color(ink)
            axes.xaxis.label.set_color(ink)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(ink)
            if axes.lines:
                axes.legend(frameon=False, fontsize=7, labelcolor=ink)


def _line(axes: Axes, epochs: list[float], rows: Sequence[dict[str, float]], name: str, color: str, label: str) -> None:
    values = [row.get(name, np.nan) for row in rows]
    axes.plot(epochs, values, color=color, label=label, linewidth=1.5, marker="." if len(rows) < 40 else None)
