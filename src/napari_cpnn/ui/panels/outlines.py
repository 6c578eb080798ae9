"""Outlines of regions over the panels of the slide of Explore."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPainterPath, QPen, QPolygonF

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnError
from napari_cpnn.geometry import Rect
from napari_cpnn.texts import shown
from napari_cpnn.ui.layers import holds_regions
from napari_cpnn.ui.panels.place import Place
from napari_cpnn.ui.regions import regions_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from shapely import MultiPolygon, Polygon

    from napari_cpnn.ui.viewer import ExploreState

_MOST_LETTERS = 40
_BOX = QColor(255, 255, 255, 205)
#: Black on white, as in figures: seen on any tissue and any colour.
_LINES = ((QColor(255, 255, 255), 3.2), (QColor(0, 0, 0), 1.6))
_EVENTS = ("visible", "data", "set_data", "features", "scale", "translate", "units")


class Outline:
    """Rings of a region in slide micrometres, with its name and the place of it."""

    def __init__(self, name: str, area: Polygon | MultiPolygon) -> None:
        self.name = shown(name, _MOST_LETTERS)
        parts = getattr(area, "geoms", [area])
        self.rings: list[FloatArray] = [
            np.asarray(ring.coords, dtype=float)[:, :2] for part in parts for ring in (part.exterior, *part.interiors)
        ]
        x0, y0, x1, y1 = area.bounds
        self.rect = Rect(y0, x0, y1, x1)
        at = area.representative_point()
        self.at = float(at.y), float(at.x)

    def path(self, place: Place) -> QPainterPath:
        """Return the rings on the screen."""
        path, corner = QPainterPath(), place.point(0.0, 0.0)
        for ring in self.rings:
            xy = ring * place.px_per_um + (corner.x(), corner.y())
            path.addPolygon(QPolygonF([QPointF(x, y) for x, y in xy]))
        return path


class OutlinesOnScreen:
    """Keeps the outlines of the regions that a viewer shows, as :func:`~napari_cpnn.ui.export.marks_on_screen` does.

    Parameters
    ----------
    viewer, state
        As of a dock.
    changed
        Called when :meth:`update` found other outlines.

    Attributes
    ----------
    outlines
        Those of the visible layers, slide micrometres.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState, changed: Callable[[], None]) -> None:
        self._viewer, self._state, self._changed = viewer, state, changed
        self.outlines: tuple[Outline, ...] = ()
        self._layers: list[Any] = []
        self._stale = True
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            event.connect(self._layers_changed)
        state.slide_changed.connect(self._set_stale)
        self._layers_changed()

    def stop(self) -> None:
        """Disconnect from the viewer."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._layers_changed)
        self._state.slide_changed.disconnect(self._set_stale, missing_ok=True)
        self._listen_to([])

    def update(self) -> None:
        """Read the outlines again if a layer has changed; called a few times a second."""
        if not self._stale:
            return
        self._stale = False
        layer, slide = self._state.layer, self._state.slide
        before: tuple[Outline, ...] = self.outlines
        found: list[Outline] = []
        for one in self._layers:
            if layer is None or slide is None or slide.mpp is None or not one.visible:
                continue
            with suppress(CpnnError):  # a shape that is being drawn is no region yet
                regions = regions_of(one, layer, slide.mpp)[1]
                found += [Outline(region.name, region.outline) for region in regions]
        self.outlines = tuple(found)
        if before or found:
            self._changed()

    def _layers_changed(self, _event: Any = None) -> None:
        layers = [getattr(one, "__wrapped__", one) for one in self._viewer.layers]
        self._listen_to([one for one in layers if holds_regions(one)])
        self._set_stale()

    def _listen_to(self, layers: list[Any]) -> None:
        for layer in self._layers:
            for name in _EVENTS:
                getattr(layer.events, name).disconnect(self._set_stale)
        for layer in layers:
            for name in _EVENTS:
                getattr(layer.events, name).connect(self._set_stale)
        self._layers = layers

    def _set_stale(self, _event: Any = None) -> None:
        self._stale = True


def draw_outlines(painter: QPainter, place: Place, outlines: tuple[Outline, ...], font: QFont) -> None:
    """Draw outlines of regions, with their names."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, on=True)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    seen = [one for one in outlines if place.rect_of(one.rect).intersects(place.rect)]
    for one in seen:
        path = one.path(place)
        for color, width in _LINES:
            painter.setPen(QPen(color, width))
            painter.drawPath(path)
    metrics = QFontMetricsF(font)
    painter.setFont(font)
    for one in seen:
        if not one.name or not place.rect.contains(at := place.point(*one.at)):
            continue
        box = QRectF(0, 0, metrics.horizontalAdvance(one.name) + 6, metrics.height() + 2)
        box.moveCenter(at)
        painter.fillRect(box, _BOX)
        painter.setPen(QColor(0, 0, 0))
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, one.name)
