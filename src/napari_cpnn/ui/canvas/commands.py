"""Commands of the manifest: what the keys of the canvas do, for the command palette."""

from __future__ import annotations

from typing import Any
from weakref import ref

import napari
from napari.utils.notifications import show_info

from napari_cpnn.ui.canvas.keys import KEYS, Actions
from napari_cpnn.ui.viewer import state_of

_ACTIONS = "_cpnn_canvas_actions"


def offer(viewer: Any, actions: Actions | None) -> None:
    """Let the commands act on a viewer; ``None``: no longer."""
    setattr(state_of(viewer), _ACTIONS, None if actions is None else ref(actions))


def peek(viewer: napari.Viewer) -> None:
    """Show H&E alone, or everything again."""
    actions = _actions(viewer)
    if actions is not None:
        actions.peek(not actions.held.on)


def less_opaque(viewer: napari.Viewer) -> None:
    """Make the map less opaque."""
    _press(viewer, "less_opaque")


def more_opaque(viewer: napari.Viewer) -> None:
    """Make the map more opaque."""
    _press(viewer, "more_opaque")


def next_quantity(viewer: napari.Viewer) -> None:
    """Show the next cell type or gene."""
    _press(viewer, "next_quantity")


def previous_quantity(viewer: napari.Viewer) -> None:
    """Show the previous cell type or gene."""
    _press(viewer, "previous_quantity")


def next_style(viewer: napari.Viewer) -> None:
    """Draw the map as a wash, as contours, or as outlines of patches."""
    _press(viewer, "next_style")


def live(viewer: napari.Viewer) -> None:
    """Pause or resume mapping."""
    _press(viewer, "live")


def legend(viewer: napari.Viewer) -> None:
    """Show or hide the legend."""
    _press(viewer, "legend")


def lens(viewer: napari.Viewer) -> None:
    """Switch the lens on or off."""
    _press(viewer, "lens")


def _press(viewer: Any, command: str) -> None:
    actions = _actions(viewer)
    if actions is not None:
        next(key for key in KEYS if key.command == command).press(actions)


def _actions(viewer: Any) -> Any:
    found = getattr(state_of(viewer), _ACTIONS, None)
    actions = None if found is None else found()
    if actions is None:
        show_info("Open the Explore dock first: Plugins > CPNN > Explore (CPNN).")
    return actions
