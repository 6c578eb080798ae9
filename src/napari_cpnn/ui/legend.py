"""What is written on the canvas beside a map: the title of the colour bar, or the types with their colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.components.overlays import TextOverlay

from napari_cpnn.ui.explore_controller import TypeRow
from napari_cpnn.ui.state import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel

_PREFIX = "napari_cpnn_"
MAX_TYPES = 12


class CanvasLegend:
    """Text overlays of ours on the canvas, under names of their own, so that a screenshot explains itself.

    Parameters
    ----------
    viewer
        Whose canvas is written on.
    state
        What is shown.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState) -> None:
        self._viewer = viewer
        self._state = state
        self._lines: list[tuple[str, str]] = []

    def update(self, rows: list[TypeRow]) -> None:
        """Write what fits what is shown now; ``rows`` are the cell types by share in view."""
        lines = self._wanted(rows)
        if lines == self._lines:
            return
        overlays = self._viewer.canvas.overlays
        for i, (text, color) in enumerate(lines):
            key = f"{_PREFIX}{i}"
            if key in overlays:
                _write(overlays[key], text, color)
            else:
                overlay = TextOverlay(position="top_left", box=True, font_size=9, visible=True)
                _write(overlay, text, color)
                overlays[key] = overlay
        for i in range(len(lines), len(self._lines)):
            del overlays[f"{_PREFIX}{i}"]
        self._lines = lines

    def clear(self) -> None:
        """Take everything off the canvas."""
        for i in range(len(self._lines)):
            del self._viewer.canvas.overlays[f"{_PREFIX}{i}"]
        self._lines = []

    def _wanted(self, rows: list[TypeRow]) -> list[tuple[str, str]]:
        shown = self._state.shown
        if shown is None or self._state.map is None or not self._state.look.legend:
            return []
        if shown.has_range:
            return [(f"{shown.name} · {shown.unit}", "#FFFFFF")]
        wanted = [r for r in rows if r.share >= 0.005 and (shown.kind == "dominant" or r.name in shown.names)]
        return [(r.name, r.color) for r in wanted[:MAX_TYPES]]


def _write(overlay: Any, text: str, color: str) -> None:
    overlay.text = text
    overlay.box_color = color
    overlay.color = ink_on(color)


def ink_on(color: str) -> str:
    """Black or white, whichever reads better on ``#RRGGBB`` (relative luminance of WCAG 2)."""
    linear = [
        (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4)
        for v in (int(color[k : k + 2], 16) / 255 for k in (1, 3, 5))
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#FFFFFF"
