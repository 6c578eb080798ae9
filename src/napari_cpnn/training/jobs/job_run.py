"""Run a :class:`~napari_cpnn.training.jobs.job.TrainingJob` in this process, with events and stop requests."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_cpnn.errors import CpnnError, TrainingError
from napari_cpnn.prototypes import Prototypes, estimate_prototypes, open_cells
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.storage import whole_file
from napari_cpnn.texts import json_value
from napari_cpnn.training.fit import is_first_process
from napari_cpnn.training.jobs.job import JOB_FILE, PROTOTYPES_FILE, CellsFile, TrainingJob
from napari_cpnn.training.jobs.opening import open_files
from napari_cpnn.training.jobs.watch import EVENTS_FILE, LOCK_FILE, START_FILE, STEP_FILE, STOP_FILE, unlock

Event = dict[str, Any]
"""Event of a run by ``event``: ``preparing`` (``text``), ``epoch`` (``row`` of ``metrics.csv``, ``epoch``,
``max_epochs``, ``seconds_left``), ``step`` (``text``, ``done``, ``seconds``, ``stopping``), ``saved``
(``path``, ``epoch``), ``finished`` (``path``, ``complete``) or ``failed`` (``error``)."""

#: Interval in seconds of checking for a stop request.
_STOP_SECONDS = 0.3

#: Least interval in seconds of reporting progress within a step.
_STEP_SECONDS = 0.3

#: Time in seconds to wait for the lock, which is held briefly by processes that check whether a run is active.
_LOCK_SECONDS = 2.0


def run_job(job: TrainingJob, report: Callable[[Event], None] | None = None, progress: bool = False) -> Path:
    """Run a training job in this process.

    In addition to the files of :func:`~napari_cpnn.training.train`, the run folder contains ``job.json``,
    ``events.jsonl`` with one JSON line per event, and ``prototypes.h5ad`` if estimated from single cells.

    Parameters
    ----------
    job
        The job.
    report
        Called with each :data:`Event`.
    progress
        Show a progress bar per epoch in the terminal.

    Returns
    -------
    Path
        Path of the model.

    Raises
    ------
    TrainingError
        As :func:`~napari_cpnn.training.train`; also if another process uses the run folder.
    """
    # Of several processes of one run, only the first reports events and writes files.
    if not is_first_process(job.settings):
        return _run(job, _Reporter(None), progress)
    say = _Reporter(report)
    with _failures_reported(say):
        job.check()
        with _locked(job.out), _stop_on_file(job.out / STOP_FILE, say.stopping), contextlib.ExitStack() as stack:
            say.start_file(job.out / EVENTS_FILE)
            stack.callback(say.close)
            with _failures_reported(say, job.out / "model.safetensors"):  # before the lock is released
                job.write(job.out / JOB_FILE)
                (job.out / START_FILE).unlink(missing_ok=True)
                model = _run(job, say, progress)
                is_complete = not (job.out / "resume.safetensors").exists()
                say({"event": "finished", "path": str(model), "complete": is_complete})
    return model


def json_line(event: Event) -> str:
    """Serialise an event to one line of JSON; non-finite numbers become null."""
    return json.dumps(json_value(event), allow_nan=False)


def _run(job: TrainingJob, say: _Reporter, progress: bool) -> Path:
    with contextlib.ExitStack() as opened:
        loaded = opened.enter_context(_loading())
        samples = []
        for number, files in enumerate(job.samples, 1):
            say(_preparing(f"Opening {files.slide.name} ({number} of {len(job.samples)})"))
            slide, spots = open_files(files, check=False)  # the fit is checked when training begins
            samples.append((opened.enter_context(slide), spots))
        prototypes = _prototypes(job, say)
        model = job.out / "model.safetensors"
        say(_preparing("Cutting patches around the spots"))
        from napari_cpnn.training.fit import train  # torch and Lightning, seconds: a file that is wrong is said before

        loaded()
        listener = _EpochListener(model, job.settings.max_epochs, say)
        train(samples, prototypes, job.settings, job.out, progress or say.step, listener, job.resume)
    return model


@contextlib.contextmanager
def _loading() -> Iterator[Callable[[], None]]:
    """Collect no garbage until the function that it yields is called, and not look at what was there by then later on.

    Torch and Lightning leave half a million objects for good; looking through them again and again takes 2 seconds.
    """
    if not gc.isenabled() or gc.get_freeze_count():  # somebody else decides when
        yield lambda: None
        return

    def loaded() -> None:
        gc.freeze()
        gc.enable()

    gc.disable()
    try:
        yield loaded
    finally:
        gc.enable()
        gc.unfreeze()


def _prototypes(job: TrainingJob, say: _Reporter) -> Prototypes:
    if not isinstance(job.prototypes, CellsFile):
        say(_preparing(f"Reading {job.prototypes.name}"))
        return Prototypes.load(job.prototypes)
    kept = job.out / PROTOTYPES_FILE
    if job.resume and kept.exists():
        return Prototypes.load(kept)
    cells = job.prototypes
    say(_preparing(f"Estimating prototypes from {cells.path.name}"))
    table = open_cells(cells.path)
    settings = PrototypeSettings(min_cells=cells.min_cells)
    name = f"estimating prototypes from {cells.path.name}"
    prototypes = estimate_prototypes(
        table, cells.cell_type, cells.batch, settings, lambda _text, done: say.step(name, done)
    )
    prototypes.save(kept)
    return prototypes


class _Reporter:
    """Report events to a callback and to a file in the run folder."""

    def __init__(self, report: Callable[[Event], None] | None) -> None:
        self._report = report or _nothing
        self._file: Path | None = None
        self.failed = False
        self._step, self._started, self._said = "", 0.0, -math.inf
        self._stopping = False

    def start_file(self, file: Path) -> None:
        """Also write subsequent events to this file, which is truncated."""
        file.unlink(missing_ok=True)
        self._file = file

    def step(self, text: str, done: float) -> None:
        """Report what is being done and its finished share, a few times a second at most.

        The last one is in a file of its own beside the events, which would else grow with each batch.
        """
        now = time.monotonic()
        if text != self._step:
            self._step, self._started = text, now
        elif now - self._said < _STEP_SECONDS and done < 1:
            return
        self._said = now
        self._write_step(done, now)

    def stopping(self) -> None:
        """Report that the run was asked to stop."""
        self._stopping = True
        self._write_step(math.nan, time.monotonic())

    def _write_step(self, done: float, now: float) -> None:
        event = {"event": "step", "text": self._step, "done": round(done, 4), "seconds": round(now - self._started, 1)}
        event["stopping"] = self._stopping
        if self._file is not None:
            file = self._file.with_name(STEP_FILE)
            # The run is worth more than its progress.
            with contextlib.suppress(OSError, TrainingError), whole_file(file, TrainingError) as unfinished:
                unfinished.write_text(json_line(event) + "\n", encoding="utf-8")
        self._report(event)

    def close(self) -> None:
        """End the run's steps."""
        if self._file is not None:
            self._file.with_name(STEP_FILE).unlink(missing_ok=True)

    def __call__(self, event: Event) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json_line(event) + "\n")
        self._report(event)


@contextlib.contextmanager
def _failures_reported(say: _Reporter, model: Path | None = None) -> Iterator[None]:
    """Report an exception of the run as one ``failed`` event; ``model`` is that of the run, if it has one already."""
    try:
        yield
    except BaseException as error:
        if not say.failed:
            say.failed = True
            say({"event": "failed", "error": _why(error, model)})
        raise


def _why(error: BaseException, model: Path | None) -> str:
    if isinstance(error, CpnnError):
        return str(error)
    if isinstance(error, KeyboardInterrupt) and model is not None and model.exists():
        return "Training was stopped at once: its best model so far is kept; the run can be resumed."
    if isinstance(error, KeyboardInterrupt):
        return "Training was stopped before the end of its first epoch: no model."
    first_line = (str(error).splitlines() or [""])[0]
    return f"Training broke off by an error in the program ({type(error).__name__}: {first_line})."


class _EpochListener:
    """Convert the rows of ``metrics.csv`` to events."""

    def __init__(self, model: Path, max_epochs: int, say: Callable[[Event], None]) -> None:
        self._model, self._max_epochs, self._say = model, max_epochs, say
        self._known = _stamp(model)

    def __call__(self, row: dict[str, float]) -> None:
        epoch = int(row["epoch"])
        left = (self._max_epochs - epoch) * row["seconds"]
        self._say({"event": "epoch", "row": row, "epoch": epoch, "max_epochs": self._max_epochs, "seconds_left": left})
        now = _stamp(self._model)
        if now != self._known:
            self._known = now
            self._say({"event": "saved", "path": str(self._model), "epoch": epoch})


def _stamp(path: Path) -> tuple[int, int] | None:
    """Stamp of a file that changes whenever it is replaced."""
    if not path.exists():
        return None
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_ino


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the run folder against other runs; the lock is released when the process ends, even if killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, timeout=_LOCK_SECONDS)
        lock.acquire()
    except Timeout:
        raise TrainingError(f"Another process is training in {folder}; wait for it, or stop it.") from None
    except OSError as error:
        reason = error.strerror or error
        raise TrainingError(f"The run folder {folder} cannot be written ({reason}); choose another folder.") from error
    try:
        yield
    finally:
        unlock(lock, folder / LOCK_FILE)


@contextlib.contextmanager
def _stop_on_file(file: Path, noticed: Callable[[], None]) -> Iterator[None]:
    """Treat the appearance of a file as Ctrl-C within the context; works on all systems and from any process."""
    done = threading.Event()

    def listen() -> None:
        while not done.wait(_STOP_SECONDS):
            if file.exists():
                file.unlink(missing_ok=True)
                noticed()
                _press_ctrl_c()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Shells let background programs ignore Ctrl-C.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=listen, name="napari-cpnn stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGINT, previous)
        file.unlink(missing_ok=True)


def _press_ctrl_c() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def _preparing(text: str) -> Event:
    return {"event": "preparing", "text": f"{text} ..."}


def _nothing(_event: Event) -> None:
    """Ignore events."""
