"""Input of one gene name, with completion."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QStringListModel, Qt, Signal
from qtpy.QtWidgets import QCompleter, QLineEdit, QWidget

from napari_cpnn.ui.frame.theme import ThemedList


class GeneBox(QLineEdit):
    """Line edit that completes any part of a gene name, ignoring case.

    Signals
    -------
    chosen
        A name was chosen from the list or entered.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)
        self.setToolTip("a gene of the model: any part of its name, then Enter; shown in log1p CP10k")
        self._names = QStringListModel(self)
        completer = QCompleter(self._names, self)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setMaxVisibleItems(12)
        completer.setPopup(ThemedList())
        self.setCompleter(completer)
        completer.activated[str].connect(self.chosen)
        self.returnPressed.connect(self._entered)
        self.set_genes([])

    def set_genes(self, genes: Sequence[str], *, ordered: bool = False) -> None:
        """Offer these names in alphabetical order, or in the given one if they are ``ordered``."""
        names: list[str] = list(genes) if ordered else sorted(genes, key=str.upper)
        self._names.setStringList(names)
        self.setEnabled(bool(genes))
        self.setPlaceholderText(f"type one of {len(genes):,} genes" if genes else "no model yet")

    def _entered(self) -> None:
        text = self.text().strip()
        if text:
            self.chosen.emit(text)
