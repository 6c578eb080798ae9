"""Linking torch's libraries ahead, beside other imports. torch is not imported here."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from importlib.util import find_spec
from pathlib import Path


def link_ahead() -> threading.Thread | None:
    """Have the libraries of torch linked in a thread, so that importing it finds them in memory.

    They are hundreds of megabytes, and linking them takes a quarter of a second. A call by ``ctypes`` leaves Python to
    others meanwhile, while an import does not. Nothing depends on it; where they cannot be linked, importing torch says
    why. On Linux only: elsewhere torch looks for them in ways of its own.

    Returns
    -------
    threading.Thread or None
        What links them; None where there is nothing to do.

    Examples
    --------
    >>> from napari_cpnn.models import link_ahead
    >>> thread = link_ahead()
    """
    spec = None if sys.platform != "linux" or "torch" in sys.modules else find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).with_name("lib") / "libtorch_python.so"  # needs all others
    if not library.is_file():
        return None
    link = ctypes.CDLL(None).dlopen  # ctypes.CDLL of the library would hold the lock
    link.restype, link.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    thread = threading.Thread(
        target=link, args=(os.fsencode(library), os.RTLD_NOW), name="napari-cpnn linking", daemon=True
    )
    thread.start()
    return thread
