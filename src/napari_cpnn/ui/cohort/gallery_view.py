"""Gallery of the slides of a cohort."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QModelIndex, QRect, QSize, Qt
from qtpy.QtGui import QColor, QImage, QKeyEvent, QPainter, QPen
from qtpy.QtWidgets import QAbstractItemView, QListView, QStyle, QStyledItemDelegate, QStyleOptionViewItem

from napari_cpnn.ui.cohort.slide_model import MARKED, PICTURE, STATUS
from napari_cpnn.ui.frame import given

_SIDE_PX, _MARGIN_PX, _FRAME_PX = 96, 5, 3
_WARNING = QColor("#F2B705")


class SlideDelegate(QStyledItemDelegate):
    """Draws a slide: its picture, a frame of its colour, its name, and a sign where there is something to be said."""

    def sizeHint(self, option: QStyleOptionViewItem, _index: QModelIndex) -> QSize:  # noqa: N802 (Qt's name)
        side = _SIDE_PX + 2 * _MARGIN_PX
        return QSize(side, side + option.fontMetrics.height() + 2)

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        painter = given(painter)
        painter.save()
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        if chosen:
            painter.fillRect(option.rect, option.palette.highlight())
        box = QRect(option.rect.left() + _MARGIN_PX, option.rect.top() + _MARGIN_PX, _SIDE_PX, _SIDE_PX)
        picture, color = index.data(PICTURE), index.data(Qt.ItemDataRole.DecorationRole)
        text = option.palette.highlightedText() if chosen else option.palette.text()
        painter.setPen(QPen(text.color()))
        place = box
        if isinstance(picture, QImage):
            size = picture.size().scaled(box.size(), Qt.AspectRatioMode.KeepAspectRatio)
            place = QRect(box.topLeft(), size)
            place.moveCenter(box.center())
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(place, picture)
        else:
            words = str(index.data(STATUS) or "")
            painter.setOpacity(0.6)
            painter.drawRect(box.adjusted(0, 0, -1, -1))
            painter.drawText(box, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), words)
            painter.setOpacity(1.0)
        if isinstance(color, QColor):
            painter.setPen(QPen(color, _FRAME_PX))
            painter.drawRect(place.adjusted(-1, -1, 0, 0))
        if index.data(MARKED):
            self._draw_sign(painter, place)
        below = QRect(box.left(), box.bottom() + 2, box.width(), option.fontMetrics.height())
        name = option.fontMetrics.elidedText(str(index.data()), Qt.TextElideMode.ElideMiddle, box.width())
        painter.setPen(QPen(text.color()))
        painter.drawText(below, int(Qt.AlignmentFlag.AlignCenter), name)
        painter.restore()

    @staticmethod
    def _draw_sign(painter: QPainter, place: QRect) -> None:
        side = 16
        corner = QRect(place.right() - side, place.top() + 1, side, side)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(_WARNING)
        painter.drawEllipse(corner)
        painter.setPen(QPen(QColor("#000000")))
        painter.drawText(corner, int(Qt.AlignmentFlag.AlignCenter), "!")


class GalleryView(QListView):
    """Pictures side by side, in the order of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMovement(QListView.Movement.Static)
        self.setUniformItemSizes(True)
        self.setSpacing(2)
        self.setItemDelegate(SlideDelegate(self))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumHeight(_SIDE_PX + 40)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(event).key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.activated.emit(self.currentIndex())  # some styles want a double click only
            return
        super().keyPressEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().changeEvent(event)
        if given(event).type() == QEvent.Type.StyleChange:
            self.scheduleDelayedItemsLayout()
