"""Choice of the columns of a single-cell reference that name the cell type and the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QWidget

from napari_cpnn.ui.frame.parts import choose_data, row, slim_combo, stack
from napari_cpnn.ui.frame.plain_text import plain

if TYPE_CHECKING:
    from napari_cpnn.ui.viewer import Reference

_MOST_LABELS = 40


class LabelColumns(QWidget):
    """Two combo boxes; the tooltip of an entry lists its labels.

    Signals
    -------
    chosen
        Names of the columns of the cell type and of the batch (None: no batch).
    """

    chosen = Signal(str, object)

    def __init__(self) -> None:
        super().__init__()
        self.cell_type = slim_combo("column of the single cells that names the cell type, with numbers of cells")
        self.batch = slim_combo("column that names the batch, such as the patient; counts are compared within batches")
        stack(row(QLabel("Cell type"), self.cell_type), row(QLabel("Batch"), self.batch), inside=self)
        for combo in (self.cell_type, self.batch):
            combo.activated.connect(lambda _: self.chosen.emit(self.cell_type.currentData(), self.batch.currentData()))

    def show_columns(self, reference: Reference | None, cell_type: str | None, batch: str | None) -> None:
        """Offer the columns of a reference, with two of them chosen; hide without any."""
        columns = () if reference is None else reference.columns
        self.setVisible(bool(columns))
        for combo, chosen in ((self.cell_type, cell_type), (self.batch, batch)):
            combo.clear()
            if combo is self.batch:
                combo.addItem("none", None)
            for column in columns:
                combo.addItem(column.text, column.name)
                labels = "\n".join(f"{label}: {n:,}" for label, n in list(column.counts.items())[:_MOST_LABELS])
                combo.setItemData(combo.count() - 1, plain(labels), Qt.ItemDataRole.ToolTipRole)
            choose_data(combo, chosen)
