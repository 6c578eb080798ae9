"""Colour bar with limits and unit, drawn like the map: low values fade to the slide."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_cpnn.arrays import Float32Array, IntArray
from napari_cpnn.painting import FULL_MARGIN, color_table, format_value, on_tissue, strength_of

_BAR_PX, _COUNTS_PX = 12, 26


class ColorBar(QWidget):
    """Horizontal colour bar."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._limits = (0.0, 1.0)
        self._unit = ""
        self._table: Float32Array | None = None  # colour maps are loaded when one is drawn
        self._counts: IntArray | None = None
        self._note = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_range(self, colormap: str, limits: tuple[float, float], unit: str) -> None:
        """Show a colour map between two values."""
        self.show_table(color_table(colormap), limits, unit)

    def show_lead(self) -> None:
        """Show how pale a dominant type is that leads the second by little."""
        leads = np.linspace(0, FULL_MARGIN, 256, dtype=np.float32)
        table = np.concatenate([np.full((256, 3), 0.2, np.float32), strength_of(leads)[:, None]], axis=1)
        self.show_table(table, (0.0, FULL_MARGIN), "share ahead of the second type")

    def show_table(self, table: Float32Array, limits: tuple[float, float], unit: str) -> None:
        """Show colours ``(256, 4)`` between two values."""
        self._table, self._limits, self._unit = table, limits, unit
        self._describe()
        self.update()

    def show_counts(self, counts: IntArray | None, note: str = "") -> None:
        """Show a histogram ``(bins,)`` between the two values above the bar, or none; a note explains it."""
        resized = (counts is None) != (self._counts is None)
        self._counts, self._note = counts, note
        if resized:
            self.updateGeometry()
        self._describe()
        self.update()

    def _describe(self) -> None:
        low, high = (format_value(value, self._unit) for value in self._limits)
        self.setToolTip("\n".join(filter(None, (f"{low} to {high} {self._unit}", self._note))))

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        return QSize(200, self._top() + _BAR_PX + self.fontMetrics().height() + 6)

    def _top(self) -> int:
        return 0 if self._counts is None else _COUNTS_PX

    def paintEvent(self, _event: QPaintEvent | None) -> None:  # noqa: N802 (Qt's name)
        painter = QPainter(self)
        top = self._top()
        painter.drawImage(
            QRect(0, top + 2, self.width(), _BAR_PX),
            _gradient(color_table("viridis") if self._table is None else self._table),
        )
        text = self.palette().color(self.foregroundRole())
        if self._counts is not None:
            most = max(int(self._counts.max(initial=0)), 1)
            edges = np.linspace(0, self.width(), len(self._counts) + 1).round().astype(int).tolist()
            for left, right, count in zip(edges, edges[1:], self._counts.tolist(), strict=False):
                height = max(round(count / most * (_COUNTS_PX - 2)), int(count > 0))
                painter.fillRect(QRect(left, top - height, right - left, height), QColor(text))
        painter.setPen(QColor(text))
        low, high = (format_value(v, self._unit) for v in self._limits)
        room = QRect(0, top + _BAR_PX + 4, self.width(), self.fontMetrics().height())
        painter.drawText(room, Qt.AlignmentFlag.AlignLeft, low)
        painter.drawText(room, Qt.AlignmentFlag.AlignHCenter, self._unit)
        painter.drawText(room, Qt.AlignmentFlag.AlignRight, high)


def _gradient(table: Float32Array) -> QImage:
    pixels = np.ascontiguousarray(np.rint(255 * on_tissue(table)).astype(np.uint8)[None])
    return QImage(pixels.tobytes(), 256, 1, 3 * 256, QImage.Format.Format_RGB888).copy()
