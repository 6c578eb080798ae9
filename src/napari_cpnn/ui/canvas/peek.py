"""The tissue alone, for as long as a key is held. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_cpnn.ui.layers import is_slide_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


class Peek:
    """Hides everything but slides by its opacity: hiding by the eye would compute spots and shapes anew.

    Parameters
    ----------
    hide_map
        Hides or shows the map, whose opacity also follows the user and the zoom.
    is_map
        Whether a layer is one that ``hide_map`` hides.
    """

    def __init__(self, viewer: ViewerModel, hide_map: Callable[[bool], None], is_map: Callable[[Layer], bool]) -> None:
        self._viewer, self._hide_map, self._is_map = viewer, hide_map, is_map
        self._hidden: list[tuple[Layer, float]] = []
        self.on = False

    def set_on(self, on: bool) -> None:
        """Show the tissue alone, or everything as it was."""
        if on == self.on:
            return
        self.on = on
        self._hide_map(on)
        if on:
            others = [one for one in self._viewer.layers if not is_slide_layer(one) and not self._is_map(one)]
            self._hidden = [(layer, float(layer.opacity)) for layer in others if layer.visible]
            for layer, _ in self._hidden:
                layer.opacity = 0.0
            return
        hidden, self._hidden = self._hidden, []
        for layer, opacity in hidden:
            layer.opacity = opacity
