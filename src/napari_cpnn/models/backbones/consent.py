"""Permission to download weights, per thread.

Naming an encoder in the settings permits its download. A model file from elsewhere may name an encoder on any server,
and opening the file must not contact it: only local files are used then, unless the user permits the download.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ALLOWED = ContextVar("napari_cpnn_downloads", default=True)


def may_download() -> bool:
    """Return whether missing files may be downloaded."""
    return _ALLOWED.get()


@contextmanager
def downloads(*, allowed: bool) -> Iterator[None]:
    """Allow or forbid downloads in the current thread within the context."""
    before = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(before)
