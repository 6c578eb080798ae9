"""List of the open slides in the Explore dock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox

from napari_cpnn.ui.frame import plain, slide_label
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.layers import Layer


def fill_slides(box: QComboBox, layers: Sequence[Layer], state: ExploreState) -> None:
    """List slide layers, with their layer as data; the explored one is chosen and has its size and pixel size."""
    box.clear()
    for layer in layers:
        explored, text = layer == state.layer, str(layer.name)
        if explored and state.slide is not None:
            text = slide_label(text, state.slide.shape, state.slide.mpp)
        box.addItem(text, layer)
        box.setItemData(box.count() - 1, plain(text), Qt.ItemDataRole.ToolTipRole)
        if explored:
            box.setCurrentIndex(box.count() - 1)
    box.setEnabled(box.count() > 0)
    if not box.count():
        box.addItem("no slide is open")
    box.setToolTip(plain(f"the slide to explore\n{box.currentText()}"))
