"""White outlines around the regions that are chosen in the table, so that they are found on the slide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes, Vectors
from superqt.utils import qdebounced

from napari_cpnn.arrays import FloatArray
from napari_cpnn.ui.layers import OVERLAY_KEY, add_beside, um_to_world

if TYPE_CHECKING:
    from napari.components import LayerList, ViewerModel

    from napari_cpnn.regions import Region
    from napari_cpnn.ui.viewer import ExploreState

#: Width of the white line on the screen; the dark one of the region and its halo cover the middle.
_WIDE_PX = 14.0
#: Change of the logarithm of the zoom from which on the width is set anew.
_ZOOMED = 0.1


class ChosenOutline:
    """A layer of its own below the regions.

    Attributes
    ----------
    layer
        None while no region is chosen.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState) -> None:
        self._viewer, self._state = viewer, state
        self._shown: list[bytes] = []
        self._below: Shapes | None = None
        self._wanted: tuple[Sequence[Region], Shapes | None] = (), None
        self._add_later = qdebounced(self._add, timeout=0)
        self.layer: Shapes | None = None
        viewer.layers.events.removed.connect(self._removed)
        viewer.scene.camera.events.zoom.connect(self._fit)

    def show(self, regions: Sequence[Region], below: Shapes | None) -> None:
        """Outline these regions, right below the layer that they are in; without any, remove the outlines.

        A layer that is new comes in the next turn of the event loop: charts of the regions are begun in this one.
        """
        layer = self._state.layer
        self._wanted, rings = (regions, below), self._rings(regions)
        if not rings or below is None or not below.visible or layer is None:
            self._add_later.cancel()
            self._remove()
            return
        shown = [ring.tobytes() for ring in rings]
        if self.layer is None or self._below != below or self.layer.units != layer.units[-2:]:
            self._remove()
            self._add_later()
        elif shown != self._shown:
            self._shown, self.layer.data = shown, rings  # another layer would take ten times as long
            self.layer.edge_width = self._width()
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)  # the setter does not draw

    def _add(self) -> None:
        (regions, below), layer = self._wanted, self._state.layer
        rings = self._rings(regions)
        if self.layer is not None or not rings or below is None or layer is None or below not in self._viewer.layers:
            return
        self._shown, self._below = [ring.tobytes() for ring in rings], below
        self.layer = Shapes(
            rings,
            shape_type="polygon",
            name="Chosen regions",
            edge_color="#FFFFFF",
            face_color="transparent",
            edge_width=self._width(),
            units=layer.units[-2:],
            metadata={OVERLAY_KEY: True},
        )
        add_beside(self._viewer, self.layer, _place_below(self._viewer.layers, below))

    def _rings(self, regions: Sequence[Region]) -> list[FloatArray]:
        """Return the outlines in world units; none without a slide."""
        layer, slide = self._state.layer, self._state.slide
        if layer is None or slide is None or slide.mpp is None:
            return []
        mpp = slide.mpp
        return [um_to_world(layer, mpp, np.asarray(region.vertices_um(), dtype=float)) for region in regions]

    def stop(self, *, viewer_lives: bool) -> None:
        """Disconnect, and remove the outlines unless the viewer itself is closing."""
        self._add_later.cancel()
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.scene.camera.events.zoom.disconnect(self._fit)
        if viewer_lives:
            self._remove()

    def _width(self) -> float:
        return _WIDE_PX / max(float(self._viewer.scene.camera.zoom), 1e-9)

    def _fit(self, _event: Any = None) -> None:
        """Keep the line as wide on the screen."""
        if self.layer is not None and abs(np.log(self._width() / self.layer.edge_width[0])) > _ZOOMED:
            self.layer.edge_width = self._width()
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)  # the setter does not draw

    def _remove(self) -> None:
        layer, self.layer, self._shown = self.layer, None, []
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _removed(self, event: Any) -> None:
        if self.layer is not None and event.value == self.layer:
            self.layer, self._shown = None, []


def _place_below(layers: LayerList, regions: Shapes) -> int:
    """Return the place below regions and their halo, which would be moved back right below them."""
    at = int(layers.index(regions))
    return at - 1 if at and isinstance(layers[at - 1], Vectors) else at
