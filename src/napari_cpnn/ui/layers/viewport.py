"""What the viewer shows, as a :class:`~napari_cpnn.mapping.Viewport` in slide micrometres."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_cpnn.arrays import FloatArray
from napari_cpnn.geometry import Mpp
from napari_cpnn.mapping import Viewport
from napari_cpnn.ui.frame import stop_timer
from napari_cpnn.ui.layers.slide_layers import world_bounds_um, world_to_um

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

DEBOUNCE_MS = 100


def read_viewport(viewer: ViewerModel, layer: Layer, mpp: Mpp) -> Viewport | None:
    """The visible rectangle of a slide layer; ``None`` in 3D or when rows and columns are not what is displayed."""
    dims = viewer.dims
    if dims.ndisplay != 2 or tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
        return None
    camera = viewer.scene.camera
    if not camera.zoom > 0:
        return None
    factor = _layer_units_per_world(viewer, layer)
    centre = np.asarray(camera.center[-2:], dtype=float) * factor
    size_px = np.asarray(viewer.canvas.viewbox_size(viewer.layers), dtype=float)
    half = size_px / (2 * camera.zoom) * factor
    rect = world_bounds_um(layer, mpp, centre - half, centre + half)
    visible_um = max(rect.height * rect.width, 1e-12)
    px_per_um = float(np.sqrt(size_px.prod() / visible_um))
    pointer = world_to_um(layer, mpp, _cursor(viewer) * factor)[0] if viewer.mouse_over_canvas else None
    return Viewport(rect, px_per_um, None if pointer is None else (float(pointer[0]), float(pointer[1])))


def pointer_um(viewer: ViewerModel, layer: Layer, mpp: Mpp) -> tuple[float, float] | None:
    """Slide micrometres under the mouse; ``None`` in 3D."""
    if viewer.dims.ndisplay != 2:
        return None
    y, x = world_to_um(layer, mpp, _cursor(viewer) * _layer_units_per_world(viewer, layer))[0]
    return float(y), float(x)


def _cursor(viewer: ViewerModel) -> FloatArray:
    return np.asarray(viewer.cursor.position[-2:], dtype=float)


def _layer_units_per_world(viewer: ViewerModel, layer: Layer) -> float:
    """Napari shows layers in mm and in um together in one of the units; this is the step to the layer's own."""
    units = viewer.layers.extent.units
    if not units:
        return 1.0
    try:
        return float((1.0 * units[-1]).to(layer.units[-1]).magnitude)
    except (ValueError, TypeError):  # pixels beside micrometres: napari does not convert them either
        return 1.0


class ViewportWatcher(QObject):
    """Calls back, debounced, whenever the view changes.

    Parameters
    ----------
    viewer
        Only its public models are used: camera, canvas, dims.
    changed
        Called on the GUI thread, at most every `DEBOUNCE_MS` while the view moves.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[], None], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DEBOUNCE_MS)
        self._timer.timeout.connect(changed)
        self._sources = [
            viewer.scene.camera.events.zoom,
            viewer.scene.camera.events.center,
            viewer.canvas.events.size,
            viewer.dims.events.ndisplay,
            viewer.dims.events.order,
        ]
        for source in self._sources:
            source.connect(self._poke)

    def _poke(self, _event: Any = None) -> None:
        if not self._timer.isActive():  # throttle, not restart: a long pan still gets its maps on the way
            self._timer.start()

    @property
    def pending(self) -> bool:
        """Whether a change has not been reported yet."""
        return self._timer.isActive()

    def stop(self) -> None:
        """Disconnect from the viewer."""
        stop_timer(self._timer)
        for source in self._sources:
            source.disconnect(self._poke)
