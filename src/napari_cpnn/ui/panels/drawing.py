"""Drawing of one panel: tissue, map and spots, composed once and then only moved while the panels are dragged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap, QTransform
from qtpy.QtWidgets import QWidget

from napari_cpnn.geometry import Rect
from napari_cpnn.ui.panels.furniture import draw_key, draw_scale_bar, draw_title
from napari_cpnn.ui.panels.lines import draw_lines
from napari_cpnn.ui.panels.panel import Key, Painted
from napari_cpnn.ui.panels.place import Place

if TYPE_CHECKING:
    from napari_cpnn.spots import Bins
    from napari_cpnn.ui.panels.tissue import Tissue

_GLASS = QColor(245, 245, 245)
_MOST_SMOOTH = 3000


@dataclass(frozen=True, eq=False)
class Content:
    """Tissue, and what was painted over it: the map with an opacity; or the tissue ``alone``."""

    tissue: Tissue | None
    painted: Painted
    image: QImage | None
    opacity: float
    alone: bool = False

    def key(self, place: Place) -> tuple[Any, ...]:
        """Return what a composed picture depends on, except the place."""
        sharp = None if self.tissue is None else self.tissue.sharp
        return sharp, self.painted, self.opacity, self.alone, place.px_per_um, place.rect.size()


class PanelDrawing:
    """Draws a panel, and keeps its composed picture and its titles between two frames."""

    def __init__(self) -> None:
        self._seen: tuple[Any, ...] = ()
        self._composed: tuple[QPixmap, Rect] | None = None
        self._furniture: tuple[tuple[Any, ...], QPixmap] | None = None

    def draw(self, painter: QPainter, place: Place, content: Content, ratio: float) -> None:
        """Draw the content; from the second frame of the same content on, the composed picture is moved."""
        key = content.key(place)
        same = len(key) == len(self._seen) and all(a is b or a == b for a, b in zip(key, self._seen, strict=True))
        if not same:
            self._seen, self._composed = key, None
        tissue = content.tissue
        if tissue is None or tissue.sharp is None or tissue.whole is None or not same:
            draw_content(painter, place, content, ratio)
            return
        image, um = tissue.sharp
        at = place.rect_of(um)
        if not place.is_filled_by(um, tissue.whole[1]) or abs(at.width() * ratio - image.width()) >= 0.5:
            draw_content(painter, place, content, ratio)
            return
        if self._composed is None:
            pixmap = QPixmap(image.size())
            pixmap.setDevicePixelRatio(ratio)
            pixmap.fill(_GLASS)
            size = QRectF(0, 0, image.width() / ratio, image.height() / ratio)
            inner = QPainter(pixmap)
            draw_content(inner, Place(size, um.center, place.px_per_um), content, ratio)
            inner.end()
            self._composed = pixmap, um
        painter.drawPixmap(_whole_pixel(at.topLeft(), ratio), self._composed[0])

    def draw_furniture(
        self, painter: QPainter, rect: QRectF, px_per_um: float, texts: tuple[str, str, Key | None], widget: QWidget
    ) -> None:
        """Draw title, second line, scale bar and key, which are kept while they are the same."""
        title, note, bar = texts
        ratio = widget.devicePixelRatioF()
        key = (title, note, bar, px_per_um, rect.size(), ratio)
        kept = self._furniture
        if kept is None or any(a is not b and a != b for a, b in zip(key, kept[0], strict=True)):
            pixmap = QPixmap(max(1, int(rect.width() * ratio)), max(1, int(rect.height() * ratio)))
            pixmap.setDevicePixelRatio(ratio)
            pixmap.fill(Qt.GlobalColor.transparent)
            inner, font = QPainter(pixmap), widget.font()
            own = QRectF(0, 0, rect.width(), rect.height())
            draw_title(inner, own, title, note, font)
            if px_per_um > 0:
                draw_scale_bar(inner, own, px_per_um, font)
            if bar is not None:
                draw_key(inner, own, bar, font)
            inner.end()
            kept = self._furniture = key, pixmap
        painter.drawPixmap(rect.topLeft(), kept[1])


def draw_content(painter: QPainter, place: Place, content: Content, ratio: float) -> None:
    """Draw tissue, map and spots."""
    if content.tissue is not None:
        _draw_tissue(painter, place, content.tissue, ratio)
    painted, image = content.painted, content.image
    if content.alone:
        return
    if image is not None and painted.rect is not None and content.opacity > 0:
        painter.setOpacity(content.opacity)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, on=painted.smooth)
        painter.drawImage(place.rect_of(painted.rect), image)
        painter.setOpacity(1.0)
    if painted.lines is not None and content.opacity > 0:
        draw_lines(painter, place, painted.lines)
    if painted.bins is not None and image is not None:
        _draw_bins(painter, place, painted.bins, image)
    else:
        _draw_spots(painter, place, painted)


def _draw_tissue(painter: QPainter, place: Place, tissue: Tissue, ratio: float) -> None:
    whole, sharp = tissue.whole, tissue.sharp
    if whole is not None and (sharp is None or not place.is_filled_by(sharp[1], whole[1])):
        painter.drawImage(place.rect_of(whole[1]), whole[0])
    if sharp is None:
        return
    at = place.rect_of(sharp[1])
    if abs(at.width() * ratio - sharp[0].width()) < 0.5:  # pixel by pixel
        corner = _whole_pixel(at.topLeft(), ratio)
        painter.drawImage(QRectF(corner.x(), corner.y(), sharp[0].width() / ratio, sharp[0].height() / ratio), sharp[0])
    else:
        painter.drawImage(at, sharp[0])


def _draw_spots(painter: QPainter, place: Place, painted: Painted) -> None:
    if painted.centers_um is None or painted.colors is None:
        return
    radius = painted.diameter_um / 2 * place.px_per_um
    near = place.near(painted.centers_um, painted.diameter_um)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, on=len(near) < _MOST_SMOOTH)
    painter.setPen(QPen(QColor(32, 32, 32), min(1.0, 0.15 * radius)) if radius > 2 else QPen(Qt.PenStyle.NoPen))
    for k in near:
        painter.setBrush(QColor.fromRgbF(*(float(c) for c in painted.colors[k])))
        painter.drawEllipse(place.point(*painted.centers_um[k]), radius, radius)


def _draw_bins(painter: QPainter, place: Place, bins: Bins, image: QImage) -> None:
    """Draw bins as one picture of which each pixel is a square, at its place."""
    frame = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) @ bins.affine[:2, :2].T + bins.affine[:2, 2]
    first, down, right = (place.point(float(y), float(x)) for y, x in frame)
    down, right = down - first, right - first
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, on=bins.side_um * place.px_per_um < 1)
    painter.setTransform(QTransform(right.x(), right.y(), down.x(), down.y(), first.x(), first.y()), combine=True)
    painter.drawImage(QPointF(-0.5, -0.5), image)
    painter.restore()


def draw_pointer(painter: QPainter, at: QPointF) -> None:
    """Draw a cross."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, on=False)
    for color, width in ((QColor(255, 255, 255, 220), 3.0), (QColor(0, 0, 0), 1.0)):
        painter.setPen(QPen(color, width))
        painter.drawLine(at - QPointF(9, 0), at + QPointF(9, 0))
        painter.drawLine(at - QPointF(0, 9), at + QPointF(0, 9))


def _whole_pixel(at: QPointF, ratio: float) -> QPointF:
    return QPointF(round(at.x() * ratio) / ratio, round(at.y() * ratio) / ratio)
