"""Layer that outlines the places where the gene on screen is high or low."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer

from napari_cpnn.arrays import BoolArray, FloatArray
from napari_cpnn.ui.canvas import Vectors, with_margin
from napari_cpnn.ui.explore.placing import keep_above, place_above
from napari_cpnn.ui.layers import OVERLAY_KEY, add_beside, set_visible

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.geometry import Grid
    from napari_cpnn.mapping import MarkedPlaces

#: Width in pixels of the screen of the black line, and of the white ones along it.
_LINE_PX = 1.5
#: Dashes are a quarter of a patch long; on maps of more patches than this along a side, a patch or longer.
_MANY = 150
#: White margins are left out of longer outlines, which would take too long to draw.
_MOST_WITH_MARGIN = 4000


class OutlineLayer:
    """Outline of places on the canvas, of the same width at every zoom; vectors, which no dock takes for regions."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._places: MarkedPlaces | None = None
        self._lines: FloatArray = np.zeros((0, 2, 2))
        self._patch_px = 10.0
        self.layer: Vectors | None = None
        self.grid: Grid | None = None

    def show(self, places: MarkedPlaces | None, grid: Grid) -> bool:
        """Outline places; return whether there is a new layer or grid, to be placed, and added if it is new."""
        if places is self._places:
            return False
        self._places = places
        if places is None or not places.mask.any():
            if self.layer is not None:
                set_visible(self.layer, False)
            return False
        self._lines = outline_lines(places.mask, dashed=places.side == "low")
        is_new, self.grid = self.layer is None or self.grid != grid, grid
        if self.layer is None:
            self.layer = Vectors(
                np.zeros((0, 2, 2)),
                vector_style="line",
                opacity=1.0,
                blending="translucent_no_depth",
                metadata={OVERLAY_KEY: True},
            )
        set_visible(self.layer, True)  # first: a hidden layer would keep the indices of earlier lines
        self._draw(self.layer)
        self.layer.name = f"{places.name}, FDR {100 * places.fdr:.0f} %"
        return is_new

    def set_zoom(self, px_per_um: float) -> None:
        """Draw the lines anew if they are too wide or too narrow for a zoom, in screen pixels per um."""
        if self.layer is None or self.grid is None or self._places is None:
            return
        patch_px = px_per_um * self.grid.stride_um
        if patch_px > 0 and abs(np.log(patch_px / self._patch_px)) > 0.1:
            self._patch_px = patch_px
            self._draw(self.layer)

    def add(self) -> None:
        """Add the layer to the viewer if it is new; the selected layers stay selected."""
        if self.layer is not None and self.layer not in self._viewer.layers:
            add_beside(self._viewer, self.layer, place_above(self._viewer, Layer))

    def keep_above_overlays(self) -> None:
        """Move the layer right above overlays and hatching, below measured spots and regions."""
        keep_above(self._viewer, self.layer, Layer)

    def put_away(self) -> None:
        """Hide the layer until there are places on another map."""
        self._places = None
        if self.layer is not None and self.layer.visible:
            self.layer.visible = False

    def remove(self) -> None:
        """Remove the layer."""
        layer, self.layer, self._places = self.layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def forget(self, layer: Any) -> bool:
        """Forget the layer if it is the one that was removed from the viewer; return whether it is."""
        ours = self.layer is not None and layer == self.layer
        if ours:
            self.layer, self._places = None, None
        return ours

    def _draw(self, layer: Vectors) -> None:
        width = _LINE_PX / self._patch_px
        drawn = with_margin(self._lines, width) if len(self._lines) <= _MOST_WITH_MARGIN else self._lines
        layer.data = drawn
        black = np.arange(len(drawn)) >= len(drawn) - len(self._lines)
        layer.edge_color = np.where(black[:, None], (0.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0))
        layer.edge_width = width


def outline_lines(mask: BoolArray, *, dashed: bool) -> FloatArray:
    """Return the outline of patches as lines along their edges.

    Parameters
    ----------
    mask
        ``(rows, cols)``.
    dashed
        Leave gaps as long as the dashes.

    Returns
    -------
    ndarray
        ``(N, 2, 2)``, start and vector (row, col) of each straight line; centres of patches are integers.
    """
    inside = np.pad(mask, 1)
    pieces = 1 if max(mask.shape) >= _MANY else 4  # of an edge
    size = max(pieces * max(mask.shape) // _MANY, 1)  # of a dash, in pieces
    lines = []
    for axis in (0, 1):
        # The edge between a patch and the one before it along the axis.
        at = np.argwhere(np.diff(inside, axis=axis)).astype(float)
        start = at - np.where(np.arange(2) == axis, 0.5, 1.5)
        along = np.where(np.arange(2) == axis, 0.0, 1.0)
        if dashed:
            along = along / pieces
            start = np.concatenate([start + i * along for i in range(pieces)])
            start = start[np.rint(pieces * (start[:, 1 - axis] + 0.5)) // size % 2 == 0]
        else:
            start, along = _merged(start, 1 - axis)
        lines.append(np.stack([start, np.broadcast_to(along, start.shape)], axis=1))
    return np.concatenate(lines)


def _merged(start: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """Merge edges of length 1 along an axis, sorted, that follow one another; return starts and vectors."""
    order = np.lexsort((start[:, axis], start[:, 1 - axis]))
    start = start[order]
    step = np.diff(start, axis=0)
    first = np.flatnonzero(np.append(True, (step[:, 1 - axis] != 0) | (step[:, axis] != 1))[: len(start)])
    lengths = np.diff(np.append(first, len(start)))
    return start[first], lengths[:, None] * np.where(np.arange(2) == axis, 1.0, 0.0)
