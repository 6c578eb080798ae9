"""Overview in a corner of the canvas: the whole slide with the rectangle of the view, and the magnification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_cpnn.arrays import Picture
from napari_cpnn.ui.canvas.fading import magnification_text
from napari_cpnn.ui.frame import Background, given
from napari_cpnn.ui.layers import um_to_world
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.mapping import Viewport
    from napari_cpnn.slides import Slide

#: Longer side of the picture, and distances from the right and the bottom, where napari's scale bar is.
_SIDE_PX, _RIGHT_PX, _BOTTOM_PX = 180, 12, 66
_PAD = 4
#: Share of the slide that must be out of view for the picture to be of use.
_LEAST_HIDDEN = 0.05


class Overview(QWidget):
    """Picture of the slide that jumps to where it is clicked, and follows a drag; hidden without a pixel size."""

    def __init__(self, viewer: ViewerModel, state: ExploreState, background: Background, canvas: QWidget) -> None:
        super().__init__(canvas)
        self._viewer, self._state, self._background = viewer, state, background
        self._slide: Slide | None = None
        self._pixmap: QPixmap | None = None
        self._view: Viewport | None = None
        self._picture_wanted = True
        self.setToolTip("the whole slide: click or drag to move the view")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys go on to the canvas
        canvas.installEventFilter(self)
        # The picture may arrive after the canvas, and this with it, was deleted.
        deleted: list[bool] = []
        self._deleted = deleted
        self.destroyed.connect(lambda: deleted.append(True))
        self.hide()

    @property
    def shows_picture(self) -> bool:
        """True when the picture is on screen: parts of the slide are out of view."""
        return self._picture_wanted and self._pixmap is not None and self._hidden_share() > _LEAST_HIDDEN

    @property
    def text(self) -> str:
        """The magnification, such as ``20x (0.5 µm/px)``."""
        return "" if self._view is None else magnification_text(self._view.px_per_um * self._state.pixel_ratio)

    def set_picture_wanted(self, on: bool) -> None:
        """Show the picture, or the magnification alone."""
        self._picture_wanted = on
        self._layout()

    def set_view(self, view: Viewport | None) -> None:
        """Show another view."""
        slide = self._state.slide
        self._view = view if slide is not None and slide.mpp is not None else None
        self._state.set_pixel_ratio(given(self.parentWidget()).devicePixelRatioF())
        if slide is not self._slide:
            self._slide, self._pixmap = slide, None
            if slide is not None:
                self._background(
                    lambda: slide.thumbnail(2 * _SIDE_PX), lambda p: self._picture_ready(slide, p), _ignore
                )
        self._layout()

    def view_rect(self) -> QRectF:
        """Return the rectangle of the view, in pixels of this widget."""
        if self._view is None:
            return QRectF()
        (height, width), rect, box = self._extent(), self._view.rect, self._picture_box()
        sx, sy = box.width() / width, box.height() / height
        corner = QPointF(box.left() + rect.x0 * sx, box.top() + rect.y0 * sy)
        found = QRectF(corner.x(), corner.y(), rect.width * sx, rect.height * sy)
        return found.intersected(box)

    # -- Qt ------------------------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 (Qt's name)
        """Stay in the corner when the canvas changes its size."""
        if given(event).type() == QEvent.Type.Resize:
            self._layout()
        return super().eventFilter(watched, event)

    def paintEvent(self, _event: QPaintEvent | None) -> None:  # noqa: N802 (Qt's name)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.fillRect(self.rect(), QColor(0, 0, 0, 170))
        if self.shows_picture and self._pixmap is not None:
            painter.drawPixmap(self._picture_box(), self._pixmap, QRectF(self._pixmap.rect()))
            for color, width in ((QColor("white"), 4.0), (QColor("#D00000"), 2.0)):
                painter.setPen(QPen(color, width))
                painter.drawRect(self.view_rect())
        painter.setPen(QColor("white"))
        caption = QRectF(0, self.height() - self._caption_px(), self.width(), self._caption_px())
        painter.drawText(caption, Qt.AlignmentFlag.AlignCenter, self.text)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        self._jump(given(event))

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(event).buttons() & Qt.MouseButton.LeftButton:
            self._jump(given(event))

    def end(self) -> None:
        """Leave the canvas."""
        canvas = self.parentWidget()
        if canvas is not None:
            canvas.removeEventFilter(self)
        self.hide()
        self.deleteLater()

    # -- inside --------------------------------------------------------------------------------------------

    def _jump(self, event: QMouseEvent) -> None:
        layer, slide, box = self._state.layer, self._state.slide, self._picture_box()
        if not self.shows_picture or layer is None or slide is None or slide.mpp is None:
            return
        height, width = self._extent()
        at = event.position()
        um = np.array(
            [
                np.clip((at.y() - box.top()) / box.height(), 0, 1) * height,
                np.clip((at.x() - box.left()) / box.width(), 0, 1) * width,
            ]
        )
        centre = um_to_world(layer, slide.mpp, um)[0]
        camera = self._viewer.scene.camera
        camera.center = (*camera.center[:-2], float(centre[0]), float(centre[1]))

    def _picture_ready(self, slide: Slide, picture: Picture) -> None:
        if self._deleted or slide is not self._slide or picture.ndim != 3:
            return
        rgb = picture[..., :3]
        image = QImage(rgb.tobytes(), rgb.shape[1], rgb.shape[0], 3 * rgb.shape[1], QImage.Format.Format_RGB888)
        self._pixmap = QPixmap.fromImage(image.copy())
        self._layout()

    def _extent(self) -> tuple[float, float]:
        """Return height and width of the slide in um."""
        slide = self._slide
        mpp = (1.0, 1.0) if slide is None or slide.mpp is None else slide.mpp
        shape = (1, 1) if slide is None else slide.shape[:2]
        return shape[0] * mpp[0], shape[1] * mpp[1]

    def _hidden_share(self) -> float:
        if self._view is None:
            return 0.0
        (height, width), r = self._extent(), self._view.rect
        seen = max(0.0, min(r.y1, height) - max(r.y0, 0.0)) * max(0.0, min(r.x1, width) - max(r.x0, 0.0))
        return 1.0 - seen / (height * width)

    def _picture_box(self) -> QRectF:
        height, width = self._extent()
        scale = _SIDE_PX / max(height, width)
        return QRectF((self.width() - width * scale) / 2, _PAD, width * scale, height * scale)

    def _caption_px(self) -> int:
        return self.fontMetrics().height() + 4

    def _layout(self) -> None:
        canvas = self.parentWidget()
        if self._view is None or canvas is None:
            self.hide()
            return
        size = QSize(self.fontMetrics().horizontalAdvance(self.text) + 16, self._caption_px())
        if self.shows_picture:
            box = self._picture_box()
            size = QSize(max(size.width(), int(box.width()) + 2 * _PAD), size.height() + int(box.height()) + 2 * _PAD)
        self.resize(size)
        self.move(canvas.width() - size.width() - _RIGHT_PX, canvas.height() - size.height() - _BOTTOM_PX)
        self.setVisible(size.height() + _BOTTOM_PX < canvas.height())
        self.raise_()
        self.update()


def canvas_of(window: QMainWindow) -> QWidget | None:
    """Return the widget that napari draws on, in the middle of its window; napari's own name for it is private."""
    middle = window.centralWidget()
    return None if middle is None else middle.findChild(QOpenGLWidget)


def _ignore(_error: Any) -> None:
    """Keep the magnification when a slide has no picture."""
