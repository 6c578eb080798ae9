"""The view of a viewer as a :class:`~napari_cpnn.mapping.Viewport` in slide micrometres."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from superqt.utils import qthrottled

from napari_cpnn.arrays import FloatArray
from napari_cpnn.geometry import Mpp
from napari_cpnn.mapping import Viewport
from napari_cpnn.ui.layers.slide_layers import world_bounds_um, world_to_um

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

THROTTLE_MS = 100


def fit_view(viewer: ViewerModel, layer: Layer) -> None:
    """Put a layer into the middle of the view, as large as it fits; beside stacks of planes, all layers.

    napari cannot fit the view to a layer of fewer dimensions than the viewer has.
    """
    viewer.reset_view(layers=[layer] if layer.ndim == viewer.dims.ndim else None)


def read_viewport(viewer: ViewerModel, layer: Layer, mpp: Mpp) -> Viewport | None:
    """Return the visible rectangle of a slide layer; ``None`` in 3D or if rows and columns are not displayed."""
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
    """Return the position of the mouse in slide um; ``None`` in 3D."""
    if viewer.dims.ndisplay != 2:
        return None
    y, x = world_to_um(layer, mpp, _cursor(viewer) * _layer_units_per_world(viewer, layer))[0]
    return float(y), float(x)


def _cursor(viewer: ViewerModel) -> FloatArray:
    return np.asarray(viewer.cursor.position[-2:], dtype=float)


def _layer_units_per_world(viewer: ViewerModel, layer: Layer) -> float:
    """Return the units of a layer per world unit: napari shows layers in mm and um together in one of the units."""
    units = viewer.layers.extent.units
    if not units:
        return 1.0
    try:
        return float((1.0 * units[-1]).to(layer.units[-1]).magnitude)
    except (ValueError, TypeError):  # pixels beside micrometres: napari does not convert them either
        return 1.0


class ViewportWatcher:
    """Calls back when the view changes, at most every `THROTTLE_MS`, so that a long pan is mapped on the way too.

    Attributes
    ----------
    pending
        True while a change has not been reported yet.
    """

    def __init__(self, viewer: ViewerModel, changed: Callable[[], None]) -> None:
        self.pending = False
        self._changed = changed
        self._report = qthrottled(self._report_now, timeout=THROTTLE_MS, leading=False)
        self._sources = [
            viewer.scene.camera.events.zoom,
            viewer.scene.camera.events.center,
            viewer.canvas.events.size,
            viewer.dims.events.ndisplay,
            viewer.dims.events.order,
        ]
        for source in self._sources:
            source.connect(self._view_changed)

    def _view_changed(self, _event: Any = None) -> None:
        self.pending = True
        self._report()

    def _report_now(self) -> None:
        self.pending = False
        self._changed()

    def stop(self) -> None:
        """Disconnect from the viewer."""
        self._report.cancel()
        for source in self._sources:
            source.disconnect(self._view_changed)
