"""One slide at a time: opening a slide selects it and hides those below it; the docks follow what is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from superqt.utils import qdebounced

from napari_cpnn.ui.frame import offer, show_dock
from napari_cpnn.ui.layers.adding import changed_together, set_visible
from napari_cpnn.ui.layers.large_pictures import LargePictures
from napari_cpnn.ui.layers.slide_layers import (
    FILE_KEY,
    PATH_KEY,
    UNSIZED_KEY,
    is_in_pixels,
    is_slide_layer,
    mpp_of_layer,
    path_of,
)
from napari_cpnn.ui.layers.spots_of_slides import SpotsOfSlides
from napari_cpnn.ui.layers.viewport import fit_view

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from napari_cpnn.ui.viewer import ExploreState


class SlideSwitch:
    """Shows one of the slides of a viewer that lie over one another, and tells its docks which.

    A slide that is opened from a file is selected, and those that it covers are hidden. Afterwards the docks follow the
    selected slide layer if it is visible, or else the topmost visible one. In grid mode nothing is hidden.
    """

    def __init__(self, viewer: Viewer, state: ExploreState) -> None:
        self._viewer = ref(viewer)
        self._state = state
        self._of_others: Layer | None = None  # added by a script or plugin, and not selected by the user
        self._offered = False
        self._opened: list[Layer] = []
        self._spots = SpotsOfSlides()
        self._offer_later = qdebounced(self._make_offer, timeout=0)
        self._follow_later = qdebounced(self._follow, timeout=0)
        self.large = LargePictures(viewer, self._follow_later)
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.selection.events.active.connect(self._selected)
        for layer in viewer.layers:
            self.large.take(layer)
            self._watch(layer)
        self.use_lengths(False)

    def slides(self) -> list[Layer]:
        """Return the slide layers, the topmost first, without large pictures that are about to be replaced."""
        return [layer for layer in self._all_slides() if not self.large.holds(layer)]

    def _all_slides(self) -> list[Layer]:
        viewer = self._viewer()
        return [] if viewer is None else [layer for layer in reversed(viewer.layers) if is_slide_layer(layer)]

    def best(self) -> Layer | None:
        """Return the slide to explore: the selected one, the present one, or the topmost; hidden ones last."""
        viewer, slides = self._viewer(), self.slides()
        if viewer is None or not slides:
            return None
        seen = [layer for layer in slides if layer.visible]
        active = viewer.layers.selection.active
        wanted = [active if active != self._of_others else None, self._state.layer]
        for offered in (seen, slides):
            for layer in wanted:
                if layer is not None and layer in offered:
                    return layer
            if offered:
                return offered[0]
        return None

    def show_only(self, layer: Layer) -> None:
        """Show and select a slide, and hide the slides that lie in the same place."""
        viewer = self._viewer()
        layer = None if viewer is None else next((own for own in viewer.layers if own == layer), None)
        if viewer is None or layer is None:
            return
        with changed_together(viewer):
            set_visible(layer, True)
            if not viewer.canvas.grid.enabled:
                box = _box(viewer, layer)
                for other in self._all_slides():
                    if other != layer and other.visible and _overlap(box, _box(viewer, other)):
                        other.visible = False
        viewer.layers.selection.active = layer
        centre = np.asarray(viewer.scene.camera.center[-2:])
        box = _box(viewer, layer)
        if (centre < box[0]).any() or (centre > box[1]).any():
            fit_view(viewer, layer)

    # -- reacting ------------------------------------------------------------------------------------------

    def _watch(self, layer: Layer) -> None:
        if is_slide_layer(layer):
            layer.events.visible.connect(self._follow_soon)

    def _inserted(self, event: Any) -> None:
        layer, viewer = event.value, self._viewer()
        if viewer is None:
            return
        if not is_slide_layer(layer):
            self._spots.added(layer, self.best())
            return
        self._watch(layer)
        self.use_lengths(False)
        if not _is_opened(layer):
            self._of_others = layer
            return
        held = self.large.take(layer)
        if FILE_KEY not in layer.metadata:  # else it comes in place of a picture, and is shown and selected as that was
            self.show_only(layer)
            if len(self._all_slides()) > 1:
                fit_view(viewer, layer)
        self._follow_later()
        if not held:
            self._opened.append(layer)
            self._offer_later()

    def _removed(self, event: Any) -> None:
        self.large.forget(event.value)
        if is_slide_layer(event.value):
            event.value.events.visible.disconnect(self._follow_soon)
        self.use_lengths(False)

    def _selected(self, event: Any) -> None:
        if event.value is not None and event.value != self._of_others:
            self._of_others = None
        self._follow_later()

    def _follow_soon(self, event: Any) -> None:
        viewer = self._viewer()
        if viewer is not None:
            self._spots.follow(event.source, list(viewer.layers))
        self._follow_later()

    def _follow(self) -> None:
        best = self.best()
        if best is not None and best.visible and best != self._state.layer:
            self._state.want_slide(best)

    # -- units ---------------------------------------------------------------------------------------------

    def use_lengths(self, wanted: bool) -> bool:
        """Use micrometres for all slides if a layer in them is there or ``wanted``; return whether they are used.

        Beside layers in units of length, one in pixels makes napari drop all units, and with them the scale bar. A
        slide without pixel size then counts as if its pixels were micrometres until its size is known;
        :data:`UNSIZED_KEY` says that they are not.
        """
        viewer = self._viewer()
        if viewer is None:
            return wanted
        layers = viewer.layers
        wanted |= any(UNSIZED_KEY not in layer.metadata and not is_in_pixels(layer) for layer in layers)
        for layer in self.slides():
            if wanted and PATH_KEY in layer.metadata and is_in_pixels(layer):
                layer.metadata[UNSIZED_KEY] = True
                layer.units = ("um", "um")
            elif not wanted and layer.metadata.pop(UNSIZED_KEY, False):
                layer.units = ("pixel", "pixel")
        return wanted

    # -- a hint for newcomers ------------------------------------------------------------------------------

    def _make_offer(self) -> None:
        """Offer the Explore dock once, unless it is open; always for a slide without pixel size."""
        from napari_cpnn.ui.viewer import draw_ahead, ready_for_explore

        viewer, layers = self._viewer(), self._opened[:]
        self._opened.clear()
        layers = [] if viewer is None else [layer for layer in layers if layer in viewer.layers]
        if viewer is None or not layers or self._state.is_open("Explore"):
            return
        ready_for_explore()
        draw_ahead(viewer)
        layer = layers[-1]
        sized = mpp_of_layer(layer) is not None
        if sized and self._offered:
            return
        self._offered = True
        # napari shows one line of some 35 characters.
        text = "Map cell types and genes on it?" if sized else "This slide has no pixel size."
        offer(text, "Explore this slide", lambda: self._explore(layer))

    def _explore(self, layer: Layer) -> None:
        viewer = self._viewer()
        if viewer is not None and layer in viewer.layers:
            self.show_only(layer)
            show_dock(viewer, "Explore")


_SWITCHES: WeakKeyDictionary[Any, SlideSwitch] = WeakKeyDictionary()


def slide_switch(viewer: Any) -> SlideSwitch:
    """Return the switch of a viewer, which is made on first use and lives as long as the viewer."""
    from napari_cpnn.ui.viewer import state_of

    key = getattr(viewer, "__wrapped__", viewer)  # plugins are handed a proxy, a new one each time
    if key not in _SWITCHES:
        _SWITCHES[key] = SlideSwitch(key, state_of(viewer))
    return _SWITCHES[key]


def current_switch() -> SlideSwitch | None:
    """Return the switch of napari's current viewer, if there is one."""
    import napari

    viewer = napari.current_viewer()
    return None if viewer is None else slide_switch(viewer)


def _is_opened(layer: Layer) -> bool:
    """Return whether a layer was opened from a file or as a sample, rather than added by a script or plugin."""
    return path_of(layer) is not None or getattr(layer.source, "sample", None) is not None


def _box(viewer: Viewer, layer: Layer) -> Any:
    return np.asarray(viewer.layers.get_extent([layer]).world)[:, -2:]


def _overlap(a: Any, b: Any) -> bool:
    return bool((a[0] < b[1]).all() and (b[0] < a[1]).all())
