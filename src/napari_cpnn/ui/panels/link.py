"""Connection of the panels to the view of the viewer: one place and one zoom for all. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from app_model.types import KeyBinding

from napari_cpnn.arrays import FloatArray
from napari_cpnn.geometry import Rect
from napari_cpnn.ui.layers import read_viewport, um_to_world, world_per_um

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.ui.viewer import ExploreState


KEYS = (",", ".", "U", "K")
"""Keys of the single view that act on panels, too: opacity, live mapping, legend."""

#: Factor by which pictures must be larger for another row: panels are read from left to right.
_WORTH = 1.3


class ViewLink:
    """The camera of the viewer in slide micrometres: panels follow it, and move it.

    So the map fills where the panels look, the lists of other docks are of the same place, and the single view is at
    that place when the panels are left.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState, changed: Callable[[], None]) -> None:
        self._viewer, self._state, self._changed = viewer, state, changed
        self._moving = False
        self._sources = [viewer.scene.camera.events.zoom, viewer.scene.camera.events.center]
        for source in self._sources:
            source.connect(self._moved)

    def stop(self) -> None:
        """Disconnect from the viewer."""
        for source in self._sources:
            source.disconnect(self._moved)

    def read(self) -> tuple[tuple[float, float], float, tuple[float, float]] | None:
        """Return the centre (slide um), the zoom (screen px per um) and the size (px) of the single view."""
        layer, slide = self._state.layer, self._state.slide
        if layer is None or slide is None or slide.mpp is None:
            return None
        viewport = read_viewport(self._viewer, layer, slide.mpp)
        if viewport is None:
            return None
        height, width = self._viewer.canvas.viewbox_size(self._viewer.layers)
        return viewport.rect.center, viewport.px_per_um, (float(height), float(width))

    def move(self, center_um: tuple[float, float], px_per_um: float) -> None:
        """Move the camera to a place (slide um) and a zoom (screen px of the single view per um)."""
        layer, slide, now = self._state.layer, self._state.slide, self.read()
        if layer is None or slide is None or slide.mpp is None or now is None:
            return
        camera = self._viewer.scene.camera
        (old, zoom, _), per_um = now, world_per_um(layer, slide.mpp)
        # The world of the camera may have other units than the layer: compare both per um.
        factor = zoom / camera.zoom / per_um
        step: FloatArray = np.diff(um_to_world(layer, slide.mpp, np.array([old, center_um])), axis=0)[0] * factor
        self._moving = True
        try:
            camera.zoom = camera.zoom * px_per_um / zoom
            camera.center = (*camera.center[:-2], camera.center[-2] + step[0], camera.center[-1] + step[1])
        finally:
            self._moving = False
        self._changed()

    def press(self, text: str) -> bool:
        """Do what a key of the single view does that is of use here; return whether it did anything."""
        if text.upper() not in KEYS:
            return False
        react = self._viewer.keymap.get(KeyBinding.from_str(text.upper()))
        if not callable(react):
            return False
        react(self._viewer)
        return True

    def _moved(self, _event: Any = None) -> None:
        if not self._moving:
            self._changed()


def arrange(n: int, size: tuple[float, float], aspect: float) -> tuple[int, int]:
    """Return the rows and columns of ``n`` panels in which a picture is largest, or nearly so with fewer rows.

    Parameters
    ----------
    n
        Number of panels.
    size
        Height and width of all panels together, px.
    aspect
        Height of the picture by its width.

    Examples
    --------
    >>> from napari_cpnn.ui.panels.link import arrange
    >>> arrange(4, (800, 1200), 1.0), arrange(2, (800, 1200), 1.0), arrange(9, (800, 1200), 1.0)
    ((2, 2), (1, 2), (3, 3))
    """
    best, found = -1.0, (1, 1)
    for rows in range(1, n + 1):
        cols = -(-n // rows)
        width = min(size[1] / cols, size[0] / rows / aspect)
        if width > best * _WORTH:
            best, found = width, (rows, cols)
    return found


def rect_around(center: tuple[float, float], size_px: tuple[float, float], px_per_um: float) -> Rect:
    """Return the rectangle around a place that fills a panel."""
    (y, x), (h, w) = center, (size_px[0] / px_per_um / 2, size_px[1] / px_per_um / 2)
    return Rect(y - h, x - w, y + h, x + w)
