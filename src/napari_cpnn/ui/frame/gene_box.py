"""Input of one gene name, with completion."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QStringListModel, Qt, Signal
from qtpy.QtGui import QFocusEvent
from qtpy.QtWidgets import QCompleter, QLineEdit, QWidget

from napari_cpnn.counts import match_gene, other_names
from napari_cpnn.ui.frame.theme import ThemedList


class GeneBox(QLineEdit):
    """Line edit that completes any part of a gene name, ignoring case; synonyms of pathology are offered, too.

    Signals
    -------
    chosen
        A name was chosen from the list or entered.
    """

    chosen = Signal(str)
    _written = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)
        self.setToolTip(
            "a gene of the model: any part of its name, or a synonym such as HER2, then Enter; shown in log1p CP10k"
        )
        self._genes: list[str] = []
        self._gene_of: dict[str, str] = {}
        self._names = QStringListModel(self)
        completer = QCompleter(self._names, self)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setMaxVisibleItems(12)
        completer.setPopup(ThemedList())
        self.setCompleter(completer)
        completer.activated[str].connect(self._completed)
        # Later: the completer itself writes the entry into the box after this signal.
        completer.activated[str].connect(self._written)
        self._written.connect(self._tidy, Qt.ConnectionType.QueuedConnection)
        self.returnPressed.connect(self._entered)
        self._shown: str | None = None
        self.set_genes([])

    def show_gene(self, gene: str) -> None:
        """Show the gene that is on screen, or none.

        What is typed and not entered gives way to it when the box is left.
        """
        self._shown = gene
        if not (self.hasFocus() and self.isModified()):
            self.setText(gene)

    def focusOutEvent(self, event: QFocusEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().focusOutEvent(event)
        for_list = event is not None and event.reason() == Qt.FocusReason.PopupFocusReason
        if self._shown is not None and not for_list:
            self.setText(self._shown)

    def set_genes(self, genes: Sequence[str], *, ordered: bool = False) -> None:
        """Offer these names in alphabetical order, or in the given one if they are ``ordered``."""
        names = self._genes = list(genes) if ordered else sorted(genes, key=str.upper)
        self._gene_of = {f"{name} = {gene}": gene for name, gene in other_names(genes).items()}
        self._names.setStringList([*names, *self._gene_of])
        self.setEnabled(bool(genes))
        self.setPlaceholderText(f"type one of {len(genes):,} genes" if genes else "no model yet")

    def genes(self) -> list[str]:
        """Return the genes on offer, without their synonyms, in their order."""
        return list(self._genes)

    def _entered(self) -> None:
        text = self.text().strip()
        self.setModified(False)
        if text:
            self._completed(text)

    def _completed(self, text: str) -> None:
        self.chosen.emit(self._gene_of.get(text, text))
        # The gene may be on screen already, and nobody then shows it again.
        if self._shown and self.text() != self._shown and match_gene(text, self._genes).gene == self._shown:
            self.setText(self._shown)

    def _tidy(self, text: str) -> None:
        if self.text() == text:
            self.setText(self._gene_of.get(text, text))
