"""Progress reports and cancellation of long computations."""

from __future__ import annotations

from collections.abc import Callable

from napari_cpnn.errors import CpnnError

Progress = Callable[[str, float], object]
"""Called in the computing thread as ``progress(text, done)`` with a description and the finished share, 0 to 1.
Exceptions that it raises, such as :class:`CancelledError`, cancel the computation and propagate to the caller."""


class CancelledError(CpnnError):
    """Raised to cancel a computation, mostly by a progress callback on behalf of the user."""


def no_progress(_text: str, _done: float) -> None:
    """Ignore progress reports."""


def part(progress: Progress, start: float, stop: float) -> Progress:
    """Return a callback for a part of the work that covers the share from ``start`` to ``stop`` of the whole."""
    return lambda text, done: progress(text, start + (stop - start) * min(max(done, 0.0), 1.0))
