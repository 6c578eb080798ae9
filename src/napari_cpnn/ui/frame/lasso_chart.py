"""Chart of points, of which some are selected with a lasso."""

from __future__ import annotations

import numpy as np
from matplotlib.path import Path as Outline
from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.ui.frame.chart_view import ChartView
from napari_cpnn.ui.frame.paper import DPI
from napari_cpnn.ui.frame.tasks import Background

CHOSEN = "#ff4500"
"""Colour of selected points."""
_NONE: IntArray = np.empty(0, dtype=np.intp)
#: A lasso with fewer points is a click.
_LEAST_STROKE = 3


class LassoChart(ChartView):
    """Chart whose first axes have points; a subclass defines ``points`` and ``_show``.

    Signals
    -------
    selected
        Indices ``(k,)`` of the points inside the lasso; empty when the selection is cleared.
    """

    selected = Signal(object)

    def __init__(self, background: Background) -> None:
        super().__init__(background)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.rows = _NONE
        self._stroke: list[QPointF] = []

    def points(self) -> FloatArray | None:
        """Return the points ``(n, 2)`` as ``(x, y)``; ``None`` without any."""
        raise NotImplementedError

    def select(self, rows: IntArray) -> None:
        """Highlight some of the points."""
        self.rows = rows
        self._show()

    def lasso(self, outline: FloatArray) -> None:
        """Select the points inside an outline ``(k, 2)``."""
        points = self.points()
        if points is None:
            return
        rows = _NONE
        if len(outline) >= _LEAST_STROKE:
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
            painter.setPen(QPen(QColor(CHOSEN), 1.5))
            painter.drawPolygon(QPolygonF(self._stroke))

    def _show(self) -> None:
        """Draw the points, with those that are selected."""
        raise NotImplementedError
