"""Colour bar of the spots on the canvas, where their colours are not those of the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.components.overlays import ColorBarOverlay, TextOverlay
from napari.layers import Points
from napari.layers.utils.color_manager import ColorManager
from napari.utils.colormaps import Colormap

from napari_cpnn.ui.layers import draw_next_turn

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from napari.components import ViewerModel
    from napari.layers import Layer

_TITLE = "napari_cpnn_spots_title"
_BAR = "napari_cpnn_spots_bar"
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
        self._layer: Layer | None = None
        self.title = ""

    def show(
        self, layer: Layer | None, table: npt.NDArray[np.float32], limits: tuple[float, float], title: str
    ) -> None:
        """Show colours ``(n, 4)`` between two values."""
        if layer is not self._layer:
            self.hide()
        if layer is None:
            return
        draw_next_turn(self._viewer)
        if self._layer is None:
            layer.events.visible.connect(self._update)
        self._layer, self.title = layer, title
        bar, colormap = _bar_of(layer), Colormap(table, name="cpnn spots")
        if isinstance(layer, Points):
            layer.face_contrast_limits, layer.face_colormap = limits, colormap
        else:
            colors = getattr(layer, _BAR)
            colors.contrast_limits, colors.continuous_colormap = limits, colormap
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
            _bar_of(layer).visible = False
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


def _bar_of(layer: Layer) -> ColorBarOverlay:
    """Return the colour bar of a layer.

    Points have one. That of an image takes its colours and limits from the image, whose RGB pixels they would change:
    it gets one that takes them from an attribute of its own.
    """
    if isinstance(layer, Points):
        return layer.face_colorbar
    overlays = layer._overlays  # noqa: SLF001
    if _BAR not in overlays:
        setattr(layer, _BAR, ColorManager())
        overlays[_BAR] = ColorBarOverlay(colormanager_attribute=_BAR)
    return overlays[_BAR]
