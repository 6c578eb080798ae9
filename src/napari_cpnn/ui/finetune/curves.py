"""Chart of loss and held-out correlation over the epochs of a run."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from napari_cpnn.training.fit import curves_figure
from napari_cpnn.ui.frame import DPI, Background, ChartView, Paper

_HEIGHT_PX = 175


class Curves(ChartView):
    """Chart of a run; empty until the first epoch is complete."""

    def __init__(self, background: Background) -> None:
        super().__init__(background)
        self.setToolTip("left: loss on the training spots; right: mean correlation over genes in the held-out spots")
        self._history: tuple[dict[str, float], ...] = ()

    def set_history(self, history: Sequence[dict[str, float]]) -> None:
        """Show the rows of a run's ``metrics.csv``."""
        rows = tuple(history)
        if rows == self._history:
            return
        self._history = rows

        def draw(paper: Paper) -> Figure:
            size = (paper.width_px / DPI, _HEIGHT_PX / DPI)
            return curves_figure(rows, size, DPI, ink=paper.ink, ground=paper.ground)

        self.show_chart(draw if rows else None)
