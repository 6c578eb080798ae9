"""Contours, borders and outlines of patches in a panel."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QLineF, Qt
from qtpy.QtGui import QColor, QPainter, QPen

from napari_cpnn.ui.canvas import LINE_PX
from napari_cpnn.ui.panels.panel import Lines
from napari_cpnn.ui.panels.place import Place

_MARGIN = QColor(255, 255, 255, 204)
#: More lines than this have no margins, and are not smoothed.
_MOST_WITH_MARGIN = 6000
#: Steps of each channel in which colours are told apart.
_STEPS = 32


def draw_lines(painter: QPainter, place: Place, lines: Lines) -> None:
    """Draw the lines in view, of the same width at every zoom."""
    middle = (lines.starts_um + lines.ends_um) / 2
    longest = float(np.abs(lines.ends_um - lines.starts_um).max(initial=0.0))
    near = np.array(place.near(middle, longest), dtype=np.intp)
    if not len(near):
        return
    corner = place.point(0.0, 0.0)
    yx = np.array([corner.y(), corner.x()])
    starts, ends = (part[near] * place.px_per_um + yx for part in (lines.starts_um, lines.ends_um))
    drawn = [QLineF(x0, y0, x1, y1) for (y0, x0), (y1, x1) in zip(starts.tolist(), ends.tolist(), strict=True)]
    few = len(drawn) <= _MOST_WITH_MARGIN
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, on=few)
    if lines.margin and few:
        painter.setPen(_pen(_MARGIN, 2 * LINE_PX))
        painter.drawLines(*drawn)
    colors, which = np.unique(np.rint(lines.colors[near] * _STEPS), axis=0, return_inverse=True)
    for k, color in enumerate(colors):
        painter.setPen(_pen(QColor.fromRgbF(*(float(c) for c in color / _STEPS)), LINE_PX))
        painter.drawLines(*(drawn[i] for i in np.flatnonzero(which.ravel() == k)))


def _pen(color: QColor, width: float) -> QPen:
    return QPen(color, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap)
