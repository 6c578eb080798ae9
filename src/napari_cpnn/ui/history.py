"""Choices that can be taken back, of all docks of one viewer in one order. No Qt here."""

from __future__ import annotations

from collections.abc import Callable

from psygnal import Signal

_N_KEPT = 50


class History:
    """The last choices of the user, each with what takes it back."""

    changed = Signal()

    def __init__(self) -> None:
        self._entries: list[tuple[str, Callable[[], None], str]] = []
        self._undoing = False

    @property
    def text(self) -> str:
        """What would be taken back next; empty: nothing."""
        return self._entries[-1][0] if self._entries else ""

    def add(self, text: str, undo: Callable[[], None], merge: str = "") -> None:
        """A choice has been made.

        Parameters
        ----------
        text
            What it was, such as ``gene ERBB2``.
        undo
            Takes it back. What is chosen meanwhile is no new choice.
        merge
            Choices in a row with the same word count as one, as of a slider that is dragged.
        """
        if self._undoing:
            return
        if merge and self._entries and self._entries[-1][2] == merge:
            self._entries[-1] = (text, self._entries[-1][1], merge)
        else:
            self._entries = [*self._entries[1 - _N_KEPT :], (text, undo, merge)]
        self.changed.emit()

    def undo(self) -> None:
        """Take the last choice back."""
        if not self._entries:
            return
        _, undo, _ = self._entries.pop()
        self._undoing = True
        try:
            undo()
        finally:
            self._undoing = False
            self.changed.emit()

    def forget(self) -> None:
        """What was chosen cannot be taken back any more."""
        self._entries.clear()
        self.changed.emit()
