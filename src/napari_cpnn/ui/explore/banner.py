"""Banner on the canvas: this tissue is unlike that of the training."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from napari.components.overlays import TextOverlay

from napari_cpnn.painting import WARNING_COLORS

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.mapping import DomainReport

_KEY = "napari_cpnn_banner"
#: Letters in a line.
_WIDTH = 52


class Banner:
    """Text at the bottom of the canvas, opposite the scale bar, so that a screenshot says it, too."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._shown = ""

    def show(self, report: DomainReport) -> None:
        """Show the warning of a report, or nothing."""
        # napari makes the box of several lines a little too narrow; no-break spaces count.
        text = "\n".join(f"{line}\u00a0\u00a0" for line in textwrap.wrap(report.warning, _WIDTH))
        if text == self._shown:
            return
        self._shown = text
        overlays = self._viewer.canvas.overlays
        if _KEY not in overlays:
            overlays[_KEY] = TextOverlay(position="bottom_left", box=True, font_size=10)
        overlay: Any = overlays[_KEY]
        if text:
            overlay.text = text
            overlay.color, overlay.box_color = WARNING_COLORS[report.level]
        overlay.visible = bool(text)

    def stop(self, *, viewer_lives: bool) -> None:
        """Remove the banner, unless the viewer is closing anyway."""
        if viewer_lives and _KEY in self._viewer.canvas.overlays:
            del self._viewer.canvas.overlays[_KEY]
        self._shown = ""
