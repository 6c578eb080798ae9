"""The Fine-tune dock: train a model on slides with measured spots and follow the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QLineEdit,
    QPlainTextEdit,
)

from napari_cpnn.settings import TRAINING_PRESETS, TrainingSettings
from napari_cpnn.ui.finetune.controller import FineTuneController
from napari_cpnn.ui.finetune.curves import Curves
from napari_cpnn.ui.finetune.inputs import start_text
from napari_cpnn.ui.finetune.samples import SamplesBox
from napari_cpnn.ui.frame import (
    Dock,
    LabelColumns,
    SettingsBox,
    TextLabel,
    add,
    bold_label,
    button,
    choose_data,
    every,
    given,
    line,
    open_file,
    open_folder,
    row,
    slim_combo,
    spacer,
    stop_timer,
    tell,
)
from napari_cpnn.ui.viewer import recent_models

if TYPE_CHECKING:
    import napari

_CHECK_MS = 400
"""Interval between checks of a run."""

_MODEL_FILE = "Open a model file ..."
_WEIGHTS = {"imagenet": "ImageNet weights", "none": "random weights"}
_CELLS = "Prototypes or single cells (*.h5ad *.h5 *.RData *.rda);;All files (*)"
_SHORT = ("backbone", "max_epochs", "learning_rate")


class FineTune(Dock):
    """napari widget with samples, cell types, settings, the run with its curves, and the models before and after."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "finetune")
        self.controller = FineTuneController(self.state, self.background, self.notify)
        self.timer = every(_CHECK_MS, self.controller.run.check)
        self._build()
        self._connect()
        self.accept_drops(self.samples.drop)
        self._reference_changed()
        self._settings_changed()
        self._run_changed()
        self.message.show_text(self.controller.message)
        self.timer.start()

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.samples = SamplesBox(self.viewer, self.controller)
        self.reference = button("Choose ...", "a file of prototypes, or single cells with their cell types")
        self.reference_text = TextLabel()
        self.columns = LabelColumns()
        cell_types = row(bold_label("Cell types"), spacer(), self.reference)
        add(self.column, self.first_row("Slides and their spots", spacer()), self.samples, line())
        add(self.column, cell_types, self.reference_text, self.columns, line())
        self._build_settings()
        self._build_run()
        self.column.addStretch(1)

    def _build_settings(self) -> None:
        from napari_cpnn.models import BACKBONES

        self.preset = slim_combo("ours; the patch-level CPNN of the paper; or the plain linear head of ST-Net")
        self.preset.addItems(list(TRAINING_PRESETS))
        self.start = slim_combo("where the image network starts from")
        self.start_text = TextLabel()
        choices = {"backbone": sorted(BACKBONES)}
        self.settings = SettingsBox(
            TrainingSettings, _SHORT, self.controller.editor, choices=choices, hidden=("weights",)
        )
        self.out = QLineEdit()
        self.out.setToolTip("folder of the run, as of napari-cpnn train")
        self.out_choose = button("...", "choose the folder of the run")
        add(self.column, row(bold_label("Preset"), self.preset), row(bold_label("Start from"), self.start))
        folder = row(bold_label("Run folder"), self.out, self.out_choose)
        add(self.column, self.start_text, self.settings, folder, line())

    def _build_run(self) -> None:
        self.train = button("Train", "start a run in a process of its own")
        self.stop = button("Stop", "end the run after the current batch; its best model is kept")
        self.resume = button("Resume", "continue the run after its last epoch")
        self.open_run = button("Open run ...", "show the run of a folder, also one that is still running")
        self.run_text = TextLabel()
        self.curves = Curves(self.background)
        self.before = button("Before", "map with the model that the run started from")
        self.after = button("After", "map with the best model of the run so far")
        self.renew = QCheckBox("update the map at each better epoch")
        self.renew.setToolTip("the Explore dock maps the view again whenever the held-out PCC improves")
        self.log_shown = button("Log", "messages of the run", checkable=True)
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMinimumHeight(120)
        self.log.setVisible(False)
        models = row(bold_label("Show it"), self.before, self.after, spacer(), self.log_shown)
        add(self.column, row(self.train, self.stop, self.resume, self.open_run), self.message, self.run_text)
        add(self.column, self.curves, models, self.renew, self.log)

    # -- signals -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        controller = self.controller
        title = "Prototypes, or single cells"
        self.reference.clicked.connect(lambda: open_file(self, title, _CELLS, controller.choose_reference))
        self.columns.chosen.connect(controller.choose_columns)
        self.preset.textActivated.connect(controller.choose_preset)
        self.start.activated.connect(self._start_chosen)
        self.out.editingFinished.connect(self._out_edited)
        self.out_choose.clicked.connect(lambda: open_folder(self, "Folder of the run", controller.choose_out))
        self.train.clicked.connect(controller.train)
        self.stop.clicked.connect(controller.run.stop)
        self.resume.clicked.connect(controller.run.resume)
        self.open_run.clicked.connect(lambda: open_folder(self, "Open the folder of a run", controller.open_run))
        self.before.clicked.connect(lambda: self._show(controller.show_before))
        self.after.clicked.connect(lambda: self._show(controller.show_after))
        self.renew.toggled.connect(self._renew_toggled)
        self.log_shown.toggled.connect(self._log_toggled)
        controller.samples_changed.connect(self._fill_out)
        controller.reference_changed.connect(self._reference_changed)
        controller.settings_changed.connect(self._settings_changed)
        controller.run.changed.connect(self._run_changed)
        controller.message_changed.connect(self.message.show_text)

    def _end(self, *, viewer_lives: bool) -> None:
        """Release the viewer; a run continues in its own process, and *Open run ...* shows it again."""
        stop_timer(self.timer)
        self.controller.close()
        self.curves.stop()
        if viewer_lives:
            self.samples.shut_down()
            if self.controller.run.running:
                folder = self.controller.run.folder
                tell(f"Training continues; Open run ... in a new Fine-tune dock shows it: {folder}")

    # -- cell types and settings ---------------------------------------------------------------------------

    def _reference_changed(self) -> None:
        found = self.controller.reference
        self.reference_text.setText("none yet" if found is None else f"{found.path.name}: {found.text}")
        self.columns.show_columns(found, self.controller.cell_type, self.controller.batch)

    def _start_chosen(self, index: int) -> None:
        value = self.start.itemData(index)
        if isinstance(value, Path):
            self.controller.choose_start(value)
        elif value is not None:
            self.controller.choose_start(None)
            self.controller.change("weights", value)
        else:
            open_file(self, "Open a model", "CPNN models (*.safetensors)", self.controller.choose_start)
            self._settings_changed()

    def _settings_changed(self) -> None:
        controller, settings = self.controller, self.controller.settings
        self.preset.setCurrentText(controller.preset)
        self.settings.show_values(settings)
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

    # -- the run -------------------------------------------------------------------------------------------

    def _run_changed(self) -> None:
        run = self.controller.run
        self.train.setEnabled(not run.running)
        self.open_run.setEnabled(not run.running)
        self.stop.setEnabled(run.running)
        self.resume.setEnabled(run.status is not None and run.status.resumable)
        self.after.setEnabled(run.model is not None)
        self.run_text.show_text(run.text())
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
