"""Training in a child process, so that a crash or running out of memory does not affect the caller.

The process runs ``napari-cpnn train --job`` with the same interpreter. It continues when the program that started it
ends; :func:`~napari_cpnn.training.jobs.watch.look_at_run` reports on it, given its folder.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

from napari_cpnn.errors import TrainingError
from napari_cpnn.training.jobs.job import TrainingJob
from napari_cpnn.training.jobs.watch import (
    LOG_FILE,
    START_FILE,
    STOP_FILE,
    RunStatus,
    ask_to_stop,
    is_running,
    look_at_run,
    read_log,
)

#: Niceness of the process, so that a viewer remains responsive.
_STAND_BACK = 10


class ChildRun:
    """Training run in a child process.

    Parameters
    ----------
    job
        The job; it is validated and started immediately.

    Raises
    ------
    TrainingError
        As :meth:`~napari_cpnn.training.jobs.job.TrainingJob.check`; or if another process uses the run folder, the
        folder cannot be written, or no process can be started.
    """

    def __init__(self, job: TrainingJob) -> None:
        job.check()
        self.folder = job.out
        self._killed = False
        if is_running(self.folder):
            raise TrainingError(f"Another process is training in {self.folder}; wait for it, or stop it.")
        job.write(self.folder / START_FILE)
        try:
            (self.folder / STOP_FILE).unlink(missing_ok=True)
            train = [sys.executable, "-m", "napari_cpnn.cli", "train", "--quiet", "--job"]
            with (self.folder / LOG_FILE).open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module
                    [*train, str(self.folder / START_FILE)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    **_apart(),
                )
        except OSError as error:
            raise TrainingError(f"The training process cannot be started: {error.strerror or error}.") from error
        _stand_back(self._process.pid)

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def look(self) -> RunStatus:
        """Status of the run; ``error`` also reports a process that crashed or was killed."""
        code = self._process.poll()  # first, so that all its output is included
        status = look_at_run(self.folder)
        if code is None:
            return status.with_changes(running=True, resumable=False, error="")
        (self.folder / START_FILE).unlink(missing_ok=True)
        if code == 0 or status.error:
            return status
        return status.with_changes(error=self._why_it_ended(code, status))

    def stop(self) -> None:
        """Ask the run to end after the current batch; its best model is kept."""
        if self.running:
            ask_to_stop(self.folder)

    def kill(self) -> None:
        """Kill the process; the state of the last complete epoch is kept, and the run can be resumed."""
        self._killed = True
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; :class:`subprocess.TimeoutExpired` after ``timeout`` seconds."""
        return self._process.wait(timeout)

    def _why_it_ended(self, code: int, status: RunStatus) -> str:
        resume = " The run can be resumed after its last complete epoch." if status.epoch else ""
        if self._killed:
            return f"Training was killed.{resume}"
        if code == -9:  # SIGKILL, which Windows does not define
            return (
                "The system has killed the training process, most often because memory ran out; lower batch_size, or "
                f"close other programs.{resume}"
            )
        if code == 2:  # message of a run that failed before its folder existed
            lines = [line for line in read_log(self.folder).splitlines() if line.startswith("napari-cpnn: ")]
            if lines:
                return lines[-1].removeprefix("napari-cpnn: ")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"The training process has crashed ({how}); its log says more.{resume}"


def _apart() -> dict[str, Any]:
    """Process options that detach the child from Ctrl-C in, and the end of, the caller's terminal."""
    if sys.platform == "win32":
        kinds = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW", "BELOW_NORMAL_PRIORITY_CLASS")
        return {"creationflags": sum(getattr(subprocess, kind) for kind in kinds)}
    return {"start_new_session": True}


def _stand_back(pid: int) -> None:
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, _STAND_BACK)
