"""Banner on the canvas: this tissue is unlike that of the training."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from napari_cpnn.painting import WARNING_COLORS
from napari_cpnn.ui.canvas import steady_text

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.mapping import DomainReport
    from napari_cpnn.ui.frame import TextLabel

_KEY = "napari_cpnn_banner"
#: Letters in a line, at most and at least; px of a letter and of a line; px beside it for the scale bar.
_WIDTH, _LEAST_WIDTH, _LETTER_PX, _LINE_PX, _BESIDE_PX = 52, 18, 9, 20, 200
#: Said on a canvas that is too small for the whole warning, which stands in the dock.
_SHORT = {"caution": "Partly unlike the training: with caution.", "foreign": "Not to be believed: unlike the training."}


class Banner:
    """Text at the bottom of the canvas, opposite the scale bar, so that a screenshot says it, too."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._shown = ""

    def show(self, report: DomainReport) -> None:
        """Show the warning of a report, or nothing."""
        height, width = self._viewer.canvas.size
        letters = min(max(int((width - _BESIDE_PX) / _LETTER_PX), _LEAST_WIDTH), _WIDTH)
        lines = textwrap.wrap(report.warning, letters)
        if len(lines) * _LINE_PX > height / 2:
            lines = textwrap.wrap(_SHORT[report.level], letters)
        # napari makes the box of several lines a little too narrow; no-break spaces count.
        text = "\n".join(f"{line}\u00a0\u00a0" for line in lines)
        if text == self._shown:
            return
        self._shown = text
        overlays = self._viewer.canvas.overlays
        if _KEY not in overlays:
            overlays[_KEY] = steady_text(position="bottom_left", font_size=10)
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


def show_warning(label: TextLabel, text: str, level: str) -> None:
    """Show a warning of :class:`~napari_cpnn.mapping.DomainReport` in a dock, in the colours of its level."""
    if level in WARNING_COLORS:
        ink, box = WARNING_COLORS[level]
        label.setStyleSheet(f"color: {ink}; background: {box}; padding: 4px; border-radius: 3px;")
    if text != label.text():
        label.show_text(text)
    label.ensurePolished()
    label.updateGeometry()  # the padding counts, too, also where only the level has changed
