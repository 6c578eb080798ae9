"""Look at a run from outside, by its folder: how far it is, whether it still runs, what went wrong.

It does not matter who started the run, and when: the command line, a dock that has been closed since, or this process.
torch is not loaded here.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_cpnn.errors import TrainingError
from napari_cpnn.training.job import JOB_FILE, TrainingJob

LOCK_FILE = ".running"
"""Locked by the process that trains; what a lock is, the system knows, so a killed process leaves none."""

STOP_FILE = ".stop"
"""Its presence asks the run to end after the present batch."""

EVENTS_FILE = "events.jsonl"
"""What the run has said of itself, a line of JSON per event."""

LOG_FILE = "log.txt"
"""What a child process has written on stderr."""

#: Of a log, at most this much is read.
_LOG_BYTES = 20_000


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
    folder = Path(folder)
    if not any((folder / name).exists() for name in ("settings.json", JOB_FILE, EVENTS_FILE, LOG_FILE)):
        raise TrainingError(f"{folder} is no folder of a training run; it has no settings.json.")
    # In this order, a run that ends meanwhile is seen as running once more, and not as one that broke off.
    running = is_running(folder)
    model = folder / "model.safetensors"
    event = _last_event(folder / EVENTS_FILE)
    history = _history(folder / "metrics.csv")
    kind = event.get("event", "")
    return RunStatus(
        history=history,
        max_epochs=_max_epochs(folder),
        running=running,
        text=str(event.get("text", "")) if kind == "preparing" and running else "",
        error=str(event.get("error", "")) if kind == "failed" and not running else "",
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
    lock.release()
    return False


def job_of_run(folder: str | Path) -> TrainingJob:
    """The job of a run folder, to resume it there, wherever the folder has been moved to.

    Raises
    ------
    TrainingError
        The folder holds none, or what it holds cannot be read.
    """
    return TrainingJob.read(Path(folder) / JOB_FILE).replace(out=Path(folder).absolute(), resume=True)


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
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _LOG_BYTES))
        return log.read().decode("utf-8", errors="replace")


def _history(file: Path) -> tuple[dict[str, float], ...]:
    if not file.exists():
        return ()
    with file.open(encoding="utf-8", newline="") as table:
        return tuple({name: _number(value) for name, value in row.items()} for row in csv.DictReader(table))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _last_event(file: Path) -> dict[str, Any]:
    """The last complete line; a run may be writing another one."""
    if not file.exists():
        return {}
    for line in reversed(file.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            return event
    return {}


def _max_epochs(folder: Path) -> int | None:
    for name in (JOB_FILE, "settings.json"):
        if not (folder / name).exists():
            continue
        try:
            if name == JOB_FILE:
                return TrainingJob.read(folder / name).settings.max_epochs
            return int(json.loads((folder / name).read_text(encoding="utf-8"))["max_epochs"])
        except (TrainingError, OSError, ValueError, KeyError, TypeError):
            continue
    return None
