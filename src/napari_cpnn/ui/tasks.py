"""What a dock is busy with, and what went wrong last. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import CpnnError

if TYPE_CHECKING:
    from napari_cpnn.ui.background import Background


class Tasks:
    """Runs slow work of several kinds; a new request makes the answer to an earlier one of its kind worthless.

    Parameters
    ----------
    background
        How slow work is run.
    notify
        Called with a :class:`CpnnError` that the user must see. Other exceptions are raised where they happen.
    changed
        Called when ``message`` may have changed.
    """

    def __init__(
        self, background: Background, notify: Callable[[CpnnError], None], changed: Callable[[], None]
    ) -> None:
        self.notify = notify
        self._background, self._changed = background, changed
        self._busy: dict[str, tuple[int, str]] = {}
        self._number = 0
        self._problem = ""
        self._closed = False

    @property
    def message(self) -> str:
        """What went wrong last, or else what is under way."""
        return self._problem or next((text for _, text in reversed(self._busy.values())), "")

    def run(self, kind: str, text: str, work: Callable[[], Any], ready: Callable[[Any], None]) -> None:
        """Run ``work`` elsewhere and give its result to ``ready``; meanwhile ``text`` says what goes on."""
        self._number += 1
        request = (self._number, text)
        self._problem = ""
        self._busy[kind] = request
        self._changed()

        def is_wanted() -> bool:
            return not self._closed and self._busy.get(kind) == request

        def done(result: Any) -> None:
            if is_wanted():
                del self._busy[kind]
                ready(result)
                self._changed()

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

    def set_problem(self, problem: str) -> None:
        """What is wrong now; empty: nothing."""
        self._problem = problem
        self._changed()

    def fail(self, error: Exception) -> None:
        """Say a problem; what is no :class:`CpnnError` is a bug, and raised."""
        if not isinstance(error, CpnnError):
            self._changed()
            raise error
        self.set_problem(str(error))
        self.notify(error)

    def close(self) -> None:
        """Take no more answers."""
        self._closed = True
