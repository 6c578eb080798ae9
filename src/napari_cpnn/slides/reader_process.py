"""Patches read by processes of their own, which write them into shared memory.

Threads of one process share one interpreter lock, which cutting patches needs for part of the time. A process has its
own, and its own open file and cache of tiles. It is a new interpreter that is told what to read through a pipe
(neither forked, which is unsafe beside threads and CUDA, nor started by :mod:`multiprocessing`, which would run the
user's script again). It ends when its pipe closes, so it never outlives the program.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import traceback
from typing import IO, Any, Protocol

import numpy as np

from napari_cpnn.arrays import BoolArray, FloatArray
from napari_cpnn.errors import CpnnError, SlideError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.slides.patch_ring import PatchRing
from napari_cpnn.slides.patches import PatchReader
from napari_cpnn.slides.slide import Slide

log = logging.getLogger(__name__)

_CODE = "from napari_cpnn.slides.reader_process import serve\nserve()\n"
#: Processes that may end at one batch before it is given up.
_TRIES = 2


class RingReader(Protocol):
    """What fills the slots of a :class:`PatchRing`."""

    def read(self, slot: int, centers_um: FloatArray) -> tuple[BoolArray, str]:
        """Read patches around ``centers_um (N, 2)`` into the first places of a slot.

        Returns which were readable ``(N,)``, and what was wrong, or an empty text.
        """
        ...

    def close(self) -> None:
        """End it; a :meth:`read` that is under way in another thread ends with an error."""
        ...


class ReaderThread:
    """Fill the slots of a ring from the calling thread; see :class:`RingReader`."""

    def __init__(self, reader: PatchReader, ring: PatchRing) -> None:
        self._reader, self._ring = reader, ring

    def read(self, slot: int, centers_um: FloatArray) -> tuple[BoolArray, str]:
        images = self._ring[slot][: len(centers_um)]
        try:
            return self._reader.read_into(centers_um, images), ""
        except (CpnnError, OSError, MemoryError) as error:
            log.warning("%s: %s", self._reader.slide.name, error)
            images[:] = 255
            return np.zeros(len(centers_um), bool), str(error)

    def close(self) -> None:
        """Do nothing: the thread is the caller's."""


class ReaderProcess:
    """Fill the slots of a ring from a process of its own; see :class:`RingReader`.

    Pixels are the same, bit for bit, as those of :class:`PatchReader`. A process that was killed is noticed at once;
    another takes its place and reads the batch again.

    Parameters
    ----------
    slide, spec
        As of :class:`PatchReader`; the slide is opened again in the process.
    ring
        Shared slots.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.slides import PatchRing, ReaderProcess
    >>> with PatchRing(1, 4, 64, shared=True) as ring:
    ...     reader = ReaderProcess(slide, nc.PatchSpec(64, 1.0), ring)
    ...     ok, problem = reader.read(0, np.array([[1200.0, 1200.0]]))
    ...     reader.close()
    >>> ok.tolist(), problem
    ([True], '')
    """

    def __init__(self, slide: Slide, spec: PatchSpec, ring: PatchRing) -> None:
        PatchReader(slide, spec)  # says here what is wrong with the slide
        self._label = slide.label
        self._task = pickle.dumps((slide, spec, ring.name, ring.n_slots, ring.batch))
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def pid(self) -> int:
        """Process ID of the present process."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    def _start(self) -> None:
        # The import path of this process, but never the current directory.
        places = f"import sys\nsys.path[:] = {[place for place in sys.path if place]!r}\n"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and code
                [sys.executable, "-I", "-c", places + _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **threads},
            )
        except OSError as error:
            raise SlideError(f"A process that reads patches cannot be started: {error.strerror or error}.") from error
        if self._closed:  # by another thread meanwhile
            self._end()
            return
        with contextlib.suppress(OSError):  # it ended already, which is noticed when it is asked
            assert self._process.stdin is not None  # noqa: S101
            self._process.stdin.write(self._task)
            self._process.stdin.flush()

    def read(self, slot: int, centers_um: FloatArray) -> tuple[BoolArray, str]:
        for attempt in range(1, _TRIES + 1):
            answer = self._asked(slot, centers_um)
            if answer is not None:
                break
            if self._closed:
                raise SlideError(f"Reading {self._label} was stopped.")
            code = self._end()
            log.warning("A process that read %s ended (exit code %s); its batch is read again", self._label, code)
            if attempt < _TRIES:
                self._start()
        else:
            raise SlideError(
                f"Processes that read {self._label} ended {_TRIES} times at the same patches (exit code {code}): they "
                "were killed, perhaps for lack of memory, or the file crashes its library; reader_processes=0 reads it "
                "in threads."
            )
        ok, problem, bug = answer
        if bug:
            raise RuntimeError(f"{bug.strip().splitlines()[-1]} (in a process that reads patches)\n{bug}")
        return ok, problem

    def _asked(self, slot: int, centers_um: FloatArray) -> Any:
        """The answer of the process; ``None`` if it has ended."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        try:
            pickle.dump((slot, np.asarray(centers_um, np.float64)), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)  # noqa: S301 -- from our own process
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            return None

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()
        return code

    def close(self) -> None:
        self._closed = True
        self._end()  # a thread that waits for an answer sees the end of the pipe


def serve() -> None:
    """Answer requests on standard input until it is closed: what a reader process does."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which then closes the pipe
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    sys.stdout = sys.stderr
    slide, spec, name, n_slots, batch = pickle.load(requests)  # noqa: S301 -- from the process that started this one
    try:
        ring = PatchRing(n_slots, batch, spec.size_px, shared=True, name=name)
    except FileNotFoundError:  # the program was killed while this process started
        return
    _answer(ReaderThread(PatchReader(slide, spec), ring), requests, answers)


def _answer(reader: ReaderThread, requests: IO[bytes], answers: IO[bytes]) -> None:
    while True:
        try:
            slot, centers = pickle.load(requests)  # noqa: S301 -- from the process that started this one
        except EOFError:
            return
        bug = ""
        try:
            ok, problem = reader.read(slot, centers)
        except Exception:  # noqa: BLE001 -- told to the program, which ends mapping with it
            ok, problem, bug = np.zeros(len(centers), bool), "", traceback.format_exc()
        try:
            pickle.dump((ok, problem, bug), answers)
            answers.flush()
        except OSError:  # the program was killed meanwhile; nobody is to be told
            os._exit(0)
