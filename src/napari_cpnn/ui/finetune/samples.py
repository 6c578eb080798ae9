"""List of slides with their spots in the Fine-tune dock, and how these fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QListWidget, QMenu, QWidget

from napari_cpnn.training.jobs import SampleFiles
from napari_cpnn.ui.finetune.controller import FineTuneController
from napari_cpnn.ui.frame import (
    TextLabel,
    bold_label,
    button,
    choose_data,
    given,
    open_file,
    open_folder,
    row,
    slim_combo,
    spacer,
    stack,
)
from napari_cpnn.ui.layers import is_slide_layer, is_slide_path, mpp_of_layer, path_of

if TYPE_CHECKING:
    import napari

_SLIDE_FILE = "A slide file ..."
_SPOTS = "Spots (*.h5ad *.h5 *.tsv *.tsv.gz *.csv *.csv.gz);;All files (*)"


class SamplesBox(QWidget):
    """Widget to choose a slide, add its spots, and correct their positions."""

    def __init__(self, viewer: napari.viewer.Viewer, controller: FineTuneController) -> None:
        super().__init__()
        self.viewer, self.controller = viewer, controller
        self._slide_file: Path | None = None
        self._known: list[Any] = []  # what the rows show
        self._build()
        layers = viewer.layers.events
        self._layer_events = [layers.inserted, layers.removed, layers.renamed]
        for source in self._layer_events:
            source.connect(self._layers_changed)
        self.slide.activated.connect(self._slide_chosen)
        self.spots_file.clicked.connect(lambda: open_file(self, "Open spots", _SPOTS, self._add_spots))
        self.spots_folder.clicked.connect(
            lambda: open_folder(self, "Open a folder of Space Ranger, or SpatialData", self._add_spots)
        )
        self.samples.currentRowChanged.connect(self._sample_chosen)
        self.positions.clicked.connect(
            lambda: open_file(self, "The spot table with the positions", "", self._set_positions)
        )
        self.remove.clicked.connect(self._remove)
        controller.samples_changed.connect(self._samples_changed)
        self._fill_slides()
        self._samples_changed()

    def shut_down(self) -> None:
        """Release the viewer."""
        for source in self._layer_events:
            source.disconnect(self._layers_changed)
        self._layer_events = []

    def _build(self) -> None:
        self.slide = slim_combo("the slide that the spots were measured on: a layer of the viewer, or a file")
        self.spots_file = button("Spots file ...", "spots of this slide: .h5ad, a matrix .h5, or a table of legacy ST")
        self.spots_folder = button("Folder ...", "spots of this slide: the outs folder of Space Ranger, or a .zarr")
        self.samples = QListWidget()
        self.samples.setMaximumHeight(76)
        self.samples.setToolTip("the training data; slides and spots can also be dropped here together")
        self.positions = button("Positions ...", "the table of spot positions of legacy ST")
        self.remove = button("Remove", "do not train on the chosen slide")
        self.fix = button("Move ...", "move the spots so that they lie on the tissue")
        self.fix_menu = QMenu(self)
        self.fix.setMenu(self.fix_menu)
        self.sample_problem = TextLabel()
        slide = row(bold_label("Slide"), self.slide)
        spots = row(bold_label("Add its spots"), self.spots_file, self.spots_folder)
        buttons = row(self.fix, self.positions, self.remove, spacer())
        stack(slide, spots, self.samples, self.sample_problem, buttons, inside=self)

    def _fill_slides(self, _event: Any = None) -> None:
        chosen = self.slide.currentData()
        self.slide.clear()
        for layer in reversed(self.viewer.layers):
            path = path_of(layer) if is_slide_layer(layer) else None
            if path is not None:
                self.slide.addItem(layer.name, (path, mpp_of_layer(layer)))
        if self._slide_file is not None:
            self.slide.addItem(self._slide_file.name, (self._slide_file, None))
        self.slide.addItem(_SLIDE_FILE)
        choose_data(self.slide, chosen or self.slide.itemData(0))

    def _slide_chosen(self, index: int) -> None:
        if self.slide.itemText(index) != _SLIDE_FILE or self.slide.itemData(index) is not None:
            return
        name, _ = QFileDialog.getOpenFileName(self, "Choose a slide", "")
        if name:
            self._slide_file = Path(name)
        self._fill_slides()
        if name:
            self.slide.setCurrentIndex(self.slide.findText(Path(name).name))
            self._pair()

    def _layers_changed(self, event: Any = None) -> None:
        self._fill_slides()
        if event is not None and event.type == "inserted":
            self._pair()

    def _pair(self) -> None:
        """Give the slide that was just chosen to spots that wait for one: those of the chosen row, or the first."""
        if (slide := self._chosen_slide()) is not None:
            place = self.samples.currentRow() - len(self.controller.samples)
            self.controller.pair(slide, max(place, 0))

    def _chosen_slide(self) -> SampleFiles | None:
        chosen = self.slide.currentData()
        return None if chosen is None else SampleFiles(Path(chosen[0]), Path(), mpp=chosen[1])

    def _add_spots(self, spots: str) -> None:
        self.controller.add_spots(Path(spots), self._chosen_slide())

    def _set_positions(self, name: str) -> None:
        number = self.samples.currentRow()
        if 0 <= number < len(self.controller.samples):
            self.controller.set_positions(number, Path(name))

    def drop(self, paths: list[Path]) -> None:
        """Add samples from dropped files; see :meth:`FineTuneController.add_files`."""
        slides = [path for path in paths if is_slide_path(path)]
        if len(slides) == len(paths) == 1 and not self.controller.waiting:  # its spots will follow
            self._slide_file = slides[0]
            self._fill_slides()
            self.slide.setCurrentIndex(self.slide.findText(slides[0].name))
        else:
            self.controller.add_files(paths, self._chosen_slide())

    def _remove(self) -> None:
        row, n_samples = self.samples.currentRow(), len(self.controller.samples)
        if 0 <= row < n_samples:
            self.controller.remove_sample(row)
        elif 0 <= row - n_samples < len(self.controller.waiting):
            self.controller.remove_waiting(row - n_samples)

    def _samples_changed(self) -> None:
        """Show the samples; a new one is selected, else the selection stays with its sample."""
        before, rows, waiting = self._known, self.controller.samples, self.controller.waiting
        keys: list[Any] = [(row.files.slide, row.files.spots) for row in rows] + list(waiting)
        at = self.samples.currentRow()
        current = before[at] if 0 <= at < len(before) else None
        new = [i for i, key in enumerate(keys) if keys[: i + 1].count(key) > before.count(key)]
        place = keys.index(current) if current in keys else min(max(at, 0), len(keys) - 1)
        if keys[max(place, 0) : place + 1] and keys.count(keys[place]) > 1 and at < len(keys) and keys[at] == current:
            place = at  # the same files twice
        if new:
            place = new[-1]
        elif 0 <= place < len(rows) and not rows[place].busy and rows[place].usable:
            # One that cannot be used shows what would help.
            place = next((i for i, row in enumerate(rows) if not row.busy and not row.usable), place)
        self._known = keys
        self.samples.blockSignals(True)
        self.samples.clear()
        self.samples.addItems([sample.text for sample in rows])
        self.samples.addItems([f"{path.name}: waits for its slide; choose that above" for path in waiting])
        self.samples.setCurrentRow(place)
        self.samples.blockSignals(False)
        self._sample_chosen(self.samples.currentRow())

    def _sample_chosen(self, number: int) -> None:
        rows = self.controller.samples
        sample = rows[number] if 0 <= number < len(rows) else None
        self.samples.setVisible(self.samples.count() > 0)
        self.remove.setVisible(number >= 0)
        self.positions.setVisible(sample is not None and sample.fit is None and not sample.busy)
        self.sample_problem.show_text("" if sample is None else sample.problem)
        self.fix_menu.clear()
        if sample is not None:
            for place, fix in enumerate(sample.fit.fixes if sample.fit is not None else ()):
                action = given(self.fix_menu.addAction(f"{fix.name}: {fix.on_tissue:.0%} on tissue"))
                action.triggered.connect(lambda _=False, place=place: self.controller.apply_fix(number, place))
            if sample.files.moved is not None:
                self.fix_menu.addAction("positions as in the file", lambda: self.controller.undo_fix(number))
        self.fix.setVisible(not self.fix_menu.isEmpty())
