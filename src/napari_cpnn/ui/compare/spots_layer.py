"""Layer of measured spots over the slide, at their true size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels
from psygnal import Signal

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.geometry import Mpp
from napari_cpnn.ui.layers import DEFAULT_UM, SPOTS_KEY, add_beside, holds_bins, um_to_world, world_per_um

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.spots import Bins
    from napari_cpnn.ui.compare.spots_drawing import BinsPicture, Discs


class SpotsLayer:
    """Layer of a dock's spots: created when there are spots, or borrowed from our reader.

    Spots are points; many bins are an image with a pixel for each.
    """

    chosen = Signal(object)
    """Emitted with the rows ``(k,)`` of the spots that the user has selected in the layer."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._drawing: Discs | BinsPicture | None = None
        self._rows: IntArray = np.empty(0, dtype=np.intp)  # that are drawn, of all spots
        self._n_spots = 0
        self._name_before = ""  # of a borrowed layer
        viewer.layers.events.inserted.connect(self._stay_above_pictures)

    @property
    def layer(self) -> Layer | None:
        """The layer in use."""
        return None if self._drawing is None else self._drawing.layer

    @property
    def is_borrowed(self) -> bool:
        """True when the layer was created by our reader and stays."""
        return bool(self._name_before)

    def name_of(self, layer: Layer) -> str:
        """Return the name of a layer without the quantity that it shows."""
        return self._name_before if layer is self.layer and self.is_borrowed else str(layer.name)

    def borrow(self, layer: Layer | None) -> None:
        """Draw on a layer of our reader; ``None``: on a layer of our own again."""
        from napari_cpnn.ui.compare.spots_drawing import BinsPicture, Discs

        if layer is self.layer and layer is not None:
            return
        self.remove()
        if layer is not None:
            self._name_before = layer.name
            is_picture = holds_bins(layer)
            self._drawing = BinsPicture(layer, self._viewer, self._told) if is_picture else Discs(layer, self._told)

    def place(
        self,
        slide_layer: Layer | None,
        mpp: Mpp | None = None,
        centers_um: FloatArray | None = None,
        diameter_um: float = 0.0,
        rows: IntArray | None = None,
        bins: Bins | None = None,
    ) -> None:
        """Draw spots at ``centers_um (N, 2)``; without any, remove a layer of our own.

        Parameters
        ----------
        rows
            Those that are drawn; all by default.
        bins
            Their lattice, if all of them are drawn as one picture.
        """
        from napari_cpnn.ui.compare.spots_drawing import BinsPicture, Discs

        if slide_layer is None or mpp is None or centers_um is None or not len(centers_um):
            if not self.is_borrowed:
                self.remove()
            return
        self._n_spots = len(centers_um)
        self._rows = np.arange(self._n_spots) if rows is None else rows
        self._give_up_unsuitable(bins)
        own: dict[str, Any] = {"name": "Spots", "units": slide_layer.units, "metadata": {SPOTS_KEY: True}}
        drawing = self._drawing
        if bins is not None:

            def to_world(um: FloatArray) -> FloatArray:
                return um_to_world(slide_layer, mpp, um)

            if isinstance(drawing, BinsPicture):
                drawing.place(bins, to_world, slide_layer.units)
            else:
                self._add(BinsPicture.new(bins, to_world, self._viewer, self._told, **own))
        else:
            world = um_to_world(slide_layer, mpp, centers_um[self._rows])
            size = (diameter_um or DEFAULT_UM) * world_per_um(slide_layer, mpp)
            if isinstance(drawing, Discs):
                drawing.place(world, size, slide_layer.units)
            else:
                self._add(Discs.new(world, size, self._told, **own))
        self._stay_above_pictures()

    def paint(self, rgba: npt.NDArray[np.float32], name: str) -> None:
        """Colour the spots that are drawn by ``rgba (n, 4)``, with the quantity in the layer's name."""
        if self._drawing is not None and len(rgba) == len(self._drawing):
            self._drawing.color(rgba)
            quantity = f"{self._name_before}: {name.removeprefix('Spots: ')}"
            self._drawing.layer.name = quantity if self.is_borrowed else name

    def forget_colors(self) -> None:
        """Show only the positions of the spots."""
        if self._drawing is not None:
            self._drawing.color(None)
            self._drawing.layer.name = self._name_before or "Spots"

    def mark(self, rows: IntArray) -> None:
        """Highlight exactly these spots."""
        if self._drawing is not None and self._is_whole():
            chosen = np.zeros(self._n_spots, dtype=bool)
            chosen[rows] = True
            self._drawing.mark(chosen[self._rows])

    def pick(self, on: bool) -> None:
        """Let a box that is dragged in the layer, or a click, select spots; off: it moves the view."""
        if self._drawing is not None:
            self._drawing.pick(on)

    def close(self) -> None:
        """Remove our layer for good, or give a borrowed one back."""
        self._viewer.layers.events.inserted.disconnect(self._stay_above_pictures)
        self.remove()

    def remove(self) -> None:
        """Remove our layer, or give a borrowed one back as it was, at its present position."""
        drawing, self._drawing = self._drawing, None
        name, self._name_before = self._name_before, ""
        if drawing is None:
            return
        drawing.close()
        if name:
            drawing.mark(np.zeros(len(drawing), dtype=bool))
            drawing.color(None)
            drawing.layer.name = name
        elif drawing.layer in self._viewer.layers:
            self._viewer.layers.remove(drawing.layer)

    def _give_up_unsuitable(self, bins: Bins | None) -> None:
        """Let go of a layer that was removed, has another number of points, or is of the other kind."""
        if self._drawing is None:
            return
        layer, is_picture = self._drawing.layer, holds_bins(self._drawing.layer)
        if layer not in self._viewer.layers or is_picture != (bins is not None):
            is_other_kind = self.is_borrowed and layer in self._viewer.layers
            self.remove()
            if is_other_kind:  # bins that a thin plate has bent lie on no lattice: they are drawn on a layer of ours
                layer.visible = False
        elif not is_picture and not self._is_whole():
            self.remove()

    def _add(self, drawing: Discs | BinsPicture) -> None:
        self._drawing = drawing
        add_beside(self._viewer, drawing.layer)

    def _is_whole(self) -> bool:
        """Return whether what is drawn and spots still correspond: the user can delete points."""
        return self._drawing is not None and len(self._drawing) == len(self._rows)

    def _told(self, drawn: IntArray) -> None:
        """Highlight the spots that the user has selected, of those that are drawn."""
        if self._is_whole():
            rows = self._rows[drawn]
            self.mark(rows)
            self.chosen.emit(rows)

    def _stay_above_pictures(self, _event: Any = None) -> None:
        """Move the spots above overlays and other pictures that are added later; regions may lie above."""
        layers, layer = self._viewer.layers, self.layer
        if layer is None or layer not in layers:
            return
        at = layers.index(layer)
        top = max((i for i, one in enumerate(layers) if one != layer and isinstance(one, (Image, Labels))), default=-1)
        if top > at:
            layers.move(at, top + 1)
