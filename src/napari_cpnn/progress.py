"""Progress reports and cancellation of long computations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from napari_cpnn.errors import CpnnError

Progress = Callable[[str, float], object]
"""Called in the computing thread as ``progress(text, done)`` with a description and the finished share, 0 to 1.
Exceptions that it raises, such as :class:`CancelledError`, cancel the computation and propagate to the caller."""


class CancelledError(CpnnError):
    """Raised to cancel a computation, mostly by a progress callback on behalf of the user."""


Reporting = bool | Progress
"""Whether progress is shown as a bar in the terminal, or a function that is called with it."""


def reporter(how: Reporting) -> Progress:
    """Return a function that reports to ``how`` if that is a function, and otherwise does nothing."""
    return no_progress if isinstance(how, bool) else how


@contextmanager
def counting(how: Reporting, text: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Count the parts of a task: yield a function that is called with the number of parts done since its last call.

    Parameters
    ----------
    how
        Receives the progress.
    text, unit
        Names of the task and of its parts, such as ``cutting patches`` and ``spot``.
    total
        Number of parts; nothing is shown without any.
    """
    if isinstance(how, bool):
        from tqdm import tqdm

        with tqdm(total=total, desc=text, unit=unit, disable=not (how and total)) as bar:
            yield bar.update
        return
    n_done = 0

    def update(n: int) -> None:
        nonlocal n_done
        n_done += n
        how(text, n_done / total)

    if total:
        how(text, 0.0)
    yield update if total else lambda _: None


def no_progress(_text: str, _done: float) -> None:
    """Ignore progress reports."""


def part(progress: Progress, start: float, stop: float) -> Progress:
    """Return a callback for a part of the work that covers the share from ``start`` to ``stop`` of the whole."""
    return lambda text, done: progress(text, start + (stop - start) * min(max(done, 0.0), 1.0))
