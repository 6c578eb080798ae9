"""Button, heat map and gallery of tissue like a clicked patch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from qtpy.QtCore import QSize
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_cpnn.painting import color_table
from napari_cpnn.ui.explore.similar import PICTURE_PX, Similar
from napari_cpnn.ui.frame import TextLabel, add, button, row, spacer
from napari_cpnn.ui.layers import (
    OVERLAY_KEY,
    add_beside,
    changed_together,
    grid_transform,
    is_click,
    pointer_um,
    um_to_world,
)
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_LAYER = "Tissue like this (cosine similarity)"
#: Rows of the gallery in view.
_ROWS = 2


class SimilarBox(QWidget):
    """Checkable button; while it is on, a click on the slide shows where the tissue looks alike.

    Parameters
    ----------
    viewer, state
        The viewer and its state.
    similar
        The comparison.
    """

    def __init__(
        self, viewer: ViewerModel, state: ExploreState, similar: Similar, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._state, self._similar = viewer, state, similar
        self._layer: Image | None = None
        self._hidden: list[Layer] = []
        self.on = button(
            "Tissue like this",
            "click a place on the slide: a map of how much the tissue looks alike to the model,\n"
            "and the most similar places",
            checkable=True,
        )
        self.note = TextLabel()
        self.gallery = QListWidget()
        self.gallery.setViewMode(QListView.ViewMode.IconMode)
        self.gallery.setMovement(QListView.Movement.Static)
        self.gallery.setResizeMode(QListView.ResizeMode.Adjust)
        self.gallery.setIconSize(QSize(PICTURE_PX, PICTURE_PX))
        self.gallery.setSpacing(2)
        self.gallery.setMinimumHeight(_ROWS * (PICTURE_PX + self.fontMetrics().height() + 10))
        self.gallery.setAccessibleName("most similar places")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        add(column, row(self.on, spacer()), self.note, self.gallery)
        self.on.toggled.connect(similar.set_active)
        self.gallery.itemActivated.connect(self._go)
        self.gallery.itemClicked.connect(self._go)
        similar.changed.connect(self.update_all)
        similar.pictures_changed.connect(self._fill)
        state.shown_changed.connect(self._another_shown)
        viewer.mouse_drag_callbacks.append(self._pressed)
        self._off_later = qdebounced(lambda: self.on.setChecked(False), timeout=0)  # napari is still removing
        viewer.layers.events.removed.connect(self._removed)
        self.update_all()

    def end(self, *, viewer_lives: bool) -> None:
        """Disconnect from the viewer, and remove the layer."""
        self._similar.close()
        self._state.shown_changed.disconnect(self._another_shown, missing_ok=True)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._off_later.cancel()
        if self._pressed in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._pressed)
        if viewer_lives:
            self._remove()

    def update_all(self) -> None:
        """Show message, heat map and gallery."""
        found = self._similar.found
        self.note.show_text(self._similar.message)
        self.gallery.setVisible(found is not None)
        if found is None:
            self.gallery.clear()
            self._remove()
        else:
            with changed_together(self._viewer):
                self._show(found.values)

    def _show(self, values: np.ndarray[Any, Any]) -> None:
        slide, slide_layer, cmap = self._state.slide, self._state.layer, self._state.map
        if slide is None or slide.mpp is None or slide_layer is None or cmap is None:
            return
        if self._layer is not None and self._layer not in self._viewer.layers:
            self._layer = None
        if self._layer is not None and self._layer.data.shape == values.shape:
            if self._layer.data is not values:
                self._layer.data = values
            return
        self._remove()
        self._layer = Image(
            values,
            name=_LAYER,
            rgb=False,
            multiscale=False,
            contrast_limits=(0.0, 1.0),
            colormap=Colormap(color_table("viridis"), name="cpnn similarity"),
            opacity=0.75,
            blending="translucent_no_depth",
            cache=False,
            metadata={OVERLAY_KEY: True},
        )
        self._layer.units = slide_layer.units
        for name, value in grid_transform(slide_layer, slide.mpp, cmap.grid).items():
            setattr(self._layer, name, value)
        self._state.set_instead((("tissue like this · cosine similarity", "#FFFFFF"),))
        self._hidden = [one for one in self._viewer.layers if OVERLAY_KEY in one.metadata and one.visible]
        add_beside(self._viewer, self._layer)
        bar = self._layer.colorbar
        bar.visible, bar.position, bar.box = True, "top_right", True
        bar.size, bar.font_size = (16.0, 140.0), 9.0
        bar.box_color, bar.color = (1.0, 1.0, 1.0, 0.9), (0.0, 0.0, 0.0, 1.0)
        for layer in self._hidden:  # two maps over each other could not be told apart
            layer.visible = False

    def _remove(self) -> None:
        ours, self._layer = self._layer, None
        if ours is not None and ours in self._viewer.layers:
            self._viewer.layers.remove(ours)
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True
        self._hidden = []
        if ours is not None:
            self._state.set_instead(())

    def _removed(self, event: Any) -> None:
        if self._layer is not None and event.value == self._layer:  # by the user
            self._off_later()

    def _another_shown(self) -> None:
        """End when the user chooses another map."""
        self._hidden = []  # outlines and lines of the former map; those of the new one are shown as they are to be
        self.on.setChecked(False)

    def _fill(self) -> None:
        found, pictures = self._similar.found, self._similar.pictures
        self.gallery.clear()
        if found is None or pictures is None:
            return
        texts = ["here", *(f"{score:.2f}" for score in found.scores)]
        for picture, text in zip(pictures, texts, strict=True):
            data = np.ascontiguousarray(picture)
            height, width = data.shape[:2]
            image = QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
            self.gallery.addItem(QListWidgetItem(QIcon(QPixmap.fromImage(image)), text))

    def _go(self, item: QListWidgetItem) -> None:
        at = self._similar.center_um(self.gallery.row(item))
        slide, layer = self._state.slide, self._state.layer
        if at is not None and slide is not None and slide.mpp is not None and layer is not None:
            y, x = um_to_world(layer, slide.mpp, np.array([at]))[0]
            self._viewer.scene.camera.center = (float(y), float(x))

    # -- clicks on the slide -------------------------------------------------------------------------------

    def _pressed(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Compare with the place of a click (not of a drag) when nothing is being drawn."""
        active = self._viewer.layers.selection.active
        if event.button != 1 or not self._similar.active or str(getattr(active, "mode", "pan_zoom")) != "pan_zoom":
            return
        slide, layer = self._state.slide, self._state.layer
        at = None if layer is None or slide is None or slide.mpp is None else pointer_um(self._viewer, layer, slide.mpp)
        if (yield from is_click(event)) and at is not None:
            self._similar.pick(at)
