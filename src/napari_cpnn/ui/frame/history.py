"""Undo history of all docks of one viewer. No Qt here."""

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
    """The last choices of the user, each with a function that undoes it."""

    changed = Signal()

    def __init__(self) -> None:
        self._entries: list[_Choice] = []
        self._undoing = False

    @property
    def text(self) -> str:
        """The choice that would be undone next; empty when there is none."""
        return self._entries[-1].text if self._entries else ""

    def add(self, text: str, undo: Callable[[], None], merge: str = "", owner: object = None) -> None:
        """Record a choice.

        Parameters
        ----------
        text
            Short description, such as ``gene ERBB2``.
        undo
            Restores the state before the choice. Changes that it makes are not recorded.
        merge
            Successive choices with the same word are undone together, such as those of a slider that is dragged.
        owner
            A dock or a layer without which the choice cannot be undone, see :meth:`forget`.
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
        """Undo the last choice."""
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
        """Remove the choices of an owner, such as a closed dock or a removed layer; without an owner, all."""
        self._entries = [] if owner is None else [choice for choice in self._entries if choice.owner is not owner]
        self.changed.emit()
