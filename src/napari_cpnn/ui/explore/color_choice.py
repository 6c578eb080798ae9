"""Choice of the colour of a cell type, saved in the preferences."""

from __future__ import annotations

from napari.utils.notifications import show_info
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QWidget

from napari_cpnn.palette import chosen_color, reads_as_stain, type_colors
from napari_cpnn.ui.viewer import ExploreState, keep_color


def ask_color(parent: QWidget, state: ExploreState, cell_type: str) -> None:
    """Ask the user for the colour of a cell type and use it everywhere."""
    if state.model is None:
        return
    now = type_colors(state.model.cell_types)[cell_type]
    chosen = QColorDialog.getColor(QColor(now), parent, f"Colour of {cell_type}")
    if chosen.isValid():
        use_color(state, cell_type, chosen.name())
        if reads_as_stain(chosen.name()):
            show_info(
                f"The colour of {cell_type} is close to haematoxylin or eosin: on the map it may be taken for tissue."
            )


def use_color(state: ExploreState, cell_type: str, color: str | None) -> None:
    """Use ``#RRGGBB`` for a cell type, or the colour of the palette (None); the choice can be undone."""
    if state.model is None:
        return
    before = chosen_color(cell_type)
    keep_color(cell_type, color)
    state.look_changed.emit()
    state.history.add(f"colour of {cell_type}", lambda: use_color(state, cell_type, before))
