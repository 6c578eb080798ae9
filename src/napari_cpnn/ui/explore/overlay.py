"""A layer that shows a quantity of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap

from napari_cpnn import painting
from napari_cpnn.arrays import BoolArray
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.painting import Look
from napari_cpnn.ui.canvas import steady_color_bar
from napari_cpnn.ui.layers import OVERLAY_KEY
from napari_cpnn.ui.viewer import Shown

if TYPE_CHECKING:
    from napari_cpnn.slides import Slide

SLOTS = {"type": "type", "gene": "gene", "contribution": "contribution", "dominant": "mix", "blend": "mix"}
SLOTS |= {"signature": "signature"}
_DOMAIN = "domain"  # the slot of the out-of-domain score, whatever quantity it is shown instead of


class Overlay:
    """Layer with an RGBA image of some pixels per patch of the map, clipped to slide and tissue.

    The layer's contrast limits are the range of the values shown, so that napari's own colour bar and contrast slider
    are right, although the pixels are colours already.
    """

    def __init__(self, shown: Shown, cmap: CompositionMap, slide: Slide | None) -> None:
        self.shown = shown
        self._begin(cmap, slide)
        self.bar_is_due = False
        self.layer = map_layer(self.grid.shape, _layer_name(shown, cmap))
        self.layer.visible = False  # until it is among the layers of the viewer

    def _begin(self, cmap: CompositionMap, slide: Slide | None) -> None:
        self.cmap = cmap
        self._slide = slide
        self._n = painting.pixels_per_patch(cmap.grid)
        self._allowed: BoolArray | None = None
        self._scale: float | None = None
        self.grid = painting.finer(cmap.grid, self._n)
        self.revision = -1
        self.auto = painting.auto_range(self.shown)
        self.painter = painting.Painter(cmap.tissue)
        self._painter_revision = -1

    def use(self, cmap: CompositionMap, slide: Slide | None) -> None:
        """Show the quantity of another map, in the same layer."""
        self._begin(cmap, slide)
        if self.layer.data.shape[:2] != self.grid.shape:
            self.layer.data = np.zeros((*self.grid.shape, 4), dtype=np.float32)
        self.layer.name = _layer_name(self.shown, cmap)  # the unit is that of the model

    def put_away(self) -> None:
        """Hide the layer until there is another map; it is blank if the user shows it meanwhile."""
        if self.layer.visible:
            self.layer.visible = False
        self.layer.data[...] = 0

    def catch_up(self) -> None:
        """Pass the present state of the map to the painter."""
        revision = self.cmap.revision
        if revision != self._painter_revision:
            painting.catch_up(self.painter, self.cmap)
            self._painter_revision = revision
        self.revision = revision

    def paint(self, look: Look, *, at_rest: bool) -> painting.Range:
        """Paint the quantity, and return its colour range."""
        self.catch_up()
        scale = painting.scale_of(self.cmap, self.shown, look.scale_um)
        if scale != self._scale:
            self.auto, self._scale = painting.auto_range(self.shown), scale
        limits = painting.paint(self.painter, self.cmap, self.shown, look, self.auto, at_rest=at_rest)
        smooth = look.is_smooth(self.shown)
        covered = self.painter.covered.repeat(self._n, axis=0).repeat(self._n, axis=1)
        rgba = self.painter.extended() if smooth else self.painter.rgba
        self.layer.data[...] = painting.magnified(rgba, self._n, self.allowed & covered, smooth=smooth)
        if self.shown.per_unit != 1:  # the ticks of napari's colour bar are the limits of the layer
            self.layer.data[..., :3] *= self.shown.per_unit
        return limits

    @property
    def allowed(self) -> BoolArray:
        """Pixels on the slide and its tissue."""
        if self._allowed is None:
            self._allowed = painting.paintable_pixels(self.cmap, self._n, self._slide)
        return self._allowed

    def show(self, shown: Shown) -> None:
        """Show another quantity of the same slot."""
        if shown != self.shown:
            self.shown = shown
            self.auto = painting.auto_range(shown)
            self.layer.name = _layer_name(shown, self.cmap)
        self.revision = -1


def map_layer(shape: tuple[int, int], name: str) -> Image:
    """Return a layer for the colours of a map of ``shape`` pixels, which are still blank."""
    layer = Image(
        np.zeros((*shape, 4), dtype=np.float32),
        rgb=True,
        multiscale=False,
        contrast_limits=(0.0, 1.0),
        name=name,
        blending="translucent_no_depth",
        cache=False,
        metadata={OVERLAY_KEY: True},
    )
    steady_color_bar(layer)
    return layer


def style_bar(layer: Image, colormap: str) -> None:
    """Place napari's colour bar of a layer, which is not shown yet, and give it colours."""
    bar = layer.colorbar
    bar.position, bar.box = "top_right", True
    bar.size, bar.font_size = (16.0, 140.0), 9.0
    bar.box_color, bar.color = (1.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.0, 1.0)
    use_colormap(layer, colormap)


def use_colormap(layer: Image, colormap: str) -> None:
    """Give the colour bar of a layer the colours of our maps."""
    name = f"cpnn {colormap}"
    if layer.colormap.name != name:
        layer.colormap = Colormap(painting.color_table(colormap), name=name)


def slot_of(shown: Shown) -> str:
    """Return which of the layers shows a quantity."""
    return _DOMAIN if shown.measure == "domain" else SLOTS[shown.kind]


def _layer_name(shown: Shown, cmap: CompositionMap) -> str:
    if shown.per_unit != 1:
        return f"{shown.title} (%)"
    unit = painting.unit_of(shown, cmap)
    return f"{shown.title} ({unit})" if shown.gene and shown.measure != "domain" else shown.title
