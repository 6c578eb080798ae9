"""Choice of the stride of the map."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_cpnn.ui.explore.finer import STEPS, Finer, stride_text
from napari_cpnn.ui.frame import TextLabel, add, plain, row, slim_combo
from napari_cpnn.ui.viewer import ExploreState


class FinerBox(QWidget):
    """Combo box of strides, each with what a map of the slide costs.

    Parameters
    ----------
    state
        State of the viewer.
    finer
        The choice.
    """

    def __init__(self, state: ExploreState, finer: Finer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state, self._finer = state, finer
        self.stride = slim_combo(
            "distance of neighbouring patches, as a part of the patch\n"
            "1: side by side; 1/2 and 1/4: patches overlap, and borders are placed more exactly\n"
            "a patch is as large as before: details smaller than a patch are not added"
        )
        self.note = TextLabel()
        for parts, text in STEPS.items():
            self.stride.addItem(text, parts)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        label = QLabel("Stride")
        label.setBuddy(self.stride)
        add(column, row(label, self.stride), self.note)
        self.stride.activated.connect(lambda i: finer.choose(self.stride.itemData(i)))
        finer.changed.connect(self.update_costs)
        for changed in (state.mapper_changed, state.model_changed, state.slide_changed):
            changed.connect(self.update_costs)
        self.update_costs()

    def update_costs(self) -> None:
        """Show the stride, and what the others cost; not while the list is open."""
        view, items = self.stride.view(), self.stride.model()
        if view is not None and view.isVisible():
            return
        known = self._state.map is not None
        for i, (parts, text) in enumerate(STEPS.items()):
            cost = self._finer.cost(parts)
            words = f"{text} of a patch" if parts > 1 else "1 patch"
            self.stride.setItemText(i, f"{words}: {cost.text(self._finer.rate)}" if known else words)
            self.stride.setItemData(i, plain(cost.problem), Qt.ItemDataRole.ToolTipRole)
            if isinstance(items, QStandardItemModel) and (item := items.item(i)) is not None:
                item.setEnabled(not cost.problem)
        self.stride.setCurrentIndex(list(STEPS).index(self._finer.parts))
        self.stride.setEnabled(self._state.model is not None)
        model, cmap = self._state.model, self._state.map
        self.note.show_text(
            "" if model is None or cmap is None else stride_text(model.patch.size_um, cmap.grid.stride_um)
        )
