"""Runs that this user has started and whose end no dock has shown; the list is kept in the cache folder. No Qt here."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_cpnn.errors import CpnnError
from napari_cpnn.storage import cache_folder, whole_file
from napari_cpnn.training.jobs import RunStatus, look_at_run
from napari_cpnn.ui.finetune.run_words import progress_words
from napari_cpnn.untrusted import read_json

_N_KEPT = 8


@dataclass(frozen=True)
class LeftRun:
    """Run that went on while no dock was watching."""

    folder: Path
    status: RunStatus

    @property
    def text(self) -> str:
        """Description, such as ``A training run goes on in .../run-1: epoch 3 of 30``."""
        words = progress_words(self.status)
        if self.status.running:
            return f"A training run goes on in {self.folder}: {words}"
        if self.status.error:
            return f"The training run in {self.folder} has ended: {self.status.error}"
        return f"The training run in {self.folder} has ended while nobody watched: {words}"


def remember(folder: Path) -> None:
    """Put a run first in the list; a list that cannot be written is no error."""
    _write([folder.absolute(), *(path for path in _read() if path != folder.absolute())])


def forget(folder: Path) -> None:
    """Remove a run whose end was seen."""
    known = _read()
    if folder.absolute() in known:
        _write([path for path in known if path != folder.absolute()])


def left_run() -> LeftRun | None:
    """Return the newest run that goes on, or else that has ended unseen; runs whose folder is gone are forgotten."""
    found = []
    for folder in _read():
        try:
            found.append(LeftRun(folder, look_at_run(folder)))
        except CpnnError:
            forget(folder)
    return next((run for run in found if run.status.running), found[0] if found else None)


def _write(folders: list[Path]) -> None:
    with suppress(CpnnError), whole_file(_file()) as temporary:
        temporary.write_text(json.dumps([str(path) for path in folders[:_N_KEPT]]), encoding="utf-8")


def _file() -> Path:
    return cache_folder() / "training_runs.json"


def _read() -> list[Path]:
    names: object = []
    with suppress(CpnnError):  # a list that cannot be read is no error either
        names = read_json(_file(), CpnnError) if _file().exists() else []
    return [Path(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
