"""Opacity of a map on the canvas: the user's, times what fading, lines or a peek leave of it. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.ui.canvas import MapLines, fading
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    from napari_cpnn.geometry import Grid


class Strength:
    """Opacity of the wash; fading multiplies the user's opacity and never changes it.

    Attributes
    ----------
    px_per_um
        Zoom of the view in pixels of the canvas; 0 while it is not known.
    peeking
        True while the map is hidden.
    """

    def __init__(self, state: ExploreState, lines: MapLines) -> None:
        self._state, self._lines = state, lines
        self.px_per_um = 0.0
        self.peeking = False

    def kept(self, shown: Shown, grid: Grid) -> float:
        """Return the share of its opacity that a map keeps."""
        look = self._state.look
        if self.peeking or self._lines.kind(shown, look, grid):
            return 0.0
        return fading(self.px_per_um * self._state.pixel_ratio, look.fade_from) if look.fade else 1.0

    def opacity(self, shown: Shown, grid: Grid) -> float:
        """Return the opacity of the layer of a map."""
        return self._state.look.opacity * self.kept(shown, grid)

    def dragged(self, opacity: float, shown: Shown, grid: Grid) -> None:
        """Take over the opacity that the user gave to the layer in napari; more than fading leaves ends the fading."""
        kept = self.kept(shown, grid)
        if opacity > kept > 0:
            self._state.set_look(opacity=opacity, fade=False)
        else:
            self._state.set_look(opacity=opacity / kept if kept else opacity)
