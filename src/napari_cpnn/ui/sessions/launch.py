"""Open a window on a session: ``napari-cpnn open FILE.cpnn.json``."""

from __future__ import annotations

import shlex
import time
from contextlib import nullcontext
from pathlib import Path

from qtpy.QtCore import QCoreApplication

from napari_cpnn.errors import MappingError, SessionError
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.frame import place_dock
from napari_cpnn.ui.sessions.restore import open_session
from napari_cpnn.ui.sessions.session_file import read_session
from napari_cpnn.ui.viewer import checking_display, pump, require_picture, save_screenshot, wait_until_mapped

_OPENING_S = 120.0


def open_session_window(
    path: str | Path, *, screenshot: str | Path | None = None, settings: MappingSettings | None = None
) -> None:
    """Open napari on a session; returns when the window is closed.

    Parameters
    ----------
    path
        The ``.cpnn.json`` file.
    screenshot
        Picture of the window to write when the view is mapped, before returning.
    settings
        Settings of maps.

    Raises
    ------
    CpnnError
        If there is no display, or the session cannot be read or, with ``screenshot``, its slide or model not be found.
    """
    session = read_session(path)
    if screenshot is not None:
        require_picture(Path(screenshot))
        if not session.slide.path.exists():
            raise SessionError(f"The slide {session.slide.name} is not at {session.slide.path}.")
    retry = f"napari-cpnn open {shlex.quote(str(path))} --screenshot picture.png"
    with checking_display(retry) if QCoreApplication.instance() is None else nullcontext():
        import napari.window  # with all of napari that a window needs

        from napari_cpnn.ui.explore import Explore

    viewer = napari.Viewer(show=True)
    explore = Explore(viewer, settings)
    explore.is_quiet = True
    place_dock(explore, "Explore")
    try:
        if screenshot is None:
            open_session(viewer, path)
            napari.run()
            return
        viewer.window.resize(1500, 940)
        opening = open_session(viewer, path, choose=lambda *_: None)
        deadline = time.monotonic() + _OPENING_S
        while not opening.is_done:
            if opening.problem is not None:
                raise opening.problem
            if time.monotonic() > deadline:
                raise MappingError(f"{path}: the session was not opened in {_OPENING_S:.0f} s.")
            pump(0.05)
        wait_until_mapped(viewer, explore)
        save_screenshot(viewer, Path(screenshot))
    finally:
        explore.end(viewer_lives=False)
        if screenshot is not None:
            viewer.close()
