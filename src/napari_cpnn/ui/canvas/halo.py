"""Light lines and plates under the outlines and names of a Shapes layer, which are readable on any tissue and map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QTimer
from qtpy.QtGui import QFont, QFontMetricsF
from superqt.utils import qthrottled

from napari_cpnn.arrays import FloatArray
from napari_cpnn.ui.canvas.vectors import Vectors
from napari_cpnn.ui.layers import OVERLAY_KEY, add_beside, set_visible

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Widths in pixels of the screen: of the dark line, and of the light one under it, in lines of a third.
LINE_PX, _HALO_PX = 2.0, 6.0
#: Corners of an ellipse, and the room around a name.
_ELLIPSE_POINTS, _PAD_PX = 60, 3.0
#: Texts of napari are wider than those of Qt.
_WIDER = 1.28
_LIGHT = (1.0, 1.0, 1.0, 0.85)
_UPDATE_MS = 60


class Halo:
    """Draws under a Shapes layer, and keeps its lines as wide on the screen at every zoom, until it is stopped.

    Parameters
    ----------
    viewer, shapes
        The layer may have any transform.
    column
        Column of its features with the names.
    """

    def __init__(self, viewer: ViewerModel, shapes: Shapes, column: str) -> None:
        self._viewer, self._shapes, self._column = viewer, shapes, column
        self._width = self._first = self._of_shapes()
        self._wanted = True
        self.layer: Vectors | None = None
        self._drawn: tuple[object, ...] = ()
        self._update_later = qthrottled(self.update, timeout=_UPDATE_MS)
        self._sources = [
            shapes.events.data,
            shapes.events.features,
            shapes.events.set_data,
            shapes.events.visible,
            shapes.events.opacity,
            viewer.scene.camera.events.zoom,
            viewer.layers.events.inserted,
            viewer.layers.events.moved,
        ]
        for source in self._sources:
            source.connect(self._changed)
        viewer.layers.events.removed.connect(self._removed)
        self.update()

    def update(self) -> None:
        """Draw what is drawn in the Shapes layer now."""
        shapes, zoom = self._shapes, float(self._viewer.scene.camera.zoom)
        if not self._wanted or shapes not in self._viewer.layers or not zoom > 0:
            return
        px = 1 / (zoom * _world_per_unit(shapes))  # data units of a pixel of the screen
        self._set_width(LINE_PX * px)
        lines = [np.zeros((0, 2, 2))]
        for data, kind in zip(shapes.data, shapes.shape_type, strict=True):
            lines.append(_wide(_edges(np.asarray(data, dtype=float)[:, -2:], str(kind)), _HALO_PX / 3 * px))
        lines.append(self._plates(px))
        self._draw(np.concatenate(lines), _HALO_PX / 3 * px)

    def stop(self, *, viewer_lives: bool = True) -> None:
        """Disconnect, and remove the layer unless the viewer itself is closing."""
        self._wanted = False
        self._update_later.cancel()
        for source in self._sources:
            source.disconnect(self._changed)
        self._viewer.layers.events.removed.disconnect(self._removed)
        layer, layers, self.layer = self.layer, self._viewer.layers, None
        if viewer_lives and self._shapes in layers:
            self._set_width(self._first)  # which is visible at every zoom, not at the last alone
        if not viewer_lives or layer is None or layer not in layers:
            return
        if self._shapes in layers:
            layers.remove(layer)
        else:  # napari is removing the shapes and may be walking its list
            QTimer.singleShot(0, lambda: layers.remove(layer) if layer in layers else None)

    # -- inside --------------------------------------------------------------------------------------------

    def _changed(self, _event: Any = None) -> None:
        self._update_later()

    def _removed(self, event: Any) -> None:
        if event.value == self.layer:
            self.layer, self._wanted = None, False

    def _of_shapes(self) -> float:
        widths = self._shapes.edge_width
        return float(widths[0]) if len(widths) else float(self._shapes.current_edge_width)

    def _set_width(self, width: float) -> None:
        """Keep the dark lines as wide on the screen, unless the user has chosen another width."""
        now = self._of_shapes()
        if not np.isclose(now, self._width, rtol=1e-3) or abs(np.log(width / now)) < 0.1:
            return
        self._width = width
        with self._shapes.events.set_data.blocker(self._changed):
            if len(self._shapes.data):
                self._shapes.edge_width = width
            selected = set(self._shapes.selected_data)
            self._shapes.selected_data = set()  # else the width were given to what is selected, too
            self._shapes.current_edge_width = width
            self._shapes.selected_data = selected

    def _plates(self, px: float) -> FloatArray:
        """Return horizontal lines that fill a plate behind each name."""
        shapes, thin = self._shapes, _HALO_PX / 3 * px
        if self._column not in shapes.features or not shapes.text.visible:
            return np.zeros((0, 2, 2))
        font = QFont()
        font.setPointSizeF(float(shapes.text.size))
        metrics = QFontMetricsF(font)
        lines = [np.zeros((0, 2, 2))]
        for data, name in zip(shapes.data, shapes.features[self._column], strict=True):
            text = "" if name is None else str(name)
            if not text or text == "nan":
                continue
            points = np.asarray(data, dtype=float)[:, -2:]
            middle = points.mean(axis=0)  # where napari centres texts
            width, height = (
                (side + 2 * _PAD_PX) * px for side in (_WIDER * metrics.horizontalAdvance(text), 0.8 * metrics.height())
            )
            n = max(int(np.ceil(height / thin)), 1)
            start = np.column_stack(
                [
                    middle[0] + (np.arange(n) + 0.5 - n / 2) * height / n,
                    np.full(n, middle[1] - width / 2),
                ]
            )
            lines.append(np.stack([start, np.tile((0.0, width), (n, 1))], axis=1))
        return np.concatenate(lines)

    def _draw(self, lines: FloatArray, width: float) -> None:
        shapes, is_new = self._shapes, self.layer is None
        if self.layer is None:
            if not len(lines):
                return
            self.layer = Vectors(
                np.zeros((0, 2, 2)),
                vector_style="line",
                name=f"{shapes.name}: halo",
                edge_color="white",
                blending="translucent_no_depth",
                metadata={OVERLAY_KEY: True},
            )
        layer, drawn = self.layer, (lines.tobytes(), width, shapes.opacity, _affine(shapes).tobytes(), shapes.units)
        visible = shapes.visible and bool(len(lines))
        set_visible(layer, visible)
        if not visible:
            return
        if drawn == self._drawn:  # napari takes some 20 ms to set the same lines again
            self._keep_below()
            return
        self._drawn = drawn
        layer.units = shapes.units[-2:]
        layer.affine = _affine(shapes)
        layer.data = lines
        layer.edge_color = np.tile(_LIGHT, (len(lines), 1))
        layer.edge_width = width * 1.05
        layer.opacity = shapes.opacity
        if is_new:
            add_beside(self._viewer, layer, self._viewer.layers.index(shapes))
        self._keep_below()

    def _keep_below(self) -> None:
        """Move the layer right below the shapes."""
        layers = self._viewer.layers
        at, shapes = layers.index(self.layer), layers.index(self._shapes)
        if at != shapes - 1:
            layers.move(at, shapes)


def _edges(points: FloatArray, kind: str) -> FloatArray:
    """Return the edges ``(n, 2, 2)`` of a shape, start and vector."""
    if kind == "ellipse":
        across, down = (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
        angle = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)[:, None]
        points = points.mean(axis=0) + np.cos(angle) * across + np.sin(angle) * down
    ends = np.roll(points, -1, axis=0)
    if kind in ("line", "path"):
        points, ends = points[:-1], ends[:-1]
    return np.stack([points, ends - points], axis=1)


def _wide(edges: FloatArray, thin: float) -> FloatArray:
    """Return three lines side by side for each, longer at both ends."""
    start, along = edges[:, 0], edges[:, 1]
    unit = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    start, along = start - unit * thin, along + 2 * unit * thin
    across = unit[:, ::-1] * np.array([-1.0, 1.0]) * thin
    return np.concatenate([np.stack([start + k * across, along], axis=1) for k in (-1, 0, 1)])


def _affine(shapes: Shapes) -> FloatArray:
    """Return the affine map of the last two axes of a layer to the world."""
    lead: Sequence[float] = (0.0,) * (int(shapes.ndim) - 2)
    origin, down, right = (
        np.asarray(shapes.data_to_world((*lead, *point)))[-2:] for point in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    )
    affine = np.eye(3)
    affine[:2, 0], affine[:2, 1], affine[:2, 2] = down - origin, right - origin, origin
    return affine


def _world_per_unit(shapes: Shapes) -> float:
    return float(np.sqrt(abs(np.linalg.det(_affine(shapes)[:2, :2]))))
