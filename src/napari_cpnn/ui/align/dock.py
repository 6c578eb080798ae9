"""The Align dock: lay spots, or another slide, on the slide by landmarks or by a first guess."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from qtpy.QtWidgets import QFileDialog

from napari_cpnn.arrays import Picture
from napari_cpnn.registration import KINDS, Moving
from napari_cpnn.spots import picture_of
from napari_cpnn.ui.align.controller import AlignController, Point
from napari_cpnn.ui.align.on_slide import OnSlide
from napari_cpnn.ui.align.pair_table import PairTable
from napari_cpnn.ui.align.picture import MovingPicture
from napari_cpnn.ui.align.words import micrometres, said_of
from napari_cpnn.ui.frame import (
    Dock,
    TextLabel,
    add,
    button,
    choose_data,
    open_file,
    open_folder,
    row,
    save_file,
    slim_combo,
    spacer,
)
from napari_cpnn.ui.layers import (
    DEFAULT_UM,
    OVERLAY_KEY,
    TABLE_KEY,
    diameter_um,
    is_click,
    is_ours,
    is_slide_layer,
    pointer_um,
    positions_of,
    slide_of_layer,
    source_of,
    spots_layer_of,
)

if TYPE_CHECKING:
    import napari

_FILES = (
    "Spots or slides (*.h5ad *.h5 *.tsv *.tsv.gz *.csv *.csv.gz *.svs *.ndpi *.tif *.tiff *.jpg *.png);;All files (*)"
)
_REGISTRATIONS = "Registration (*.json)"
_TEXT_TABLES = (".tsv", ".tsv.gz", ".csv", ".csv.gz")
_PICTURE_PX, _MOST_SPOTS = 2000, 4000
_MIRRORS = (("mirror as fits", None), ("not mirrored", False), ("mirrored", True))


class Align(Dock):
    """napari widget with the small picture of what is registered, its landmarks, and the fit."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "align")
        self.controller = AlignController(self.state, self.background, self.notify)
        self.on_slide = OnSlide(napari_viewer)
        self._picture: tuple[Picture, tuple[float, float]] | None = None
        self._taken: Layer | None = None
        self._applied: Layer | None = None
        self._build()
        self._connect()
        self._fill_choices()
        self._moving_changed()
        self._changed()

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.open_file = button("Open file ...", "spots (a table of legacy ST, .h5ad, Space Ranger's .h5), or a slide")
        self.open_folder = button("Open folder ...", "a run of Space Ranger or Xenium, or SpatialData")
        self.choices = slim_combo("what shall come to lie on the slide")
        self.picture = MovingPicture()
        self.set_marks = button(
            "Set landmarks",
            "clicks in the small picture and on the slide set pairs; press again to end",
            checkable=True,
        )
        self.first_guess = button("First guess", "find it from the tissue, and from the pictures where there are two")
        self.kinds = slim_combo("similarity: turned, moved, scaled; affine: also sheared; thin-plate: bent")
        for kind in KINDS:
            self.kinds.addItem(kind, kind)
        self.mirrors = slim_combo("whether what is registered is mirrored")
        for text, value in _MIRRORS:
            self.mirrors.addItem(text, value)
        self.text = TextLabel()
        self.table = PairTable()
        self.remove = button("Remove", "remove the selected pairs")
        self.clear = button("Clear", "remove all pairs, and the first guess")
        self.read = button("Read ...", "a registration that was saved")
        self.save = button("Save ...", "the registration, for --registration and for Python")
        self.apply = button("Apply", "put the spots at their places on the slide, as a layer that Compare uses")
        self.explore = button("Open Explore", "choose the slide in the Explore dock")
        add(self.column, self.first_row("Align", self.open_file, self.open_folder), self.choices, self.message)
        add(self.column, row(self.explore, spacer()), row(self.set_marks, self.first_guess, spacer()))
        self.column.addWidget(self.picture, 1)
        add(self.column, row(self.kinds, self.mirrors, spacer()), self.text, self.table)
        add(self.column, row(self.remove, self.clear, spacer()), row(self.read, self.save, spacer(), self.apply))

    def _connect(self) -> None:
        controller, layers = self.controller, self.viewer.layers.events
        self.listen(self._fill_choices, layers.inserted, layers.removed, layers.renamed)
        self.listen(self._slide_changed, self.state.slide_changed)
        self.viewer.mouse_drag_callbacks.append(self._pressed)
        self.open_file.clicked.connect(self._choose_file)
        title = "A folder of spots"
        self.open_folder.clicked.connect(lambda: open_folder(self, title, self.open))
        self.choices.activated.connect(self._chosen)
        self.picture.clicked.connect(lambda y, x: self._clicked("moving", (y, x)))
        self.first_guess.clicked.connect(controller.guess)
        self.kinds.activated.connect(lambda i: controller.set_kind(self.kinds.itemData(i)))
        self.mirrors.activated.connect(lambda i: controller.set_mirror(self.mirrors.itemData(i)))
        self.table.chosen.connect(self._show_marks)
        self.table.removed.connect(lambda: controller.remove(self.table.selected()))
        self.remove.clicked.connect(lambda: controller.remove(self.table.selected()))
        self.clear.clicked.connect(controller.clear)
        self.read.clicked.connect(lambda: open_file(self, "Read a registration", _REGISTRATIONS, controller.read))
        self.save.clicked.connect(
            lambda: save_file(self, "Save the registration", controller.suggested_file, _REGISTRATIONS, controller.save)
        )
        self.apply.clicked.connect(self.apply_found)
        self.explore.clicked.connect(self.open_explore)
        self.accept_drops(lambda paths: self.open(paths[0]) if paths else None)
        controller.moving_changed.connect(self._moving_changed)
        controller.changed.connect(self._changed)
        controller.tasks.message_changed.connect(self.message.show_text)
        controller.tasks.changed.connect(self._enable)
        self.message.show_text(controller.tasks.message)

    def _end(self, *, viewer_lives: bool) -> None:
        self.controller.close()
        self.on_slide.close(viewer_lives=viewer_lives)
        if viewer_lives:
            with suppress(ValueError):
                self.viewer.mouse_drag_callbacks.remove(self._pressed)

    # -- what is registered --------------------------------------------------------------------------------

    def open(self, path: str | Path, positions: str | Path | None = None) -> None:
        """Register the spots, or the slide, of a file or folder."""
        self._taken = self._applied = None
        self.controller.open(path, positions)

    def _choose_file(self) -> None:
        name = QFileDialog.getOpenFileName(self, "Open spots or a slide", "", _FILES)[0]
        if not name:
            return
        positions = ""
        if name.endswith(_TEXT_TABLES):
            title = "The spot table with the positions"
            positions, _ = QFileDialog.getOpenFileName(self, title, str(Path(name).parent))
        self.open(name, positions or None)

    def _fill_choices(self, _event: Any = None) -> None:
        self.choices.clear()
        self.choices.addItem("Choose a layer ..." if self.controller.moving is None else self.controller.moving.name)
        for layer in reversed(self.viewer.layers):
            is_other = is_slide_layer(layer) and layer is not self.state.layer
            if OVERLAY_KEY not in layer.metadata and (is_other or is_ours(layer)):
                self.choices.addItem(f"layer {layer.name}", layer)
        self.choices.setVisible(self.choices.count() > 1)

    def _chosen(self, index: int) -> None:
        layer = self.choices.itemData(index)
        if layer is not None:
            self.take(layer)

    def take(self, layer: Layer) -> None:
        """Register the spots, or the slide, of a layer."""
        self._taken, self._applied = layer, None
        name = str(layer.name)
        if is_slide_layer(layer):
            self.controller.take(name, lambda: Moving.of_slide(slide_of_layer(layer)))
        else:
            files = tuple(file for file in (source_of(layer), positions_of(layer)) if file is not None)
            self.controller.take(name, lambda: Moving.of_spots(layer.metadata[TABLE_KEY], name), files)

    def _moving_changed(self) -> None:
        """Show the small picture; that of a slide is its preview as well."""
        moving = self.controller.moving
        self.on_slide.hide_preview()
        self.picture.clear_picture()
        self._picture = None
        if moving is not None and moving.slide is not None:
            slide = moving.slide
            self.controller.tasks.run(
                "picture", "Reading the small picture ...", lambda: slide.thumbnail(_PICTURE_PX), self._show_slide
            )
        elif moving is not None:
            self._show_stored_picture(moving)
            places = self.controller.spots_um()
            self.picture.add_spots(places[:: max(1, len(places) // _MOST_SPOTS)], self._diameter_um())
        self.set_marks.setChecked(moving is not None)
        self._fill_choices()

    def _show_slide(self, small: Picture) -> None:
        moving = self.controller.moving
        if moving is not None and moving.slide is not None:
            height, width = moving.slide.shape[:2]
            size = height * moving.mpp[0] / small.shape[0], width * moving.mpp[1] / small.shape[1]
            self._picture = small, size
            self.picture.show_picture(small, size)
            self._changed()

    def _show_stored_picture(self, moving: Moving) -> None:
        """Show the picture that came with spots, where it says how large it is."""
        picture = None if moving.spots is None else picture_of(moving.spots)
        if picture is None or moving.spots is None:
            return
        for library in dict(moving.spots.uns.get("spatial", {})).values():
            factors = dict(library.get("scalefactors", {}))
            for name, image in dict(library.get("images", {})).items():
                if image is picture and factors.get(f"tissue_{name}_scalef"):
                    pixels = np.asarray(picture)[..., :3]
                    shown = np.rint(pixels * 255) if pixels.dtype.kind == "f" else pixels
                    factor = float(factors[f"tissue_{name}_scalef"])
                    size = moving.mpp[0] / factor, moving.mpp[1] / factor
                    self.picture.show_picture(np.clip(shown, 0, 255).astype(np.uint8), size)
                    return

    def _diameter_um(self) -> float:
        """Return the diameter of a spot in um of its own picture; where it is not known, half of their distance."""
        from scipy.spatial import cKDTree

        moving = self.controller.moving
        if moving is None or moving.spots is None:
            return DEFAULT_UM
        places = self.controller.spots_um()
        places = places[np.isfinite(places).all(axis=1)]
        apart = float(np.median(cKDTree(places).query(places, k=2)[0][:, 1])) if len(places) > 1 else 0.0
        return diameter_um(moving.spots, moving.mpp) or apart / 2 or DEFAULT_UM

    # -- landmarks -----------------------------------------------------------------------------------------

    def _clicked(self, side: str, at: Point) -> None:
        if self.set_marks.isChecked():
            self.controller.click(side, at)

    def _pressed(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Set a landmark where the slide is clicked (not dragged), while nothing else is drawn."""
        active = self.viewer.layers.selection.active
        wanted = not self._ended and self.isVisible() and self.set_marks.isChecked()
        layer, mpp = self.state.layer, None if self.state.slide is None else self.state.slide.mpp
        if event.button != 1 or not wanted or str(getattr(active, "mode", "pan_zoom")) != "pan_zoom":
            return
        at = None if layer is None or mpp is None else pointer_um(self.viewer, layer, mpp)
        if (yield from is_click(event)) and at is not None:
            self._clicked("fixed", at)

    def _show_marks(self) -> None:
        pairs, chosen = self.controller.pairs, self.table.selected()
        slide = self.state.slide
        self.picture.show_marks([pair.moving for pair in pairs], chosen)
        mpp = None if slide is None else slide.mpp
        self.on_slide.show_marks(self.state.layer, mpp, [pair.fixed for pair in pairs], chosen)
        self.remove.setEnabled(bool(chosen))

    # -- what was found ------------------------------------------------------------------------------------

    def _slide_changed(self) -> None:
        self._fill_choices()
        self.explore.setVisible(self.state.slide is None)

    def _changed(self) -> None:
        controller, found = self.controller, self.controller.found
        choose_data(self.kinds, controller.kind)
        choose_data(self.mirrors, controller.mirror)
        fitted = found is not None and len(found.moving) == len(controller.complete)
        self.table.set_rows(
            [
                (
                    f"{i + 1}" + ("" if None not in (pair.moving, pair.fixed) else " ..."),
                    micrometres(found.residuals_um[i])
                    if fitted and found is not None and i < len(found.moving)
                    else "–",
                    micrometres(found.left_out_um[i])
                    if fitted and found is not None and i < len(found.moving)
                    else "–",
                )
                for i, pair in enumerate(controller.pairs)
            ]
        )
        self.text.show_text(said_of(found))
        self._show_marks()
        self._show_preview()
        self._enable()

    def _enable(self) -> None:
        controller = self.controller
        ready = controller.moving is not None and self.state.slide is not None and controller.is_settled
        self.explore.setVisible(self.state.slide is None)
        for part in (self.set_marks, self.first_guess):
            part.setEnabled(ready)
        self.clear.setEnabled(bool(controller.pairs) or controller.given is not None)
        self.save.setEnabled(controller.found is not None)
        spots = controller.moving is not None and controller.moving.spots is not None
        self.apply.setVisible(spots)
        self.apply.setEnabled(controller.found is not None)

    def _show_preview(self) -> None:
        found, layer, slide = self.controller.found, self.state.layer, self.state.slide
        moving = self.controller.moving
        if found is None or layer is None or slide is None or slide.mpp is None or moving is None:
            self.on_slide.hide_preview()
        elif moving.slide is not None:
            if self._picture is not None:
                self.on_slide.show_picture(layer, slide.mpp, *self._picture, found.matrix)
        else:
            diameter = self._diameter_um() * found.scale
            self.on_slide.show_spots(layer, slide.mpp, self.controller.mapped_spots_um(), diameter)

    def apply_found(self) -> None:
        """Add the spots at their places on the slide as a layer, which Compare takes; their former layer is hidden.

        A layer that was added before, of a registration that has been refined since, is replaced.
        """
        controller, slide, under = self.controller, self.state.slide, self.state.layer
        moved, moving = controller.moved_spots(), controller.moving
        if moved is None or moving is None or slide is None or under is None:
            return
        before = self._taken
        layer = spots_layer_of(moved, controller.files, f"{moving.name}, aligned", (under, slide.mpp))
        was_visible = before is not None and before.visible
        self.on_slide.hide_preview()
        self.set_marks.setChecked(False)
        if before is not None:
            before.visible = False
        former = self._applied if self._applied in self.viewer.layers else None
        if former is not None:
            self.viewer.layers.remove(former)
        self.viewer.add_layer(layer)
        self.viewer.layers.selection = {under}
        self._applied = layer

        def undo() -> None:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
            self._applied = former
            if former is not None:
                self.viewer.add_layer(former)
            if before is not None and before in self.viewer.layers:
                before.visible = was_visible
            self._show_preview()

        self.state.history.add("aligned spots", undo, owner=self)
