"""Progress reports and cancellation of exports."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from napari_cpnn.errors import ExportError

Report = Callable[[float], None]
"""Called with the finished share, 0 to 1; exceptions that it raises cancel the export, leaving no files."""

_REPORT: ContextVar[Report | None] = ContextVar("napari_cpnn_export_report", default=None)


class ExportCancelledError(ExportError):
    """Raised when the user cancels an export; nothing was written."""


@contextlib.contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Send the progress of exports in this thread to ``report``.

    Examples
    --------
    >>> from napari_cpnn.export import reporting
    >>> shares = []
    >>> with reporting(shares.append):
    ...     path = nc.to_csv(cmap, "reported.csv")
    >>> shares[0]
    0.0
    """
    token = _REPORT.set(report)
    try:
        yield
    finally:
        _REPORT.reset(token)


def reporter() -> Report:
    """Return the current thread's progress callback, to be passed to other threads."""
    return _REPORT.get() or _nobody


def _nobody(_share: float) -> None:
    """Ignore progress reports."""
