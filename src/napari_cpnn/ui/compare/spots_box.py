"""The upper part of the Compare dock: which spots, from where, and how they lie on the slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu, QPushButton, QVBoxLayout, QWidget

from napari_cpnn.errors import CpnnError
from napari_cpnn.spots import SpotsSource, library_of, move_back, move_of
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.frame import Dock, button, given, plain, row, slim_combo, spacer, stop_timer, text_label
from napari_cpnn.ui.layers import TABLE_KEY, has_table, is_ours, layers_of, source_of, spots_of_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.spots import SpotFix
    from napari_cpnn.ui.compare.controller import CompareController

_FILES = "Spots (*.h5ad *.h5 *.tsv *.tsv.gz *.csv *.csv.gz);;All files (*)"
_TEXT_TABLES = (".tsv", ".tsv.gz", ".csv", ".csv.gz")
_AFFINES = "Affine map, or tissue positions (*.json *.csv *.txt *.parquet);;All files (*)"
_N_FIXES = 5
_TYPED = "2 x 3 or 3 x 3 numbers, row by row: new (x, y) = matrix · (x, y, 1), in pixels of the full image"


class SpotsBox(QWidget):
    """Takes spots from layers, files and folders; moves them when they do not fit.

    Parameters
    ----------
    viewer
        napari's viewer, or the proxy that plugins get.
    controller
        What it is for.
    spots_layer
        Where the spots are drawn.
    """

    def __init__(self, viewer: ViewerModel, controller: CompareController, spots_layer: SpotsLayer) -> None:
        super().__init__()
        self.viewer, self.controller, self.spots_layer = viewer, controller, spots_layer
        self._taken: Layer | None = None  # the layer that the spots in use are of
        self._wanted: Layer | None = None
        self.open_file = button("Open file ...", "a table of legacy ST, .h5ad, or a matrix .h5 of Space Ranger")
        self.open_folder = button("Open folder ...", "a Space Ranger run, Visium HD included, or a SpatialData .zarr")
        self.choices = slim_combo("the spots in use: of a layer, or bins of another size")
        self.text = text_label()
        self.fix = QPushButton("Move ...")
        self.fix.setToolTip("move the spots so that they lie on the tissue")
        self.fix_menu = QMenu(self)
        self.fix.setMenu(self.fix_menu)
        self.take_mpp = button("", "the pixel size of the slide, from the distance of neighbouring spots")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.choices)
        first = row(self.text, self.fix)
        first.setStretch(0, 1)
        column.addLayout(first)
        column.addLayout(row(self.take_mpp, spacer()))
        self._later = QTimer(self)  # a dropped slide and its spots come one after the other
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self._take_newest)
        self._removed = QTimer(self)  # our layer must not go while napari still removes its own list of layers
        self._removed.setSingleShot(True)
        self._removed.setInterval(0)
        self._removed.timeout.connect(self._taken_removed)
        self.open_file.clicked.connect(self._choose_file)
        self.open_folder.clicked.connect(self._choose_folder)
        self.choices.activated.connect(self._chosen)
        self.take_mpp.clicked.connect(self._take_mpp)
        controller.spots_changed.connect(self._spots_changed)
        controller.state.slide_changed.connect(self._slide_changed)
        viewer.layers.events.inserted.connect(self._layer_added)
        viewer.layers.events.removed.connect(self._layer_removed)
        self._spots_changed()
        self._later.start()

    def end(self, *, viewer_lives: bool) -> None:
        """Listen no more."""
        stop_timer(self._later)
        stop_timer(self._removed)
        self.controller.state.slide_changed.disconnect(self._slide_changed)
        if viewer_lives:
            self.viewer.layers.events.inserted.disconnect(self._layer_added)
            self.viewer.layers.events.removed.disconnect(self._layer_removed)

    # -- layers --------------------------------------------------------------------------------------------

    def take(self, layer: Layer) -> None:
        """Use the spots of a layer."""
        slide_layer, mpp, controller = self.controller.state.layer, self.controller.mpp(), self.controller
        self._hide_taken()
        self._taken = layer
        layer.visible = True
        self.spots_layer.borrow(layer if is_ours(layer) and type(layer).__name__ == "Points" else None)
        if is_ours(layer):
            source = source_of(layer)
            controller.use_spots(controller.as_before(spots_of_layer(layer, slide_layer, mpp), source), source)
            controller.remember()
        else:
            controller.take_spots(layer.name, lambda: spots_of_layer(layer, slide_layer, mpp))

    def _layers(self) -> list[Layer]:
        return [layer for layer in reversed(self.viewer.layers) if has_table(layer)]

    def _layer_added(self, event: Any) -> None:
        if has_table(event.value):
            self._wanted = event.value  # what was dropped last
            self._later.start()

    def _layer_removed(self, event: Any) -> None:
        if event.value is self._taken:
            self._removed.start()
        self._fill_choices()

    def _taken_removed(self) -> None:
        if self._taken is not None and self._taken not in self.viewer.layers:
            self._taken = None
            self.spots_layer.borrow(None)
            self.controller.use_spots(None)

    def _take_newest(self) -> None:
        layers, wanted, self._wanted = self._layers(), self._wanted, None
        if wanted is not None and wanted in self.viewer.layers:
            self.take(wanted)
        elif layers and self._taken is None and self.controller.spots is None:
            self.take(layers[0])

    def _slide_changed(self) -> None:
        """Where the shapes of another plugin lie on the slide depends on the slide."""
        if self._taken is not None:  # spots that were dropped come back with their slide
            self.controller.remember()
        if self._taken is not None and not is_ours(self._taken) and self._taken in self.viewer.layers:
            self.take(self._taken)

    # -- files ---------------------------------------------------------------------------------------------

    def open(self, path: str | Path, positions: str | Path | None = None, library: str | None = None) -> None:
        """Use the spots of a file or folder."""
        self._let_go()
        self.controller.open_spots(path, positions, library)

    def _let_go(self) -> None:
        """Spots that are not of a layer get one of ours."""
        self._hide_taken()
        self._taken = None
        self.spots_layer.borrow(None)

    def _hide_taken(self) -> None:
        """Spots that were in use would shine through, or are of another slide."""
        if self._taken is not None and is_ours(self._taken):
            self._taken.visible = False

    def _choose_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open spots", "", _FILES)
        if not name:
            return
        positions = ""
        if name.endswith(_TEXT_TABLES):
            title = "The spot table with the positions"
            positions, _ = QFileDialog.getOpenFileName(self, title, str(Path(name).parent))
        self.open(name, positions or None)

    def _choose_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Open a folder of Space Ranger, or SpatialData")
        if name:
            self.open(name)

    # -- what is shown -------------------------------------------------------------------------------------

    def _spots_changed(self) -> None:
        controller = self.controller
        spots, fit = controller.spots, controller.fit
        if spots is not None and self._taken is not None and is_ours(self._taken):
            self._taken.metadata[TABLE_KEY] = spots  # at their new places, should they have been moved
        parts = [] if spots is None else [f"{spots.n_obs:,} spots, {spots.n_vars:,} genes"]
        if fit is not None:
            parts.append(f"{fit.on_tissue:.0%} on tissue")
        move = None if spots is None else move_of(spots)
        if move is not None:
            parts.append("moved")
        self.text.setToolTip("" if move is None else plain(f"moved by {move.name}"))
        self.text.setText(" · ".join(parts))
        self.text.setVisible(bool(parts))
        self._fill_fixes()
        self._fill_choices()
        mpp = controller.implied_mpp()
        self.take_mpp.setVisible(mpp is not None)
        if mpp is not None:
            self.take_mpp.setText(f"Use {mpp:.3g} µm/px, as the spots say")

    def _fill_choices(self) -> None:
        self.choices.clear()
        for layer in sorted(self._layers(), key=self.spots_layer.name_of):
            self.choices.addItem(self.spots_layer.name_of(layer), layer)
            if layer is self._taken:
                self.choices.setCurrentIndex(self.choices.count() - 1)
        there = {(source_of(layer), library_of(layer.metadata[TABLE_KEY])) for layer in self._layers()}
        spots = self.controller.spots
        now = None if spots is None else (self.controller.source, library_of(spots))
        if spots is None and self.choices.count() == 0 and len(self.controller.sources) > 1:
            self.choices.addItem("Choose a section ...")
        for source in self.controller.sources:
            if (source.path, source.library) not in there:
                self.choices.addItem(source.name, source)
                if (source.path, source.library) == now:
                    self.choices.setCurrentIndex(self.choices.count() - 1)
        self.choices.setVisible(self.choices.count() > 1)

    def _chosen(self, index: int) -> None:
        data = self.choices.itemData(index)
        if isinstance(data, SpotsSource):
            if self._taken is None:
                self.open(data.path, library=data.library)
            else:  # as if it had been dropped as well
                self._add(data)
        elif data is not None and data is not self._taken:
            self.take(data)

    def _add(self, source: SpotsSource) -> None:
        try:
            layers = layers_of(source)
        except CpnnError as error:
            Dock.notify(error)
            return
        for data, keywords, kind in layers:
            self.viewer.add_layer(Layer.create(data, keywords, kind))

    def _fill_fixes(self) -> None:
        menu, fit = self.fix_menu, self.controller.fit
        menu.clear()
        self.fix.setVisible(fit is not None)
        if fit is None:
            return
        back = None if self.controller.spots is None else move_back(self.controller.spots)
        if back is not None:
            given(menu.addAction("Back to the positions in the file")).triggered.connect(
                lambda _=False: self.controller.apply_fix(back)
            )
        helpful = fit.fixes[:_N_FIXES]
        for fix in helpful:
            self._add_fix(menu, fix)
        if helpful:
            menu.addSeparator()
        given(menu.addAction("By an affine map from a file ...")).triggered.connect(self._choose_affine)
        given(menu.addAction("By an affine map that you type ...")).triggered.connect(self._type_affine)
        others = given(menu.addMenu("Otherwise"))
        for fix in fit.others:
            self._add_fix(others, fix)

    def _add_fix(self, menu: QMenu, fix: SpotFix) -> None:
        action = given(menu.addAction(f"{fix.name} ({fix.on_tissue:.0%} on tissue)"))
        action.triggered.connect(lambda _=False: self.controller.apply_fix(fix))

    def _choose_affine(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "An affine map", "", _AFFINES)
        if name:
            self.controller.fix_by(Path(name))

    def _type_affine(self) -> None:
        text, ok = QInputDialog.getMultiLineText(self, "An affine map", _TYPED, "1, 0, 0\n0, 1, 0")
        if ok and text.strip():
            self.controller.fix_by(text)

    def _take_mpp(self) -> None:
        mpp = self.controller.implied_mpp()
        if mpp is not None:
            self.controller.state.want_mpp(mpp)
