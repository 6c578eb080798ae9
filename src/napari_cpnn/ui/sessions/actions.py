"""What the buttons and commands of a session do: code to the clipboard or a file, sessions saved and opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QWidget

from napari_cpnn.errors import CpnnError, SessionError
from napari_cpnn.storage import whole_file
from napari_cpnn.texts import file_name
from napari_cpnn.ui.frame import as_cpnn_error, open_file, save_file, tell, warn
from napari_cpnn.ui.sessions.collect import identified, session_of
from napari_cpnn.ui.sessions.python_code import python_code
from napari_cpnn.ui.sessions.restore import open_session
from napari_cpnn.ui.sessions.session import Session
from napari_cpnn.ui.sessions.session_file import ENDING, save_session

_SESSIONS = f"Sessions of napari-cpnn (*{ENDING})"


def copy_code(viewer: Any, explore: Any) -> None:
    """Put a script of what is on screen into the clipboard."""
    code = _code_of(viewer, explore)
    clipboard = QGuiApplication.clipboard()
    if code and clipboard is not None:
        clipboard.setText(code)
        tell(f"Copied: a script of {len(code.splitlines())} lines that maps and draws what is on screen.")


def save_code(viewer: Any, explore: Any) -> None:
    """Ask for a file and write a script of what is on screen."""
    code = _code_of(viewer, explore)
    if not code:
        return

    def write(name: str) -> None:
        path = Path(name) if name.lower().endswith(".py") else Path(f"{name}.py")
        _write(explore, lambda: write_script(code, path), f"Written: {path}. Run it with python {path.name}.")

    save_file(_parent(explore), "Save a script", str(_beside(explore, "_map.py")), "Python (*.py)", write)


def write_script(code: str, path: Path) -> None:
    """Write a script, atomically.

    Raises
    ------
    SessionError
        If the file cannot be written.
    """
    with whole_file(path, SessionError) as part:
        part.write_text(code, encoding="utf-8")


def save(viewer: Any, explore: Any) -> None:
    """Ask for a file and write the session."""
    session = _session(viewer, explore)
    if session is None:
        return
    if session.cells is not None and session.cells.missing:
        warn("The cells are not in the session, since they have no file: Save ... them in the Cells dock first.")

    def write(name: str) -> None:
        _write(explore, lambda: save_session(identified(session), name), "Written: {}.")

    save_file(_parent(explore), "Save the session", str(_beside(explore, ENDING)), _SESSIONS, write)


def open_(viewer: Any, parent: QWidget | None = None) -> None:
    """Ask for a session and open it."""
    title = "Open a session"
    open_file(parent, title, f"{_SESSIONS};;All files (*)", lambda name: open_session(viewer, name))  # type: ignore[arg-type]


def _session(viewer: Any, explore: Any) -> Session | None:
    try:
        return session_of(viewer, explore)
    except CpnnError as error:
        warn(str(error))
        return None


def _code_of(viewer: Any, explore: Any) -> str:
    session = _session(viewer, explore)
    try:
        return "" if session is None else python_code(session)
    except CpnnError as error:
        warn(str(error))
        return ""


def _write(explore: Any, work: Any, said: str) -> None:
    """Write beside the event loop, and say what was written."""
    explore.background(work, lambda path: tell(said.format(path)), lambda error: warn(str(as_cpnn_error(error))))


def _parent(explore: Any) -> QWidget:
    found: QWidget = explore
    return found


def _beside(explore: Any, ending: str) -> Path:
    """Return a path with the name of the slide, in its folder."""
    slide = explore.state.slide
    path = Path.home() / "slide" if slide is None or slide.path is None else slide.path
    return path.with_name(f"{file_name(path.stem, 'slide')}{ending}")
