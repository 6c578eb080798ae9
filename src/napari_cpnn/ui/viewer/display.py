"""Check that a window can be opened; without a display, Qt would end the whole process."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from napari_cpnn.errors import CpnnError

_SECONDS = 15.0
_PREFIX = re.compile(r"^(?:qt\.[\w.]+: )?")
_PROBE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
sys.path[:] = {places!r}
from qtpy.QtGui import QGuiApplication, QOpenGLContext
application = QGuiApplication([])
if not QOpenGLContext().create():
    sys.exit("it has no OpenGL")
"""


def require_display(command: str) -> None:
    """Raise an error if no window can be opened; Qt is tried in a process of its own, which it may end.

    Parameters
    ----------
    command
        Command that makes a picture without a screen, such as ``napari-cpnn demo --screenshot demo.png``.

    Raises
    ------
    CpnnError
        There is no display, it does not respond, or Qt cannot use it.
    """
    if not sys.platform.startswith("linux"):
        return
    advice = f"run 'xvfb-run -a {command}' for a picture."
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display and not os.environ.get("QT_QPA_PLATFORM"):
        raise CpnnError(f"There is no display: {advice}")
    problem = _problem()
    if problem is not None:
        name = f"The display {display}" if display else f"Qt's platform {os.environ['QT_QPA_PLATFORM']}"
        raise CpnnError(f"{name} cannot be used ({problem}): {advice}")


def _problem() -> str | None:
    """Start Qt in a process of its own and return its error message; ``None`` when it starts."""
    code = _PROBE.format(places=[place for place in sys.path if place])
    try:
        done = subprocess.run(  # noqa: S603 -- our own interpreter and code
            [sys.executable, "-I", "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it does not respond in {_SECONDS:g} s"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return _PREFIX.sub("", lines[0].strip())[:200].rstrip(".") if lines else "Qt ended without a message"
