"""Marker on the slide at the place whose gene is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points

from napari_cpnn.ui.layers import OVERLAY_KEY, add_beside, um_to_world
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Sizes in pixels of the canvas: of the ring, and of its light margin.
_RING_PX, _LINE_PX = 18.0, 2.5


class PlaceMarker:
    """A ring in a layer of its own, of the same size at every zoom.

    Attributes
    ----------
    layer
        None while no place is marked.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState) -> None:
        self._viewer, self._state = viewer, state
        self._shown: object = None
        self.layer: Points | None = None
        viewer.scene.camera.events.zoom.connect(self._fit)
        viewer.layers.events.removed.connect(self._removed)

    def show(self, um: object) -> None:
        """Mark a point ``(y, x)`` in slide um; anything else, such as the name of a region, has no marker."""
        if um == self._shown:  # also while napari is inserting the layer and tells of another active one
            return
        self._shown = um
        layer, slide = self._state.layer, self._state.slide
        if not isinstance(um, tuple) or layer is None or slide is None or slide.mpp is None:
            self._remove()
            return
        at = um_to_world(layer, slide.mpp, np.array([um], dtype=float))[0]
        if self.layer is None:
            self.layer = Points(
                np.stack([at, at]),
                name="Explained place",
                face_color="transparent",
                border_color=["#FFFFFF", "#D00000"],
                border_width=[2 * _LINE_PX / _RING_PX, _LINE_PX / _RING_PX],
                units=layer.units[-2:],
                antialiasing=1,
                metadata={OVERLAY_KEY: True},
            )
            self._fit()
            add_beside(self._viewer, self.layer)
        else:
            self.layer.data = np.stack([at, at])
        layers = self._viewer.layers
        if layers[-1] != self.layer:
            layers.move(layers.index(self.layer), len(layers))

    def stop(self, *, viewer_lives: bool) -> None:
        """Disconnect, and remove the marker unless the viewer itself is closing."""
        self._viewer.scene.camera.events.zoom.disconnect(self._fit)
        self._viewer.layers.events.removed.disconnect(self._removed)
        if viewer_lives:
            self._remove()

    def _fit(self, _event: Any = None) -> None:
        zoom = float(self._viewer.scene.camera.zoom)
        if self.layer is not None and zoom > 0:
            self.layer.size = _RING_PX / zoom

    def _remove(self) -> None:
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _removed(self, event: Any) -> None:
        if self.layer is not None and event.value == self.layer:
            self.layer = None
