"""Choice of a gene set in the Compare dock, beside that of a gene."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_cpnn.ui.explore import Signatures
from napari_cpnn.ui.frame import plain, row, slim_combo
from napari_cpnn.ui.viewer import ExploreState

_NONE = "choose a gene set"


class SignatureChoice(QWidget):
    """Combo box of the gene sets of the viewer; the chosen one is shown on map and spots.

    Parameters
    ----------
    state
        State of the viewer.
    signatures
        The sets, and the choice of their genes.
    """

    def __init__(self, state: ExploreState, signatures: Signatures, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state, self._signatures = state, signatures
        self.sets = slim_combo(
            "a set of genes: the mean z-score of the measurement and of the prediction over the same genes\n"
            "sets of your own are opened in Explore, and so is which genes count"
        )
        inside = row(QLabel("Signature"), self.sets)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setStretch(1, 1)
        self.setLayout(inside)
        self._names: list[str] = []
        self.sets.activated.connect(self._chosen)
        signatures.sets_changed.connect(self._fill)
        signatures.changed.connect(self._show)
        self._fill()

    def update_sets(self) -> None:
        """List the sets anew if there are others, such as those of a file that Explore has opened."""
        if [one.name for one in self._signatures.sets] != self._names:
            self._fill()
        else:
            self._show()

    def _fill(self) -> None:
        sets = self._signatures.sets
        self._names = [one.name for one in sets]
        self.sets.clear()
        self.sets.addItem(_NONE)
        for one in sets:
            self.sets.addItem(plain(one.name), one.name)
            tip = f"{len(one.genes)} genes\n{one.source}" if one.source else f"{len(one.genes)} genes"
            self.sets.setItemData(self.sets.count() - 1, plain(tip), Qt.ItemDataRole.ToolTipRole)
        self._show()

    def _show(self) -> None:
        shown = self._state.shown
        name = shown.name if shown is not None and shown.kind == "signature" else ""
        self.sets.setCurrentIndex(max(self.sets.findData(name), 0) if name else 0)
        self.setEnabled(self._state.model is not None)
        self.sets.setStatusTip(plain(self._signatures.message))

    def _chosen(self, index: int) -> None:
        name = self.sets.itemData(index)
        if name is None:
            self._show()
        else:
            self._signatures.choose(name)
