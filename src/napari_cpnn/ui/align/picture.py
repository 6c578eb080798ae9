"""The small picture in the Align dock: what is registered, with its landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QPoint, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QBrush, QColor, QFont, QImage, QMouseEvent, QPen, QPixmap, QResizeEvent, QWheelEvent
from qtpy.QtWidgets import QGraphicsItem, QGraphicsScene, QGraphicsView, QWidget

from napari_cpnn.arrays import FloatArray, Picture
from napari_cpnn.ui.frame import given

_DRAG_PX, _ZOOM = 5, 1.0015
_MARK_PX = 6.0
_MARK, _OPEN, _SPOT = QColor("#E69F00"), QColor("#D55E00"), QColor(120, 60, 160, 120)
_HEIGHT = 260


class MovingPicture(QGraphicsView):
    """Picture in micrometres, seen from afar or from near: the wheel zooms, a drag moves, a click is a landmark.

    Signals
    -------
    clicked
        Place ``(y, x)`` in um of the moving picture.
    """

    clicked = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene = QGraphicsScene(self)
        self.setScene(self._scene)
        self.setBackgroundBrush(QBrush(QColor("#F4F4F4")))
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.AnchorUnderMouse)
        self.setToolTip("click a place, and then the same on the slide; the wheel zooms, and dragging moves")
        self.setMinimumHeight(160)
        self._marks: list[QGraphicsItem] = []
        self._pressed: QPoint | None = None
        self._dragged = self._zoomed = False

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        return QSize(340, _HEIGHT)

    # -- what is shown -------------------------------------------------------------------------------------

    def show_picture(self, picture: Picture, um_per_px: tuple[float, float]) -> None:
        """Show an RGB picture whose outer corner is at (0, 0) um."""
        self._begin()
        height, width = picture.shape[:2]
        pixels = np.ascontiguousarray(picture).tobytes()  # the image does not copy them, the pixmap does
        image = QImage(pixels, width, height, 3 * width, QImage.Format.Format_RGB888)
        item = given(self._scene.addPixmap(QPixmap.fromImage(image)))
        item.setTransformationMode(Qt.TransformationMode.SmoothTransformation)
        item.setTransform(item.transform().scale(um_per_px[1], um_per_px[0]))
        self._end(QRectF(0, 0, width * um_per_px[1], height * um_per_px[0]))

    def add_spots(self, places_um: FloatArray, diameter_um: float) -> None:
        """Draw spots at ``(N, 2)``, ``(y, x)``: alone, or over the picture that came with them."""
        places = places_um[np.isfinite(places_um).all(axis=1)]
        if not len(places):
            return
        pen = QPen(_SPOT)
        pen.setCosmetic(True)
        corner = diameter_um / 2
        for y, x in places:
            self._scene.addEllipse(x - corner, y - corner, diameter_um, diameter_um, pen, QBrush(_SPOT))
        (top, left), (bottom, right) = places.min(axis=0) - diameter_um, places.max(axis=0) + diameter_um
        around = QRectF(left, top, right - left, bottom - top)
        self._end(around if self._scene.sceneRect().isEmpty() else self._scene.sceneRect().united(around))

    def clear_picture(self) -> None:
        """Show nothing."""
        self._begin()

    def show_marks(self, places_um: Sequence[tuple[float, float] | None], chosen: Sequence[int]) -> None:
        """Draw numbered landmarks, of one size at every zoom."""
        for item in self._marks:
            self._scene.removeItem(item)
        self._marks = []
        for number, place in enumerate(places_um, 1):
            if place is None:
                continue
            color = _OPEN if number - 1 in chosen else _MARK
            pen = QPen(color, 2)
            ring = given(self._scene.addEllipse(-_MARK_PX, -_MARK_PX, 2 * _MARK_PX, 2 * _MARK_PX, pen))
            font = QFont(self.font())
            font.setBold(True)
            text = given(self._scene.addSimpleText(str(number), font))
            text.setBrush(QBrush(color))
            for item in (ring, text):
                item.setPos(QPointF(place[1], place[0]))
                item.setFlag(QGraphicsItem.GraphicsItemFlag.ItemIgnoresTransformations)
                item.setZValue(1)
            text.setTransform(text.transform().translate(_MARK_PX + 1, -2.5 * _MARK_PX))
            self._marks += [ring, text]

    def place_of(self, um: tuple[float, float]) -> QPoint:
        """Return where a place ``(y, x)`` is in the widget, in pixels."""
        return self.mapFromScene(QPointF(um[1], um[0]))

    def _begin(self) -> None:
        self._marks = []
        self._scene.clear()
        self._scene.setSceneRect(QRectF())
        self._zoomed = False

    def _end(self, extent: QRectF) -> None:
        self._scene.setSceneRect(extent)
        self._fit()

    def _fit(self) -> None:
        if not self._scene.sceneRect().isEmpty() and not self._zoomed:
            self.fitInView(self._scene.sceneRect(), Qt.AspectRatioMode.KeepAspectRatio)

    # -- mouse ---------------------------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().resizeEvent(event)
        self._fit()

    def wheelEvent(self, event: QWheelEvent | None) -> None:  # noqa: N802 (Qt's name)
        factor = _ZOOM ** given(event).angleDelta().y()
        self._zoomed = True
        whole = given(self.viewport()).width() / max(self._scene.sceneRect().width(), 1e-9)
        if 0.5 * whole < self.transform().m11() * factor < 500 * whole:
            self.scale(factor, factor)
        given(event).accept()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(event).button() == Qt.MouseButton.LeftButton:
            self._pressed, self._dragged = given(event).pos(), False

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        if self._pressed is None:
            return
        step = given(event).pos() - self._pressed
        if self._dragged or step.manhattanLength() > _DRAG_PX:
            self._dragged = True
            self._pressed = given(event).pos()
            for bar, change in ((self.horizontalScrollBar(), step.x()), (self.verticalScrollBar(), step.y())):
                given(bar).setValue(given(bar).value() - change)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        pressed, self._pressed = self._pressed, None
        if pressed is not None and not self._dragged and not self._scene.sceneRect().isEmpty():
            place = self.mapToScene(given(event).pos())
            if self._scene.sceneRect().contains(place):
                self.clicked.emit(place.y(), place.x())
