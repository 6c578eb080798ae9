"""The Fine-tune dock: train a model on slides with measured spots and follow the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
)

from napari_cpnn.settings import TRAINING_PRESETS, PrototypeSettings, TrainingSettings
from napari_cpnn.ui.finetune.controller import FineTuneController
from napari_cpnn.ui.finetune.curves import Curves
from napari_cpnn.ui.finetune.inputs import learned_text, start_text, why_no_start
from napari_cpnn.ui.finetune.leaving import LeaveGuard
from napari_cpnn.ui.finetune.left_box import LeftRunBox
from napari_cpnn.ui.finetune.options import WORDS
from napari_cpnn.ui.finetune.run_words import WEIGHTS_ENTRY, step_words
from napari_cpnn.ui.finetune.samples import SamplesBox
from napari_cpnn.ui.frame import (
    Dock,
    GroupedSettings,
    LabelColumns,
    SettingsForm,
    TextLabel,
    add,
    bold_label,
    button,
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
from napari_cpnn.ui.viewer import OPEN, ModelPicker, better_min_cells, recent_models

if TYPE_CHECKING:
    import napari

_STOP = "end the run after the current batch or patch; its best model is kept and calibrated"
_STOP_NOW = "end the run at once; the best model of the complete epochs is kept as it is"
_CHECK_MS = 400
"""Interval between checks of a run."""

_WEIGHTS = {"imagenet": "ImageNet weights", "none": "random weights"}
_PRESETS = {"ours": "CPNN, napari-cpnn's defaults", "paper": "CPNN as in the paper", "plain": "linear head, as ST-Net"}
_CELLS = "Prototypes or single cells (*.h5ad *.h5 *.RData *.rda);;All files (*)"
_WEIGHTS_FILES = "Weights (*.safetensors *.pth *.pt *.bin *.ckpt);;All files (*)"
_ANY_WEIGHTS = object()
"""Data of the entry that asks for a file of weights."""
_STEPS = 1000


class FineTune(Dock):
    """napari widget with samples, cell types, settings, the run with its curves, and the models before and after."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "finetune")
        self.controller = FineTuneController(self.state, self.background, self.notify)
        self.timer = every(_CHECK_MS, self.controller.run.check)
        self.guard = LeaveGuard(self._going_on, self.controller.run.stop)
        self._build()
        self._connect()
        self.accept_drops(self.samples.drop)
        self._reference_changed()
        self._settings_changed()
        self._run_changed()
        self.message.show_text(self.controller.message)
        self.timer.start()
        self.left.look()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 (Qt's name)
        super().showEvent(event)
        self.guard.watch(self)

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.samples = SamplesBox(self.viewer, self.controller)
        self.reference = button("Choose ...", "a file of prototypes, or single cells with their cell types")
        self.reference_text = TextLabel()
        self.columns = LabelColumns()
        self.cells_form = SettingsForm(
            PrototypeSettings,
            ("min_cells",),
            lambda _, value: self.controller.choose_min_cells(value),
            self.controller.editor.refuse,
            labels={"min_cells": "Cells that must have a gene"},
        )
        self.cells_hint = TextLabel()
        self.use_hint = button("", "keep genes that are detected in fewer cells, as there are few cells")
        self.learned = TextLabel()
        cell_types = row(bold_label("Cell types"), spacer(), self.reference)
        self.left = LeftRunBox(self.background, self)
        add(self.column, self.first_row("Slides and their spots", spacer()), self.left, self.samples, line())
        add(self.column, cell_types, self.reference_text, self.columns, self.cells_form, self.cells_hint)
        add(self.column, row(self.use_hint, spacer()), self.learned, line())
        self._build_settings()
        self._build_run()
        self.column.addStretch(1)

    def _build_settings(self) -> None:
        from napari_cpnn.models import BACKBONES

        self.preset = slim_combo(
            "what settings start from: CPNN as here or as in its paper, or the linear head of ST-Net"
        )
        for name in TRAINING_PRESETS:
            self.preset.addItem(_PRESETS.get(name, name), name)
        self.start = ModelPicker(self.background, "where the image network starts from", why_no_start)
        self.start_text = TextLabel()
        choices = {"backbone": sorted(BACKBONES)}
        defaults = self.controller.choose_defaults
        self.settings = GroupedSettings(TrainingSettings, WORDS, self.controller.editor, defaults, choices=choices)
        self.out = QLineEdit()
        self.out.setToolTip("folder of the run, as of napari-cpnn train")
        self.out_choose = button("...", "choose the folder of the run")
        add(self.column, row(bold_label("Preset"), self.preset), row(bold_label("Start from"), self.start))
        folder = row(bold_label("Run folder"), self.out, self.out_choose)
        add(self.column, self.start_text, self.settings, folder, line())

    def _build_run(self) -> None:
        self.train = button("Train", "start a run in a process of its own")
        self.stop = button("Stop", _STOP)
        self.resume = button("Resume", "continue the run after its last epoch")
        self.open_run = button("Open run ...", "show the run of a folder, also one that is still running")
        self.run_text, self.step_text = TextLabel(), TextLabel()
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
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
        add(self.column, self.step_text, self.bar)
        add(self.column, self.curves, models, self.renew, self.log)

    # -- signals -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        controller = self.controller
        title = "Prototypes, or single cells"
        self.reference.clicked.connect(lambda: open_file(self, title, _CELLS, controller.choose_reference))
        self.columns.chosen.connect(controller.choose_columns)
        self.use_hint.clicked.connect(lambda: controller.choose_min_cells(self._better()))
        self.left.watched.connect(controller.open_run)
        self.left.wanted.connect(self._open_left)
        self.preset.activated.connect(lambda index: controller.choose_preset(self.preset.itemData(index)))
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
        controller.samples_changed.connect(self._samples_changed)
        controller.reference_changed.connect(self._reference_changed)
        controller.settings_changed.connect(self._settings_changed)
        controller.run.changed.connect(self._run_changed)
        controller.message_changed.connect(self.message.show_text)

    def _end(self, *, viewer_lives: bool) -> None:
        """Release the viewer; a run continues in its own process, and *Open run ...* shows it again."""
        stop_timer(self.timer)
        self.left.end()
        self.controller.close()
        self.curves.stop()
        if viewer_lives:
            self.samples.shut_down()
            self.guard.release()
            if self.controller.run.running:
                folder = self.controller.run.folder
                tell(f"Training goes on; the Fine-tune dock offers it when it is opened again: {folder}")

    def _going_on(self) -> str | None:
        """Return the folder of the run that goes on and was not asked to stop."""
        run = self.controller.run
        return str(run.folder) if run.running and not run.stopping else None

    def _open_left(self, model: Path) -> None:
        self.open_explore()
        self.state.want_model(model)

    # -- cell types and settings ---------------------------------------------------------------------------

    def _reference_changed(self) -> None:
        found = self.controller.reference
        self.reference_text.setText("none yet" if found is None else f"{found.path.name}: {found.text}")
        self.columns.show_columns(found, self.controller.cell_type, self.controller.batch)
        self._show_genes()

    def _samples_changed(self) -> None:
        self._fill_out()
        self._fill_start()
        self._show_genes()

    def _better(self) -> int | None:
        return better_min_cells(self.controller.reference, self.controller.min_cells)

    def _show_genes(self) -> None:
        """Say how many genes will be learned, and how the single cells could give more."""
        controller, found = self.controller, self.controller.reference
        better, cells = self._better(), found is not None and found.kind == "cells"
        least = PrototypeSettings(min_cells=controller.min_cells)
        self.cells_form.setVisible(cells)
        self.cells_form.show_values(least)
        self.use_hint.setVisible(better is not None)
        self.use_hint.setText(f"Use {better}")
        if found is None or not cells:
            self.cells_hint.show_text("")
        elif better is not None:
            self.cells_hint.show_text(
                f"⚠ {found.n_cells:,} cells are few: with {controller.min_cells} cells that must have a gene, many "
                "genes are left out."
            )
        else:
            n = least.least_cells(found.n_cells)
            self.cells_hint.show_text(f"Genes found in fewer than {n} of these {found.n_cells:,} cells are left out.")
        self.learned.show_text(learned_text(controller.samples, found, controller.settings))

    def _start_chosen(self, index: int) -> None:
        value = self.start.itemData(index)
        if isinstance(value, Path):
            self.controller.choose_start(value)
            self._fill_start()  # until it was read, and if it cannot be used
        elif value is _ANY_WEIGHTS:
            open_file(self, "Weights of the image network", _WEIGHTS_FILES, self._use_weights)
            self._settings_changed()
        elif value is not None:
            self._use_weights(value)
        elif self.start.itemText(index) == OPEN:
            open_file(self, "Open a model", "CPNN models (*.safetensors)", self.controller.choose_start)
            self._settings_changed()

    def _use_weights(self, weights: str) -> None:
        if self.controller.start_model is not None:
            self.controller.choose_start(None)
        self.controller.change("weights", weights)

    def _settings_changed(self) -> None:
        controller, settings = self.controller, self.controller.settings
        self.preset.setCurrentIndex(self.preset.findData(controller.preset))
        self.settings.show_values(settings, TRAINING_PRESETS[controller.preset]())
        self._fill_start()
        self.start_text.setText(start_text(settings))
        self._fill_out()
        self._show_genes()
        self.before.setEnabled(controller.start_model is not None)

    def _fill_start(self) -> None:
        """Offer weights and models to start from; the synthetic one only for the sample's own slide."""
        controller, weights = self.controller, self.controller.settings.weights
        first: list[tuple[str, Any]] = [(text, value) for value, text in _WEIGHTS.items()]
        if weights not in _WEIGHTS and controller.start_model is None:
            first.append((f"weights {Path(weights).name}", weights))
        first.append((WEIGHTS_ENTRY, _ANY_WEIGHTS))
        slides = [sample.files.slide for sample in controller.samples]
        real = [path for path in slides if not recent_models.belongs_to_sample(path)]
        slide = (real or slides or [Path("any slide")])[0]
        self.start.show_models(recent_models.known_models(), slide, controller.start_model or weights, first)

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
        self.stop.setText("Stop now" if run.stopping else "Stop")
        self.stop.setToolTip(_STOP_NOW if run.stopping else _STOP)
        steps = step_words(run.status)
        self.step_text.show_text(steps)
        known = run.running and run.status is not None and math.isfinite(run.status.step_done)
        self.bar.setVisible(known)
        if known and run.status is not None:
            self.bar.setValue(round(run.status.step_done * _STEPS))
        if run.running:
            self.left.hide()
        self.resume.setEnabled(run.status is not None and run.status.resumable)
        self.after.setEnabled(run.model is not None)
        self.run_text.show_text("" if steps and run.text() == "Starting ..." else run.text())
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
