"""The two ways of drawing spots in a layer: discs at their places, and a picture with a pixel for each of many bins."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.components.overlays import ZoomOverlay
from napari.layers import Image, Points

from napari_cpnn.arrays import BoolArray, FloatArray, IntArray
from napari_cpnn.ui.layers import (
    BINS_KEY,
    BORDER,
    BORDER_WIDTH,
    PLAIN,
    PLAIN_BYTES,
    affine_of_bins,
    bins_picture,
    is_click,
    points_look,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.spots import Bins

_CHOSEN, _THICK = (1.0, 0.27, 0.0, 1.0), 0.22
#: Chosen bins are opaque, and orange by this part, as the borders of chosen discs; all others are at most so opaque.
_ORANGE, _FAINT = 0.65, 60
#: Bins whose colours become bytes at a time.
_AT_A_TIME = 1 << 15
_BOX = "napari_cpnn_box_of_bins"

Colors = npt.NDArray[np.float32] | None


class Discs:
    """Points at their true diameter; ``told`` hears which of them, ``(k,)``, the user has selected."""

    def __init__(self, layer: Points, told: Callable[[IntArray], None]) -> None:
        self.layer: Points = layer
        self._told, self._setting = told, False
        layer.selected_data.events.items_changed.connect(self._selected)

    @classmethod
    def new(cls, world: FloatArray, size: float, told: Callable[[IntArray], None], **keywords: Any) -> Discs:
        """Return discs at ``world (n, 2)`` in a new layer."""
        return cls(Points(world, **points_look(size), **keywords), told)

    def place(self, world: FloatArray, size: float, units: Any) -> None:
        """Move the discs to ``world (n, 2)``."""
        layer = self.layer
        _put(layer, np.eye(3), units)
        if not np.array_equal(layer.data, world):
            layer.data = world
        if not np.all(layer.size == size):
            layer.size = size

    def __len__(self) -> int:
        """Return the number of discs, which the user can have changed."""
        return len(self.layer.data)

    def color(self, rgba: Colors) -> None:
        """Colour the discs by ``(n, 4)``, or show only where they are.

        napari uploads them for the layer's event, and again for that of its colours.
        """
        with self.layer.events.face_color.blocker():
            self.layer.face_color = np.array(PLAIN) if rgba is None else rgba

    def mark(self, chosen: BoolArray) -> None:
        """Give exactly the discs ``chosen (n,)`` a thick border."""
        with self.layer.events.blocker_all():  # a single upload to the GPU, together with the colours
            self.layer.border_width = np.where(chosen, _THICK, BORDER_WIDTH)
        with self.layer.events.border_color.blocker():  # as of faces, see color
            self.layer.border_color = np.where(chosen[:, None], _CHOSEN, BORDER).astype(np.float32)
        if not self._setting and self.layer.selected_data:  # napari's own selection would mark other spots
            self._setting = True
            self.layer.selected_data = set()
            self._setting = False

    def pick(self, on: bool) -> None:
        """Let a box that is dragged in the layer, or a click, select discs, or move the view."""
        self.layer.mode = "select" if on else "pan_zoom"

    def close(self) -> None:
        """Let the layer go."""
        self.layer.selected_data.events.items_changed.disconnect(self._selected)

    def _selected(self, *_: Any) -> None:
        """Tell which points the user has selected with napari's tools."""
        if not self._setting:
            self._setting = True
            try:
                self._told(np.array(sorted(self.layer.selected_data), dtype=np.intp))
            finally:
                self._setting = False


class BinsPicture:
    """Bins in an image with a pixel for each; has the methods of :class:`Discs`."""

    def __init__(self, layer: Image, viewer: ViewerModel, told: Callable[[IntArray], None]) -> None:
        self.layer: Image = layer
        self._viewer, self._told = viewer, told
        self._bins: Bins = layer.metadata[BINS_KEY]
        self._bytes: npt.NDArray[np.uint8] | None = None
        self._chosen = np.zeros(len(self), dtype=bool)

    @classmethod
    def new(
        cls,
        bins: Bins,
        to_world: Callable[[FloatArray], FloatArray],
        viewer: ViewerModel,
        told: Callable[[IntArray], None],
        **keywords: Any,
    ) -> BinsPicture:
        """Return a picture of bins in a new layer."""
        picture = bins_picture(bins, to_world)
        metadata = picture.pop("metadata") | keywords.pop("metadata")
        return cls(Image(**picture, metadata=metadata, **keywords), viewer, told)

    def place(self, bins: Bins, to_world: Callable[[FloatArray], FloatArray], units: Any) -> None:
        """Draw bins at their places: others, or the same that were moved."""
        layer = self.layer
        _put(layer, affine_of_bins(bins, to_world), units)
        if bins is not self._bins:
            self._bins, self._bytes = bins, None
            self._chosen = np.zeros(len(self), dtype=bool)
            layer.metadata[BINS_KEY] = bins
            layer.data = bins.picture(self._shown())

    def __len__(self) -> int:
        return len(self._bins.pixels)

    def color(self, rgba: Colors) -> None:
        """Colour the bins by ``(n, 4)``, or show only where they are."""
        was_plain, self._bytes = self._bytes is None, None if rgba is None else _bytes_of(rgba)
        if not (was_plain and rgba is None):
            self._draw()

    def mark(self, chosen: BoolArray) -> None:
        """Make chosen bins orange with a tint of their own colour, and all others faint."""
        if not np.array_equal(chosen, self._chosen):
            self._chosen = chosen
            self._draw()

    def pick(self, on: bool) -> None:
        """Let a box that is dragged in the layer, or a click, choose bins, or move the view."""
        callbacks = self.layer.mouse_drag_callbacks
        self.layer.mouse_pan = not on
        if on and self._dragged not in callbacks:
            callbacks.append(self._dragged)
        elif not on and self._dragged in callbacks:
            callbacks.remove(self._dragged)

    def close(self) -> None:
        """Let the layer go."""
        self.pick(False)
        self._viewer.canvas.overlays.pop(_BOX, None)

    def _draw(self) -> None:
        """Change the picture in place: another array would take ten times as long."""
        self._bins.draw(self._shown(), self.layer.data)
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _shown(self) -> npt.NDArray[np.uint8]:
        """Return the colours ``(n, 4)`` of all bins."""
        colors = np.broadcast_to(PLAIN_BYTES, (len(self), 4)) if self._bytes is None else self._bytes
        if not self._chosen.any():
            return colors
        colors = colors.copy()
        np.minimum(colors[:, 3], _FAINT, out=colors[:, 3])
        own = colors[self._chosen, :3].astype(np.float32)
        colors[self._chosen, :3] = own + _ORANGE * (255 * np.array(_CHOSEN[:3], dtype=np.float32) - own)
        colors[self._chosen, 3] = 255
        return colors

    # -- choosing by mouse ---------------------------------------------------------------------------------

    def _dragged(self, _layer: Any, event: Any) -> Generator[None, None, None]:
        """Choose the bin that was clicked, or those in the box; with Shift or Ctrl change what is chosen."""
        if event.button != 1 or len(event.dims_displayed) != 2:
            return
        more = "Shift" in event.modifiers or "Control" in event.modifiers
        first, corner, box = np.asarray(event.position)[-2:], event.pos[::-1], self._box()
        if (yield from is_click(event)):
            found = self._at(first)
        else:
            while event.type == "mouse_move":
                box.position, box.visible = (tuple(corner), tuple(event.pos[::-1])), True
                yield
            found = self._within(first, np.asarray(event.position)[-2:])
        box.visible = False
        chosen = found ^ self._chosen if more else found
        self._told(np.flatnonzero(chosen))

    def _box(self) -> ZoomOverlay:
        """Return the box on the canvas, which looks like that of napari's zoom."""
        overlays = self._viewer.canvas.overlays
        if _BOX not in overlays:
            overlays[_BOX] = ZoomOverlay(visible=False)
        return overlays[_BOX]

    def _at(self, world: FloatArray) -> BoolArray:
        """Return which bins, ``(n,)``, are at a place: one or none."""
        row, column = np.rint(self.layer.world_to_data(world)[-2:]).astype(int)
        rows, columns = self._bins.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self._bins.pixels == row * columns + column)

    def _within(self, corner: FloatArray, opposite: FloatArray) -> BoolArray:
        """Return which bins, ``(n,)``, have their centre in a rectangle of the world."""
        frame = np.array([self.layer.data_to_world(point)[-2:] for point in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))])
        at = np.stack(np.divmod(self._bins.pixels, self._bins.shape[1]), axis=1)
        world = at @ (frame[1:] - frame[0]) + frame[0]
        low, high = np.minimum(corner, opposite), np.maximum(corner, opposite)
        return np.asarray(((world >= low) & (world <= high)).all(axis=1))


def _put(layer: Layer, affine: FloatArray, units: Any) -> None:
    """Place a layer by a matrix alone, whatever the user has done to it.

    What is so already is not set again: napari takes some 5 ms for each.
    """
    wanted = {"scale": (1.0, 1.0), "translate": (0.0, 0.0), "rotate": np.eye(2), "shear": (0.0,), "affine": affine}
    for name, value in wanted.items():
        if not np.array_equal(np.asarray(getattr(layer, name)), np.asarray(value)):
            setattr(layer, name, value)
    if layer.units != units:
        layer.units = units


def _bytes_of(rgba: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return colours of 0 to 1 as bytes, rounded; in parts that fit the cache, which takes half the time."""
    found = np.empty(rgba.shape, dtype=np.uint8)
    for first in range(0, len(rgba), _AT_A_TIME):
        part = slice(first, first + _AT_A_TIME)
        np.add(rgba[part] * np.float32(255), np.float32(0.5), out=found[part], casting="unsafe")
    return found
