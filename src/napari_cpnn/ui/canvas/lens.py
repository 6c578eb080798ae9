"""The lens: a circle around the pointer in which the slide shows another quantity, or H&E alone."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Shapes
from psygnal import Signal
from superqt.utils import qthrottled

from napari_cpnn.ui.canvas.lens_picture import LensPicture, circle, picture_of
from napari_cpnn.ui.frame import Background, as_cpnn_error, every, stop_timer, warn
from napari_cpnn.ui.layers import LENS_KEY, add_beside, grid_transform, pointer_um
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.mapping import CompositionMap, Viewport

#: Radius in pixels of the canvas: at first, and the least and the largest.
FIRST_PX, LEAST_PX, MOST_PX = 130, 40, 400
#: What one step of the wheel makes of it.
_STEP = 1.12
#: Interval between looks at whether the map has grown, and between two pictures of it.
_CHECK_MS, _PICTURE_MS = 400, 100


class Lens:
    """Cuts a circle out of a picture of the view, which is made in the background when view, map or look change.

    While the pointer moves, only the pixels of a small layer and its place change.
    """

    on_changed = Signal(bool)

    def __init__(self, viewer: ViewerModel, state: ExploreState, background: Background) -> None:
        self._viewer, self._state, self._background = viewer, state, background
        self._view: Viewport | None = None
        self._picture: LensPicture | None = None
        self._made: tuple[Any, ...] | None = None  # what the last picture is of
        self._making = False
        self._um: tuple[float, float] | None = None
        self._zoom = 1.0  # pixels of the picture per pixel of the canvas
        self._shape(FIRST_PX)
        self._checks = every(_CHECK_MS, self._make)
        self._make_later = qthrottled(self._make, timeout=_PICTURE_MS, leading=False)
        self.layer: Image | None = None
        self.shown: Shown | None = None
        self.on = False

    def _shape(self, radius: int) -> None:
        self.radius = min(max(radius, LEAST_PX), MOST_PX)
        n = max(2, round(2 * self.radius * self._zoom))
        self._mask = circle(n)
        self._pixels: npt.NDArray[np.uint8] = np.zeros((n, n, 4), np.uint8)

    def set_on(self, on: bool) -> None:
        """Switch the lens on or off."""
        if on == self.on:
            return
        self.on = on
        if on:
            self._viewer.cursor.events.position.connect(self._moved)
            self._viewer.mouse_wheel_callbacks.append(self._wheel)
            self._viewer.layers.events.removed.connect(self._layer_removed)
            self._checks.start()
            self._make()
        else:
            self._release()
            self._remove()
        self.on_changed.emit(on)

    def set_shown(self, shown: Shown | None) -> None:
        """Show another quantity inside; ``None``: H&E alone."""
        self.shown = shown
        if self.on:
            self._make()

    def set_view(self, view: Viewport | None) -> None:
        """Make a picture of another view."""
        self._view = view
        if self.on:
            self._make_later()

    @property
    def is_settled(self) -> bool:
        """True when the picture is of the present view, map and look."""
        return not self._making and self._made == self._wanted()

    def stop(self, *, viewer_lives: bool) -> None:
        """Disconnect, and remove the layer unless the viewer itself is closing."""
        stop_timer(self._checks)
        self._make_later.cancel()
        if self.on:
            self.on = False
            self._release()
            if viewer_lives:
                self._remove()

    # -- the picture ---------------------------------------------------------------------------------------

    def _wanted(self) -> tuple[Any, ...] | None:
        state = self._state
        if self._view is None or state.slide is None or state.slide.mpp is None:
            return None
        cmap = None if self.shown is None else state.map
        view = (self._view.rect, self._view.px_per_um)  # not the pointer
        revision = None if cmap is None else cmap.revision
        return state.slide, view, cmap, revision, self._known(cmap), state.look, state.pixel_ratio

    def _known(self, cmap: CompositionMap | None) -> Shown | None:
        """Return what is shown inside if the map has it."""
        shown = self.shown
        if shown is None or cmap is None:
            return None
        known = cmap.genes if shown.gene else cmap.cell_types
        return shown if bool(known) and all(name in known for name in shown.names) else None

    def _make(self) -> None:
        wanted = self._wanted()
        if not self.on or self._making or wanted is None or wanted == self._made:
            return
        slide, (rect, px_per_um), cmap, _, shown, look, ratio = wanted
        self._making = True

        def done(picture: LensPicture) -> None:
            self._making, self._made, self._picture = False, wanted, picture
            self._zoom = 1 / (px_per_um * picture.um_per_px)
            self._shape(self.radius)
            if self.on:
                self._draw()
                self._make_later()  # what has changed meanwhile

        def failed(error: Exception) -> None:
            self._making, self._made = False, wanted
            warn(str(as_cpnn_error(error)))

        self._background(lambda: picture_of(slide, rect, px_per_um * ratio, cmap, shown, look), done, failed)

    # -- the circle ----------------------------------------------------------------------------------------

    def _moved(self, _event: Any = None) -> None:
        layer, slide = self._state.layer, self._state.slide
        if layer is not None and slide is not None and slide.mpp is not None:
            self._um = pointer_um(self._viewer, layer, slide.mpp)
            self._draw()

    def _draw(self) -> None:
        layer, slide, picture = self._state.layer, self._state.slide, self._picture
        if layer is None or slide is None or slide.mpp is None or picture is None or self._viewer.dims.ndisplay != 2:
            return
        um = self._um or (self._view.rect.center if self._view is not None else None)
        if um is None:
            return
        grid = picture.cut(um, self._mask, self._pixels)
        ours, is_new = self.layer, self.layer is None
        if ours is None:
            ours = self.layer = Image(
                self._pixels,
                rgb=True,
                multiscale=False,
                contrast_limits=(0, 255),
                name="Lens",
                blending="translucent_no_depth",
                cache=False,
                metadata={LENS_KEY: True},
            )
        elif ours.data is not self._pixels:
            ours.data = self._pixels
        if ours.units != layer.units:
            ours.units = layer.units
        for name, value in grid_transform(layer, slide.mpp, grid).items():
            if not np.array_equal(np.asarray(getattr(ours, name)), value):
                setattr(ours, name, value)
        if is_new:
            self._add(ours)
        else:
            ours.refresh(thumbnail=False, highlight=False, extent=False)

    def _add(self, ours: Image) -> None:
        """Add the layer above all but drawn regions; the selected layers stay selected."""
        first = next((i for i, layer in enumerate(self._viewer.layers) if isinstance(layer, Shapes)), None)
        add_beside(self._viewer, ours, first)

    def _wheel(self, _viewer: Any, event: Any) -> None:
        """Change the size with Shift and the wheel; without Shift the wheel zooms."""
        if "Shift" in event.modifiers:
            self._shape(round(self.radius * _STEP ** float(np.clip(np.sum(event.delta), -3, 3))))
            self._draw()
            event.handled = True

    def _layer_removed(self, event: Any) -> None:
        """Switch the lens off when the user removes its layer."""
        if self.layer is not None and event.value == self.layer:
            self.layer = None
            self.set_on(False)

    def _release(self) -> None:
        stop_timer(self._checks)
        self._make_later.cancel()
        self._viewer.cursor.events.position.disconnect(self._moved)
        self._viewer.layers.events.removed.disconnect(self._layer_removed)
        with suppress(ValueError):
            self._viewer.mouse_wheel_callbacks.remove(self._wheel)

    def _remove(self) -> None:
        layer, self.layer, self._picture, self._made = self.layer, None, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
