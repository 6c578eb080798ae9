"""Folder of a training run; its files are valid at any time, even if the run is killed.

``settings.json``
    Settings of the run.
``metrics.csv``
    One row per epoch.
``curves.png``
    Plot of the metrics.
``model.safetensors``
    The best model so far; calibrated at the end.
``resume.safetensors``
    State after an epoch, to resume from (see :mod:`napari_cpnn.training.fit.resume`): the last one, or for a few
    seconds one before it; deleted when the run is finished.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CheckpointError, TrainingError
from napari_cpnn.models import CPNN, save_model
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.storage import staged, sweep, temporary_beside
from napari_cpnn.training.fit.curves import draw_curves
from napari_cpnn.training.fit.resume import RunState
from napari_cpnn.untrusted import to_path

#: Files of a run that can be recreated from its settings.
RUN_FILES = ("settings.json", "metrics.csv", "curves.png", "model.safetensors")


class RunFolder:
    """Create the folder of a run and write its files, each atomically.

    Parameters
    ----------
    resume
        Whether the folder may contain an unfinished run.
    writes
        Whether this process writes files; of several processes of a run, only one does.

    Raises
    ------
    TrainingError
        If the folder cannot be written, or already contains a model, since a run never replaces another one's result.
        With ``resume``, if the run in it is finished.
    """

    def __init__(self, path: str | Path, resume: bool = False, writes: bool = True) -> None:
        self.path = to_path(path, TrainingError)
        self.writes = writes
        self._state_path = self.path / "resume.safetensors"
        if not writes:
            return
        if self.model_path.exists():
            # Curves are plotted at the end of a run; without them, it was killed between its first model and its state.
            if resume and not self._state_path.exists() and (self.path / "curves.png").exists():
                raise TrainingError(f"The run in {self.path} is finished; its model is {self.model_path}.")
            if not resume:
                unfinished = "resume it, " if self._state_path.exists() else ""
                raise TrainingError(
                    f"{self.path} already holds a trained model; {unfinished}choose another folder or delete it."
                )
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Create a temporary folder for the run, and delete those of killed runs."""
        # Processes of one run share the folder, but each has its own scratch.
        folder = temporary_beside((self.path if self.writes else Path(tempfile.gettempdir())) / "scratch")
        with self._writing():
            sweep(folder.parent)
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            # On Windows, a memory-mapped file cannot be deleted; the next run in this folder deletes it.
            shutil.rmtree(folder, ignore_errors=True)

    def read_state(self) -> RunState | None:
        """Read the state of the run to be resumed; None if it has not completed an epoch."""
        return RunState.read(self._state_path) if self._state_path.exists() else None

    def write_state(self, state: RunState) -> None:
        if self.writes:
            self._write(self._state_path.name, state.to_bytes())

    def drop_state(self) -> None:
        """Delete the state of a finished run."""
        if self.writes:
            with self._writing():
                self._state_path.unlink(missing_ok=True)

    def write_settings(self, settings: TrainingSettings) -> None:
        self._write("settings.json", (json.dumps(settings.to_dict(), indent=2) + "\n").encode())

    def write_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in history)
        self._write("metrics.csv", text.getvalue().encode())

    def write_curves(self, history: Sequence[Mapping[str, Any]], title: str) -> None:
        if not self.writes:
            return
        with self._writing(), staged(self.path / "curves.png") as unfinished:
            draw_curves(history, unfinished, title)

    def write_model(self, model: CPNN) -> None:
        if self.writes:
            with self._writing():
                save_model(model, self.model_path)

    def _write(self, name: str, content: bytes) -> None:
        if not self.writes:
            return
        with self._writing(), staged(self.path / name) as unfinished, unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CheckpointError) as error:
            reason = str(getattr(error, "strerror", None) or error).rstrip(".")
            raise TrainingError(
                f"The run folder {self.path} cannot be written ({reason}); free some space or choose another folder."
            ) from error
