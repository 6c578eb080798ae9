"""Distances and areas on the slide, drawn as lines and polygons of a Shapes layer, with their numbers beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from napari.layers import Shapes
from superqt.utils import qdebounced

from napari_cpnn.arrays import FloatArray
from napari_cpnn.ui.canvas.halo import LINE_PX, Halo
from napari_cpnn.ui.layers import MEASURE_KEY, OVERLAY_KEY, world_to_um
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel

Tool = Literal["distance", "area"]

SIZE = "size"
"""Column of the features of the layer with the numbers."""

_MODES: dict[Tool, str] = {"distance": "add_line", "area": "add_polygon"}
_COLOR = "#0B3D91"
#: Below this, an area is given in um2.
_LEAST_MM2 = 0.001


class Measuring:
    """The layer of measurements of a viewer, which follows edits and stays when the dock is closed.

    Attributes
    ----------
    layer
        None until something is measured.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState) -> None:
        self._viewer, self._state = viewer, state
        self._halo: Halo | None = None
        self._writing = False
        self._end_later = qdebounced(self._end_measuring, timeout=0)
        self.layer: Shapes | None = None
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.selection.events.active.connect(self._active_changed)
        for layer in viewer.layers:
            if isinstance(layer, Shapes) and MEASURE_KEY in layer.metadata:
                self._use(layer)

    @property
    def tool(self) -> Tool | None:
        """What a click measures now; None: nothing."""
        if self.layer is None or self._viewer.layers.selection.active != self.layer:
            return None
        return next((tool for tool, mode in _MODES.items() if str(self.layer.mode) == mode), None)

    def start(self, tool: Tool | None) -> None:
        """Measure distances or areas from now on; None: a drag moves the slide again."""
        slide_layer, slide = self._state.layer, self._state.slide
        if tool is None:
            if self.layer is not None:
                self.layer.mode = "pan_zoom"
                if self._viewer.layers.selection.active == self.layer and slide_layer in self._viewer.layers:
                    self._viewer.layers.selection.active = slide_layer
            return
        if slide_layer is None or slide is None or slide.mpp is None:
            return
        if self.layer is None:
            made = Shapes(
                ndim=2,
                name="Measurements",
                features=pd.DataFrame({SIZE: np.array([], dtype=object)}),
                feature_defaults={SIZE: ""},
                units=slide_layer.units[-2:],
                edge_color=_COLOR,
                face_color="#FFFFFF18",
                text={"string": f"{{{SIZE}}}", "size": 11, "color": _COLOR, "anchor": "center"},
                metadata={MEASURE_KEY: True},
            )
            made.current_edge_width = LINE_PX / max(float(self._viewer.scene.camera.zoom), 1e-12)
            self._viewer.add_layer(made)
            self._use(made)
        layer = self.layer
        assert layer is not None  # noqa: S101
        layer.visible = True
        self._viewer.layers.selection.active = layer
        layer.mode = _MODES[tool]

    def stop(self, *, viewer_lives: bool) -> None:
        """Leave the layer to the user."""
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.layers.selection.events.active.disconnect(self._active_changed)
        self._end_later.cancel()
        self._leave(viewer_lives=viewer_lives)

    # -- inside --------------------------------------------------------------------------------------------

    def _use(self, layer: Shapes) -> None:
        self.layer = layer
        layer.events.data.connect(self._edited)
        layer.events.set_data.connect(self._edited)
        self._halo = Halo(self._viewer, layer, SIZE)

    def _leave(self, *, viewer_lives: bool) -> None:
        layer, halo, self.layer, self._halo = self.layer, self._halo, None, None
        if layer is not None:
            layer.events.data.disconnect(self._edited)
            layer.events.set_data.disconnect(self._edited)
        if halo is not None:
            halo.stop(viewer_lives=viewer_lives)

    def _removed(self, event: Any) -> None:
        if self.layer is not None and event.value == self.layer:
            self._leave(viewer_lives=True)

    def _active_changed(self, _event: Any = None) -> None:
        """End measuring when another layer is selected, so that two modes are never on at once."""
        active = self._viewer.layers.selection.active
        if isinstance(active, Shapes) and OVERLAY_KEY not in active.metadata:
            self._end_measuring()
        else:  # later: napari selects a map, halo or outline that is being added, for a moment
            self._end_later()

    def _end_measuring(self) -> None:
        if self.layer is not None and self._viewer.layers.selection.active != self.layer:
            self.layer.mode = "pan_zoom"

    def _edited(self, _event: Any = None) -> None:
        """Write the numbers of all shapes, also while one is being drawn or dragged."""
        layer, slide_layer, slide = self.layer, self._state.layer, self._state.slide
        if self._writing or layer is None or slide_layer is None or slide is None or slide.mpp is None:
            return
        mpp = slide.mpp
        texts = [
            size_text(
                world_to_um(slide_layer, mpp, np.array([layer.data_to_world(point)[-2:] for point in data])), str(kind)
            )
            for data, kind in zip(layer.data, layer.shape_type, strict=True)
        ]
        if SIZE in layer.features and [*map(str, layer.features[SIZE])] == texts:
            return
        self._writing = True
        try:
            layer.features = pd.DataFrame({SIZE: np.array(texts, dtype=object)})
            layer.feature_defaults = {SIZE: ""}
        finally:
            self._writing = False


def size_text(um: FloatArray, kind: str) -> str:
    """Describe the length of a line or path, or the area of another shape.

    Parameters
    ----------
    um
        ``(n, 2)`` corners in slide um; of an ellipse, those of its bounding rectangle.
    kind
        napari's name of the shape.

    Examples
    --------
    >>> import numpy as np
    >>> size_text(np.array([[0.0, 0], [30, 40]]), "line")
    '50 µm'
    >>> size_text(np.array([[0.0, 0], [0, 2000], [500, 2000], [500, 0]]), "rectangle")
    '1 mm²'
    """
    if kind in ("line", "path"):
        length = float(np.linalg.norm(np.diff(um, axis=0), axis=1).sum())
        return f"{length:,.0f} µm" if length >= 10 else f"{length:.1f} µm"
    y, x = um[:, 0] - um[0, 0], um[:, 1] - um[0, 1]
    area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2  # shoelace formula
    if kind == "ellipse":
        area *= np.pi / 4
    mm2 = area / 1e6
    return f"{mm2:.3g} mm²" if mm2 >= _LEAST_MM2 else f"{area:,.0f} µm²"
