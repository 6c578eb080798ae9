"""What a dock is busy with, and what went wrong last. No Qt here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import CpnnError
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from napari_cpnn.ui.frame.background import Background


_LOG = logging.getLogger(__name__)


def in_a_sentence(error: BaseException) -> CpnnError:
    """An exception as the user hears of it; one that nobody has thought of is written to the log, with its traceback.

    A :class:`CpnnError` is such a sentence already.
    """
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
    """Runs slow work of several kinds; a new request makes the answer to an earlier one of its kind worthless.

    Parameters
    ----------
    background
        How slow work is run.
    notify
        Called with a :class:`CpnnError` that the user must see.
    changed
        Called when ``message`` may have changed.
    """

    def __init__(
        self, background: Background, notify: Callable[[CpnnError], None], changed: Callable[[], None]
    ) -> None:
        self.notify = notify
        self._background, self._changed = background, changed
        self.problem: CpnnError | None = None
        self._busy: dict[str, tuple[int, str]] = {}
        self._number = 0
        self._closed = False

    @property
    def message(self) -> str:
        """What went wrong last, or else what is under way."""
        if self.problem is not None:
            return str(self.problem)
        return next((text for _, text in reversed(self._busy.values()) if text), "")

    def is_busy(self, kind: str) -> bool:
        """Whether something of a kind is under way."""
        return kind in self._busy

    def run(
        self,
        kind: str,
        text: str,
        work: Callable[[], Any],
        ready: Callable[[Any], None],
        unwanted: Callable[[Any], None] | None = None,
    ) -> None:
        """Run ``work`` elsewhere and give its result to ``ready``; meanwhile ``text``, if any, says what goes on.

        A result that nobody waits for any more goes to ``unwanted``.
        """
        self._number += 1
        request = (self._number, text)
        self.problem = None
        self._busy.pop(kind, None)  # the newest comes last
        self._busy[kind] = request
        self._changed()

        def is_wanted() -> bool:
            return not self._closed and self._busy.get(kind) == request

        def done(result: Any) -> None:
            if is_wanted():
                del self._busy[kind]
                ready(result)
                self._changed()
            elif unwanted is not None:
                unwanted(result)

        def failed(error: Exception) -> None:
            if is_wanted():
                del self._busy[kind]
                self.fail(error)

        self._background(work, done, failed)

    def say(self, kind: str, text: str) -> None:
        """Something is under way that ends otherwise; an empty text: it has ended."""
        self._busy.pop(kind, None)
        if text:
            self._number += 1
            self._busy[kind] = (self._number, text)
        self._changed()

    def forget(self, kind: str) -> None:
        """Take no answer to what was asked for before."""
        self._busy.pop(kind, None)

    def set_problem(self, problem: CpnnError | None) -> None:
        """What is wrong now."""
        self.problem = problem
        self._changed()

    def fail(self, error: Exception) -> None:
        """Say a problem, of whatever kind it is."""
        problem = in_a_sentence(error)
        self.set_problem(problem)
        self.notify(problem)

    def close(self) -> None:
        """Take no more answers."""
        self._closed = True
        self._busy.clear()
