"""Overlays: layers that show a map over its slide and are repainted while the map fills."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_cpnn import painting
from napari_cpnn.geometry import Grid
from napari_cpnn.ui.canvas import MapLines, Painted
from napari_cpnn.ui.explore.gene_places import GenePlaces
from napari_cpnn.ui.explore.hatching import Hatching
from napari_cpnn.ui.explore.outline_layer import OutlineLayer
from napari_cpnn.ui.explore.overlay import SLOTS, Overlay, slot_of, style_bar, use_colormap
from napari_cpnn.ui.explore.placing import add_below, keep_above, lift_above, place, place_above, transform_events
from napari_cpnn.ui.explore.still_shown import is_known
from napari_cpnn.ui.explore.strength import Strength
from napari_cpnn.ui.frame import every, stop_timer
from napari_cpnn.ui.layers import changed_together, set_visible
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.mapping import CompositionMap, Viewport
    from napari_cpnn.slides import Slide

TICK_MS = 66
"""Interval between repaints."""

BUSY_SHARE = 0.25
"""Maximum share of the GUI thread's time for repainting; a large map is repainted less often."""


class Overlays:
    """Overlay layers of a viewer, kept up to date with its state.

    There is one layer per slot: share of a cell type, gene, contribution of a cell type to a gene, dominant type or
    blend, and out-of-domain score. Each is added when it is first shown. Adding and removing layers is slow in napari,
    so the next map, of another model or slide, is shown in the same ones.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState, places: GenePlaces) -> None:
        self._viewer = viewer
        self._state = state
        self._overlays: dict[str, Overlay] = {}
        self._placing: Layer | None = None
        self._setting = False
        self._next_paint, self._turns = 0.0, 0
        self._due: Overlay | None = None  # a new layer, to be shown in place of the others
        self._before: list[Layer] = []  # layers that were there first; those that come meanwhile stay above it
        self._hatching = Hatching(viewer, state)
        self._places = places
        self.outline = OutlineLayer(viewer)
        self.lines = MapLines(viewer)
        self._strength = Strength(state, self.lines)
        self._outline_removed = False
        self._timer = every(TICK_MS, self._tick)
        state.slide_changed.connect(self._slide_changed)
        state.mapper_changed.connect(self._map_changed)
        state.shown_changed.connect(self._shown_changed)
        state.look_changed.connect(self._look_changed)
        state.instead_changed.connect(self._instead_changed)
        places.changed.connect(self._outline)
        viewer.layers.events.removed.connect(self._layer_removed)

    def stop(self, *, viewer_lives: bool = True) -> None:
        """Disconnect, and remove the layers unless the viewer is closing anyway."""
        stop_timer(self._timer)
        if viewer_lives:
            self._remove_all()
        self._unfollow()
        self._state.slide_changed.disconnect(self._slide_changed)
        self._state.mapper_changed.disconnect(self._map_changed)
        self._state.shown_changed.disconnect(self._shown_changed)
        self._state.look_changed.disconnect(self._look_changed)
        self._state.instead_changed.disconnect(self._instead_changed, missing_ok=True)
        self._places.changed.disconnect(self._outline, missing_ok=True)
        self._viewer.layers.events.removed.disconnect(self._layer_removed)

    def layer_of(self, kind: str) -> Layer | None:
        """Return the layer that shows a kind of quantity, if there is one."""
        overlay = self._overlays.get(SLOTS.get(kind, kind))
        return None if overlay is None else overlay.layer

    def set_view(self, view: Viewport | None) -> None:
        """Fade the map at the zoom of a view, and draw the lines in view."""
        self._strength.px_per_um = 0.0 if view is None else view.px_per_um
        self.outline.set_zoom(self._strength.px_per_um)
        self._add_lines(is_new=self.lines.set_view(view))
        for overlay in self._overlays.values():
            self._style(overlay)

    def peek(self, on: bool) -> None:
        """Hide the map, whatever its opacity, or show it again."""
        self._strength.peeking = on
        for overlay in self._overlays.values():
            self._style(overlay)

    def is_layer_of_map(self, layer: Layer) -> bool:
        """Return whether a layer is the map itself, not its hatching, outlines or lines."""
        return any(overlay.layer == layer for overlay in self._overlays.values())

    def paint_now(self) -> None:
        """Repaint what has changed without waiting for the next tick."""
        self._paint_overlays()
        self._hatch()

    def _paint_overlays(self) -> None:
        if self._state.map is None:
            return
        for overlay in self._overlays.values():
            on_screen = overlay.layer.visible or overlay is self._due
            if on_screen and overlay.revision != overlay.cmap.revision:
                self._paint(overlay)

    def repaint(self) -> None:
        """Repaint everything on screen, with the colour range of a complete map."""
        for overlay in self._overlays.values():
            overlay.revision = -1
        while self._show_due():
            pass
        self._show_bars()
        self.paint_now()
        self._hatch(at_once=True)

    @property
    def is_painted(self) -> bool:
        """True when the present state of the map is on screen."""
        painted = all(o.revision == o.cmap.revision for o in self._overlays.values() if o.layer.visible)
        painted = painted and self._due is None
        return painted and self._hatching.is_current() and not any(o.bar_is_due for o in self._overlays.values())

    # -- reacting ------------------------------------------------------------------------------------------

    def _slide_changed(self) -> None:
        if self._state.layer is None:
            self._remove_all()

    def _map_changed(self) -> None:
        with changed_together(self._viewer):
            self._use_map()

    def _use_map(self) -> None:
        cmap, shown = self._state.map, self._state.shown
        if cmap is None:
            stop_timer(self._timer)
            self._put_away()
            return
        for slot, overlay in list(self._overlays.items()):
            if (shown is not None and slot == slot_of(shown)) or is_known(self._state, overlay.shown):
                overlay.use(cmap, self._state.slide)
            elif overlay.layer in self._viewer.layers:
                self._viewer.layers.remove(overlay.layer)
            else:
                del self._overlays[slot]
        self._shown_changed()
        self._timer.start()

    def _shown_changed(self) -> None:
        cmap, shown, slide_layer, slide = self._state.map, self._state.shown, self._state.layer, self._state.slide
        if cmap is None or shown is None or slide_layer is None or slide is None or slide.mpp is None:
            return
        with changed_together(self._viewer):
            self._show(shown, cmap, slide, slide_layer)

    def _show(self, shown: painting.Shown, cmap: CompositionMap, slide: Slide, slide_layer: Layer) -> None:
        slot = slot_of(shown)
        overlay = self._overlays.get(slot)
        if overlay is None:
            overlay = self._overlays[slot] = Overlay(shown, cmap, slide)
            overlay.bar_is_due = shown.has_range
        self._follow(slide_layer)
        overlay.show(shown)
        self._style(overlay)
        self._paint(overlay)
        lift_above(self._viewer, overlay.layer, slide_layer)
        if overlay.layer not in self._viewer.layers:
            if overlay is not self._due:
                self._due, self._before = overlay, list(self._viewer.layers)
        elif overlay is not self._due:
            self._due = None
            self._show_only(overlay)
        self._hatching.keep_above_overlays()
        keep_above(self._viewer, self.lines.layer, Image)
        self._outline()
        self.outline.keep_above_overlays()

    def _look_changed(self) -> None:
        with changed_together(self._viewer):
            for overlay in self._overlays.values():
                self._style(overlay)
                overlay.revision = -1
            self.paint_now()

    def _instead_changed(self) -> None:
        """Hide the map for what is shown in its place, or show it again."""
        if not self._state.instead:
            self._shown_changed()
        else:
            with changed_together(self._viewer):
                self._show_only(None)

    def _layer_removed(self, event: Any) -> None:
        for slot, overlay in list(self._overlays.items()):
            if overlay.layer == event.value:
                del self._overlays[slot]
        self._hatching.forget(event.value)
        self.lines.forget(event.value)
        self._outline_removed |= self.outline.forget(event.value)

    def _tick(self) -> None:
        if self._outline_removed and self._state.layer in self._viewer.layers:
            self._state.choose_look(outline="none")  # by the user; exports no longer contain it either
        self._outline_removed = False
        self._outline()
        now = time.monotonic()
        if self._show_due() or self._show_bars() or self._hatching.show_due():
            return
        if now >= self._next_paint:
            self._turns += 1
            if self._turns % 2:  # one after the other, each with time for other things between
                self._paint_overlays()
            else:
                self._hatch()
            end = time.monotonic()
            self._next_paint = end + (end - now) * (1 / BUSY_SHARE - 1)

    # -- layers --------------------------------------------------------------------------------------------

    def _add(self, overlay: Overlay) -> None:
        above = [self._hatching.layer, self.lines.layer, self.outline.layer]
        above += [layer for layer in self._viewer.layers if layer not in self._before]
        self._before = []
        add_below(self._viewer, overlay.layer, above)
        overlay.layer.events.contrast_limits.connect(self._limits_dragged)
        overlay.layer.events.opacity.connect(self._opacity_dragged)
        if overlay.shown.has_range:
            style_bar(overlay.layer, self._state.look.colormap)

    def _put_away(self) -> None:
        """Hide all layers, or remove them with their slide."""
        if self._state.layer is None or self._state.layer not in self._viewer.layers:
            self._remove_all()
            return
        self._due = None
        for overlay in self._overlays.values():
            overlay.put_away()
        self._hatching.put_away()
        self.outline.put_away()
        self.lines.put_away()
        self._unfollow()

    def _show_due(self) -> bool:
        """Go on with a layer that is due, and return whether there was one: napari is slow to add and to draw it."""
        due = self._due
        if due is None or due not in self._overlays.values():
            self._due = None
        elif due.layer not in self._viewer.layers:
            self._add(due)
            self._hatching.keep_above_overlays()
        else:
            self._due = None
            self._show_only(due)
        return due is not None

    def _show_only(self, overlay: Overlay | None) -> None:
        """Show one of the layers; none while another is in place of the map."""
        for other in self._overlays.values():
            set_visible(other.layer, other is overlay and not self._state.instead)

    def _show_bars(self) -> bool:
        """Show the colour bars that are due; return whether there were any."""
        due = [overlay for overlay in self._overlays.values() if overlay.bar_is_due]
        for overlay in due:
            overlay.bar_is_due = False
            self._style(overlay)
        return bool(due)

    def _remove_all(self) -> None:
        for overlay in list(self._overlays.values()):
            if overlay.layer in self._viewer.layers:
                self._viewer.layers.remove(overlay.layer)
        self._overlays.clear()
        self._hatching.remove()
        self.outline.remove()
        self.lines.remove()
        self._unfollow()

    def _style(self, overlay: Overlay) -> None:
        look = self._state.look
        self._setting = True
        try:
            opacity = self._strength.opacity(overlay.shown, overlay.cmap.grid)
            if overlay.layer.opacity != opacity:
                overlay.layer.opacity = opacity
            mode = "linear" if look.is_smooth(overlay.shown) else "nearest"
            if overlay.layer.interpolation2d != mode:
                overlay.layer.interpolation2d = mode
            if overlay.shown.has_range:
                overlay.layer.colorbar.visible = look.legend and not overlay.bar_is_due
                use_colormap(overlay.layer, look.colormap)
        finally:
            self._setting = False

    def _follow(self, slide_layer: Layer) -> None:
        """Place overlays on a slide layer, also when it is moved later."""
        if self._placing is None:
            self._placing = slide_layer
            for source in transform_events(slide_layer):
                source.connect(self._place)
        self._place()

    def _unfollow(self) -> None:
        if self._placing is not None:
            for source in transform_events(self._placing):
                source.disconnect(self._place)
            self._placing = None

    def _place(self, _event: Any = None) -> None:
        slide, slide_layer = self._state.slide, self._placing
        if slide is None or slide.mpp is None or slide_layer is None:
            return
        overlays: list[tuple[Layer | None, Grid | None]] = [(o.layer, o.grid) for o in self._overlays.values()]
        marks = [(one.layer, one.grid) for one in (self._hatching, self.outline, self.lines)]
        place([*overlays, *marks], slide_layer, slide.mpp)

    # -- napari's own controls -----------------------------------------------------------------------------

    def _limits_dragged(self, event: Any) -> None:
        if not self._setting:
            shown = next((o.shown for o in self._overlays.values() if o.layer is event.source), None)
            per_unit, unit = (1.0, "") if shown is None else (shown.per_unit, shown.unit)
            low, high = (value / per_unit for value in event.source.contrast_limits)
            self._state.set_look(range_mode="manual", manual=(float(low), float(high)), manual_for=unit)

    def _opacity_dragged(self, event: Any) -> None:
        overlay = next((o for o in self._overlays.values() if o.layer == event.source), None)
        if overlay is not None and not self._setting:
            self._strength.dragged(float(event.source.opacity), overlay.shown, overlay.cmap.grid)

    # -- painting ------------------------------------------------------------------------------------------

    def _paint(self, overlay: Overlay) -> None:
        look, shown = self._state.look, overlay.shown
        limits = overlay.paint(look, at_rest=self._at_rest())
        self._set_limits(overlay, limits)
        overlay.layer.refresh(thumbnail=False, highlight=False, extent=False)
        if shown == self._state.shown:
            self._add_lines(is_new=self.lines.draw(Painted(overlay.cmap, shown, look, limits, overlay.painter.rgba)))

    def _add_lines(self, *, is_new: bool) -> None:
        if is_new:
            self._place()
            self.lines.add(place_above(self._viewer, Image))
            keep_above(self._viewer, self.lines.layer, Image)

    def _hatch(self, *, at_once: bool = False) -> None:
        if self._hatching.update(at_once=at_once):
            self._place()
        while at_once and self._hatching.show_due():
            pass

    def _outline(self) -> None:
        """Outline where the gene on screen is high or low."""
        cmap, shown = self._state.map, self._state.shown
        is_gene = shown is not None and shown.kind == "gene" and shown.measure != "domain"
        places = self._places.outlined if is_gene and SLOTS["gene"] in self._overlays else None
        if cmap is None:
            self.outline.put_away()
        elif self._state.look.outline == "none":
            self.outline.remove()
        elif self.outline.show(places, cmap.grid):
            self._place()
            self.outline.add()
            self.outline.keep_above_overlays()

    def _at_rest(self) -> bool:
        mapper = self._state.mapper
        return mapper is not None and mapper.progress().idle

    def _set_limits(self, overlay: Overlay, limits: painting.Range) -> None:
        self._setting = True
        try:
            wanted = tuple(value * overlay.shown.per_unit for value in limits)
            if tuple(overlay.layer.contrast_limits) != wanted:
                overlay.layer.contrast_limits = wanted
        finally:
            self._setting = False
        if overlay.shown == self._state.shown:
            self._state.set_limits(limits)
