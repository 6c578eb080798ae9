"""Progress reports and cancellation of long estimates."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], object]
"""Called in the computing thread for each chunk of cells and each block of genes, with a description and the
finished share, 0 to 1. Exceptions that it raises cancel the work and propagate to the caller."""


def silent(_text: str, _done: float) -> None:
    """Ignore progress reports."""


def part(progress: Progress, start: float, stop: float) -> Progress:
    """Return a callback for a part of the work that covers the share from ``start`` to ``stop`` of the whole."""
    return lambda text, done: progress(text, start + (stop - start) * min(max(done, 0.0), 1.0))
