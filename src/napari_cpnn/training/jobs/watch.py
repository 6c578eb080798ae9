"""Look at a run from outside, by its folder: how far it is, whether it still runs, what went wrong.

It does not matter who started the run, and when: the command line, a dock that has been closed since, or this process.
torch is not loaded here.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_cpnn.errors import SettingsError, TrainingError
from napari_cpnn.training.jobs.job import JOB_FILE, TrainingJob
from napari_cpnn.untrusted import parse_json, read_json, reading, to_path

LOCK_FILE = ".running"
"""Locked by the process that trains; what a lock is, the system knows, so a killed process leaves none."""

STOP_FILE = ".stop"
"""Its presence asks the run to end after the present batch."""

EVENTS_FILE = "events.jsonl"
"""What the run has said of itself, a line of JSON per event."""

START_FILE = ".start.json"
"""The job as it is handed to a process of its own; deleted when that has begun."""

LOG_FILE = "log.txt"
"""What a child process has written on stderr."""

_MOST_EPOCHS = 10**9

#: Of a log, at most this much is read.
_LOG_BYTES = 20_000

#: And of the events, of which the last is looked for.
_EVENT_BYTES = 1_000_000


@dataclass(frozen=True)
class RunStatus:
    """A run as its folder shows it.

    Attributes
    ----------
    history
        Rows of ``metrics.csv``; what was not a number is NaN.
    max_epochs
        At most this many epochs; None when the folder does not tell.
    running
        Whether a process trains in the folder.
    text
        What the run is busy with before its first epoch; else empty.
    error
        Why it failed, one sentence; empty when it did not.
    model
        The best model so far.
    stamp
        Changes whenever the model is replaced.
    resumable
        Whether there is something left to do.
    """

    history: tuple[dict[str, float], ...] = ()
    max_epochs: int | None = None
    running: bool = False
    text: str = ""
    error: str = ""
    model: Path | None = None
    stamp: int = 0
    resumable: bool = False

    def with_changes(self, **changes: Any) -> RunStatus:
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)

    @property
    def epoch(self) -> int:
        """Number of complete epochs."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def seconds_left(self) -> float:
        """At most this long, at the pace of the last epochs; NaN while nothing is known. Stopping early ends sooner."""
        if not self.history or self.max_epochs is None:
            return math.nan
        last = [row["seconds"] for row in self.history[-3:]]
        return (self.max_epochs - self.epoch) * sum(last) / len(last)

    @property
    def best(self) -> dict[str, float] | None:
        """The row of the model that is kept: the best held-out PCC, or the last row where nothing was held out."""
        scored = [row for row in self.history if math.isfinite(row.get("held_out_pcc", math.nan))]
        if scored:
            return max(scored, key=lambda row: row["held_out_pcc"])
        return self.history[-1] if self.history else None


def look_at_run(folder: str | Path) -> RunStatus:
    """How the run in a folder stands.

    Raises
    ------
    TrainingError
        The folder holds no run.
    """
    folder = to_path(folder, TrainingError)
    if not any((folder / name).exists() for name in ("settings.json", JOB_FILE, EVENTS_FILE, LOG_FILE)):
        raise TrainingError(f"{folder} is no folder of a training run; it has no settings.json.")
    # In this order, a run that ends meanwhile is seen as running once more, and not as one that broke off.
    running = is_running(folder)
    model = folder / "model.safetensors"
    event = _last_event(folder / EVENTS_FILE)
    history, damage = _history(folder / "metrics.csv")
    kind = event.get("event", "")
    return RunStatus(
        history=history,
        max_epochs=_max_epochs(folder),
        running=running,
        text=str(event.get("text", "")) if kind == "preparing" and running else "",
        error=(str(event.get("error", "")) if kind == "failed" else damage) if not running else "",
        model=model if model.exists() else None,
        stamp=model.stat().st_mtime_ns if model.exists() else 0,
        # A run without curves was killed between its first model and the state to resume from.
        resumable=not running and (not (folder / "curves.png").exists() or (folder / "resume.safetensors").exists()),
    )


def is_running(folder: str | Path) -> bool:
    """Whether a process trains in the folder."""
    file = Path(folder) / LOCK_FILE
    if not file.exists():
        return False
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # a folder that cannot be written: nobody trains in it
        return False
    unlock(lock, file)  # of a process that was killed
    return False


def unlock(lock: FileLock, file: Path) -> None:
    """Release a lock and delete its file, while it is still held where the system allows that."""
    with contextlib.suppress(OSError):
        if os.name != "nt":
            file.unlink(missing_ok=True)
    lock.release()
    with contextlib.suppress(OSError):
        if os.name == "nt":
            file.unlink(missing_ok=True)


def job_of_run(folder: str | Path) -> TrainingJob:
    """The job of a run folder, to resume it there, wherever the folder has been moved to.

    Raises
    ------
    TrainingError
        The folder holds none, or what it holds cannot be read.
    """
    folder = to_path(folder, TrainingError)
    return TrainingJob.read(folder / JOB_FILE).replace(out=folder.absolute(), resume=True)


def ask_to_stop(folder: str | Path) -> None:
    """Ask the run in a folder to end after the present batch; its best model is kept.

    Raises
    ------
    TrainingError
        The folder cannot be written.
    """
    try:
        (Path(folder) / STOP_FILE).touch()
    except OSError as error:
        raise TrainingError(f"The run in {folder} cannot be stopped: {error.strerror or error}.") from error


def read_log(folder: str | Path) -> str:
    """The end of what the run has written; empty when there is nothing."""
    file = Path(folder) / LOG_FILE
    if not file.is_file():
        return ""
    with reading(file, TrainingError):
        return _end_of(file, _LOG_BYTES)


def _end_of(file: Path, n_bytes: int) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - n_bytes))
        return opened.read(n_bytes).decode("utf-8", errors="replace")


def _history(file: Path) -> tuple[tuple[dict[str, float], ...], str]:
    """The rows, and what is wrong with the file; then there are no rows."""
    if not file.exists():
        return (), ""
    try:
        with (
            reading(file, TrainingError, "its curves are not shown"),
            file.open(encoding="utf-8", newline="") as table,
        ):
            rows = tuple(_row(row) for row in csv.DictReader(table))
    except TrainingError as error:
        return (), str(error)
    return rows, ""


def _row(said: dict[str | Any, Any]) -> dict[str, float]:
    row = {name: _number(value) for name, value in said.items() if isinstance(name, str)}
    if len(row) < len(said) or not 1 <= row["epoch"] < math.inf or not 0 <= row["seconds"] < math.inf:
        raise ValueError("a row of it is damaged")
    return row


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _last_event(file: Path) -> dict[str, Any]:
    """The last complete line; a run may be writing another one."""
    if not file.exists():
        return {}
    with reading(file, TrainingError):
        lines = _end_of(file, _EVENT_BYTES).splitlines()
    for line in reversed(lines):
        with contextlib.suppress(TrainingError):
            event = parse_json(line, file, TrainingError)
            if isinstance(event, dict):
                return event
    return {}


def _max_epochs(folder: Path) -> int | None:
    for name in (JOB_FILE, "settings.json"):
        if not (folder / name).exists():
            continue
        with contextlib.suppress(TrainingError, SettingsError):
            if name == JOB_FILE:
                return _believable(TrainingJob.read(folder / name).settings.max_epochs)
            said = read_json(folder / name, TrainingError)
            if isinstance(said, dict) and type(said.get("max_epochs")) is int:
                return _believable(said["max_epochs"])
    return None


def _believable(n_epochs: int) -> int | None:
    return n_epochs if 1 <= n_epochs <= _MOST_EPOCHS else None
