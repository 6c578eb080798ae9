"""Titles, colour bars, legends and scale bars of panels, readable on any tissue."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QImage, QPainter, QPainterPath, QPen

from napari_cpnn.geometry import length_text, scale_bar_um
from napari_cpnn.painting import format_value
from napari_cpnn.ui.panels.panel import Key
from napari_cpnn.ui.panels.tissue import image_of

_PAD, _BAR_PX, _SWATCH = 7.0, (96.0, 9.0), 10.0
_INK, _HALO, _BOX = QColor(0, 0, 0), QColor(255, 255, 255, 235), QColor(255, 255, 255, 205)
_HALO_PX = 4.0
#: Maximum height of a legend, as a share of its panel: more would cover the tissue.
_MOST_LEGEND = 0.33


def font_of(base: QFont, *, bold: bool = False, smaller: float = 0.0) -> QFont:
    """Return a font like ``base``."""
    font = QFont(base)
    font.setBold(bold)
    if base.pointSizeF() > 0:
        font.setPointSizeF(max(base.pointSizeF() - smaller, 6.0))
    return font


def draw_text(painter: QPainter, at: QPointF, text: str, font: QFont) -> None:
    """Draw black text with a white halo; ``at`` is the left end of its baseline."""
    path = QPainterPath()
    path.addText(at, font, text)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, on=True)
    pen = QPen(_HALO, _HALO_PX)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    painter.strokePath(path, pen)
    painter.fillPath(path, _INK)


def draw_title(painter: QPainter, rect: QRectF, title: str, note: str, font: QFont) -> float:
    """Draw the title of a panel and the note below it, each on as few lines as it needs; return the bottom of both."""
    room = rect.width() - 2 * _PAD - 26  # beside the button that removes the panel
    y = rect.top() + _PAD
    for text, one, most in ((title, font_of(font, bold=True), 3), (note, font_of(font, smaller=1.0), 2)):
        metrics = QFontMetricsF(one)
        for fitted in wrapped(text, metrics, room, most):
            draw_text(painter, QPointF(rect.left() + _PAD, y + metrics.ascent()), fitted, one)
            y += metrics.height() + 1
    return y


def wrapped(text: str, metrics: QFontMetricsF, room: float, most: int) -> list[str]:
    """Return a text in lines of at most ``room`` px, broken between words; the last one of ``most`` is cut short.

    Titles differ at their ends, where the names of model and slide are: one line, cut short, would hide them.
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(lines) == most or metrics.horizontalAdvance(longer) <= room):
            lines[-1] = longer
        elif word != "·":
            lines.append(word)
    return [metrics.elidedText(line.removesuffix(" ·"), Qt.TextElideMode.ElideMiddle, room) for line in lines]


def draw_key(painter: QPainter, rect: QRectF, key: Key, font: QFont) -> None:
    """Draw a colour bar or a legend in the lower left corner."""
    font = font_of(font, smaller=1.0)
    if key.limits is None:
        _draw_legend(painter, rect, key, font)
    else:
        _draw_bar(painter, rect, key, font)


def _draw_bar(painter: QPainter, rect: QRectF, key: Key, font: QFont) -> None:
    low, high = (format_value(v, key.unit) for v in key.limits or (0.0, 1.0))
    metrics = QFontMetricsF(font)
    unit = "share" if key.unit.startswith("share") else key.unit
    least = max(metrics.horizontalAdvance(unit), metrics.horizontalAdvance(low + high) + 10)
    width = max(min(_BAR_PX[0], rect.width() * 0.35), least)
    height = 2 * metrics.height() + _BAR_PX[1] + 5
    left, top = rect.left() + _PAD, rect.bottom() - _PAD - height
    painter.fillRect(QRectF(left - 3, top - 2, width + 6, height + 4), _BOX)
    painter.setFont(font)
    painter.setPen(_INK)
    painter.drawText(QPointF(left, top + metrics.ascent()), unit)
    colors = np.rint(255 * key.colors[None, :, :3]).astype(np.uint8)
    bar = QRectF(left, top + metrics.height() + 2, width, _BAR_PX[1])
    image: QImage = image_of(colors)
    painter.drawImage(bar, image)
    painter.setPen(QPen(QColor(90, 90, 90), 0.6))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawRect(bar)
    painter.setPen(_INK)
    base = bar.bottom() + 1 + metrics.ascent()
    painter.drawText(QPointF(left, base), low)
    painter.drawText(QPointF(left + width - metrics.horizontalAdvance(high), base), high)


def _draw_legend(painter: QPainter, rect: QRectF, key: Key, font: QFont) -> None:
    metrics = QFontMetricsF(font)
    line = metrics.height() + 1
    most = max(int(rect.height() * _MOST_LEGEND / line), 2)
    names = (
        list(key.names) if len(key.names) <= most else [*key.names[: most - 1], f"+ {len(key.names) - most + 1} more"]
    )
    if not names:
        return
    room = rect.width() * 0.6
    shown = [metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, room) for name in names]
    width = max(metrics.horizontalAdvance(name) for name in shown) + _SWATCH + 6
    height = line * len(shown)
    left, top = rect.left() + _PAD, rect.bottom() - _PAD - height
    painter.fillRect(QRectF(left - 3, top - 2, width + 6, height + 4), _BOX)
    painter.setFont(font)
    for k, name in enumerate(shown):
        y = top + k * line
        if names[k] == key.names[k]:
            color = QColor.fromRgbF(*(float(c) for c in key.colors[k][:3]))
            painter.fillRect(QRectF(left, y + (line - _SWATCH) / 2, _SWATCH, _SWATCH), color)
        painter.setPen(_INK)
        painter.drawText(QPointF(left + _SWATCH + 5, y + metrics.ascent()), name)


def draw_scale_bar(painter: QPainter, rect: QRectF, px_per_um: float, font: QFont) -> None:
    """Draw a scale bar in the lower right corner."""
    font = font_of(font, smaller=1.0)
    um = scale_bar_um(rect.width() / px_per_um * 0.8)
    length, text, metrics = um * px_per_um, length_text(um), QFontMetricsF(font)
    width = max(length, metrics.horizontalAdvance(text))
    height = metrics.height() + 5
    left, top = rect.right() - _PAD - width, rect.bottom() - _PAD - height
    painter.fillRect(QRectF(left - 3, top - 2, width + 6, height + 4), _BOX)
    painter.setFont(font)
    painter.setPen(_INK)
    middle = left + width / 2
    painter.drawText(QPointF(middle - metrics.horizontalAdvance(text) / 2, top + metrics.ascent()), text)
    painter.fillRect(QRectF(middle - length / 2, top + metrics.height() + 1, length, 3), _INK)
