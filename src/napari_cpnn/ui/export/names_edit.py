"""Input of several names, each with completion."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QModelIndex, QStringListModel, Qt
from qtpy.QtWidgets import QCompleter, QLineEdit, QWidget

from napari_cpnn.ui.frame import ThemedList

#: Qt's own limit, 32,767 letters, would cut a list of some thousand genes.
_MOST_LETTERS = 4_000_000


class _LastName(QCompleter):
    """Completes the name after the last comma."""

    def splitPath(self, path: str | None) -> list[str]:  # noqa: N802 (Qt's name)
        return [(path or "").rsplit(",", 1)[-1].strip()]

    def pathFromIndex(self, index: QModelIndex) -> str:  # noqa: N802 (Qt's name)
        line = self.widget()
        before, comma, _ = line.text().rpartition(",") if isinstance(line, QLineEdit) else ("", "", "")
        return f"{before}{comma} {super().pathFromIndex(index)}, ".lstrip()


class NamesEdit(QLineEdit):
    """Line edit for names separated by commas, which completes any part of a name, ignoring case."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)
        self.setMaxLength(_MOST_LETTERS)
        self._names = QStringListModel(self)
        completer = _LastName(self._names, self)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setMaxVisibleItems(12)
        completer.setPopup(ThemedList())
        self.setCompleter(completer)

    def set_names(self, names: Sequence[str]) -> None:
        """Offer these names."""
        if self._names.stringList() != list(names):
            self._names.setStringList(list(names))
        self.setPlaceholderText(f"such as {', '.join(names[:3])}" if names else "")
