"""Monitor a run through its folder: progress, whether it is running, and errors.

This works for any run, whether started from the command line, by a dock that has been closed since, or by this process.
torch is not imported here.
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
"""File locked by the training process; the operating system releases the lock if the process is killed."""

STOP_FILE = ".stop"
"""File whose presence requests the run to end after the current batch."""

STEP_FILE = ".step.json"
"""What the run is doing, and its finished share; deleted at its end."""

EVENTS_FILE = "events.jsonl"
"""Events of the run, one line of JSON each."""

START_FILE = ".start.json"
"""Job file passed to a child process; deleted once that has started."""

LOG_FILE = "log.txt"
"""Standard error of a child process."""

_MOST_EPOCHS = 10**9

#: Maximum number of bytes read from the end of a log.
_LOG_BYTES = 20_000

#: Maximum number of bytes read from the end of the events, to find the last one.
_EVENT_BYTES = 1_000_000


@dataclass(frozen=True)
class RunStatus:
    """Status of a run according to its folder.

    Attributes
    ----------
    history
        Rows of ``metrics.csv``; invalid numbers are NaN.
    max_epochs
        Maximum number of epochs; None if unknown.
    running
        Whether a process is training in the folder.
    text
        Current preparation step before the first epoch; else empty.
    error
        Reason of failure, one sentence; empty if it has not failed.
    model
        Path of the best model so far.
    stamp
        Changes whenever the model is replaced.
    resumable
        Whether the run is unfinished and can be resumed.
    step, step_done, step_seconds
        What a run that goes on is doing, its finished share (NaN if unknown), and for how long.
    stopping
        Whether it has noticed that it is to stop.
    """

    history: tuple[dict[str, float], ...] = ()
    max_epochs: int | None = None
    running: bool = False
    text: str = ""
    error: str = ""
    model: Path | None = None
    stamp: int = 0
    resumable: bool = False
    step: str = ""
    step_done: float = math.nan
    step_seconds: float = math.nan
    stopping: bool = False

    def with_changes(self, **changes: Any) -> RunStatus:
        """Return a copy with changed values."""
        return dataclasses.replace(self, **changes)

    @property
    def epoch(self) -> int:
        """Number of complete epochs."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def seconds_left(self) -> float:
        """Upper bound of the remaining time at the pace of the last epochs (early stopping aside); NaN if unknown."""
        if not self.history or self.max_epochs is None:
            return math.nan
        last = [row["seconds"] for row in self.history[-3:]]
        return (self.max_epochs - self.epoch) * sum(last) / len(last)

    @property
    def best(self) -> dict[str, float] | None:
        """Row of the saved model: the best held-out PCC, or the last row if nothing is held out."""
        scored = [row for row in self.history if math.isfinite(row.get("held_out_pcc", math.nan))]
        if scored:
            return max(scored, key=lambda row: row["held_out_pcc"])
        return self.history[-1] if self.history else None


def look_at_run(folder: str | Path) -> RunStatus:
    """Return the status of the run in a folder.

    Raises
    ------
    TrainingError
        If the folder does not contain a run.
    """
    folder = to_path(folder, TrainingError)
    if not any((folder / name).exists() for name in ("settings.json", JOB_FILE, EVENTS_FILE, LOG_FILE)):
        raise TrainingError(f"{folder} is no folder of a training run; it has no settings.json.")
    # In this order, a run that ends meanwhile is reported as running once more, not as aborted.
    running = is_running(folder)
    model = folder / "model.safetensors"
    event = _last_event(folder / EVENTS_FILE)
    history, damage = _history(folder / "metrics.csv")
    step = _step(folder / STEP_FILE) if running else {}
    kind = event.get("event", "")
    return RunStatus(
        history=history,
        max_epochs=_max_epochs(folder),
        running=running,
        text=str(event.get("text", "")) if kind == "preparing" and running else "",
        error=(str(event.get("error", "")) if kind == "failed" else damage) if not running else "",
        model=model if model.exists() else None,
        stamp=model.stat().st_mtime_ns if model.exists() else 0,
        # A run without curves was killed between its first model and its state.
        step=str(step.get("text", "")),
        step_done=_number(str(step.get("done", ""))),
        step_seconds=_number(str(step.get("seconds", ""))),
        stopping=step.get("stopping") is True,
        resumable=not running and (not (folder / "curves.png").exists() or (folder / "resume.safetensors").exists()),
    )


def is_running(folder: str | Path) -> bool:
    """Return whether a process is training in the folder."""
    file = Path(folder) / LOCK_FILE
    if not file.exists():
        return False
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # a read-only folder cannot contain an active run
        return False
    unlock(lock, file)  # lock file of a killed process
    return False


def unlock(lock: FileLock, file: Path) -> None:
    """Release a lock and delete its file, if possible while it is still held."""
    with contextlib.suppress(OSError):
        if os.name != "nt":
            file.unlink(missing_ok=True)
    lock.release()
    with contextlib.suppress(OSError):
        if os.name == "nt":
            file.unlink(missing_ok=True)


def job_of_run(folder: str | Path) -> TrainingJob:
    """Read the job of a run folder, to resume the run there even if the folder has been moved.

    Raises
    ------
    TrainingError
        If the folder has no job, or it cannot be read.
    """
    folder = to_path(folder, TrainingError)
    return TrainingJob.read(folder / JOB_FILE).replace(out=folder.absolute(), resume=True)


def ask_to_stop(folder: str | Path) -> None:
    """Ask the run in a folder to end after the current batch; its best model is kept.

    Raises
    ------
    TrainingError
        If the folder cannot be written.
    """
    try:
        (Path(folder) / STOP_FILE).touch()
    except OSError as error:
        raise TrainingError(f"The run in {folder} cannot be stopped: {error.strerror or error}.") from error


def read_log(folder: str | Path) -> str:
    """Read the end of the run's log; empty if there is none."""
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
    """Read the rows of ``metrics.csv``, and a problem of the file; with a problem there are no rows."""
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
    """Read the last complete event; the run may be writing another one."""
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


def _step(file: Path) -> dict[str, Any]:
    """Read the present step; empty while there is none."""
    with contextlib.suppress(TrainingError):
        said = read_json(file, TrainingError) if file.exists() else {}
        return said if isinstance(said, dict) else {}
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
