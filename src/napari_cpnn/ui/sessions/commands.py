"""Commands of the manifest, and the reader of session files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari

from napari_cpnn.ui.frame import tell
from napari_cpnn.ui.layers import LayerData, slide_layer
from napari_cpnn.ui.regions import new_layer
from napari_cpnn.ui.sessions import actions
from napari_cpnn.ui.sessions.collect import dock_of
from napari_cpnn.ui.sessions.restore import open_session as open_in
from napari_cpnn.ui.sessions.session_file import is_session, read_session
from napari_cpnn.ui.viewer import state_of


def copy_as_python(viewer: napari.Viewer) -> None:
    """Put a script of what is on screen into the clipboard."""
    _with_explore(viewer, actions.copy_code)


def save_script(viewer: napari.Viewer) -> None:
    """Write a script of what is on screen."""
    _with_explore(viewer, actions.save_code)


def save_session(viewer: napari.Viewer) -> None:
    """Write what the window shows into a file."""
    _with_explore(viewer, actions.save)


def open_session(viewer: napari.Viewer) -> None:
    """Open a session file in this window."""
    actions.open_(viewer, dock_of(viewer, "explore"))


def export_map(viewer: napari.Viewer) -> None:
    """Open the export dialog."""
    _with_explore(viewer, lambda _viewer, explore: explore.export.open())


def new_regions(viewer: napari.Viewer) -> None:
    """Add a layer for regions, and draw on it."""
    state = state_of(viewer)
    if state.layer is None or state.slide is None:
        tell("Open a slide first and choose it in the Explore dock: regions are drawn on it.")
        return
    layer = viewer.add_layer(new_layer(state.layer, (), state.slide.mpp or (1.0, 1.0)))
    layer.mode = "add_polygon"


def get_session_reader(path: str | Sequence[str]) -> Callable[[Any], list[Any]] | None:
    """Return the reader of session files; ``None`` for other files."""
    paths = [path] if isinstance(path, str) else list(path)
    return _read if paths and all(is_session(one) for one in paths) else None


def _read(path: str | Sequence[str]) -> list[Any]:
    """Open a session in the present window, which adds its layers by itself; without one, return its slide."""
    from napari_cpnn.slides import open_slide

    paths = [path] if isinstance(path, str) else list(path)
    viewer = napari.current_viewer()
    if viewer is None:
        slides = [read_session(Path(one)).slide for one in paths]
        layers: list[LayerData] = [slide_layer(open_slide(slide.path, mpp=slide.mpp)) for slide in slides]
        return layers
    open_in(viewer, paths[-1])
    return [(None,)]


def _with_explore(viewer: Any, act: Callable[[Any, Any], None]) -> None:
    explore = dock_of(viewer, "explore")
    if explore is None:
        tell("Open the Explore dock first: Plugins > CPNN > Explore (CPNN).")
    else:
        act(viewer, explore)
