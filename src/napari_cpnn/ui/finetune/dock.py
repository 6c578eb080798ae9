"""The Fine-tune dock: train a model on slides with measured spots, and watch what it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_cpnn.settings import TRAINING_PRESETS, TrainingSettings
from napari_cpnn.ui.finetune.controller import FineTuneController
from napari_cpnn.ui.finetune.curves import Curves
from napari_cpnn.ui.finetune.inputs import start_text
from napari_cpnn.ui.finetune.samples import SamplesBox
from napari_cpnn.ui.frame import (
    Dock,
    SettingsForm,
    bold_label,
    button,
    choose_data,
    given,
    line,
    plain,
    row,
    slim_combo,
    spacer,
    stop_timer,
    tell,
    text_label,
)
from napari_cpnn.ui.viewer import recent_models

if TYPE_CHECKING:
    import napari

#: How often a run is looked at.
_LOOK_MS = 400

_MODEL_FILE = "Open a model file ..."
_WEIGHTS = {"imagenet": "ImageNet weights", "none": "random weights"}
_CELLS = "Prototypes or single cells (*.h5ad *.h5 *.RData *.rda);;All files (*)"
_SHORT = ("backbone", "max_epochs", "learning_rate")


class FineTune(Dock):
    """napari widget: samples, cell types, settings, the run with its curves, and the models before and after.

    Parameters
    ----------
    napari_viewer
        Handed over by napari.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "finetune")
        self.controller = FineTuneController(self.state, self.background, self.notify)
        self.timer = QTimer()
        self.timer.setInterval(_LOOK_MS)
        self.setAcceptDrops(True)
        self._build()
        self._connect()
        self._reference_changed()
        self._settings_changed()
        self._run_changed()
        self.say(self.controller.message)
        self.timer.start()

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        column = self.column
        self.samples = SamplesBox(self.viewer, self.controller)
        column.addLayout(self.first_row("Slides and their spots", spacer()))
        column.addWidget(self.samples)
        column.addWidget(line())
        self._build_reference(column)
        column.addWidget(line())
        self._build_settings(column)
        column.addWidget(line())
        self._build_run(column)
        column.addStretch(1)

    def _build_reference(self, column: QVBoxLayout) -> None:
        self.reference = button("Choose ...", "a file of prototypes, or single cells with their cell types")
        self.reference_text = text_label()
        self.cell_type = slim_combo("column of the single cells that names the cell type, with numbers of cells")
        self.batch = slim_combo("column that names the batch, such as the patient")
        self.columns = QWidget()
        inside = QVBoxLayout(self.columns)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addLayout(row(QLabel("Cell type"), self.cell_type))
        inside.addLayout(row(QLabel("Batch"), self.batch))
        column.addLayout(row(bold_label("Cell types"), spacer(), self.reference))
        column.addWidget(self.reference_text)
        column.addWidget(self.columns)

    def _build_settings(self, column: QVBoxLayout) -> None:
        from napari_cpnn.models import BACKBONES

        self.preset = slim_combo("ours; the patch-level CPNN of the paper; or the plain linear head of ST-Net")
        self.preset.addItems(list(TRAINING_PRESETS))
        self.start = slim_combo("where the image network starts from")
        self.start_text = text_label()
        choices = {"backbone": sorted(BACKBONES)}
        others = [f.name for f in dataclasses.fields(TrainingSettings) if f.name not in (*_SHORT, "weights")]
        forms = [
            SettingsForm(TrainingSettings, names, self.controller.change, self.controller.refuse, choices)
            for names in (_SHORT, others)
        ]
        self.form, self.more_form = forms
        self.more = button("More ...", "all settings of the run")
        self.more.setCheckable(True)
        self.more_form.setVisible(False)
        self.out = QLineEdit()
        self.out.setToolTip("folder that the run is kept in; the same as that of napari-cpnn train")
        self.out_choose = button("...", "choose the folder that the run is kept in")
        column.addLayout(row(bold_label("Preset"), self.preset))
        column.addLayout(row(bold_label("Start from"), self.start))
        column.addWidget(self.start_text)
        column.addWidget(self.form)
        column.addLayout(row(self.more, spacer()))
        column.addWidget(self.more_form)
        column.addLayout(row(bold_label("Run folder"), self.out, self.out_choose))

    def _build_run(self, column: QVBoxLayout) -> None:
        self.train = button("Train", "start a run in a process of its own")
        self.stop = button("Stop", "end the run after the present batch; its best model is kept")
        self.resume = button("Resume", "go on with the run after its last epoch")
        self.open_run = button("Open run ...", "show a run by its folder, also one that is still going on")
        self.run_text = text_label()
        self.curves = Curves(self.background)
        self.before = button("Before", "map with the model that the run started from")
        self.after = button("After", "map with the best model of the run so far")
        self.renew = QCheckBox("renew the map at each better epoch")
        self.renew.setToolTip("the Explore dock maps the view anew whenever the held-out PCC improves")
        self.log_shown = button("Log", "what the run has written")
        self.log_shown.setCheckable(True)
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMinimumHeight(120)
        self.log.setVisible(False)
        column.addLayout(row(self.train, self.stop, self.resume, self.open_run))
        column.addWidget(self.message)
        column.addWidget(self.run_text)
        column.addWidget(self.curves)
        column.addLayout(row(bold_label("Show it"), self.before, self.after, spacer(), self.log_shown))
        column.addWidget(self.renew)
        column.addWidget(self.log)

    # -- signals -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        controller = self.controller
        self.reference.clicked.connect(self._choose_reference)
        for combo in (self.cell_type, self.batch):
            combo.activated.connect(self._columns_chosen)
        self.preset.textActivated.connect(controller.choose_preset)
        self.start.activated.connect(self._start_chosen)
        self.more.toggled.connect(self.more_form.setVisible)
        self.out.editingFinished.connect(self._out_edited)
        self.out_choose.clicked.connect(self._choose_out)
        self.train.clicked.connect(controller.train)
        self.stop.clicked.connect(controller.run.stop)
        self.resume.clicked.connect(controller.run.resume)
        self.open_run.clicked.connect(self._choose_run)
        self.before.clicked.connect(lambda: self._show(controller.show_before))
        self.after.clicked.connect(lambda: self._show(controller.show_after))
        self.renew.toggled.connect(self._renew_toggled)
        self.log_shown.toggled.connect(self._log_toggled)
        controller.samples_changed.connect(self._fill_out)
        controller.reference_changed.connect(self._reference_changed)
        controller.settings_changed.connect(self._settings_changed)
        controller.run.changed.connect(self._run_changed)
        controller.message_changed.connect(self.say)
        self.timer.timeout.connect(controller.run.check)

    def _end(self, *, viewer_lives: bool) -> None:
        """Let go of the viewer. A run goes on in its own process; *Open run ...* finds it again."""
        stop_timer(self.timer)
        self.controller.close()
        self.curves.stop()
        if viewer_lives:
            self.samples.shut_down()
            if self.controller.run.running:
                folder = self.controller.run.folder
                tell(f"Training goes on; Open run ... in a new Fine-tune dock shows it: {folder}")

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Take files."""
        event = given(event)
        if given(event.mimeData()).hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802 (Qt's name)
        """Spots for the chosen slide, or a slide together with its spots."""
        event = given(event)
        self.samples.drop([Path(url.toLocalFile()) for url in given(event.mimeData()).urls() if url.isLocalFile()])
        event.acceptProposedAction()

    # -- cell types and settings ---------------------------------------------------------------------------

    def _choose_reference(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Prototypes, or single cells", "", _CELLS)
        if name:
            self.controller.choose_reference(name)

    def _reference_changed(self) -> None:
        found = self.controller.reference
        self.reference_text.setText("none yet" if found is None else f"{found.path.name}: {found.text}")
        self.columns.setVisible(found is not None and found.kind == "cells")
        for combo, chosen in ((self.cell_type, self.controller.cell_type), (self.batch, self.controller.batch)):
            combo.clear()
            if combo is self.batch:
                combo.addItem("none", None)
            for column in () if found is None else found.columns:
                combo.addItem(column.text, column.name)
                labels = "\n".join(f"{label}: {n:,}" for label, n in list(column.counts.items())[:40])
                combo.setItemData(combo.count() - 1, plain(labels), Qt.ItemDataRole.ToolTipRole)
            choose_data(combo, chosen)

    def _columns_chosen(self) -> None:
        self.controller.choose_columns(self.cell_type.currentData(), self.batch.currentData())

    def _start_chosen(self, index: int) -> None:
        value = self.start.itemData(index)
        if isinstance(value, Path):
            self.controller.choose_start(value)
        elif value is not None:
            self.controller.choose_start(None)
            self.controller.change("weights", value)
        else:
            name, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "CPNN models (*.safetensors)")
            if name:
                self.controller.choose_start(name)
            self._settings_changed()

    def _settings_changed(self) -> None:
        controller, settings = self.controller, self.controller.settings
        self.preset.setCurrentText(controller.preset)
        self.form.show_values(settings)
        self.more_form.show_values(settings)
        self.start.clear()
        for weights, text in _WEIGHTS.items():
            self.start.addItem(text, weights)
        start = controller.start_model
        for path in dict.fromkeys([*recent_models.known_models(), *([start] if start is not None else [])]):
            self.start.addItem(f"{path.parent.name}/{path.name}", path)
        self.start.addItem(_MODEL_FILE)
        choose_data(self.start, start or settings.weights)
        self.start_text.setText(start_text(settings))
        self._fill_out()
        self.before.setEnabled(start is not None)

    def _fill_out(self) -> None:
        if not self.out.isModified():
            self.out.setText(str(self.controller.run_folder() or ""))

    def _out_edited(self) -> None:
        if self.out.isModified():
            self.out.setModified(False)
            self.controller.choose_out(self.out.text().strip() or None)

    def _choose_out(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder of the run")
        if name:
            self.controller.choose_out(name)

    # -- the run -------------------------------------------------------------------------------------------

    def _choose_run(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Open the folder of a run")
        if name:
            self.controller.open_run(name)

    def _run_changed(self) -> None:
        run = self.controller.run
        self.train.setEnabled(not run.running)
        self.open_run.setEnabled(not run.running)
        self.stop.setEnabled(run.running)
        self.resume.setEnabled(run.status is not None and run.status.resumable)
        self.after.setEnabled(run.model is not None)
        self.run_text.setText(run.text())
        self.run_text.setVisible(bool(run.text()))
        self.curves.set_history(() if run.status is None else run.status.history)
        self.curves.setVisible(run.folder is not None)
        if self.log.isVisible():
            self._log_toggled(True)

    def _log_toggled(self, on: bool) -> None:
        self.log.setVisible(on)
        if on:
            self.log.setPlainText(self.controller.run.log() or "nothing yet")
            bar = given(self.log.verticalScrollBar())
            bar.setValue(bar.maximum())

    def _renew_toggled(self, on: bool) -> None:
        self.controller.renew = on
        if on:
            self.open_explore()

    def _show(self, show: Callable[[], None]) -> None:
        self.open_explore()
        show()
