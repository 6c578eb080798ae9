"""Colour bar of the spots on the canvas, where their colours are not those of the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.components.overlays import TextOverlay
from napari.utils.colormaps import Colormap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Points

_TITLE = "napari_cpnn_spots_title"
_CORNER = "bottom_left"  # the colour bar of the map is in another


class SpotsKey:
    """Colour bar of a layer of spots, with a title, in the lower left corner of the canvas.

    Attributes
    ----------
    title
        What the colours mean; empty while there is no colour bar.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Points | None = None
        self.title = ""

    def show(
        self, layer: Points | None, table: npt.NDArray[np.float32], limits: tuple[float, float], title: str
    ) -> None:
        """Show colours ``(n, 4)`` between two values."""
        if layer is not self._layer:
            self.hide()
        if layer is None:
            return
        if self._layer is None:
            layer.events.visible.connect(self._update)
        self._layer, self.title = layer, title
        layer.face_contrast_limits = limits
        layer.face_colormap = Colormap(table, name="cpnn spots")
        bar = layer.face_colorbar
        bar.position, bar.box, bar.visible = _CORNER, True, True
        bar.size, bar.font_size = (16.0, 140.0), 9.0
        bar.box_color, bar.color = (1.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.0, 1.0)
        overlays = self._viewer.canvas.overlays
        if _TITLE not in overlays:
            overlays[_TITLE] = TextOverlay(position=_CORNER, box=True, font_size=9, order=0)
        text: Any = overlays[_TITLE]
        text.text, text.color, text.box_color = title, "#000000", "#FFFFFF"
        self._update()

    def hide(self) -> None:
        """Remove the colour bar."""
        layer, self._layer, self.title = self._layer, None, ""
        if layer is not None:
            layer.events.visible.disconnect(self._update)
            layer.face_colorbar.visible = False
        self._update()

    def close(self) -> None:
        """Remove everything from the canvas."""
        self.hide()
        overlays = self._viewer.canvas.overlays
        if _TITLE in overlays:
            del overlays[_TITLE]

    def _update(self, _event: Any = None) -> None:
        """Hide the title with the spots, as napari hides their colour bar."""
        overlays = self._viewer.canvas.overlays
        if _TITLE in overlays:
            overlays[_TITLE].visible = self._layer is not None and self._layer.visible
