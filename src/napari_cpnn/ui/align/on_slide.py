"""What the Align dock draws on the slide: the landmarks, and a preview of what is registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points

from napari_cpnn.arrays import FloatArray, Picture
from napari_cpnn.geometry import Mpp
from napari_cpnn.ui.layers import OVERLAY_KEY, um_to_world, world_per_um

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_RING_PX, _LINE = 14.0, 0.2
_MARK, _CHOSEN = "#E69F00", "#D55E00"
_SPOT, _RIM = np.array([1.0, 1.0, 1.0, 0.25]), "#00A878"  # neither of the stains has this green
_OPACITY = 0.5


class OnSlide:
    """Layers of the dock over the slide, created when they are needed; nobody takes them for slides or spots.

    Attributes
    ----------
    marks
        Ring and number of each landmark, of one size at every zoom.
    preview
        The spots, or the picture, at their present place.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.marks: Points | None = None
        self.preview: Points | Image | None = None
        viewer.scene.camera.events.zoom.connect(self._fit)
        viewer.layers.events.removed.connect(self._removed)

    def close(self, *, viewer_lives: bool) -> None:
        """Remove the layers, unless the viewer itself is closing."""
        self._viewer.scene.camera.events.zoom.disconnect(self._fit)
        self._viewer.layers.events.removed.disconnect(self._removed)
        if viewer_lives:
            self._remove(self.marks, self.preview)

    def show_marks(
        self, layer: Layer | None, mpp: Mpp | None, places: Sequence[tuple[float, float] | None], chosen: Sequence[int]
    ) -> None:
        """Draw landmarks at ``(y, x)`` in slide um; pairs that have none on the slide are left out."""
        rows = [i for i, place in enumerate(places) if place is not None]
        if layer is None or mpp is None or not rows:
            self._remove(self.marks)
            return
        at = um_to_world(layer, mpp, np.array([places[i] for i in rows], dtype=float))
        keywords: dict[str, Any] = {
            "features": {"number": [str(i + 1) for i in rows]},
            "border_color": [_CHOSEN if i in chosen else _MARK for i in rows],
        }
        self._remove(self.marks)  # their number has changed more often than not
        self.marks = Points(
            at,
            name="Landmarks",
            face_color="transparent",
            border_width=_LINE,
            text={"string": "{number}", "color": _MARK, "size": 11, "translation": np.zeros(2), "anchor": "upper_left"},
            units=layer.units[-2:],
            antialiasing=1,
            metadata={OVERLAY_KEY: True},
            **keywords,
        )
        self._add(self.marks)
        self._fit()

    def show_spots(self, layer: Layer, mpp: Mpp, places_um: FloatArray, diameter_um: float) -> None:
        """Draw spots at ``(N, 2)``, slide um ``(y, x)``."""
        world = um_to_world(layer, mpp, places_um[np.isfinite(places_um).all(axis=1)])
        size = diameter_um * world_per_um(layer, mpp)
        if isinstance(self.preview, Points) and self.preview in self._viewer.layers:
            self.preview.data, self.preview.size = world, size
            return
        self._remove(self.preview)
        self.preview = Points(
            world,
            size=size,
            name="Aligned (preview)",
            face_color=_SPOT,
            border_color=_RIM,
            border_width=0.2,
            units=layer.units[-2:],
            antialiasing=0,
            metadata={OVERLAY_KEY: True},
        )
        self._add(self.preview)

    def show_picture(
        self, layer: Layer, mpp: Mpp, picture: Picture, um_per_px: tuple[float, float], matrix: FloatArray
    ) -> None:
        """Lay a picture over the slide, half transparent, by ``matrix`` (2, 3) from its um to those of the slide."""
        corners = (np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]) + 0.5) * np.asarray(um_per_px)
        at = um_to_world(layer, mpp, corners @ matrix[:, :2].T + matrix[:, 2])
        affine = np.eye(3)
        affine[:2] = np.column_stack([at[1] - at[0], at[2] - at[0], at[0]])
        if isinstance(self.preview, Image) and self.preview in self._viewer.layers and self.preview.data is picture:
            self.preview.affine = affine
            return
        self._remove(self.preview)
        self.preview = Image(
            picture,
            rgb=True,
            name="Aligned (preview)",
            opacity=_OPACITY,
            affine=affine,
            units=layer.units[-2:],
            metadata={OVERLAY_KEY: True},
        )
        self._add(self.preview)

    def hide_preview(self) -> None:
        """Show no preview."""
        self._remove(self.preview)

    def _add(self, layer: Layer) -> None:
        viewer = self._viewer
        selected = set(viewer.layers.selection)
        viewer.add_layer(layer)
        viewer.layers.selection = selected  # the slide stays the active layer
        if self.marks is not None and self.marks in viewer.layers and viewer.layers[-1] != self.marks:
            viewer.layers.move(viewer.layers.index(self.marks), len(viewer.layers))

    def _remove(self, *layers: Layer | None) -> None:
        for layer in layers:
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _removed(self, event: Any) -> None:
        if self.marks is not None and event.value == self.marks:
            self.marks = None
        if self.preview is not None and event.value == self.preview:
            self.preview = None

    def _fit(self, _event: Any = None) -> None:
        zoom = float(self._viewer.scene.camera.zoom)
        if self.marks is not None and zoom > 0:
            self.marks.size = _RING_PX / zoom
