"""Charts in a dock, drawn by matplotlib in another thread so that the window never waits for them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from matplotlib.figure import Figure
from qtpy.QtCore import QEvent, QSize
from qtpy.QtGui import QImage, QPainter, QPaintEvent, QResizeEvent
from qtpy.QtWidgets import QSizePolicy, QWidget
from superqt.utils import qdebounced

from napari_cpnn.storage import write_figure
from napari_cpnn.texts import allow_any_letter
from napari_cpnn.ui.frame.paper import DPI, Paper
from napari_cpnn.ui.frame.parts import given
from napari_cpnn.ui.frame.tasks import Background

Draw = Callable[[Paper], Figure]

_DELAY_MS = 60

_MATPLOTLIB = threading.Lock()
"""Matplotlib is not safe for threads, and a dock may have several charts."""


class _Canvas(Protocol):
    """Matplotlib's Agg canvas, the canvas of every figure here."""

    def buffer_rgba(self) -> memoryview: ...


class ChartView(QWidget):
    """Chart that a function draws for the width and the colours of the dock, or into a file."""

    def __init__(self, background: Background) -> None:
        super().__init__()
        self._background = background
        self._draw: Draw | None = None
        self.figure: Figure | None = None  # the one on screen; it is complete
        self._image: QImage | None = None
        self._request = 0
        self._busy = self._pending = self._stopped = False
        self._render_later = qdebounced(self._render, timeout=_DELAY_MS, parent=self)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def is_settled(self) -> bool:
        """True when the chart on screen is the latest one."""
        return not self._busy and not self._pending

    def show_chart(self, draw: Draw | None) -> None:
        """Show the figure that ``draw`` returns for a paper; ``None`` clears the chart."""
        self._draw = draw
        self._request += 1
        if draw is None:
            self._pending = False
            self.figure = self._image = None
            self.updateGeometry()
            self.update()
        else:
            self._redraw()

    def stop(self) -> None:
        """Accept no more figures, since the dock ends."""
        self._stopped = True

    def save(self, path: Path, source: str, paper: Paper | None = None) -> None:
        """Draw the chart into a PNG or SVG file, on white, with ``source`` (slide and model) below it.

        The ``paper`` may have a warning.

        Raises
        ------
        ExportError
            When the file cannot be written.
        """
        from napari_cpnn.export import replacing

        if self._draw is None:
            return
        allow_any_letter()
        with _MATPLOTLIB, replacing(path, overwrite=True) as temporary:
            figure = self._draw(dataclasses.replace(paper or Paper(), source=source))
            write_figure(figure, temporary, path.suffix.lower().lstrip("."), dpi=3 * DPI)

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        if self._image is None:
            return QSize(300, 0)
        return QSize(300, round(self._image.height() / self._image.devicePixelRatio()))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        return QSize(200, self.sizeHint().height())

    def paintEvent(self, _event: QPaintEvent | None) -> None:  # noqa: N802 (Qt's name)
        if self._image is not None:
            QPainter(self).drawImage(0, 0, self._image)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 (Qt's name)
        if self._draw is not None and event is not None and event.oldSize().width() != event.size().width():
            self._redraw()

    def event(self, event: QEvent | None) -> bool:
        if given(event).type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange) and self._draw is not None:
            self._redraw()  # the theme has changed, and with it the colour of texts
        return super().event(event)

    def _redraw(self) -> None:
        self._pending = True
        self._render_later()

    def _render(self) -> None:
        allow_any_letter()
        draw, ratio, request = self._draw, self.devicePixelRatioF(), self._request
        if self._busy and not self._stopped:  # one figure at a time; the next follows
            self._render_later()
            return
        self._pending = False
        if draw is None or self._stopped:
            return
        ink = self.palette().color(self.foregroundRole()).name()
        paper = Paper(ink=ink, ground="none", width_px=max(self.width(), 200))
        self._busy = True

        def work() -> tuple[Figure, QImage]:
            with _MATPLOTLIB:
                figure = draw(paper)
                figure.set_dpi(DPI * ratio)
                figure.canvas.draw()
                pixels = np.asarray(cast(_Canvas, figure.canvas).buffer_rgba())
            height, width = pixels.shape[:2]
            image = QImage(pixels.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()
            image.setDevicePixelRatio(ratio)
            return figure, image

        def done(drawn: tuple[Figure, QImage]) -> None:
            self._busy = False
            if request == self._request and not self._stopped:
                self.figure, self._image = drawn
                self.setFixedHeight(self.sizeHint().height())
                self.updateGeometry()
                self.update()

        def failed(error: Exception) -> None:
            self._busy = False
            raise error

        self._background(work, done, failed)
