"""Sheet of lines with bars at positions in pixels, without axes and ticks. No Qt here."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from napari_cpnn.texts import shown
from napari_cpnn.ui.frame import DPI, Paper

LINE, GAP, _FONT = 19, 8, 8.6
"""Height of a line, and of the gap between groups of lines, in pixels."""
CHAR_PX, BOLD_PX = 6.3, 7.6
"""Width of a letter in pixels."""


class Sheet:
    """Figure with lines one below the other."""

    def __init__(self, paper: Paper) -> None:
        self.paper, self.y = paper, 4.0
        self.figure = Figure(figsize=(paper.width_px / DPI, 1), dpi=DPI, facecolor=paper.ground)
        FigureCanvasAgg(self.figure)
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.axis("off")
        if paper.warning:
            self._warn(paper)

    def _warn(self, paper: Paper) -> None:
        ink, box = paper.warning_colors
        lines = textwrap.wrap(shown(paper.warning, 400), max(int((paper.width_px - 12) / BOLD_PX), 20))
        height = len(lines) * LINE + 8
        self.axes.add_patch(Rectangle((0, 0), paper.width_px, height, facecolor=box, linewidth=0))
        for line in lines:
            self.text(6, line, bold=True, color=ink)
            self.down()
        self.y = height + GAP

    def text(
        self, x: float, text: str, *, align: str = "left", bold: bool = False, faint: bool = False, color: str = ""
    ) -> None:
        self.axes.text(
            x,
            self.y + LINE / 2,
            shown(text, 400),
            parse_math=False,
            ha=align,
            va="center",
            fontsize=_FONT,
            color=color or self.paper.ink,
            alpha=0.75 if faint else 1.0,
            fontweight="bold" if bold else "normal",
        )

    def bar(
        self, x0: float, x1: float, color: str, *, height: float = 11, hatch: str = "", faint: bool = False
    ) -> None:
        box = Rectangle(
            (min(x0, x1), self.y + (LINE - height) / 2),
            max(abs(x1 - x0), 0.5),
            height,
            facecolor=color,
            edgecolor=self.paper.ink if hatch else color,
            linewidth=0.0 if not hatch else 0.4,
            hatch=hatch or None,
            alpha=0.4 if faint else 1.0,
        )
        self.axes.add_patch(box)

    def whisker(self, x0: float, x1: float) -> None:
        if np.isfinite(x0) and np.isfinite(x1):
            y = self.y + LINE / 2
            self.axes.plot([x0, x1], [y, y], color=self.paper.ink, linewidth=1.1, solid_capstyle="butt")
            for x in (x0, x1):
                self.axes.plot([x, x], [y - 3, y + 3], color=self.paper.ink, linewidth=1.1)

    def band(self, x0: float, x1: float, last: float) -> None:
        """Draw a pale band, with an arrow at its right end if it goes on beyond ``last``."""
        if np.isfinite(x0) and np.isfinite(x1):
            x0, x1, beyond = min(x0, last), min(x1, last), x1 > last
            box = Rectangle((x0, self.y + 1), x1 - x0, LINE - 2, facecolor=self.paper.ink, alpha=0.13)
            self.axes.add_patch(box)
            if beyond:
                self.axes.plot([last], [self.y + LINE / 2], marker=">", color=self.paper.ink, markersize=3, alpha=0.5)

    def rule(self, x: float, top: float, bottom: float) -> None:
        self.axes.plot([x, x], [top, bottom], color=self.paper.ink, linewidth=0.8, alpha=0.7)

    def down(self, by: float = LINE) -> None:
        self.y += by

    def done(self) -> Figure:
        if self.paper.source:
            self.down(GAP)
            self.text(4, cut(self.paper.source, self.paper.width_px / CHAR_PX), faint=True)
            self.down()
        height = self.y + 4
        self.figure.set_size_inches(self.paper.width_px / DPI, height / DPI)
        self.axes.set_xlim(0, self.paper.width_px)
        self.axes.set_ylim(height, 0)
        return self.figure


def cut(text: str, n_chars: float) -> str:
    """Shorten a text in its middle: long names differ at their ends as often as at their starts."""
    return shown(text, max(int(n_chars), 5))
