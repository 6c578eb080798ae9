"""The canvas of the panels: one widget that draws them all, with one place and one zoom.

Each panel is drawn with Qt's painter from pictures that are read and painted in the background, so that a drag only
moves pictures. Panels as layers of napari's grid, or as canvases of their own, were measured: see docs/architecture.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QEnterEvent,
    QFocusEvent,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QWheelEvent,
)
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QLineEdit, QSizePolicy, QToolButton, QWidget

from napari_cpnn.ui.canvas import fading
from napari_cpnn.ui.frame import given, plain, tool_button
from napari_cpnn.ui.panels.drawing import Content, PanelDrawing, draw_pointer
from napari_cpnn.ui.panels.link import ViewLink, arrange, rect_around
from napari_cpnn.ui.panels.outlines import OutlinesOnScreen, draw_outlines
from napari_cpnn.ui.panels.panel import MOST_PANELS, Painted
from napari_cpnn.ui.panels.place import Place
from napari_cpnn.ui.panels.tissue import Tissue, image_of

if TYPE_CHECKING:
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.frame import Background
    from napari_cpnn.ui.panels.controller import PanelsController

_GAP = 4
_GLASS = QColor(245, 245, 245)
_ZOOM_STEP = 1.2
_MOST_ZOOM = 20.0
_PAN_SHARE = 0.1
_PEEK_KEYS = (Qt.Key.Key_H, Qt.Key.Key_Space)


class PanelCanvas(QWidget):
    """Draws panels; a drag moves them all, the wheel zooms them all, and the pointer is shown in each.

    Signals
    -------
    remove_wanted
        The button of a panel was pressed.
    opened
        A panel was clicked twice.
    pointed
        The pointer moved to a place of the slide of Explore (um), or away (None).
    """

    remove_wanted = Signal(int)
    opened = Signal(int)
    pointed = Signal(object)

    def __init__(
        self, controller: PanelsController, link: ViewLink, outlines: OutlinesOnScreen, background: Background
    ) -> None:
        super().__init__()
        self.outlines = outlines
        self._controller, self._link, self._background = controller, link, background
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAccessibleName("panels side by side")
        self.tissues: dict[int, Tissue] = {}
        self.buttons: list[QToolButton] = []
        self._images: list[tuple[Painted, QImage | None]] = []
        self._drawings = [PanelDrawing() for _ in range(MOST_PANELS)]
        self._rects: list[QRectF] = []
        self._center, self.px_per_um, self._share = (0.0, 0.0), 0.0, 1.0
        self._pressed: tuple[QPointF, int] | None = None
        self._pointer: tuple[float, float] | None = None
        self.peeking = False
        self.n_drawn = 0
        controller.changed.connect(self._panels_changed)
        controller.painted_changed.connect(self._repaint)

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        return QSize(900, 700)

    def stop(self) -> None:
        """Disconnect, and ignore what is still being read."""
        self._controller.changed.disconnect(self._panels_changed, missing_ok=True)
        self._controller.painted_changed.disconnect(self._repaint, missing_ok=True)
        for tissue in self.tissues.values():
            tissue.close()
        self.tissues.clear()

    @property
    def is_settled(self) -> bool:
        """True when the tissue in view is read."""
        return all(tissue.is_settled for tissue in self.tissues.values())

    def _repaint(self) -> None:
        self.update()

    # -- places --------------------------------------------------------------------------------------------

    def _panels_changed(self) -> None:
        n = len(self._controller.panels)
        while len(self.buttons) < n:
            button = tool_button("✕", "remove this panel")
            button.setParent(self)
            button.setStyleSheet("QToolButton { background: rgba(255, 255, 255, 200); color: black; border: none; }")
            button.setCursor(Qt.CursorShape.ArrowCursor)
            number = len(self.buttons)
            button.clicked.connect(lambda _=False, k=number: self.remove_wanted.emit(k))
            self.buttons.append(button)
        for k, button in enumerate(self.buttons):
            button.setVisible(k < n)
        self.arrange()

    def arrange(self) -> None:
        """Place the panels, and show in them what the single view would show."""
        panels = self._controller.panels
        self._rects = []
        if panels:
            rows, cols = arrange(len(panels), (self.height(), self.width()), self._aspect())
            width = (self.width() - (cols - 1) * _GAP) / cols
            height = (self.height() - (rows - 1) * _GAP) / rows
            for k in range(len(panels)):
                row, col = divmod(k, cols)
                x, y = round(col * (width + _GAP)), round(row * (height + _GAP))
                self._rects.append(QRectF(x, y, int(width), int(height)))
                if k < len(self.buttons):
                    self.buttons[k].setGeometry(x + int(width) - 25, y + 5, 20, 20)
                    self.buttons[k].setToolTip(plain(f"remove the panel {self._controller.titles()[k]}"))
        self.follow()

    def _aspect(self) -> float:
        """Return the height of the slide by its width."""
        slide = self._controller.state.slide
        return 1.0 if slide is None else slide.shape[0] / max(slide.shape[1], 1)

    def rect_of(self, number: int) -> QRectF:
        """Return the place of a panel, px of this widget."""
        return self._rects[number]

    def follow(self) -> None:
        """Show the place where the camera of the viewer is."""
        found = self._link.read()
        if found is None or not self._rects:
            self.update()
            return
        self._center, zoom, (height, width) = found
        rect = self._rects[0]
        # The whole slide fills a panel when it fills the single view, whatever the shapes of both.
        aspect = self._aspect()
        self._share = min(rect.height() / aspect, rect.width()) / max(min(height / aspect, width), 1.0)
        self.px_per_um = zoom * self._share
        view = rect_around(self._center, (rect.height(), rect.width()), self.px_per_um)
        self._controller.set_view(view, self.px_per_um)
        self._want_tissue()
        self.update()

    def follow_if_new(self) -> None:
        """Read the tissue of a slide that was opened meanwhile."""
        for k, spec in enumerate(self._controller.panels):
            slide, tissue = self._controller.slide_of(k), self.tissues.get(spec.source.slide)
            if slide is not None and (tissue is None or tissue.slide is not slide):
                self.follow()
                return

    def _want_tissue(self) -> None:
        ratio = self.devicePixelRatioF()
        seen: dict[int, Slide] = {}
        for k, spec in enumerate(self._controller.panels):
            slide = self._controller.slide_of(k)
            if slide is not None and slide.mpp is not None:
                seen[spec.source.slide] = slide
        for key, tissue in list(self.tissues.items()):
            if seen.get(key) is not tissue.slide:
                tissue.close()
                del self.tissues[key]
        for spec in self._controller.panels:
            key = spec.source.slide
            view = self._controller.view_of(spec.source)
            if key in seen and view is not None:
                if key not in self.tissues:
                    self.tissues[key] = Tissue(seen[key], self._background, self._repaint)
                self.tissues[key].want(view, self.px_per_um * ratio)

    def um_at(self, at: QPointF, number: int) -> tuple[float, float]:
        """Return the place on the slide of Explore under a point of a panel."""
        middle = self._rects[number].center()
        y, x = self._center
        return y + (at.y() - middle.y()) / self.px_per_um, x + (at.x() - middle.x()) / self.px_per_um

    @property
    def _screen_px(self) -> float:
        """Pixels of the screen per um, on which the magnification depends."""
        return self.px_per_um * self.devicePixelRatioF()

    def _panel_at(self, at: QPointF) -> int:
        return next((k for k, rect in enumerate(self._rects) if rect.contains(at)), -1)

    # -- mouse and keys ------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        at = given(event).position()
        number = self._panel_at(at)
        if given(event).button() == Qt.MouseButton.LeftButton and number >= 0:
            self._pressed = at, number
            self.setCursor(Qt.CursorShape.ClosedHandCursor)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        at = given(event).position()
        if self._pressed is not None and self.px_per_um > 0:
            before, number = self._pressed
            dy, dx = ((b - a) / self.px_per_um for a, b in ((before.y(), at.y()), (before.x(), at.x())))
            self._pressed = at, number
            spec = self._controller.panels[number] if number < len(self._controller.panels) else None
            if spec is not None and spec.source.slide and given(event).modifiers() & Qt.KeyboardModifier.ShiftModifier:
                self._controller.move_slide(spec.source.slide, dy, dx)
                self._want_tissue()
            else:
                self._link.move((self._center[0] - dy, self._center[1] - dx), self.px_per_um / self._share)
        number = self._panel_at(at)
        self._pointer = self.um_at(at, number) if number >= 0 and self.px_per_um > 0 else None
        self.pointed.emit(self._pointer)
        self.update()

    def mouseReleaseEvent(self, _event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        self._pressed = None
        self.unsetCursor()

    def mouseDoubleClickEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 (Qt's name)
        number = self._panel_at(given(event).position())
        if number >= 0:
            self._pressed = None
            self.unsetCursor()
            self.opened.emit(number)

    def wheelEvent(self, event: QWheelEvent | None) -> None:  # noqa: N802 (Qt's name)
        at, turned = given(event).position(), given(event).angleDelta().y()
        number = self._panel_at(at)
        if number >= 0 and turned and self.px_per_um > 0:
            self.zoom(_ZOOM_STEP ** (turned / 120), self.um_at(at, number))
        given(event).accept()

    def zoom(self, factor: float, around: tuple[float, float]) -> None:
        """Zoom all panels around a place, which stays where it is."""
        wanted = min(self.px_per_um * factor, _MOST_ZOOM)
        factor = wanted / self.px_per_um
        y, x = (a + (c - a) / factor for a, c in zip(around, self._center, strict=True))
        self._link.move((y, x), wanted / self._share)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        key = given(event).key()
        if key in _PEEK_KEYS:
            self._peek(True)
        elif key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus) and self.px_per_um > 0:
            self.zoom(1 / _ZOOM_STEP if key == Qt.Key.Key_Minus else _ZOOM_STEP, self._center)
        elif key in _ARROWS and self._rects and self.px_per_um > 0:
            dy, dx = _ARROWS[Qt.Key(key)]
            step = _PAN_SHARE * min(self._rects[0].width(), self._rects[0].height()) / self.px_per_um
            self._link.move((self._center[0] + dy * step, self._center[1] + dx * step), self.px_per_um / self._share)
        elif not self._link.press(given(event).text()):
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 (Qt's name)
        if given(event).key() in _PEEK_KEYS and not given(event).isAutoRepeat():
            self._peek(False)
        else:
            super().keyReleaseEvent(event)

    def focusOutEvent(self, event: QFocusEvent | None) -> None:  # noqa: N802 (Qt's name)
        self._peek(False)  # the key is released elsewhere
        super().focusOutEvent(event)

    def enterEvent(self, event: QEnterEvent | None) -> None:  # noqa: N802 (Qt's name)
        if self.isActiveWindow() and not isinstance(QApplication.focusWidget(), (QLineEdit, QAbstractSpinBox)):
            self.setFocus()  # keys are for what is under the pointer, unless a name or a number is being typed
        super().enterEvent(event)

    def _peek(self, on: bool) -> None:
        if on != self.peeking:
            self.peeking = on
            self.update()

    def leaveEvent(self, event: QEvent | None) -> None:  # noqa: N802 (Qt's name)
        self._pointer = None
        self.pointed.emit(None)
        self.update()
        super().leaveEvent(event)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().resizeEvent(event)
        self.arrange()

    # -- drawing -------------------------------------------------------------------------------------------

    def paintEvent(self, _event: QPaintEvent | None) -> None:  # noqa: N802 (Qt's name)
        painter = QPainter(self)
        painter.fillRect(self.rect(), self.palette().window())
        titles = self._controller.titles()
        self._update_images()
        for k, rect in enumerate(self._rects[: len(titles)]):
            painter.save()
            painter.setClipRect(rect)
            self._draw_panel(painter, rect, k, titles[k])
            painter.restore()
        painter.end()
        self.n_drawn += 1

    def _update_images(self) -> None:
        """Convert newly painted maps to images, once each."""
        known = {id(painted): image for painted, image in self._images}
        self._images = [
            (p, known[id(p)] if id(p) in known else None if p.rgba is None else image_of(p.rgba))
            for p in self._controller.painted
        ]

    def _draw_panel(self, painter: QPainter, rect: QRectF, number: int, title: str) -> None:
        spec = self._controller.panels[number]
        painted, image = self._images[number]
        painter.fillRect(rect, _GLASS)
        dy, dx = self._controller.shift(spec.source.slide)
        if self.px_per_um > 0:
            place = Place(rect, (self._center[0] + dy, self._center[1] + dx), self.px_per_um)
            look = self._controller.state.look
            opacity = look.opacity * (fading(self._screen_px, look.fade_from) if look.fade else 1.0)
            content = Content(self.tissues.get(spec.source.slide), painted, image, opacity, self.peeking)
            self._drawings[number].draw(painter, place, content, self.devicePixelRatioF())
            if spec.source.slide == 0 and not self.peeking:
                draw_outlines(painter, place, self.outlines.outlines, self.font())
            if self._pointer is not None:
                draw_pointer(painter, place.point(self._pointer[0] + dy, self._pointer[1] + dx))
        key = painted.key if self._controller.state.look.legend and not self.peeking else None
        note = self._controller.note(number)
        self._drawings[number].draw_furniture(painter, rect, self.px_per_um, (title, note, key), self)


_ARROWS = {
    Qt.Key.Key_Left: (0, -1),
    Qt.Key.Key_Right: (0, 1),
    Qt.Key.Key_Up: (-1, 0),
    Qt.Key.Key_Down: (1, 0),
}
