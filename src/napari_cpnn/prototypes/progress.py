"""How far a long estimate is, for whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], object]
"""Called in the thread that computes, at each chunk of cells and each block of genes, with what is being done and the
share that is done, 0 to 1. What it raises ends the work at once and reaches the caller: that is how to cancel."""


def silent(_text: str, _done: float) -> None:
    """Nobody waits."""


def part(progress: Progress, start: float, stop: float) -> Progress:
    """Of a part of the work that is the share from ``start`` to ``stop`` of the whole."""
    return lambda text, done: progress(text, start + (stop - start) * min(max(done, 0.0), 1.0))
