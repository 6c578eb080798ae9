"""A training run in a process of its own: a crash, or a kill for want of memory, costs the run and not the caller.

The process is the ``napari-cpnn train --job`` of the terminal in the same interpreter. It goes on when the program that
has started it ends; :func:`~napari_cpnn.training.jobs.watch.look_at_run` finds it again by its folder.
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

#: Niceness of the process: a viewer beside it must stay quick.
_STAND_BACK = 10


class ChildRun:
    """Trains in a child process.

    Parameters
    ----------
    job
        What to do; it is checked, and then started at once.

    Raises
    ------
    TrainingError
        As :meth:`~napari_cpnn.training.jobs.job.TrainingJob.check`; or another process works in the run folder, the
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
            with (self.folder / LOG_FILE).open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module
                    [
                        sys.executable,
                        "-m",
                        "napari_cpnn.cli",
                        "train",
                        "--job",
                        str(self.folder / START_FILE),
                        "--json",
                    ],
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
        """Number of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def look(self) -> RunStatus:
        """How the run stands; ``error`` also tells of a process that crashed or was killed."""
        code = self._process.poll()  # first, so that all that it wrote is seen
        status = look_at_run(self.folder)
        if code is None:
            return status.with_changes(running=True, resumable=False, error="")
        (self.folder / START_FILE).unlink(missing_ok=True)
        if code == 0 or status.error:
            return status
        return status.with_changes(error=self._why_it_ended(code, status))

    def stop(self) -> None:
        """Ask it to end after the present batch; its best model is kept."""
        if self.running:
            ask_to_stop(self.folder)

    def kill(self) -> None:
        """End it at once; what it has kept of its last epoch stays, and it can be resumed."""
        self._killed = True
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended; the exit code. :class:`subprocess.TimeoutExpired` after ``timeout`` seconds."""
        return self._process.wait(timeout)

    def _why_it_ended(self, code: int, status: RunStatus) -> str:
        resume = " The run can be resumed after its last complete epoch." if status.epoch else ""
        if self._killed:
            return f"Training was killed.{resume}"
        if code == -9:  # SIGKILL; no name of Windows
            return (
                "The system has killed the training process, most often because memory ran out; lower batch_size, or "
                f"close other programs.{resume}"
            )
        if code == 2:  # our own sentence, where there was no folder yet to say it in
            lines = [line for line in read_log(self.folder).splitlines() if line.startswith("napari-cpnn: ")]
            if lines:
                return lines[-1].removeprefix("napari-cpnn: ")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"The training process has crashed ({how}); its log says more.{resume}"


def _apart() -> dict[str, Any]:
    """Ctrl-C in the caller's terminal, and the end of that terminal, are not for the child."""
    if sys.platform == "win32":
        kinds = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW", "BELOW_NORMAL_PRIORITY_CLASS")
        return {"creationflags": sum(getattr(subprocess, kind) for kind in kinds)}
    return {"start_new_session": True}


def _stand_back(pid: int) -> None:
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, _STAND_BACK)
