"""Offer of a run that went on while nobody watched: watch it, stop it, or open its model."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QWidget

from napari_cpnn.errors import TrainingError
from napari_cpnn.training.jobs import ask_to_stop
from napari_cpnn.ui.finetune import known_runs
from napari_cpnn.ui.finetune.known_runs import LeftRun
from napari_cpnn.ui.frame import Background, TextLabel, button, row, spacer, stack


class LeftRunBox(QFrame):
    """Frame with the run's state and what can be done; hidden without such a run.

    Signals
    -------
    watched
        Folder of the run that is to be shown.
    wanted
        File of the model that is to be opened.
    """

    watched = Signal(Path)
    wanted = Signal(Path)

    def __init__(self, background: Background, parent: QWidget) -> None:
        super().__init__(parent)
        self._background = background
        self._run: LeftRun | None = None
        self._ended = False
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = TextLabel()
        self.watch = button("Watch", "show the run with its curves, samples and settings")
        self.stop = button("Stop", "end the run after the current batch; its best model is kept")
        self.model = button("Open its model", "map with the best model of the run so far")
        self.dismiss = button("Not now", "hide this; Open run ... shows the run later")
        self.watch.clicked.connect(self._watch)
        self.stop.clicked.connect(self._stop)
        self.model.clicked.connect(self._open)
        self.dismiss.clicked.connect(self._dismiss)
        buttons = row(self.watch, self.stop, self.model, self.dismiss, spacer())
        stack(self.text, buttons, inside=self, margins=(6, 4, 6, 4))
        self.hide()

    def look(self) -> None:
        """Look for such a run in the background, and offer the newest."""
        self._background(known_runs.left_run, self._show, lambda _: None)

    def end(self) -> None:
        """Show nothing from now on."""
        self._ended = True

    def _show(self, run: LeftRun | None) -> None:
        if self._ended:
            return
        self._run = run
        self.setVisible(run is not None)
        if run is not None:
            self.text.setText(run.text)
            self.watch.setText("Watch" if run.status.running else "Show")
            self.stop.setVisible(run.status.running)
            self.model.setEnabled(run.status.model is not None)

    def _watch(self) -> None:
        if self._run is not None:
            self.hide()
            self.watched.emit(self._run.folder)

    def _stop(self) -> None:
        if self._run is None:
            return
        try:
            ask_to_stop(self._run.folder)
        except TrainingError as error:
            self.text.setText(str(error))
        else:
            self._watch()

    def _open(self) -> None:
        if self._run is not None and self._run.status.model is not None:
            self.wanted.emit(self._run.status.model)
            if not self._run.status.running:
                self._dismiss()

    def _dismiss(self) -> None:
        if self._run is not None and not self._run.status.running:
            known_runs.forget(self._run.folder)
        self.hide()
