"""Upper part of the Compare dock: the choice of spots and their fit to the slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu, QWidget
from superqt.utils import qdebounced

from napari_cpnn.errors import CpnnError
from napari_cpnn.spots import SpotsSource, imaging_runs, is_warped, library_of, move_back, move_of, xenium_folder
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.frame import (
    Dock,
    TextLabel,
    button,
    given,
    open_file,
    open_folder,
    plain,
    row,
    slim_combo,
    spacer,
    stack,
)
from napari_cpnn.ui.layers import TABLE_KEY, has_table, is_ours, layers_of, positions_of, source_of, spots_of_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_cpnn.spots import SpotFix
    from napari_cpnn.ui.compare.spots_controller import SpotsController

_FILES = "Spots (*.h5ad *.h5 *.xenium *.tsv *.tsv.gz *.csv *.csv.gz);;All files (*)"
_TEXT_TABLES = (".tsv", ".tsv.gz", ".csv", ".csv.gz")
_AFFINES = "Affine map, or tissue positions (*.json *.csv *.txt *.parquet);;All files (*)"
_N_FIXES = 5
_TYPED = "2 x 3 or 3 x 3 numbers, row by row: new (x, y) = matrix · (x, y, 1), in pixels of the full image"


class SpotsBox(QWidget):
    """Widget that takes spots from layers, files and folders, and moves them if they do not fit."""

    def __init__(self, viewer: ViewerModel, controller: SpotsController, spots_layer: SpotsLayer) -> None:
        super().__init__()
        self.viewer, self.controller, self.spots_layer = viewer, controller, spots_layer
        self._taken: Layer | None = None  # the layer of the spots in use
        self._wanted: Layer | None = None
        self.open_file = button("Open file ...", "a table of legacy ST, .h5ad, or a matrix .h5 of Space Ranger")
        tip = "a run of Space Ranger, Visium HD included, of Xenium, MERSCOPE or CosMx, or a SpatialData .zarr"
        self.open_folder = button("Open folder ...", tip)
        self.choices = slim_combo("the spots in use: those of a layer, or bins of another size")
        self.text = TextLabel()
        self.fix = button("Move ...", "move the spots so that they lie on the tissue")
        self.fix_menu = QMenu(self)
        self.fix.setMenu(self.fix_menu)
        self.take_mpp = button("", "the pixel size of the slide, from the distance of neighbouring spots")
        text = row(self.text, self.fix)
        text.setStretch(0, 1)
        stack(self.choices, text, row(self.take_mpp, spacer()), inside=self)
        # Later: a dropped slide and its spots arrive one after the other.
        self._take_newest_later = qdebounced(self._take_newest, timeout=0, parent=self)
        # Later: our layer must not be removed while napari is still removing others.
        self._taken_removed_later = qdebounced(self._taken_removed, timeout=0, parent=self)
        self.open_file.clicked.connect(self._choose_file)
        title = "Open a folder of Space Ranger, Xenium, MERSCOPE or CosMx, or SpatialData"
        self.open_folder.clicked.connect(lambda: open_folder(self, title, self.open))
        self.choices.activated.connect(self._chosen)
        self.take_mpp.clicked.connect(self._take_mpp)
        controller.spots_changed.connect(self._spots_changed)
        controller.state.slide_changed.connect(self._slide_changed)
        viewer.layers.events.inserted.connect(self._layer_added)
        viewer.layers.events.removed.connect(self._layer_removed)
        self._spots_changed()
        self._take_newest_later()

    def end(self, *, viewer_lives: bool) -> None:
        """Disconnect."""
        self._take_newest_later.cancel()
        self._taken_removed_later.cancel()
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
        self.spots_layer.borrow(layer if is_ours(layer) else None)
        if is_ours(layer):
            source, spots = source_of(layer), spots_of_layer(layer, slide_layer, mpp)
            controller.use(controller.moved_as_before(spots, source), source, positions_of(layer))
            controller.remember()
        else:
            controller.take(layer.name, lambda: spots_of_layer(layer, slide_layer, mpp))

    def _layers(self) -> list[Layer]:
        return [layer for layer in reversed(self.viewer.layers) if has_table(layer)]

    def _layer_added(self, event: Any) -> None:
        if has_table(event.value):
            self._wanted = event.value  # the last one of several
            self._take_newest_later()

    def _layer_removed(self, event: Any) -> None:
        if event.value is self._taken:
            self._taken_removed_later()
        self._fill_choices()

    def _taken_removed(self) -> None:
        if self._taken is not None and self._taken not in self.viewer.layers:
            self._taken = None
            self.spots_layer.borrow(None)
            self.controller.use(None)

    def _take_newest(self) -> None:
        layers, wanted, self._wanted = self._layers(), self._wanted, None
        if wanted is not None and wanted in self.viewer.layers:
            self.take(wanted)
        elif layers and self._taken is None and self.controller.table is None:
            self.take(layers[0])

    def _slide_changed(self) -> None:
        """Read the spots of another plugin again: their positions depend on the slide."""
        if self._taken is not None:  # dropped spots are restored with their slide
            self.controller.remember()
        if self._taken is not None and not is_ours(self._taken) and self._taken in self.viewer.layers:
            self.take(self._taken)

    # -- files ---------------------------------------------------------------------------------------------

    def open(self, path: str | Path, positions: str | Path | None = None, library: str | None = None) -> None:
        """Use the spots of a file or folder."""
        self._release_layer()
        self.controller.open(path, positions, library)

    def _release_layer(self) -> None:
        """Draw the spots on a layer of our own."""
        self._hide_taken()
        self._taken = None
        self.spots_layer.borrow(None)

    def _hide_taken(self) -> None:
        """Hide the layer of the previous spots, which would show through."""
        if self._taken is not None and is_ours(self._taken):
            self._taken.visible = False

    def _choose_file(self) -> None:
        name = QFileDialog.getOpenFileName(self, "Open spots", "", _FILES)[0]
        if not name:
            return
        positions = ""
        of_cells = xenium_folder(Path(name)) is not None or bool(imaging_runs(Path(name)))
        if name.endswith(_TEXT_TABLES) and not of_cells:
            title = "The spot table with the positions"
            positions, _ = QFileDialog.getOpenFileName(self, title, str(Path(name).parent))
        self.open(name, positions or None)

    # -- what is shown -------------------------------------------------------------------------------------

    def _spots_changed(self) -> None:
        controller = self.controller
        spots, fit = controller.table, controller.fit
        if spots is not None and self._taken is not None and is_ours(self._taken):
            self._taken.metadata[TABLE_KEY] = spots  # at their present positions
        parts = [] if spots is None else [f"{spots.n_obs:,} {controller.noun}, {spots.n_vars:,} genes"]
        if fit is not None:
            parts.append(f"{fit.on_tissue:.0%} on tissue")
        move = None if spots is None else move_of(spots)
        if move is not None:
            parts.append("moved")
        if spots is not None and is_warped(spots):
            parts.append("bent by a thin plate")
        self.text.setToolTip("" if move is None else plain(f"moved by {move.name}"))
        self.text.show_text(" · ".join(parts))
        self._fill_fixes()
        self._fill_choices()
        mpp = controller.implied_mpp()
        self.take_mpp.setVisible(mpp is not None)
        if mpp is not None:
            self.take_mpp.setText(f"Use {mpp:.3g} µm/px, by the spots")

    def _fill_choices(self) -> None:
        self.choices.clear()
        for layer in sorted(self._layers(), key=self.spots_layer.name_of):
            self.choices.addItem(self.spots_layer.name_of(layer), layer)
            if layer is self._taken:
                self.choices.setCurrentIndex(self.choices.count() - 1)
        there = {(source_of(layer), library_of(layer.metadata[TABLE_KEY])) for layer in self._layers()}
        spots = self.controller.table
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
            else:  # add it as a layer, as if it had been dropped
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
        back = None if self.controller.table is None else move_back(self.controller.table)
        if back is not None:
            given(menu.addAction("Back to the positions in the file")).triggered.connect(
                lambda _=False: self.controller.apply_fix(back)
            )
        if self.controller.table is not None and is_warped(self.controller.table) and self.controller.files:
            given(menu.addAction("Back to the positions in the file")).triggered.connect(self._read_again)
        helpful = fit.fixes[:_N_FIXES]
        for fix in helpful:
            self._add_fix(menu, fix)
        if helpful:
            menu.addSeparator()
        given(menu.addAction("By an affine map from a file ...")).triggered.connect(
            lambda: open_file(self, "An affine map", _AFFINES, lambda name: self.controller.fix_by(Path(name)))
        )
        given(menu.addAction("By an affine map that you type ...")).triggered.connect(self._type_affine)
        others = given(menu.addMenu("Otherwise"))
        for fix in fit.others:
            self._add_fix(others, fix)

    def _read_again(self) -> None:
        self._release_layer()
        self.controller.read_again()

    def _add_fix(self, menu: QMenu, fix: SpotFix) -> None:
        action = given(menu.addAction(f"{fix.name} ({fix.on_tissue:.0%} on tissue)"))
        action.triggered.connect(lambda _=False: self.controller.apply_fix(fix))

    def _type_affine(self) -> None:
        text, ok = QInputDialog.getMultiLineText(self, "An affine map", _TYPED, "1, 0, 0\n0, 1, 0")
        if ok and text.strip():
            self.controller.fix_by(text)

    def _take_mpp(self) -> None:
        mpp = self.controller.implied_mpp()
        if mpp is not None:
            self.controller.state.want_mpp(mpp)
