"""A script that reproduces what a window shows, without a screen. A function of the state, not a log of clicks."""

from __future__ import annotations

from napari_cpnn.errors import SessionError
from napari_cpnn.ui.sessions.panels_code import add_panels
from napari_cpnn.ui.sessions.script import Script
from napari_cpnn.ui.sessions.session import Session


def python_code(session: Session) -> str:
    """Return a script for the map, the figure on screen, the exports, and the tables of regions and spots.

    It uses public functions only, and writes into a folder beside it.

    Raises
    ------
    SessionError
        If there is no model yet, or it has no file.
    """
    if session.model is None or not (session.model.name or session.model.path):
        raise SessionError("There is no map to write code for yet: choose a slide and a model that has a file.")
    script = Script(session)
    script.open()
    script.map()
    script.regions()
    script.spots()
    script.figure()
    add_panels(script)
    for export in session.exports:
        script.export(export)
    script.region_tables()
    script.comparison()
    return script.text()
