"""Check that a window can be opened; without a display, Qt would end the whole process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def checking_display(command: str) -> Iterator[None]:
    """Try Qt in a process of its own, which it may end, while the block runs; the error comes at the end of the block.

    The block does what takes time and needs no display, such as importing napari. An error in it comes first, and a
    display that is not even named is an error at once.

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
        yield
        return
    advice = f"run 'xvfb-run -a {command}' for a picture."
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not display and not os.environ.get("QT_QPA_PLATFORM"):
        raise CpnnError(f"There is no display: {advice}")
    code = _PROBE.format(places=[place for place in sys.path if place])
    with subprocess.Popen(  # noqa: S603 -- our own interpreter and code
        [sys.executable, "-I", "-c", code],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as probe:
        try:
            yield
            problem = _problem(probe)
        finally:
            probe.kill()
    if problem is not None:
        name = f"The display {display}" if display else f"Qt's platform {os.environ['QT_QPA_PLATFORM']}"
        raise CpnnError(f"{name} cannot be used ({problem}): {advice}")


def require_display(command: str) -> None:
    """Raise an error if no window can be opened; parameters and errors are those of :func:`checking_display`."""
    with checking_display(command):
        pass


def _problem(probe: subprocess.Popen[str]) -> str | None:
    """Return the error message of Qt in its process; ``None`` when it starts."""
    try:
        _, said = probe.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it does not respond in {_SECONDS:g} s"
    if probe.returncode == 0:
        return None
    lines = [line for line in said.splitlines() if line.strip()]
    return _PREFIX.sub("", lines[0].strip())[:200].rstrip(".") if lines else "Qt ended without a message"
