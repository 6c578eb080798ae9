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
    warn,
)
from napari_cpnn.ui.layers import is_slide_layer, mpp_of_layer, path_of

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
        self._build()
        layers = viewer.layers.events
        self._layer_events = [layers.inserted, layers.removed, layers.renamed]
        for source in self._layer_events:
            source.connect(self._fill_slides)
        self.slide.activated.connect(self._slide_chosen)
        self.spots_file.clicked.connect(lambda: open_file(self, "Open spots", _SPOTS, self._add_spots))
        self.spots_folder.clicked.connect(
            lambda: open_folder(self, "Open a folder of Space Ranger, or SpatialData", self._add_spots)
        )
        self.samples.currentRowChanged.connect(self._sample_chosen)
        self.positions.clicked.connect(
            lambda: open_file(self, "The spot table with the positions", "", self._set_positions)
        )
        self.remove.clicked.connect(lambda: controller.remove_sample(self.samples.currentRow()))
        controller.samples_changed.connect(self._samples_changed)
        self._fill_slides()
        self._samples_changed()

    def shut_down(self) -> None:
        """Release the viewer."""
        for source in self._layer_events:
            source.disconnect(self._fill_slides)
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

    def _add_spots(self, spots: str) -> None:
        chosen = self.slide.currentData()
        if chosen is None:
            warn("Choose the slide of these spots first.")
            return
        slide, mpp = chosen
        self.controller.add_sample(SampleFiles(Path(slide), Path(spots), mpp=mpp))

    def _set_positions(self, name: str) -> None:
        number = self.samples.currentRow()
        if 0 <= number < len(self.controller.samples):
            self.controller.set_positions(number, Path(name))

    def drop(self, paths: list[Path]) -> None:
        """Add samples from dropped files; see :meth:`FineTuneController.add_files`."""
        chosen = self.slide.currentData()
        self.controller.add_files(paths, None if chosen is None else SampleFiles(chosen[0], Path(), mpp=chosen[1]))

    def _samples_changed(self) -> None:
        current = self.samples.currentRow()
        self.samples.blockSignals(True)
        self.samples.clear()
        for sample in self.controller.samples:
            self.samples.addItem(sample.text)
        self.samples.setCurrentRow(min(max(current, 0), self.samples.count() - 1))
        self.samples.blockSignals(False)
        self._sample_chosen(self.samples.currentRow())

    def _sample_chosen(self, number: int) -> None:
        rows = self.controller.samples
        sample = rows[number] if 0 <= number < len(rows) else None
        self.samples.setVisible(bool(rows))
        self.remove.setVisible(sample is not None)
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
