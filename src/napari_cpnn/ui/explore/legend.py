"""Legend on the canvas: the title of the colour bar, or the cell types with their colours."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_cpnn.painting import PALE, format_value, unit_of
from napari_cpnn.texts import shown as one_line
from napari_cpnn.ui.canvas import steady_text
from napari_cpnn.ui.frame import every, stop_timer
from napari_cpnn.ui.viewer import ExploreState, TypeRow

if TYPE_CHECKING:
    from napari.components import ViewerModel

_PREFIX = "napari_cpnn_"
_TOP = f"{_PREFIX}top"
MAX_TYPES = 12
#: Maximum letters of a name, and at the colour bar: rendering letters takes time, and long names cover the slide.
_MOST, _MOST_TOP = 60, 24

STEP_MS = 40
"""Interval between two texts, in which napari draws the last one."""

WARM_STEP_MS = 150
"""The same interval during the warm-up, for which nobody waits."""

_N_WARM = 8
#: Not fully transparent: napari would draw the box in black.
_CLEAR = (1.0, 1.0, 1.0, 0.001)
_GLYPHS = string.ascii_letters + string.digits + " -+/.,()%·&µ"
_GLYPHS_PER_STEP = 3

Line = tuple[str, str]
"""A text and its background colour."""

#: Order of drawing of the label of the colour bar; that of other overlays is a million.
_BEFORE_BAR = 10**6 - 2

_HIDDEN: Line = ("", "")
_WARMING: Line = ("", "warming")


class CanvasLegend:
    """Text overlays on the canvas, so that a screenshot is self-explanatory.

    When napari draws its first text it compiles shaders, and it renders each new letter in Python: a dozen names take
    seconds, during which the window hangs. So one text is written at a time, after some invisible ones with those of
    its letters that are new, and :meth:`warm_up` has such texts drawn before the legend is needed.

    Parameters
    ----------
    viewer, state
        The viewer and its state.
    is_busy
        Returns whether a picture is awaited, which drawing letters would delay.
    """

    def __init__(self, viewer: ViewerModel, state: ExploreState, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._viewer = viewer
        self._state = state
        self._is_busy = is_busy
        self._wanted: list[Line] = []
        self._written: list[Line] = []
        self._top = ""
        self._cold_letters = ""
        self._drawn: set[str] = set()
        self._n_warmed = 0
        self._timer = every(STEP_MS, self._step)

    def warm_up(self) -> None:
        """Have letters and texts drawn invisibly, a few at a time."""
        self._cold_letters = _GLYPHS
        self._timer.start(WARM_STEP_MS)

    def update(self, rows: list[TypeRow], scale: str = "", outline: str = "") -> None:
        """Write the legend of what is shown.

        Parameters
        ----------
        rows
            The cell types to name if the map shows several.
        scale
            Description of the scale of the map.
        outline
            Description of what is outlined.
        """
        self._wanted = self._lines(rows, scale, outline)
        self._hide_others()
        self._write_top()
        # Often asked for, the next step still comes.
        if self._next() is not None and not (self._timer.isActive() and self._timer.interval() == STEP_MS):
            self._timer.start(STEP_MS)

    def hide(self) -> None:
        """Say nothing until the next update: another quantity is on screen, and its map is drawn before its name."""
        self._wanted = []
        self._hide_others()
        self._top, overlays = "", self._viewer.canvas.overlays
        if _TOP in overlays:  # else another Explore dock of the viewer has removed it
            overlays[_TOP].visible = False

    @property
    def is_complete(self) -> bool:
        """True when the whole legend is written."""
        return self._next() is None

    def finish(self) -> None:
        """Write the whole legend at once."""
        while self._write_one(at_once=True):
            pass

    def stop(self, *, viewer_lives: bool) -> None:
        """Remove the legend from the canvas, unless the viewer is closing anyway."""
        stop_timer(self._timer)
        if viewer_lives:
            overlays = self._viewer.canvas.overlays
            for name in [_TOP, *(f"{_PREFIX}{i}" for i in range(len(self._written)))]:
                if name in overlays:  # else another Explore dock of the viewer has removed it
                    del overlays[name]
        self._written, self._wanted, self._top = [], [], ""

    def _lines(self, rows: list[TypeRow], *notes: str) -> list[Line]:
        shown = self._state.shown
        if not self._state.look.legend:
            return []
        if self._state.instead:
            return [(one_line(text, _MOST), color) for text, color in self._state.instead]
        if shown is None or self._state.map is None:
            return []
        if shown.has_range:
            unit = unit_of(shown, self._state.map) + (", %" if shown.per_unit != 1 else "")
            title = f"{one_line(shown.label, _MOST)} · {unit}"
            return [(text, "#FFFFFF") for text in (title, *notes) if text]
        named = [(one_line(r.name, _MOST), r.color) for r in rows[:MAX_TYPES]]
        return [*named, (PALE, "#FFFFFF")] if named and shown.kind == "dominant" else named

    def _hide_others(self) -> None:
        """Hide what is no longer said, at once: it takes no time, and must not stand over another quantity."""
        overlays = self._viewer.canvas.overlays
        for i, line in enumerate(self._written):
            if line not in (_HIDDEN, _WARMING, *self._wanted):
                self._written[i] = _HIDDEN
                if f"{_PREFIX}{i}" in overlays:  # else another Explore dock of the viewer has removed it
                    overlays[f"{_PREFIX}{i}"].visible = False

    def _write_top(self) -> None:
        """Label the top of the colour bar, whose ticks are elsewhere, with the quantity."""
        shown = self._state.shown
        is_drawn = shown is not None and shown.has_range and self._state.map is not None and self._state.look.legend
        is_drawn = is_drawn and not self._state.instead  # that has a colour bar of its own
        text = ""
        if shown is not None and is_drawn:
            text = f"{one_line(shown.label, _MOST_TOP)}: {format_value(self._state.limits[1], shown.unit)}"
        if text == self._top:
            return
        self._top, overlays = text, self._viewer.canvas.overlays
        if _TOP not in overlays:
            # Before the colour bar, which is in the same corner; but the box is drawn one earlier, above the layers.
            overlays[_TOP] = steady_text(position="top_right", font_size=9, order=_BEFORE_BAR)
        overlay: Any = overlays[_TOP]
        overlay.text, overlay.color, overlay.box_color = text, "#000000", "#FFFFFF"
        overlay.visible = bool(text)

    # -- one at a time -------------------------------------------------------------------------------------

    def _step(self) -> None:
        if self._is_busy():
            self._timer.start(WARM_STEP_MS)
            return
        if self._write_one():
            return
        if self._warm_one() or self._next() is not None:
            self._timer.start(WARM_STEP_MS)
        else:
            stop_timer(self._timer)

    def _next(self) -> int | None:
        """Return the index of the first text that differs from the wanted one."""
        for i in range(max(len(self._wanted), len(self._written))):
            wanted = self._wanted[i] if i < len(self._wanted) else _HIDDEN
            written = self._written[i] if i < len(self._written) else _HIDDEN
            if wanted != written and not (wanted == _HIDDEN and written == _WARMING and self._cold_letters):
                return i
        return None

    def _write_one(self, *, at_once: bool = False) -> bool:
        i = self._next()
        if i is None:
            return False
        line = self._wanted[i] if i < len(self._wanted) else _HIDDEN
        new = "".join(dict.fromkeys(letter for letter in line[0] if letter not in self._drawn))
        if len(new) > _GLYPHS_PER_STEP and not at_once:  # the name follows when few of its letters are left
            self._write(i, _WARMING, new[:_GLYPHS_PER_STEP])
        else:
            self._write(i, line)
        return True

    def _warm_one(self) -> bool:
        if self._state.mapper is not None:  # from now on write the legend only
            self._cold_letters = ""
        if not self._cold_letters:
            return False
        i = self._n_warmed % _N_WARM
        self._n_warmed += 1
        letters, self._cold_letters = self._cold_letters[:_GLYPHS_PER_STEP], self._cold_letters[_GLYPHS_PER_STEP:]
        if i >= len(self._wanted):
            self._write(i, _WARMING, letters)
        return True

    def _write(self, i: int, line: Line, text: str = "") -> None:
        overlays = self._viewer.canvas.overlays
        for k in range(i + 1):
            if f"{_PREFIX}{k}" not in overlays:
                overlays[f"{_PREFIX}{k}"] = steady_text(position="top_left", font_size=9)
        self._written += [_HIDDEN] * (i + 1 - len(self._written))
        overlay: Any = overlays[f"{_PREFIX}{i}"]
        for k, other in enumerate(self._written):  # a name that moves up is not there twice meanwhile
            if k != i and other == line and line not in (_HIDDEN, _WARMING):
                overlays[f"{_PREFIX}{k}"].visible = False
                self._written[k] = _HIDDEN
        self._written[i] = line
        self._drawn.update(text or line[0])
        if line == _WARMING:
            overlay.text, overlay.color, overlay.box_color = text, (0, 0, 0, 0), _CLEAR
        elif line != _HIDDEN:
            overlay.text, overlay.color, overlay.box_color = line[0], ink_on(line[1]), line[1]
        overlay.visible = line != _HIDDEN


def ink_on(color: str) -> str:
    """Return black or white, whichever is more readable on ``#RRGGBB`` (relative luminance of WCAG 2)."""
    linear = [
        (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4)
        for v in (int(color[k : k + 2], 16) / 255 for k in (1, 3, 5))
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#FFFFFF"
