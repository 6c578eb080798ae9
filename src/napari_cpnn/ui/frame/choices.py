"""Choices of the user that can be undone, and settings that are edited field by field. No Qt here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_cpnn.errors import SettingsError
from napari_cpnn.settings import Settings
from napari_cpnn.ui.frame.tasks import Tasks

if TYPE_CHECKING:
    from napari_cpnn.ui.frame.history import History


class Choices:
    """Attributes of a controller that the user chooses; ``restored`` is called with the values replaced by an undo."""

    def __init__(
        self, owner: object, names: Sequence[str], history: History, restored: Callable[[dict[str, Any]], None]
    ) -> None:
        self._owner, self._names, self._history, self._restored = owner, names, history, restored

    def record(self, text: str, merge: str = "") -> None:
        """Record the present values just before the user's choice ``text``; see :meth:`History.add`."""
        before = self._values()

        def undo() -> None:
            replaced = self._values()
            for name, value in before.items():
                setattr(self._owner, name, value)
            self._restored(replaced)

        self._history.add(text, undo, merge, self._owner)

    def _values(self) -> dict[str, Any]:
        values = {name: getattr(self._owner, name) for name in self._names}
        return {name: copy(value) if isinstance(value, (list, dict)) else value for name, value in values.items()}


class SettingsEditor:
    """Editor of settings by field; ``write`` is called with the name of a field and the changed settings."""

    changed = Signal()

    def __init__(
        self, tasks: Tasks, choices: Choices, read: Callable[[], Settings], write: Callable[[str, Any], None]
    ) -> None:
        self._tasks, self._choices, self._read, self._write = tasks, choices, read, write

    def change(self, name: str, value: Any) -> bool:
        """Change one setting; return whether its value was accepted."""
        try:
            changed = self._read().replace(**{name: value})
        except (SettingsError, TypeError) as error:
            self.refuse(error if isinstance(error, SettingsError) else SettingsError(f"{name} cannot be {value!r}."))
            return False
        self._choices.record(f"setting {name}", f"setting {name}")
        self._write(name, changed)
        self.changed.emit()
        self._tasks.set_problem(None)
        return True

    def refuse(self, error: SettingsError) -> None:
        """Show why a text is not a valid value, and show the old value again."""
        self._tasks.fail(error)
        self.changed.emit()
