"""From micrometres of a slide to pixels of a panel."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF

from napari_cpnn.geometry import Rect


class Place:
    """From micrometres of a slide to pixels: ``center`` (y, x) is in the middle of ``rect``."""

    def __init__(self, rect: QRectF, center: tuple[float, float], px_per_um: float) -> None:
        self.rect, self.center, self.px_per_um = rect, center, px_per_um

    def point(self, y: float, x: float) -> QPointF:
        """Return the pixel of a place."""
        middle, zoom = self.rect.center(), self.px_per_um
        return QPointF(middle.x() + (x - self.center[1]) * zoom, middle.y() + (y - self.center[0]) * zoom)

    def rect_of(self, um: Rect) -> QRectF:
        """Return the pixels of a rectangle."""
        return QRectF(self.point(um.y0, um.x0), self.point(um.y1, um.x1))

    def is_filled_by(self, um: Rect, of: Rect) -> bool:
        """Return whether a part of a slide covers what is visible of the whole slide."""
        return bool(self.rect_of(um).adjusted(-1, -1, 1, 1).contains(self.rect_of(of) & self.rect))

    def near(self, centers_um: Any, margin_um: float) -> list[int]:
        """Return the rows of ``centers_um (N, 2)`` that are visible."""
        half = np.array([self.rect.height(), self.rect.width()]) / 2 / self.px_per_um + margin_um
        inside = (np.abs(np.asarray(centers_um) - np.asarray(self.center)) <= half).all(axis=1)
        return [int(k) for k in np.flatnonzero(inside)]
