"""Choices that can be taken back, of all docks of one viewer in one order. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psygnal import Signal

_N_KEPT = 50


@dataclass(frozen=True)
class _Choice:
    text: str
    undo: Callable[[], None]
    merge: str
    owner: object


class History:
    """The last choices of the user, each with what takes it back."""

    changed = Signal()

    def __init__(self) -> None:
        self._entries: list[_Choice] = []
        self._undoing = False

    @property
    def text(self) -> str:
        """What would be taken back next; empty: nothing."""
        return self._entries[-1].text if self._entries else ""

    def add(self, text: str, undo: Callable[[], None], merge: str = "", owner: object = None) -> None:
        """A choice has been made.

        Parameters
        ----------
        text
            What it was, such as ``gene ERBB2``.
        undo
            Takes it back. What is chosen meanwhile is no new choice.
        merge
            Choices in a row with the same word count as one, as of a slider that is dragged.
        owner
            A dock or a layer without which the choice means nothing, see :meth:`forget`.
        """
        if self._undoing:
            return
        last = self._entries[-1] if self._entries else None
        if merge and last is not None and last.merge == merge and last.owner is owner:
            self._entries[-1] = _Choice(text, last.undo, merge, owner)
        else:
            self._entries = [*self._entries[1 - _N_KEPT :], _Choice(text, undo, merge, owner)]
        self.changed.emit()

    def undo(self) -> None:
        """Take the last choice back."""
        if not self._entries:
            return
        choice = self._entries.pop()
        self._undoing = True
        try:
            choice.undo()
        finally:
            self._undoing = False
            self.changed.emit()

    def forget(self, owner: object = None) -> None:
        """What was chosen, in a dock that is closed or on a layer that is gone, cannot be taken back any more."""
        self._entries = [] if owner is None else [choice for choice in self._entries if choice.owner is not owner]
        self.changed.emit()
