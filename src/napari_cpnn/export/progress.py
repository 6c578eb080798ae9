"""Progress reports and cancellation of exports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from napari_cpnn.errors import ExportError
from napari_cpnn.progress import CancelledError, Progress, no_progress

_PROGRESS: ContextVar[Progress] = ContextVar("napari_cpnn_export_progress", default=no_progress)


class ExportCancelledError(ExportError, CancelledError):
    """Raised when the user cancels an export; nothing was written."""


@contextlib.contextmanager
def reporting(progress: Progress) -> Iterator[None]:
    """Send the progress of exports in this thread to ``progress``; what it raises cancels them, leaving no files.

    Examples
    --------
    >>> from napari_cpnn.export import reporting
    >>> shares = []
    >>> with reporting(lambda text, share: shares.append(share)):
    ...     path = nc.to_csv(cmap, "reported.csv")
    >>> shares[0]
    0.0
    """
    token = _PROGRESS.set(progress)
    try:
        yield
    finally:
        _PROGRESS.reset(token)


#: Return the current thread's progress callback, to be passed to other threads.
reporter = _PROGRESS.get
