"""Progress reports and cancellation of long computations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from napari_cpnn.errors import CpnnError

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[str, float], object]
"""Called in the computing thread as ``progress(text, done)`` with a description and the finished share, 0 to 1.
Exceptions that it raises, such as :class:`CancelledError`, cancel the computation and propagate to the caller."""


class CancelledError(CpnnError):
    """Raised to cancel a computation, mostly by a progress callback on behalf of the user."""


ROUNDING = 1e-6
"""Shares of parts of the work are sums; one that falls by less than this has not begun anew."""

Reporting = bool | Progress
"""Whether progress is shown as a bar in the terminal, or a function that is called with it."""


def reporter(how: Reporting) -> Progress:
    """Return ``how`` if that is a function, a bar in the terminal for True, and what does nothing for False."""
    if isinstance(how, bool):
        return ShareBar() if how else no_progress
    return how


def terminal_bar(text: str, total: int | None, unit: str, *, shown: bool = True) -> tqdm[Any]:
    """Return a bar on stderr for the parts of a task, with what is done, the rate and the time left.

    Every bar of the package is one of these, or a :class:`ShareBar`, so that all look alike.
    """
    from tqdm import tqdm

    return tqdm(total=total, desc=text, unit=f" {unit}", disable=not shown)


class ShareBar:
    """A bar on stderr that is called as :data:`Progress`, with the share done and the time left; it closes at 1."""

    _shown: ClassVar[WeakSet[ShareBar]] = WeakSet()

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    @classmethod
    def close_all(cls) -> None:
        """End the lines of bars whose work has ended in any way."""
        for bar in list(cls._shown):
            bar.close()

    def __call__(self, text: str, done: float) -> None:
        from tqdm import tqdm

        if self._bar is not None and done < self._bar.n - ROUNDING:  # another step has begun
            self.close()
        if self._bar is None:
            shape = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
            self._bar = tqdm(total=1.0, desc=text, bar_format=shape)
            self._shown.add(self)
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(min(done, 1.0) - self._bar.n)
        if done >= 1:
            self.close()

    def close(self) -> None:
        """End the line of the bar, if one is shown."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._shown.discard(self)


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
        with terminal_bar(text, total, unit, shown=how and total > 0) as bar:
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


def titled(progress: Progress, title: str) -> Progress:
    """Return a callback whose texts begin with what the part of the work is called."""
    return lambda text, done: progress(f"{title}: {text}", done)
