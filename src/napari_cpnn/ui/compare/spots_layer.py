"""Points layer of measured spots, at their true diameter, over the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.geometry import Mpp
from napari_cpnn.ui.layers import DEFAULT_UM, SPOTS_KEY, um_to_world, world_per_um

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer, Points

_BORDER, _CHOSEN = (0.125, 0.125, 0.125, 1.0), (1.0, 0.27, 0.0, 1.0)
_THIN, _THICK = 0.1, 0.22
_PLAIN = np.array([1.0, 1.0, 1.0, 0.35])


class SpotsLayer:
    """Layer of a dock's spots: created when there are spots, or borrowed from our reader."""

    chosen = Signal(object)
    """Emitted with the rows ``(k,)`` of the spots that the user has selected in the layer."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.layer: Points | None = None
        self._rows: IntArray = np.empty(0, dtype=np.intp)  # that are drawn, of all spots
        self._name_before = ""  # of a borrowed layer
        self._setting = False
        viewer.layers.events.inserted.connect(self._stay_on_top)

    @property
    def is_borrowed(self) -> bool:
        """True when the layer was created by our reader and stays."""
        return bool(self._name_before)

    def name_of(self, layer: Layer) -> str:
        """Return the name of a layer without the quantity that it shows."""
        return self._name_before if layer is self.layer and self.is_borrowed else str(layer.name)

    def borrow(self, layer: Points | None) -> None:
        """Draw on a layer of our reader; ``None``: on a layer of our own again."""
        if layer is self.layer and layer is not None:
            return
        self.remove()
        if layer is not None:
            self._name_before = layer.name
            self._use(layer)

    def place(
        self,
        slide_layer: Layer | None,
        mpp: Mpp | None,
        centers_um: FloatArray,
        diameter_um: float,
        rows: IntArray | None = None,
    ) -> None:
        """Draw spots at ``centers_um (N, 2)``, all or some ``rows`` of them; without any, remove a layer of our own."""
        if slide_layer is None or mpp is None or not len(centers_um):
            if not self.is_borrowed:
                self.remove()
            return
        self._rows = np.arange(len(centers_um)) if rows is None else rows
        world = um_to_world(slide_layer, mpp, centers_um[self._rows])
        size = (diameter_um or DEFAULT_UM) * world_per_um(slide_layer, mpp)
        if self.layer is not None and (self.layer not in self._viewer.layers or len(self.layer.data) != len(world)):
            self.remove()
        if self.layer is None:
            from napari.layers import Points

            selected = set(self._viewer.layers.selection)
            layer = Points(
                world,
                size=size,
                name="Spots",
                border_width=_THIN,
                border_color=np.array(_BORDER),
                face_color=_PLAIN,
                antialiasing=0,  # it widens the border by a pixel, which hides a spot on a whole slide
                units=slide_layer.units,
                metadata={SPOTS_KEY: True},
            )
            self._use(layer)
            self._viewer.add_layer(layer)
            self._viewer.layers.selection = selected  # the slide stays the active layer
        else:
            layer = self.layer
            layer.scale, layer.translate, layer.affine = (1.0, 1.0), (0.0, 0.0), np.eye(3)
            layer.units = slide_layer.units
            layer.data = world
            layer.size = size
            self._stay_on_top()

    def paint(self, rgba: npt.NDArray[np.float32], name: str) -> None:
        """Colour the spots that are drawn by ``rgba (n, 4)``, with the quantity in the layer's name."""
        if self.layer is not None and len(rgba) == len(self.layer.data):
            self._color(rgba)
            self.layer.name = name if not self.is_borrowed else f"{self._name_before}: {name.removeprefix('Spots: ')}"

    def forget_colors(self) -> None:
        """Show only the positions of the spots."""
        if self.layer is not None:
            self._color(_PLAIN)
            self.layer.name = self._name_before or "Spots"

    def _color(self, color: npt.NDArray[Any]) -> None:
        """Colour the spots; napari uploads them for the layer's event, and again for that of its colours."""
        if self.layer is not None:
            with self.layer.events.face_color.blocker():
                self.layer.face_color = color

    def mark(self, rows: IntArray) -> None:
        """Highlight exactly these spots."""
        if self.layer is None or not self._is_whole():
            return
        chosen = np.isin(self._rows, rows)
        with self.layer.events.blocker_all():  # a single upload to the GPU, together with the colours
            self.layer.border_width = np.where(chosen, _THICK, _THIN)
        with self.layer.events.border_color.blocker():  # as of faces, see _color
            self.layer.border_color = np.where(chosen[:, None], _CHOSEN, _BORDER).astype(np.float32)
        if not self._setting and self.layer.selected_data:  # napari's own selection would mark other spots
            self._setting = True
            self.layer.selected_data = set()
            self._setting = False

    def close(self) -> None:
        """Remove our layer for good, or give a borrowed one back."""
        self._viewer.layers.events.inserted.disconnect(self._stay_on_top)
        self.remove()

    def remove(self) -> None:
        """Remove our layer, or give a borrowed one back as it was, at its present position."""
        layer, self.layer = self.layer, None
        name, self._name_before = self._name_before, ""
        if layer is None:
            return
        layer.selected_data.events.items_changed.disconnect(self._selected)
        if name:
            layer.name, layer.face_color = name, _PLAIN
            layer.border_color, layer.border_width = np.array(_BORDER), _THIN
        elif layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _use(self, layer: Points) -> None:
        self.layer = layer
        layer.selected_data.events.items_changed.connect(self._selected)

    def _is_whole(self) -> bool:
        """Return whether points and spots still correspond: the user can delete points."""
        return self.layer is not None and len(self.layer.data) == len(self._rows)

    def _selected(self, *_: Any) -> None:
        """Highlight the spots that the user has selected with napari's tools."""
        if self.layer is not None and not self._setting and self._is_whole():
            self._setting = True
            try:
                rows = self._rows[np.array(sorted(self.layer.selected_data), dtype=np.intp)]
                self.mark(rows)
                self.chosen.emit(rows)
            finally:
                self._setting = False

    def _stay_on_top(self, _event: Any = None) -> None:
        """Move the spots above overlays, which are added later."""
        layers = self._viewer.layers
        if self.layer is not None and self.layer in layers and layers[-1] != self.layer:
            layers.move(layers.index(self.layer), len(layers))
