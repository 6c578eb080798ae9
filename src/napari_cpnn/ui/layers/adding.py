"""Layers that are added beside what somebody works with: they are not selected, and drawn in the next turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

L = TypeVar("L", bound="Layer")


def add_beside(viewer: ViewerModel, layer: L, index: int | None = None) -> L:
    """Add a layer; the selected layers stay selected.

    napari selects each layer that is added, with its controls, its keys and its place in the list. To select it and
    the former ones again takes a third of the time of adding it, so that is left out. The canvas is drawn in the next
    turn of the event loop, so that building a layer and drawing it for the first time do not hold the window in one go.

    Parameters
    ----------
    viewer
        Viewer, or its model without a window.
    layer
        A layer that is in no viewer.
    index
        Its place in the list of layers, as of ``insert``; on top by default. Moving it later takes as long as ten
        changes of the list.
    """
    layers = viewer.layers
    selected = set(layers.selection)
    inside = getattr(layers, "__wrapped__", layers)  # napari hands plugins a proxy without private names
    selects = getattr(inside, "_activate_on_insert", True)
    inside._activate_on_insert = False  # noqa: SLF001 -- napari has no public way not to select
    try:
        layers.insert(len(layers) if index is None else index, layer)
    finally:
        inside._activate_on_insert = selects  # noqa: SLF001
    if set(layers.selection) != selected:
        layers.selection = selected
    draw_next_turn(viewer)
    return layer


def draw_next_turn(viewer: Any) -> None:
    """Let the canvas be drawn no sooner than in the next turn of the event loop, whatever has changed."""
    window = getattr(getattr(viewer, "__wrapped__", viewer), "window", None)
    if window is None:
        return
    canvas = window._qt_viewer.canvas.native  # noqa: SLF001 -- napari has no public name for it
    if not canvas.updatesEnabled():
        return
    canvas.setUpdatesEnabled(False)
    timer = QTimer(canvas)  # which ends with the canvas
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: canvas.setUpdatesEnabled(True))
    timer.timeout.connect(timer.deleteLater)
    timer.start(0)
