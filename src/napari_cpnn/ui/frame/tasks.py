"""Slow work of a dock, and the line that says what it is doing or what went wrong. No Qt here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from psygnal import Signal

from napari_cpnn.errors import CpnnError
from napari_cpnn.untrusted import reason_of

_LOG = logging.getLogger(__name__)


class Background(Protocol):
    """Runs a function outside the GUI thread and calls back in it."""

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None: ...


def as_cpnn_error(error: BaseException) -> CpnnError:
    """Turn an exception into a sentence for the user; an unexpected one is logged with its traceback."""
    if isinstance(error, CpnnError):
        return error
    _LOG.error("an unexpected exception", exc_info=error)
    if isinstance(error, (OSError, MemoryError)):
        problem = CpnnError(f"This did not work: {reason_of(error)}.")
    else:
        problem = CpnnError(
            f"This did not work ({type(error).__name__}: {reason_of(error)}); it is a fault of napari-cpnn: please "
            "report it, with what you did."
        )
    problem.__cause__ = error
    return problem


class Tasks:
    """Slow work of several kinds; a new request supersedes earlier requests of the same kind.

    Parameters
    ----------
    background
        Runs the work outside the GUI thread.
    notify
        Called with a :class:`CpnnError` that the user must see.
    hint
        Returns what the user can do next; shown while nothing is running and nothing is wrong.
    """

    changed = Signal()
    """Emitted whenever a task starts or ends."""
    message_changed = Signal(str)

    def __init__(
        self, background: Background, notify: Callable[[CpnnError], None], hint: Callable[[], str] = lambda: ""
    ) -> None:
        self.notify = notify
        self._background, self._hint = background, hint
        self.problem: CpnnError | None = None
        self._running: dict[Hashable, tuple[int, str]] = {}
        self._number = 0
        self._closed = False
        self._last_message = ""

    @property
    def message(self) -> str:
        """The last problem, or else what is running, or else the hint."""
        if self.problem is not None:
            return str(self.problem)
        return next((text for _, text in reversed(self._running.values()) if text), "") or self._hint()

    def update(self) -> None:
        """Emit ``changed``, and ``message_changed`` when the message is another."""
        self.changed.emit()
        message = self.message
        if message != self._last_message:
            self._last_message = message
            self.message_changed.emit(message)

    def is_running(self, kind: Hashable) -> bool:
        """Return whether a task of this kind is running."""
        return kind in self._running

    def run(
        self,
        kind: Hashable,
        text: str,
        work: Callable[[], Any],
        ready: Callable[[Any], None],
        unwanted: Callable[[Any], None] | None = None,
    ) -> None:
        """Run ``work`` in the background and pass its result to ``ready``; meanwhile the message is ``text``, if any.

        The result of a superseded request goes to ``unwanted``.
        """
        self._number += 1
        request = (self._number, text)
        self.problem = None
        self._running.pop(kind, None)  # the newest comes last
        self._running[kind] = request
        self.update()

        def is_wanted() -> bool:
            return not self._closed and self._running.get(kind) == request

        def done(result: Any) -> None:
            if is_wanted():
                del self._running[kind]
                ready(result)
                self.update()
            elif unwanted is not None:
                unwanted(result)

        def failed(error: Exception) -> None:
            if is_wanted():
                del self._running[kind]
                self.fail(error)

        self._background(work, done, failed)

    def show(self, kind: Hashable, text: str) -> None:
        """Show that something is running that is not a task; an empty text ends it."""
        self._running.pop(kind, None)
        if text:
            self._number += 1
            self._running[kind] = (self._number, text)
        self.update()

    def forget(self, *kinds: Hashable) -> None:
        """Ignore the results of earlier requests of these kinds."""
        for kind in kinds:
            self._running.pop(kind, None)

    def set_problem(self, problem: CpnnError | None) -> None:
        """Show a problem as the message, or none."""
        self.problem = problem
        self.update()

    def fail(self, error: Exception) -> None:
        """Show an exception as the message and notify the user."""
        problem = as_cpnn_error(error)
        self.set_problem(problem)
        self.notify(problem)

    def close(self) -> None:
        """Ignore all results from now on."""
        self._closed = True
        self._running.clear()
