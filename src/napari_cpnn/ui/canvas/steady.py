"""Texts and colour bars on the canvas whose boxes are not compiled again at each change.

napari makes the box behind an overlay anew, four times over, whenever the overlay is shown, hidden or written; vispy
compiles its program again for another size, and for another parent, which is how napari hides it. These overlays look
the same, but change what is another only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components.overlays import ColorBarOverlay, TextOverlay

if TYPE_CHECKING:
    from napari.layers import Image


class SteadyText(TextOverlay):  # type: ignore[misc]
    """Text with a box of a given colour."""


class SteadyColorBar(ColorBarOverlay):  # type: ignore[misc]
    """Colour bar with a box of a given colour."""


def steady_color_bar(layer: Image) -> None:
    """Give a layer that is in no viewer such a colour bar, as ``layer.colorbar``."""
    _tell_napari()
    layer._overlays["colorbar"] = SteadyColorBar(box=True, box_color="#FFFFFF")  # noqa: SLF001


def steady_text(**settings: Any) -> SteadyText:
    """Return a text with a box; settings as of napari's ``TextOverlay``."""
    _tell_napari()
    return SteadyText(**{"box": True, "box_color": "#FFFFFF", **settings})


def _tell_napari() -> None:
    """Register how napari draws these overlays, as its example of a custom overlay does."""
    from napari._vispy.overlays.colorbar import VispyColorBarOverlay
    from napari._vispy.overlays.text import VispyTextOverlay
    from napari._vispy.utils.visual import overlay_to_visual

    if SteadyText not in overlay_to_visual:
        overlay_to_visual[SteadyText] = type("VispySteadyText", (_SteadyBox, VispyTextOverlay), {})
        overlay_to_visual[SteadyColorBar] = type("VispySteadyColorBar", (_SteadyBox, VispyColorBarOverlay), {})


class _SteadyBox:
    """What is different from napari's visuals of overlays."""

    overlay: Any
    _should_be_visible: Any
    viewer: Any
    node: Any
    box: Any
    x_size: float
    y_size: float
    _box_is: tuple[float, ...] = ()

    def _on_visible_change(self) -> None:
        if self._should_be_visible():
            super()._on_visible_change()  # type: ignore[misc]
        elif self.node.visible:  # napari would write and place the text once more
            self.node.visible = False
            self._on_box_change()

    def _on_box_change(self) -> None:
        box = self.box
        if not self._box_is:
            _keep_program(box.mesh)
        if not self.overlay.box or not self._should_be_visible():
            if box.parent is not None and box.visible:
                box.visible = False
            return
        if box.parent is not self.node.parent:
            box.parent = self.node.parent
        if not box.visible:
            box.visible = True
        pad_x, pad_y = np.array(self.viewer.canvas.overlay_tiling.padding) * 0.8  # as napari's
        wanted = (self.x_size + pad_x, self.y_size + pad_y, self.x_size / 2, self.y_size / 2, *self.overlay.box_color)
        if wanted != self._box_is:
            box._width, box._height = wanted[:2]  # noqa: SLF001 -- each setter would make the box anew
            box._center = wanted[2:4]  # noqa: SLF001
            box._regen_pos()  # noqa: SLF001
            box.color = self.overlay.box_color
            self._box_is = wanted
        if box.order != self.node.order - 1:
            box.order = self.node.order - 1
        box.transform = self.node.transform


def _keep_program(mesh: Any) -> None:
    """Let a mesh of one colour keep a part of its program that vispy makes anew, and compiles, for each size."""
    made = mesh._build_color_transform(np.zeros(4, np.float32))  # noqa: SLF001
    mesh._build_color_transform = lambda _colors: made  # noqa: SLF001
