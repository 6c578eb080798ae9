"""Connection of the Explore dock to its viewer: controller, overlays, legend and timers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psygnal import Signal
from superqt.utils import qdebounced, qthrottled

from napari_cpnn.errors import CpnnError
from napari_cpnn.geometry import LayerFrame
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.explore.banner import Banner
from napari_cpnn.ui.explore.controller import ExploreController
from napari_cpnn.ui.explore.gene_places import GenePlaces
from napari_cpnn.ui.explore.legend import CanvasLegend
from napari_cpnn.ui.explore.overlays import Overlays
from napari_cpnn.ui.frame import WARM_UP, LongLived, QtBackground, every, stop_timer
from napari_cpnn.ui.layers import (
    LENS_KEY,
    OVERLAY_KEY,
    PATH_KEY,
    SPOTS_KEY,
    UNSIZED_KEY,
    ViewportWatcher,
    changed_together,
    fit_view,
    mpp_of_layer,
    picture_in,
    pointer_um,
    read_viewport,
    slide_switch,
    why_no_slide,
)
from napari_cpnn.ui.viewer import ExploreState, state_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.ui.layers import LayerData

UPDATE_MS = 300
"""Interval between updates of texts, shares and legend."""

HOLD_MS = 2000
"""Interval between looks whether all is loaded that is made ready beside the event loop."""

POINTER_MS = 60
"""Interval between updates of the readout while the pointer moves."""


class ExploreSession:
    """Connects a viewer to a controller.

    ``update`` is called every `UPDATE_MS`, ``pointer_moved`` while the pointer moves, at most every `POINTER_MS`.
    """

    view_changed = Signal(object)
    """Emitted with the view, or None while it is not known."""

    def __init__(
        self,
        viewer: ViewerModel,
        background: QtBackground,
        notify: Callable[[CpnnError], None],
        settings: Callable[[], MappingSettings],
        update: Callable[[], None],
        pointer_moved: Callable[[], None],
    ) -> None:
        self.viewer = viewer
        self._long_lived = LongLived()
        self._long_lived.hold(viewer.layers)
        self.state: ExploreState = state_of(viewer)
        self.controller = ExploreController(self.state, background, notify, settings)
        self.places = GenePlaces(self.state, background)
        self.overlays = Overlays(viewer, self.state, self.places)
        self.legend = CanvasLegend(viewer, self.state, self.awaits_picture)
        self.legend.warm_up()
        self.banner = Banner(viewer)
        self.switch = slide_switch(viewer)
        self.watcher = ViewportWatcher(viewer, self.read_view)
        self._update, self._update_later = update, qdebounced(update, timeout=0)
        self._updates = every(UPDATE_MS, update)
        self._updates.start()
        self._read_pointer = qthrottled(pointer_moved, timeout=POINTER_MS, leading=False)
        # Later: our layers must not be removed while napari is still removing others.
        self._slide_removed_later = qdebounced(self._slide_removed, timeout=0)
        self.hold_later = qdebounced(self._hold, timeout=HOLD_MS)
        self._scale_bar_later = qdebounced(self._show_scale_bar, timeout=0)  # napari takes long to draw the first
        self._closed = False
        self._layer_before: Layer | None = None
        self._made_of: WeakKeyDictionary[Layer, tuple[Layer, ...]] = WeakKeyDictionary()
        viewer.cursor.events.position.connect(self._pointer_moved)
        self.state.slide_changed.connect(self._slide_changed)
        self.state.mapper_changed.connect(self._mapper_changed)
        self.state.model_wanted.connect(self.controller.choose_model)
        self.state.mpp_wanted.connect(self.set_mpp)
        self.state.slide_wanted.connect(self._wanted)
        viewer.layers.events.removed.connect(self._layer_removed)

    def _mapper_changed(self) -> None:
        """Hold what the next map keeps, too."""
        self.hold_later()

    def _hold(self) -> None:
        """Leave out of garbage collection what is loaded, also beside the event loop."""
        comes_and_goes = any(LENS_KEY in layer.metadata for layer in self.viewer.layers)
        if WARM_UP.is_running or comes_and_goes or not self._long_lived.hold(self.viewer.layers):
            self.hold_later()

    def slide_layers(self) -> list[Layer]:
        """Return the layers that can be explored, the topmost first."""
        return self.switch.slides()

    def choose_newest(self) -> None:
        """Explore the selected slide layer, or else the topmost; visible ones first."""
        best = self.switch.best()
        picture = picture_in(self.viewer) if best is None else None
        self.state.no_slide = "" if best is not None else self.switch.large.text or why_no_slide(self.viewer)
        self.choose(best)
        if picture is not None:
            text = f"Taking {picture.name} as a slide ..."
            self.controller.prepare(text, picture.read, lambda made: self._take(picture.layers, made))

    def _take(self, layers: Sequence[Layer], made: LayerData) -> None:
        """Explore a slide that was made of other layers, which are hidden."""
        if self.state.layer is not None or any(layer not in self.viewer.layers for layer in layers):
            return
        data, keywords, _ = made
        for layer in layers:
            layer.visible = False
        added = self.viewer.add_image(data, **keywords)
        self._made_of[getattr(added, "__wrapped__", added)] = tuple(layers)
        self.choose(added)

    def choose(self, layer: Layer | None) -> None:
        """Explore a layer: show it alone, with a scale bar when it is in micrometres."""
        with changed_together(self.viewer):
            if layer is not None:
                self.switch.show_only(layer)
            self.controller.choose_layer(layer)

    def _wanted(self, layer: Layer) -> None:
        """Follow the selected slide; which slides are visible is left to the user."""
        if layer != self.state.layer:
            self.controller.choose_layer(layer)

    def set_mpp(self, value: float) -> None:
        """Set the pixel size, as a choice that the user can undo."""
        layer, slide = self.state.layer, self.state.slide
        if layer is None or slide is None:
            return
        frame = (layer.scale, layer.translate, layer.units)
        unsized = {UNSIZED_KEY: True} if UNSIZED_KEY in layer.metadata else {}

        def undo() -> None:
            layer.metadata.update(unsized)
            layer.scale, layer.translate, layer.units = frame
            fit_view(self.viewer, layer)
            self.controller.use_slide(slide)

        self.controller.set_mpp(value)
        if self.state.slide is not slide:
            self.state.history.add(f"pixel size {value:g} µm", undo, owner=layer)

    def _fit_layer(self) -> None:
        """Scale a layer in pixels to micrometres when the pixel size becomes known.

        A layer of another reader is scaled only if it is alone, or with those that it was made of: other layers would
        no longer match it.
        """
        layer, slide = self.state.layer, self.state.slide
        if layer is None or slide is None or slide.mpp is None:
            return
        parts = self._made_of.get(getattr(layer, "__wrapped__", layer), ())
        others = [other for other in self.viewer.layers if other != layer and other not in parts]
        ours = PATH_KEY in layer.metadata or all(_is_ours(other) for other in others)
        if ours and mpp_of_layer(layer) is None:
            frame = LayerFrame.of_slide(slide.mpp)
            for part in parts:  # they go on to lie under the slide that was made of them
                part.scale = (*part.scale[:-2], *frame.scale)
                part.translate = (*part.translate[:-2], *frame.translate)
                part.units = (*map(str, part.units[:-2]), "um", "um")
            layer.metadata.pop(UNSIZED_KEY, None)
            layer.scale, layer.translate, layer.units = frame.scale, frame.translate, ("um", "um")
            self._update_scale_bar()
            fit_view(self.viewer, layer)

    def _slide_changed(self) -> None:
        layer, before = self.state.layer, self._layer_before
        self._layer_before = layer
        if layer is not None and layer != before and not layer.visible:  # an undone choice
            self.switch.show_only(layer)
        self._update_scale_bar()
        self._fit_layer()
        self.read_view()

    def read_view(self) -> None:
        """Pass the present view to the controller."""
        layer, slide = self.state.layer, self.state.slide
        if layer is not None and slide is not None and slide.mpp is not None:
            viewport = read_viewport(self.viewer, layer, slide.mpp)
            self.controller.set_viewport(viewport)
            self.overlays.set_view(viewport)
            self.view_changed.emit(viewport)
        else:
            self.view_changed.emit(None)

    def awaits_picture(self) -> bool:
        """Return whether a model is being loaded, or the picture of its map in view is not complete."""
        return self.controller.loading is not None or self.state.awaits_picture

    def is_settled(self) -> bool:
        """Return whether the present view is mapped, even if it changed a moment ago."""
        return not self.watcher.pending and self.controller.is_settled()

    def finish_drawing(self) -> None:
        """Paint the whole map and write the whole legend now."""
        self.overlays.repaint()
        self.update_legend()
        self.legend.finish()

    def is_drawn(self) -> bool:
        """Return whether the canvas shows the present map and legend."""
        self.update_legend()
        return self.overlays.is_painted and self.legend.is_complete and self.places.is_current

    def readout(self) -> str:
        """Describe the place under the pointer."""
        layer, slide = self.state.layer, self.state.slide
        if layer is None or slide is None or slide.mpp is None or not self.viewer.mouse_over_canvas:
            return ""
        return self.controller.readout(pointer_um(self.viewer, layer, slide.mpp))

    def update_texts(self) -> None:
        """Update texts and legend of another quantity; that of one gene or type is drawn before it is named."""
        if self.state.shown is not None and self.state.shown.has_range:
            self.legend.hide()
            self._update_later()
        else:
            self._update()

    def update_legend(self) -> None:
        """Write the legend of what is on screen, and the banner that it is not to be believed."""
        places = self.places.outlined
        outline = "" if places is None else f"outlined where {places.side}, FDR {100 * places.fdr:.0f} %"
        levels, per_unit = self.overlays.lines.levels, 1.0 if self.state.shown is None else self.state.shown.per_unit
        contours = f"contours at {', '.join(f'{v * per_unit:g}' for v in levels)}{' %' if per_unit != 1 else ''}"
        notes = [outline, contours if levels else ""]
        self.legend.update(self.controller.legend_rows(), self.controller.scale_text(), ", ".join(filter(None, notes)))
        self.banner.show(self.controller.domain_report())

    def close(self, *, viewer_lives: bool) -> None:
        """Stop mapping and all timers; remove our layers and texts unless the viewer itself is closing."""
        if self._closed:
            return
        self._closed = True
        if not viewer_lives:
            self.state.disconnect_all()
        stop_timer(self._updates)
        self._read_pointer.cancel()
        self._update_later.cancel()
        self._slide_removed_later.cancel()
        self.hold_later.cancel()
        self._scale_bar_later.cancel()
        self._long_lived.release()
        self.viewer.cursor.events.position.disconnect(self._pointer_moved)
        self.watcher.stop()
        self.state.slide_changed.disconnect(self._slide_changed)
        self.state.mapper_changed.disconnect(self._mapper_changed)
        self.state.model_wanted.disconnect(self.controller.choose_model)
        self.state.mpp_wanted.disconnect(self.set_mpp)
        self.state.slide_wanted.disconnect(self._wanted)
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.places.close()
        self.controller.close()
        self.overlays.stop(viewer_lives=viewer_lives)
        self.legend.stop(viewer_lives=viewer_lives)
        self.banner.stop(viewer_lives=viewer_lives)
        self.state.set_slide(None, None)
        self.state.set_model(None)
        self.state.set_shown(None)

    def _pointer_moved(self, _event: Any = None) -> None:
        self._read_pointer()

    def _layer_removed(self, event: Any) -> None:
        self._long_lived.layer_removed(event.value)
        self.hold_later()
        if self.state.layer is not None and self.state.layer == event.value:
            self._slide_removed_later()
        else:
            self.state.history.forget(event.value)

    def _slide_removed(self) -> None:
        gone = self.state.layer
        if gone is not None and gone not in self.viewer.layers:
            self.choose_newest()
            self.state.history.forget(gone)

    def _update_scale_bar(self) -> None:
        """Show the scale bar for a slide in micrometres, and none for one whose pixel size is not known."""
        layer = self.state.layer
        if layer is not None and mpp_of_layer(layer) is not None:
            self._scale_bar_later()
        elif layer is not None and UNSIZED_KEY in layer.metadata:
            self.viewer.canvas.overlays.scale_bar.visible = False

    def _show_scale_bar(self) -> None:
        layer, bar = self.state.layer, self.viewer.canvas.overlays.scale_bar
        if layer is not None and mpp_of_layer(layer) is not None:
            bar.visible, bar.box = True, True


def _is_ours(layer: Layer) -> bool:
    return bool({OVERLAY_KEY, SPOTS_KEY} & set(layer.metadata))
