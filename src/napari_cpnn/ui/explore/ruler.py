"""A ruler of two clicks on the slide, which measures a known distance in pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes

from napari_cpnn.arrays import FloatArray
from napari_cpnn.ui.layers import OVERLAY_KEY, add_beside

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

_NAME = "ruler"
_COLOR = "#FFD700"
_WIDTH_PX = 3.0


class Ruler:
    """Takes two clicks on a slide layer and draws the line between them; dragging pans as always.

    ``moved`` is called with the number of clicks so far and the length in pixels of the slide.
    """

    def __init__(self, viewer: Viewer, moved: Callable[[int, float], None]) -> None:
        self._viewer, self._moved = viewer, moved
        self._slide: Layer | None = None
        self._line: Layer | None = None
        self._ends: list[FloatArray] = []

    @property
    def is_on(self) -> bool:
        """Whether clicks are taken."""
        return self._slide is not None

    def start(self, slide: Layer) -> None:
        """Wait for clicks on a slide layer."""
        self.stop()
        self._slide = slide
        self._viewer.mouse_drag_callbacks.append(self._pressed)
        self._viewer.mouse_move_callbacks.append(self._pointed)
        self._moved(0, 0.0)

    def stop(self) -> None:
        """Take no more clicks, and remove the line."""
        if self._slide is None:
            return
        self._slide = None
        self._ends.clear()
        for callbacks, own in (
            (self._viewer.mouse_drag_callbacks, self._pressed),
            (self._viewer.mouse_move_callbacks, self._pointed),
        ):
            if own in callbacks:
                callbacks.remove(own)
        if self._line is not None and self._line in self._viewer.layers:
            self._viewer.layers.remove(self._line)
        self._line = None

    def _pressed(self, _viewer: Any, event: Any) -> Generator[None]:
        place = np.asarray(event.position, dtype=float)[-2:]
        yield
        while event.type == "mouse_move":
            if np.linalg.norm(np.asarray(event.position)[-2:] - place) * self._zoom > 4:
                return  # a drag pans
            yield
        if self._slide is None:
            return
        if len(self._ends) == 2:
            self._ends.clear()
        self._ends.append(self._on_slide(place))
        self._draw(self._ends[-1])
        self._moved(len(self._ends), self._length(self._ends[-1]))

    def _pointed(self, _viewer: Any, event: Any) -> None:
        if self._slide is not None and len(self._ends) == 1:
            end = self._on_slide(np.asarray(event.position, dtype=float)[-2:])
            self._draw(end)
            self._moved(1, self._length(end))

    @property
    def _zoom(self) -> float:
        return float(self._viewer.scene.camera.zoom)

    def _on_slide(self, world: FloatArray) -> FloatArray:
        slide = self._slide
        return np.zeros(2) if slide is None else np.asarray(slide.world_to_data(world), dtype=float)[-2:]

    def _length(self, end: FloatArray) -> float:
        return float(np.linalg.norm(end - self._ends[0])) if self._ends else 0.0

    def _draw(self, end: FloatArray) -> None:
        slide = self._slide
        if slide is None:
            return
        ends = np.stack([self._ends[0], end])
        if self._line is None or self._line not in self._viewer.layers:
            self._line = Shapes(
                [ends],
                shape_type="line",
                edge_color=_COLOR,
                edge_width=_WIDTH_PX / max(self._zoom * float(np.abs(slide.scale[-1])), 1e-9),
                name=_NAME,
                scale=slide.scale,
                translate=slide.translate,
                units=slide.units,
                metadata={OVERLAY_KEY: True},
            )
            add_beside(self._viewer, self._line)
        else:
            self._line.data = [ends]
