"""Changes of the layers that napari reacts to once, and draws in the next turn of the event loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


def set_visible(layer: Layer, visible: bool) -> None:
    """Show or hide a layer; of one that is so already napari would arrange and draw all anew."""
    if layer.visible != visible:
        layer.visible = visible


def draw_next_turn(viewer: Any) -> None:
    """Let the canvas be drawn no sooner than in the next turn of the event loop, whatever has changed."""
    canvas = _canvas_of(viewer)
    # A window that is not shown yet is drawn first of all when it is.
    if canvas is None or not canvas.native.isVisible() or not canvas.native.updatesEnabled():
        return
    widget = canvas.native
    widget.setUpdatesEnabled(False)
    timer = QTimer(widget)  # which ends with the canvas
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: widget.setUpdatesEnabled(True))
    timer.timeout.connect(timer.deleteLater)
    timer.start(0)


@contextmanager
def changed_together(viewer: ViewerModel) -> Iterator[None]:
    """Add, move, show and hide several layers; napari arranges its scene once, and draws it in the next turn.

    It would arrange all layers and overlays anew for each of them, which takes 5 to 10 ms. Where no layer comes, goes
    or moves after all, the canvas is drawn at once.
    """
    canvas = _canvas_of(viewer)
    if canvas is None or getattr(canvas, "_pause_scene_graph", True):  # by somebody else, or of another napari
        draw_next_turn(viewer)
        yield
        return
    layers = getattr(viewer.layers, "__wrapped__", viewer.layers)
    before = [(layer, layer.visible) for layer in layers]
    canvas._pause_scene_graph = True  # noqa: SLF001 -- as napari does while it replaces all layers
    try:
        yield
    finally:
        canvas._pause_scene_graph = False  # noqa: SLF001
        if [(layer, layer.visible) for layer in layers] != before:
            has_lost = any(layer not in layers for layer, _ in before)
            (canvas._clean_and_update_scenegraph if has_lost else canvas._update_scenegraph)()  # noqa: SLF001
            draw_next_turn(viewer)


def _canvas_of(viewer: Any) -> Any:
    """Return napari's canvas of a viewer; None for a model without a window."""
    window = getattr(getattr(viewer, "__wrapped__", viewer), "window", None)
    return None if window is None else window._qt_viewer.canvas  # noqa: SLF001 -- napari has no public name for it
