"""Whether weights may be downloaded at this moment.

Who names an encoder in settings asks for it. A model file from elsewhere may name any server's, and opening it must
not tell that server so: there, only what is on this computer is used unless the user says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ALLOWED = ContextVar("napari_cpnn_downloads", default=True)


def may_download() -> bool:
    """Whether what is not on this computer may be downloaded."""
    return _ALLOWED.get()


@contextmanager
def downloads(*, allowed: bool) -> Iterator[None]:
    """While inside, and in this thread, downloads are allowed or not."""
    before = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(before)
