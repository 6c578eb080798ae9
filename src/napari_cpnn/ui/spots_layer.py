"""Measured spots as a points layer, at their true diameter, over the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.geometry import FloatArray, Mpp
from napari_cpnn.ui.slide_layers import um_to_world

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer, Points

SPOTS_KEY = "napari_cpnn_spots"
"""In the metadata of the layer of spots."""

#: A diameter that nobody states is drawn as that of Visium.
_DEFAULT_UM = 55.0


class SpotsLayer:
    """The layer of one dock's spots in one viewer; made when there is something to draw, and no sooner.

    Parameters
    ----------
    viewer
        napari's viewer, or the proxy that plugins get.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.layer: Points | None = None
        viewer.layers.events.inserted.connect(self._stay_on_top)

    def place(self, slide_layer: Layer | None, mpp: Mpp | None, centers_um: FloatArray, diameter_um: float) -> None:
        """Draw spots at ``centers_um (N, 2)``; none of them takes the layer away."""
        if slide_layer is None or mpp is None or not len(centers_um):
            self.remove()
            return
        world = um_to_world(slide_layer, mpp, centers_um)
        size = (diameter_um or _DEFAULT_UM) * _world_per_um(slide_layer, mpp)
        if self.layer is not None and (self.layer not in self._viewer.layers or len(self.layer.data) != len(world)):
            self.remove()
        if self.layer is None:
            from napari.layers import Points

            selected = set(self._viewer.layers.selection)
            self.layer = Points(
                world,
                size=size,
                name="Spots",
                border_width=0.06,
                border_color="#202020",
                face_color=np.array([1.0, 1.0, 1.0, 0.35]),
                units=slide_layer.units,
                metadata={SPOTS_KEY: True},
            )
            self._viewer.add_layer(self.layer)
            self._viewer.layers.selection = selected  # the slide stays the layer that the user works with
        else:
            self.layer.data = world
            self.layer.size = size

    def paint(self, rgba: npt.NDArray[np.float32], name: str) -> None:
        """Colour the spots ``(N, 4)`` and say by what."""
        if self.layer is not None and len(rgba) == len(self.layer.data):
            self.layer.face_color = rgba
            self.layer.name = name

    def mark(self, rows: npt.NDArray[np.intp]) -> None:
        """Let some spots stand out, all others be as they are."""
        if self.layer is None:
            return
        chosen = np.zeros(len(self.layer.data), dtype=bool)
        chosen[rows] = True
        colors = np.tile(np.array([0.125, 0.125, 0.125, 1.0], dtype=np.float32), (len(chosen), 1))
        colors[chosen] = (1.0, 0.27, 0.0, 1.0)
        self.layer.border_color = colors
        self.layer.border_width = np.where(chosen, 0.2, 0.06)

    def close(self) -> None:
        """Take the layer away for good."""
        self._viewer.layers.events.inserted.disconnect(self._stay_on_top)
        self.remove()

    def _stay_on_top(self, _event: Any = None) -> None:
        """Overlays are added when they are first asked for, and would hide the spots."""
        layers = self._viewer.layers
        if self.layer is not None and self.layer in layers and layers[-1] != self.layer:
            layers.move(layers.index(self.layer), len(layers))

    def remove(self) -> None:
        """Take the layer away."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None


def _world_per_um(layer: Any, mpp: Mpp) -> float:
    corners = um_to_world(layer, mpp, np.array([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]]))
    sides = np.linalg.norm(corners[1:, -2:] - corners[0, -2:], axis=1)
    return float(np.sqrt(sides[0] * sides[1]) / 1000)
