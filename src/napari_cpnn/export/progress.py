"""How far an export is, for whoever waits for it, and the way to end it early."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from napari_cpnn.errors import ExportError

Report = Callable[[float], None]
"""Called with the finished share, 0 to 1; what it raises ends the export, and nothing is left of it."""

_REPORT: ContextVar[Report | None] = ContextVar("napari_cpnn_export_report", default=None)


class ExportCancelledError(ExportError):
    """The user has ended an export; nothing was written."""


@contextlib.contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Exports of this thread tell ``report`` how far they are."""
    token = _REPORT.set(report)
    try:
        yield
    finally:
        _REPORT.reset(token)


def reporter() -> Report:
    """Who is to be told by an export that starts now; for work that goes on in other threads, too."""
    return _REPORT.get() or _nobody


def _nobody(_share: float) -> None:
    """Nobody waits."""
