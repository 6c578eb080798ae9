"""Choice of a gene set whose mean z-score is shown."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_cpnn.mapping import GeneChoice
from napari_cpnn.ui.explore.look_box import combo
from napari_cpnn.ui.explore.signatures import LIMITS, Signatures
from napari_cpnn.ui.frame import TextLabel, add, bold_label, button, open_file, plain, row, slim_combo
from napari_cpnn.ui.viewer import ExploreState

_NONE, _FILE, _PASTE = "choose a gene set", "Open a file ...", "Paste genes ..."


class SignatureBox(QWidget):
    """Combo box of gene sets, which genes count, and what was used.

    Parameters
    ----------
    state
        State of the viewer.
    signatures
        The sets and the choice.
    """

    def __init__(self, state: ExploreState, signatures: Signatures, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state, self._signatures = state, signatures
        self.sets = slim_combo(
            "the mean z-score of a set of genes: 0 is the average of the mapped tissue\n"
            "files: .gmt, the .json of MSigDB, or a list of genes in a .txt"
        )
        self.limit: QComboBox = combo(
            dict(LIMITS),
            "which genes of the set count\n"
            "trusted genes: those with a scale at which held-out predictions agree with measurements\n"
            "PCC from: by the correlation on held-out spots",
        )
        self.details = button("genes", "which genes are used, which are not, and why")
        self.note = TextLabel()
        self.note.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        add(column, row(bold_label("Signature"), self.sets), self.note)
        self.second = QWidget()
        self.second.setLayout(row(QLabel("Genes"), self.limit, self.details))
        column.insertWidget(1, self.second)
        self.sets.activated.connect(self._set_chosen)
        self.limit.activated.connect(lambda i: signatures.set_least_pcc(list(LIMITS)[i]))
        self.details.clicked.connect(self.show_details)
        signatures.changed.connect(self.update_choice)
        signatures.sets_changed.connect(self.update_sets)
        state.model_changed.connect(self.update_sets)
        self.update_sets()

    def update_sets(self) -> None:
        """List the sets."""
        self.sets.clear()
        self.sets.addItem(_NONE)
        for one in self._signatures.sets:
            self.sets.addItem(plain(one.name), one.name)
            tip = plain(f"{len(one.genes)} genes\n{one.source}" if one.source else f"{len(one.genes)} genes")
            self.sets.setItemData(self.sets.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.sets.insertSeparator(self.sets.count())
        for text in (_FILE, _PASTE):
            self.sets.addItem(text)
        self.setEnabled(self._state.model is not None)
        self.update_choice()

    def update_choice(self) -> None:
        """Show which set is on screen, and which of its genes count."""
        chosen, model = self._signatures.chosen, self._state.model
        self.sets.setCurrentIndex(0 if chosen is None else max(self.sets.findData(chosen.gene_set.name), 0))
        self.second.setVisible(chosen is not None)
        calibrated = model is not None and model.trust is not None
        self.limit.setCurrentIndex(list(LIMITS).index(self._signatures.least_pcc if calibrated else -1.0))
        self.limit.setEnabled(calibrated)
        text = "" if chosen is None else chosen.text
        self.note.show_text(self._signatures.message or text)
        self.note.setToolTip("" if chosen is None else plain(f"{chosen.rule}\n{chosen.gene_set.source}"))

    def show_details(self) -> None:
        """Open a window with the genes of the set."""
        chosen = self._signatures.chosen
        if chosen is None:
            return
        box = QMessageBox(self)
        box.setWindowTitle("Genes of the signature")
        box.setTextFormat(Qt.TextFormat.RichText)
        head = "<tr><th align='left'>gene</th><th align='left'>held-out PCC&nbsp;</th><th align='left'>use</th></tr>"
        lines = "".join(map(_line, chosen.choices[:200]))
        more = f"<p>and {len(chosen.choices) - 200} more</p>" if len(chosen.choices) > 200 else ""
        source = f"<p>{escape(chosen.gene_set.source)}</p>" if chosen.gene_set.source else ""
        title = f"<b>{escape(chosen.gene_set.name)}</b><br>{escape(chosen.text)}: {escape(chosen.rule)}"
        box.setText(f"<p>{title}</p>{source}<table cellpadding='2'>{head}{lines}</table>{more}")
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.open()

    def _set_chosen(self, index: int) -> None:
        name, text = self.sets.itemData(index), self.sets.itemText(index)
        if name is not None:
            self._signatures.choose(name)
        elif text == _FILE:
            files = "Gene sets (*.gmt *.json *.txt *.csv)"
            open_file(self, "Open gene sets", files, lambda name: self._signatures.add_file(Path(name)))
            self.update_choice()
        elif text == _PASTE:
            self.update_choice()
            self._paste = PasteDialog(self)
            self._paste.accepted.connect(lambda: self._signatures.add_list(*self._paste.entered()))
            self._paste.open()
        else:
            self.update_choice()


class PasteDialog(QDialog):
    """Window for a pasted list of genes and its name."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Paste genes")
        self.name, self.genes = QLineEdit("my genes"), QPlainTextEdit()
        self.genes.setPlaceholderText("one gene per line, or separated by commas; synonyms such as HER2 are understood")
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        add(QVBoxLayout(self), row(QLabel("Name"), self.name), self.genes, buttons)

    def entered(self) -> tuple[str, str]:
        """Return the pasted text and the name of the set."""
        return self.genes.toPlainText(), self.name.text()


def _line(choice: GeneChoice) -> str:
    """Return a row of the table of genes."""
    name = escape(choice.name)
    if choice.gene and choice.gene != choice.name:
        name = f"{name} ({escape(choice.gene)})"
    pcc = "" if math.isnan(choice.held_out_pcc) else f"{choice.held_out_pcc:.2f}"
    return f"<tr><td>{name}&nbsp;&nbsp;</td><td>{pcc}</td><td>{escape(choice.reason) or 'used'}</td></tr>"
