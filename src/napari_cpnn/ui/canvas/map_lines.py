"""Layer that draws a map as contours, as borders of cell types, or as outlines of its patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_cpnn import painting
from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.painting import Look, Range, Shown
from napari_cpnn.ui.canvas.vectors import Vectors, with_margin
from napari_cpnn.ui.layers import OVERLAY_KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.mapping import CompositionMap, Viewport

Drawn = Literal["", "contours", "borders", "patches"]

#: Width in pixels of the screen of lines, and of patches that are too small for an outline of their own.
_LINE_PX, _SMALL_PX = 2.0, 10.0
#: More lines than this have no margins.
_MOST_WITH_MARGIN = 6000
#: Alpha below which a patch has no outline.
_FAINT = 0.05
_MARGIN = (1.0, 1.0, 1.0, 0.8)


@dataclass(frozen=True, eq=False)
class Painted:
    """What is on screen: ``rgba (rows, cols, 4)`` of a painter, written between ``limits``, the ends of its range."""

    cmap: CompositionMap
    shown: Shown
    look: Look
    limits: Range
    rgba: Float32Array

    def colors(self, part: tuple[slice, slice]) -> Float32Array:
        """Return the colours of some patches ``(rows, cols, 4)`` in 0 to 1."""
        low, high = self.limits
        colors = self.rgba[part].copy()
        colors[..., :3] = (colors[..., :3] - low) / max(high - low, 1e-12)
        return np.asarray(colors.clip(0, 1))


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
        if shown is None or look.style == "wash":
            return ""
        if look.style == "contours" and shown.has_range:
            return "contours"
        if look.style == "contours" and shown.kind == "dominant":
            return "borders"
        small = self._view is None or grid is None or self._view.px_per_um * grid.stride_um < _SMALL_PX
        return "" if small else "patches"

    def draw(self, painted: Painted) -> bool:
        """Draw what is on screen; return whether there is a new layer or grid, to be placed, and added if it is new."""
        self._painted, self._window = painted, None
        return self._update()

    def set_view(self, view: Viewport | None) -> bool:
        """Draw anew what has come into view or has another size; return whether there is a new layer."""
        self._view = view
        return self._update()

    def add(self) -> None:
        """Add the layer to the viewer if it is new; the selected layers stay selected."""
        if self.layer in self._viewer.layers:
            return
        selected = set(self._viewer.layers.selection)
        self._viewer.add_layer(self.layer)
        self._viewer.layers.selection = selected

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
        width = _LINE_PX / self._patch_px
        if kind == "contours":
            lines, colors = self._contours(painted, part)
        else:
            self.levels = []
            lines, colors = _borders(painted, part, width, every=kind == "patches")
        if kind != "patches" and 0 < len(lines) <= _MOST_WITH_MARGIN:
            lines, colors = with_margin(lines, width), np.concatenate([np.tile(_MARGIN, (2 * len(lines), 1)), colors])
        offset = np.array([part[0].start or 0, part[1].start or 0], dtype=float)
        layer.visible = True  # first: a hidden layer would keep the indices of earlier lines
        layer.data = lines + np.stack([offset, 0 * offset])
        layer.edge_color = colors if len(colors) else "white"
        layer.edge_width = width
        layer.opacity = min(1.0, painted.look.opacity + 0.25)  # lines are thin, and hide little
        layer.name = f"{painted.shown.title}: {'contours' if kind == 'contours' else 'outlines'}"

    def _contours(self, painted: Painted, part: tuple[slice, slice]) -> tuple[FloatArray, FloatArray]:
        field = painting.field_of(painted.cmap, painted.shown, painted.look.scale_um)[part]
        low, high = painted.limits
        self.levels = painting.contour_levels(painted.limits)
        table = painting.color_table(painted.look.colormap)
        lines, colors = [np.zeros((0, 2, 2))], [np.zeros((0, 4))]
        for level in self.levels:
            found = painting.contour_lines(field, level)
            color = np.array([*table[round(255 * (level - low) / (high - low)), :3], 1.0])
            lines.append(found)
            colors.append(np.tile(color, (len(found), 1)))
        return np.concatenate(lines), np.concatenate(colors)


def _borders(
    painted: Painted, part: tuple[slice, slice], width: float, *, every: bool
) -> tuple[FloatArray, FloatArray]:
    """Return the borders of patches, or of areas of one dominant type, in the colours of the map."""
    cmap, rgba = painted.cmap, painted.colors(part)
    donors = cmap.donors()[part]
    groups = donors if every else cmap.dominant(painted.shown.level).reshape(-1)[np.maximum(donors, 0)]
    groups = np.where((donors >= 0) & (rgba[..., 3] > _FAINT), groups, -1)
    inset = 0.75 if every else 1.5  # with room for the margin
    lines, owners = painting.border_lines(groups, min(width * inset, 0.4), every=every)
    colors = rgba.reshape(-1, 4)[owners].astype(np.float64)
    colors[:, 3] = 0.5 + 0.5 * colors[:, 3]  # a thin line needs more than a wash
    return lines, colors


def _whole(grid: Grid) -> Rect:
    y, x = grid.origin_um
    return Rect(y, x, y + grid.shape[0] * grid.stride_um, x + grid.shape[1] * grid.stride_um)


def _contains(outer: Rect, inner: Rect) -> bool:
    return outer.y0 <= inner.y0 and outer.x0 <= inner.x0 and outer.y1 >= inner.y1 and outer.x1 >= inner.x1
