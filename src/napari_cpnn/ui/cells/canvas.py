"""Cells on the canvas: the picture of those in view, or the mean of each patch where they are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from psygnal import Signal
from superqt.utils import qdebounced

from napari_cpnn.geometry import Grid
from napari_cpnn.ui.cells.controller import CellsController
from napari_cpnn.ui.explore import place, transform_events
from napari_cpnn.ui.layers import OVERLAY_KEY, ViewportWatcher, add_beside, read_viewport, set_visible

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.arrays import Float32Array, Picture

_OPACITY = 0.75
_NAME, _MEAN_NAME = "Cells", "Cells: mean per patch"


class CellsOnCanvas:
    """Two layers, of which one is visible: single cells, and means over patches.

    napari is handed one picture of the view, not the cells, so that moving it takes the same time however many there
    are. Only when the view leaves what was drawn beyond its edges, or its zoom changes, is it drawn again, in the
    background.

    Attributes
    ----------
    layer, mean_layer
        ``None`` until they are needed.
    deleted
        Emitted after the user has deleted one of them in napari's list.
    """

    deleted = Signal()

    def __init__(self, viewer: ViewerModel, controller: CellsController) -> None:
        self._viewer = viewer
        self._controller = controller
        self._state = controller.state
        self.layer: Layer | None = None
        self.mean_layer: Layer | None = None
        self._grid: Grid | None = None
        self._mean_of: object = None
        self._hidden: list[Layer] = []
        self._legend: tuple[tuple[str, str], ...] = ()
        self._deleted_later = qdebounced(self.deleted.emit, timeout=0)  # napari is still removing
        self._visible = True
        self._placing: Layer | None = None
        self._watcher = ViewportWatcher(viewer, self.read_view)
        controller.drawn.connect(self.show)
        controller.colored_changed.connect(self.show)
        self._state.instead_changed.connect(self._instead_changed)
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.events.inserted.connect(self._inserted)

    def stop(self, *, viewer_lives: bool) -> None:
        """Disconnect, and remove the layers unless the viewer itself is closing."""
        self._watcher.stop()
        self._controller.drawn.disconnect(self.show)
        self._controller.colored_changed.disconnect(self.show)
        self._state.instead_changed.disconnect(self._instead_changed, missing_ok=True)
        self._deleted_later.cancel()
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.layers.events.inserted.disconnect(self._inserted)
        self._unfollow()
        if viewer_lives:
            self._remove()

    @property
    def is_pending(self) -> bool:
        """Whether the view has changed and was not read yet."""
        return self._watcher.pending

    def read_view(self) -> None:
        """Pass the present view to the controller."""
        layer, slide = self._state.layer, self._controller.slide
        view = None
        if layer is not None and slide is not None and slide.mpp is not None:
            view = read_viewport(self._viewer, layer, slide.mpp)
        self._controller.set_view(view)

    def set_visible(self, on: bool) -> None:
        """Show the cells, or the map below them."""
        self._visible = on
        self.show()

    def _instead_changed(self) -> None:
        """Make room for another layer in place of the map, and come back when it goes."""
        if self._state.instead != self._legend and self._visible:
            self.show()

    def show(self) -> None:
        """Show what the controller has drawn."""
        controller, slide_layer = self._controller, self._state.layer
        drawing, colored = controller.drawing, controller.colored
        if colored is None or slide_layer is None or not self._visible:
            self._remove()
            return
        if drawing is None:
            return
        self._follow(slide_layer)
        means = drawing.style == "mean"
        if means:
            self.mean_layer = self._draw_means(colored.mean)
        else:
            self.layer = self._draw_cells(drawing.rgba)
            self._grid = drawing.grid
        self._place()
        free = self._state.instead in ((), self._legend)  # no other layer is shown in place of the map
        for layer, wanted in ((self.layer, not means), (self.mean_layer, means)):
            if layer is not None:
                set_visible(layer, wanted and free)
        if free:
            self._legend = colored.legend(means=means)
            self._state.set_instead(self._legend)
            self._hide_others()
        self._stay_above()

    # -- layers --------------------------------------------------------------------------------------------

    def _draw_cells(self, rgba: Picture) -> Layer:
        if self.layer is not None and self.layer in self._viewer.layers:
            if self.layer.data.shape == rgba.shape:  # in place: another array would take ten times as long
                self.layer.data[...] = rgba
                self.layer.refresh(thumbnail=False, highlight=False, extent=False)
            else:
                self.layer.data = rgba
            return self.layer
        return self._add(rgba, _NAME, 1.0)

    def _draw_means(self, mean: Float32Array) -> Layer:
        if self.mean_layer is not None and self.mean_layer in self._viewer.layers:
            if self._mean_of is not mean:
                self.mean_layer.data = mean
        else:
            self.mean_layer = self._add(mean, _MEAN_NAME, _OPACITY)
        self._mean_of = mean
        return self.mean_layer

    def _add(self, pixels: Any, name: str, opacity: float) -> Layer:
        layer = Image(
            pixels,
            rgb=True,
            multiscale=False,
            contrast_limits=None if pixels.dtype == np.uint8 else (0.0, 1.0),
            name=name,
            opacity=opacity,
            blending="translucent_no_depth",
            cache=False,
            visible=False,
            metadata={OVERLAY_KEY: True},
        )
        slide_layer = self._state.layer
        if slide_layer is not None:
            layer.units = slide_layer.units[-2:]
        return add_beside(self._viewer, layer)

    def _hide_others(self) -> None:
        """Hide pictures below cells: two in like colours over each other could not be told apart."""
        ours = (self.layer, self.mean_layer)
        for layer in self._viewer.layers:
            if OVERLAY_KEY in layer.metadata and layer.visible and layer not in ours and isinstance(layer, Image):
                layer.visible = False
                self._hidden.append(layer)

    def _remove(self) -> None:
        hidden, self._hidden = self._hidden, []
        for layer in hidden:
            if layer in self._viewer.layers:
                layer.visible = True
        if self._state.instead == self._legend:
            self._state.set_instead(())
        ours, self.layer, self.mean_layer = (self.layer, self.mean_layer), None, None
        for layer in ours:
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._mean_of = None
        self._unfollow()

    def _inserted(self, event: Any) -> None:
        """Hide a picture, such as a kept map, that is added below the cells, and stay above any."""
        ours = [one for one in (self.layer, self.mean_layer) if one is not None]
        if ours and event.value not in ours and OVERLAY_KEY in event.value.metadata:
            if getattr(event.value, "rgb", False):  # not what is shown in place of a map
                self._hide_others()
            self._stay_above()

    def _stay_above(self) -> None:
        layers = self._viewer.layers
        for layer in (self.mean_layer, self.layer):
            if layer is None or layer not in layers:
                continue
            maps = [one for one in layers if OVERLAY_KEY in one.metadata and isinstance(one, Image)]
            above = [layers.index(one) for one in maps if one not in (self.layer, self.mean_layer)]
            if above and layers.index(layer) < max(above):
                layers.move(layers.index(layer), max(above) + 1)

    def _removed(self, event: Any) -> None:
        if any(one is not None and event.value == one for one in (self.layer, self.mean_layer)):
            self._deleted_later()

    # -- places --------------------------------------------------------------------------------------------

    def _follow(self, slide_layer: Layer) -> None:
        """Place the layers on a slide layer, also when it is moved later."""
        if self._placing is slide_layer:
            return
        self._unfollow()
        self._placing = slide_layer
        for source in transform_events(slide_layer):
            source.connect(self._place)

    def _unfollow(self) -> None:
        if self._placing is not None:
            for source in transform_events(self._placing):
                source.disconnect(self._place)
            self._placing = None

    def _place(self, _event: Any = None) -> None:
        slide, slide_layer, colored = self._controller.slide, self._placing, self._controller.colored
        if slide is None or slide.mpp is None or slide_layer is None or colored is None:
            return
        place([(self.layer, self._grid), (self.mean_layer, colored.grid)], slide_layer, slide.mpp)
