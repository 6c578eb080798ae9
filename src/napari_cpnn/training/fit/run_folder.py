"""The folder of a training run, always readable, whenever the run ends.

``settings.json``
    What was asked for.
``metrics.csv``
    One row per epoch.
``curves.png``
    The same as a picture.
``model.safetensors``
    The best model so far; calibrated at the end.
``resume.safetensors``
    What the run needs to go on after its last epoch (see :mod:`napari_cpnn.training.fit.resume`); gone when it is
    finished.
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

#: Files of a run that can be made anew from its settings.
RUN_FILES = ("settings.json", "metrics.csv", "curves.png", "model.safetensors")


class RunFolder:
    """Creates the folder and writes its files, each atomically.

    Parameters
    ----------
    resume
        Whether the folder may hold a run that is not finished.
    writes
        Whether this process writes; of several that train together, only one does.

    Raises
    ------
    TrainingError
        When the folder cannot be written, or already holds a model: a run never replaces another one's result. With
        ``resume``, when the run in it is finished.
    """

    def __init__(self, path: str | Path, resume: bool = False, writes: bool = True) -> None:
        self.path = to_path(path, TrainingError)
        self.writes = writes
        self._state_path = self.path / "resume.safetensors"
        if not writes:
            return
        if self.model_path.exists():
            # The curves come after the last epoch: a run without was killed between its first model and its state.
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
        """A temporary folder inside, for what the run needs on disk; also clears what a killed run has left here."""
        # Several processes that train together have one folder, and each its own scratch.
        folder = temporary_beside((self.path if self.writes else Path(tempfile.gettempdir())) / "scratch")
        with self._writing():
            sweep(folder.parent)
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            # On Windows a file that is still mapped cannot be deleted; the next run in this folder sweeps it.
            shutil.rmtree(folder, ignore_errors=True)

    def read_state(self) -> RunState | None:
        """The state of the run that is to be resumed; None when it has not completed an epoch."""
        return RunState.read(self._state_path) if self._state_path.exists() else None

    def write_state(self, state: RunState) -> None:
        if self.writes:
            self._write(self._state_path.name, state.to_bytes())

    def drop_state(self) -> None:
        """The run is finished."""
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
