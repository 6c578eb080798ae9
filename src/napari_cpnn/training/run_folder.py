"""The folder of a training run, always readable, whenever the run ends.

``settings.json``
    What was asked for.
``metrics.csv``
    One row per epoch.
``curves.png``
    The same as a picture.
``model.safetensors``
    The best model so far; calibrated at the end.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_cpnn.errors import CheckpointError, TrainingError
from napari_cpnn.models import CPNN, save_model
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.curves import draw_curves

_SCRATCH_PREFIX = ".patches-"


class RunFolder:
    """Creates the folder and writes its files, each atomically.

    Raises
    ------
    TrainingError
        When the folder cannot be written, or already holds a model: a run never replaces another one's result.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.model_path.exists():
            raise TrainingError(f"{self.path} already holds a trained model; choose another folder or delete it.")
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)

    @property
    def model_path(self) -> Path:
        return self.path / "model.safetensors"

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder inside, for the patches; also clears what a killed run has left here."""
        with self._writing():
            for left in self.path.glob(f"{_SCRATCH_PREFIX}*"):
                shutil.rmtree(left)
            folder = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=self.path))
        try:
            yield folder
        finally:
            # On Windows a file that is still mapped cannot be deleted; the next run in this folder clears it.
            shutil.rmtree(folder, ignore_errors=True)

    def write_settings(self, settings: TrainingSettings) -> None:
        self._write("settings.json", json.dumps(settings.to_dict(), indent=2) + "\n")

    def write_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in history)
        self._write("metrics.csv", text.getvalue())

    def write_curves(self, history: Sequence[Mapping[str, Any]], title: str) -> None:
        with self._writing():
            unfinished = self.path / ".curves.png.part"
            draw_curves(history, unfinished, title)
            unfinished.replace(self.path / "curves.png")

    def write_model(self, model: CPNN) -> None:
        with self._writing():
            save_model(model, self.model_path)

    def _write(self, name: str, text: str) -> None:
        with self._writing():
            unfinished = self.path / f".{name}.part"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(self.path / name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CheckpointError) as error:
            reason = str(getattr(error, "strerror", None) or error).rstrip(".")
            raise TrainingError(
                f"The run folder {self.path} cannot be written ({reason}); free some space or choose another folder."
            ) from error
