"""Layer that draws a map as contours, as borders of cell types, or as outlines of its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.painting import Look, Shown
from napari_cpnn.ui.canvas.lines_of_map import LINE_PX, Drawn, Painted, kind_of_lines, lines_of, opacity_of_lines
from napari_cpnn.ui.canvas.vectors import Vectors, with_margin
from napari_cpnn.ui.layers import OVERLAY_KEY, add_beside, set_visible

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.mapping import Viewport

#: More lines than this have no margins.
_MOST_WITH_MARGIN = 6000
_MARGIN = (1.0, 1.0, 1.0, 0.8)


class MapLines:
    """Lines of the map in view, of the same width at every zoom.

    Attributes
    ----------
    layer, grid
        The layer and the grid that it is placed on; None until it is needed.
    levels
        Values of the contours on screen.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._painted: Painted | None = None
        self._view: Viewport | None = None
        self._window: Rect | None = None
        self._patch_px = 0.0
        self.layer: Vectors | None = None
        self.grid: Grid | None = None
        self.levels: list[float] = []

    def kind(self, shown: Shown | None, look: Look, grid: Grid | None) -> Drawn:
        """Return the lines in which a quantity is drawn; empty: it is a wash, as are patches too small for outlines."""
        patch_px = 0.0 if self._view is None or grid is None else self._view.px_per_um * grid.stride_um
        return kind_of_lines(shown, look, patch_px)

    def draw(self, painted: Painted) -> bool:
        """Draw what is on screen; return whether there is a new layer or grid, to be placed, and added if it is new."""
        self._painted, self._window = painted, None
        return self._update()

    def set_view(self, view: Viewport | None) -> bool:
        """Draw anew what has come into view or has another size; return whether there is a new layer."""
        self._view = view
        return self._update()

    def add(self, index: int) -> None:
        """Add the layer to the viewer at a place of its list if it is new; the selected layers stay selected."""
        if self.layer is not None and self.layer not in self._viewer.layers:
            add_beside(self._viewer, self.layer, index)

    def put_away(self) -> None:
        """Hide the layer until there is another map."""
        self._painted, self._window, self.levels = None, None, []
        if self.layer is not None and self.layer.visible:
            self.layer.visible = False

    def remove(self) -> None:
        """Remove the layer."""
        layer, self.layer, self._painted, self._window, self.levels = self.layer, None, None, None, []
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def forget(self, layer: Any) -> None:
        """Forget the layer if it is the one that was removed from the viewer."""
        if self.layer is not None and layer == self.layer:
            self.layer = self._window = None

    # -- inside --------------------------------------------------------------------------------------------

    def _update(self) -> bool:
        painted = self._painted
        if painted is None:
            return False
        grid = painted.cmap.grid
        kind = self.kind(painted.shown, painted.look, grid)
        if not kind:
            self._window, self.levels = None, []
            if self.layer is not None and self.layer.visible:
                self.layer.visible = False
            return False
        patch_px = grid.stride_um * (1.0 if self._view is None else self._view.px_per_um)
        rect = _whole(grid) if self._view is None else self._view.rect
        if self._window is not None and _contains(self._window, rect) and abs(np.log(patch_px / self._patch_px)) < 0.1:
            return False
        self._window, self._patch_px = rect.grown(max(rect.height, rect.width) / 2), patch_px
        is_new, self.grid = self.layer is None or self.grid != grid, grid
        if self.layer is None:
            self.layer = Vectors(
                np.zeros((0, 2, 2)),
                vector_style="line",
                blending="translucent_no_depth",
                metadata={OVERLAY_KEY: True},
            )
        self._show(self.layer, painted, kind)
        return is_new

    def _show(self, layer: Vectors, painted: Painted, kind: Drawn) -> None:
        part = painted.cmap.grid.window(self._window) if self._window is not None else (slice(None), slice(None))
        width = LINE_PX / self._patch_px
        lines, colors, self.levels = lines_of(painted, kind, part, width)
        if kind != "patches" and 0 < len(lines) <= _MOST_WITH_MARGIN:
            lines, colors = with_margin(lines, width), np.concatenate([np.tile(_MARGIN, (2 * len(lines), 1)), colors])
        offset = np.array([part[0].start or 0, part[1].start or 0], dtype=float)
        set_visible(layer, True)  # first: a hidden layer would keep the indices of earlier lines
        layer.data = lines + np.stack([offset, 0 * offset])
        layer.edge_color = colors if len(colors) else "white"
        layer.edge_width = width
        layer.opacity = opacity_of_lines(painted.look)
        layer.name = f"{painted.shown.title}: {'contours' if kind == 'contours' else 'outlines'}"


def _whole(grid: Grid) -> Rect:
    y, x = grid.origin_um
    return Rect(y, x, y + grid.shape[0] * grid.stride_um, x + grid.shape[1] * grid.stride_um)


def _contains(outer: Rect, inner: Rect) -> bool:
    return outer.y0 <= inner.y0 and outer.x0 <= inner.x0 and outer.y1 >= inner.y1 and outer.x1 >= inner.x1
