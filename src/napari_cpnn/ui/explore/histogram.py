"""Colour bar with a histogram of the values in view."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QWidget

from napari_cpnn import painting
from napari_cpnn.arrays import Float32Array
from napari_cpnn.ui.explore.color_bar import ColorBar
from napari_cpnn.ui.frame import every, stop_timer
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from qtpy.QtGui import QHideEvent, QShowEvent

N_BINS = 30
"""Bars of the histogram."""

_CHECK_MS = 400
#: Largest share of the time of the GUI thread.
_BUSY_SHARE = 0.1


class HistogramBar(ColorBar):
    """Colour bar of what is on screen that follows map, view and look while it is visible."""

    def __init__(self, state: ExploreState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._seen: tuple[Any, ...] | None = None
        self._next = 0.0
        self._checks = every(_CHECK_MS, self._check, self)

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().showEvent(event)
        self._checks.start()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().hideEvent(event)
        stop_timer(self._checks)

    def _check(self) -> None:
        start = time.monotonic()
        if start >= self._next:
            self.update_counts()
            end = time.monotonic()
            self._next = end + (end - start) * (1 / _BUSY_SHARE - 1)

    def update_counts(self) -> None:
        """Count the values in view, if anything has changed."""
        state = self._state
        cmap, shown, look = state.map, state.shown, state.look
        rect = None if state.view is None else state.view.rect
        revision = None if cmap is None else cmap.revision
        seen = (cmap, revision, shown, look.scale_um, look.unlike, state.limits, rect)
        if seen == self._seen:
            return
        self._seen = seen
        values = values_in_view(state)
        if values is None or not len(values):
            self.show_counts(None)
            return
        low, high = state.limits
        counts = np.histogram(values, N_BINS, (low, max(high, low + 1e-12)))[0]
        below, above = 100 * (values < low).mean(), 100 * (values > high).mean()
        note = f"bars: values of {len(values):,} patches in view; {below:.0f} % are lower, {above:.0f} % are higher"
        self.show_counts(counts.astype(np.intp), note)


def values_in_view(state: ExploreState) -> Float32Array | None:
    """Return the values ``(n,)`` of the tissue patches in view, or of all; ``None`` for what has no range."""
    cmap, shown = state.map, state.shown
    if cmap is None or shown is None or not shown.has_range:
        return None
    part = ... if state.view is None else cmap.grid.window(state.view.rect)
    field = painting.field_of(cmap, shown, state.look.scale_um)[part]
    return field[np.isfinite(field)]
