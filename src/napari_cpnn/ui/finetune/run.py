"""Training run that the Fine-tune dock follows by its folder, wherever it was started. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cpnn.errors import TrainingError
from napari_cpnn.training.jobs import ChildRun, RunStatus, TrainingJob, ask_to_stop, job_of_run, look_at_run, read_log
from napari_cpnn.ui.finetune import known_runs
from napari_cpnn.ui.finetune.run_words import in_dock_words, progress_words

if TYPE_CHECKING:
    from napari_cpnn.ui.frame import Background, Tasks


class FollowedRun:
    """The run that is shown.

    Attributes
    ----------
    folder
        The run folder; None before there is a run.
    status
        Its latest status.
    """

    changed = Signal()
    improved = Signal(Path)
    """Emitted with the file of a better model."""

    def __init__(self, background: Background, tasks: Tasks) -> None:
        self.folder: Path | None = None
        self.status: RunStatus | None = None
        self._child: ChildRun | None = None
        self._background, self._tasks = background, tasks
        self._reading = self._closed = self._asked = False

    @property
    def running(self) -> bool:
        return self.status is not None and self.status.running

    @property
    def model(self) -> Path | None:
        """The best model so far."""
        return None if self.status is None else self.status.model

    def start(self, job: TrainingJob) -> None:
        """Train in a child process."""
        self._tasks.run("run", "Starting ...", lambda: ChildRun(job), self._started)

    def resume(self) -> None:
        """Resume the run."""
        folder = self.folder
        if folder is not None:
            self._tasks.run("run", "Starting ...", lambda: ChildRun(job_of_run(folder)), self._started)

    @property
    def stopping(self) -> bool:
        """True once the run was asked to stop, by this dock or another."""
        return self.running and (self._asked or (self.status is not None and self.status.stopping))

    def stop(self) -> None:
        """End the run after the present batch; its best model is kept. Asked again, it ends at once."""
        if self.folder is None or not self.running:
            return
        again = self.stopping
        try:
            ask_to_stop(self.folder)
        except TrainingError as error:
            self._tasks.fail(error)
            return
        self._asked = True
        if again:
            text = "Stopping at once; the best model of the complete epochs is kept ..."
        else:
            text = "Stopping after the present batch; the best model is kept and calibrated (Stop now: not calibrated)."
        self._tasks.show("stop", text)
        self.changed.emit()

    def kill(self) -> None:
        """Kill a run of this session."""
        if self._child is not None:
            self._child.kill()

    def open(self, folder: Path, take_over: Callable[[TrainingJob], None]) -> None:
        """Show the run of a folder, whoever started it; ``take_over`` is called with its job, if that is kept."""

        def read() -> tuple[RunStatus, TrainingJob | None]:
            status = look_at_run(folder)
            try:
                return status, job_of_run(folder)
            except TrainingError:  # a run from Python has none
                return status, None

        def ready(found: tuple[RunStatus, TrainingJob | None]) -> None:
            status, job = found
            self._child, self.folder, self.status, self._asked = None, folder, None, False
            if job is not None:
                take_over(job)
            self._set(status)

        self._tasks.run("run", f"Opening {folder.name} ...", read, ready)

    def close(self) -> None:
        """Ignore further status updates."""
        self._closed = True

    def check(self) -> None:
        """Update the status in the background; called a few times a second."""
        folder, child = self.folder, self._child
        if folder is None or self._reading or not self.running:
            return
        self._reading = True

        def ready(status: RunStatus) -> None:
            self._reading = False
            if folder == self.folder and not self._closed:
                self._set(status)

        def failed(error: Exception) -> None:
            self._reading = False
            if self._closed:
                return
            self.status = None
            self.changed.emit()
            self._tasks.fail(error)

        self._background(child.look if child is not None else lambda: look_at_run(folder), ready, failed)

    def log(self) -> str:
        """Return the end of the run's log."""
        return "" if self.folder is None else read_log(self.folder)

    def text(self) -> str:
        """Describe the run: ``epoch 3 of 30 · held-out PCC 0.213, best 0.220 at epoch 2 · at most 4 min left``."""
        return "" if self.status is None else progress_words(self.status)

    def _started(self, child: ChildRun) -> None:
        self._child, self.folder, self.status, self._asked = child, child.folder, None, False
        known_runs.remember(child.folder)
        self._set(RunStatus(running=True))

    def _set(self, status: RunStatus) -> None:
        if status.error:
            status = status.with_changes(error=in_dock_words(status.error))
        before, self.status = self.status, status
        if not status.running:
            self._asked = False
            if self.folder is not None:
                known_runs.forget(self.folder)
            self._tasks.show("stop", "")
            self._tasks.set_problem(TrainingError(status.error) if status.error else None)
        self.changed.emit()
        if before is not None and status.model is not None and status.stamp != before.stamp:
            self.improved.emit(status.model)
        if before is not None and before.running and status.error:
            self._tasks.notify(TrainingError(status.error))
