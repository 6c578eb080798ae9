"""Hands files to doors in a child process, and says which of them behave.

One child serves many files. It is ended and replaced when it crashes, hangs, or takes too much memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

TESTS = Path(__file__).resolve().parents[1]

SECONDS = 10.0
"""Of a processor, for each step of a door."""

MB = 1024.0
_CLOCK_FACTOR = 6
"""How much longer that may take by the clock, since other programs run beside it."""

_START_SECONDS = 120.0
_TOO_MUCH_MB = 3 * MB
"""A child that takes so much is ended at once."""


@dataclass(frozen=True)
class Verdict:
    """What came of a file.

    Attributes
    ----------
    fault
        ``""``, or ``crash``, ``hang``, ``memory``, ``traceback``, ``no sentence``.
    text
        The sentences, or what was wrong.
    where
        The innermost line of the package, where that is known.
    """

    fault: str
    text: str
    where: str = ""
    seconds: float = 0.0
    mb: float = 0.0
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.fault or 'fine'} ({self.seconds:.1f} s, {self.mb:.0f} MB) {self.where} {self.text}".rstrip()


class Judge:
    """Starts the child when it is first needed; a context manager.

    Parameters
    ----------
    seconds
        Processor time that each step of a door may take, its children's included; several times as much by the clock.
    warm
        Whether the child begins with importing all that the doors need.
    """

    def __init__(self, seconds: float = SECONDS, *, warm: bool = True) -> None:
        self.seconds = seconds
        self._arguments = [] if warm else ["--cold"]
        self._child: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- closed in close
        self._cache = tempfile.TemporaryDirectory(prefix="fuzz-cache-")
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._end()
        self._said.close()
        self._cache.cleanup()

    def judge(self, door: str, path: Path) -> Verdict:
        """Hand ``path`` to a door (see :mod:`fuzz.doors`)."""
        if self._child is None:
            self._start()
        assert self._child is not None
        assert self._child.stdin is not None
        outcomes: list[dict[str, str]] = []
        start = time.monotonic()
        self._child.stdin.write(json.dumps({"door": door, "path": str(path)}).encode() + b"\n")
        self._child.stdin.flush()
        try:
            while "mb" not in (answer := self._answer(self.seconds)):
                outcomes.append(answer)
        except _EndedError as ended:
            self._end()
            return Verdict(ended.fault, ended.text, seconds=time.monotonic() - start)
        return _verdict(outcomes, answer["seconds"], answer["mb"])

    def _start(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))),
            "NAPARI_CPNN_CACHE": self._cache.name,
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            cwd=self._cache.name,
            start_new_session=True,  # so that what it started ends with it
        )
        self._unread = b""
        try:
            self._answer(_START_SECONDS)
        except _EndedError as ended:
            self._end()
            raise RuntimeError(f"The child that opens files does not start: {ended}") from ended

    def _answer(self, seconds: float) -> dict[str, Any]:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        watched = psutil.Process(child.pid)
        begun, clock = _processor_seconds(watched), time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if selector.select(0.1):
                    piece = os.read(child.stdout.fileno(), 1 << 16)
                    if not piece:
                        raise _EndedError("crash", f"exit {child.wait()}: {self._last_words()}")
                    self._unread += piece
                    continue
                took = max(_processor_seconds(watched) - begun, (time.monotonic() - clock) / _CLOCK_FACTOR)
                if took > seconds:
                    child.send_signal(signal.SIGABRT)  # the fault handler says where it is
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(1)
                    raise _EndedError("hang", f"no answer after {seconds:g} s: {self._last_words()}")
                if watched.memory_info().rss > _TOO_MUCH_MB * 2**20:
                    raise _EndedError("memory", f"more than {_TOO_MUCH_MB:.0f} MB")
        line, self._unread = self._unread.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]
            self._child = None
            self._said.seek(0)
            self._said.truncate()

    def _last_words(self) -> str:
        """The end of what the child wrote on stderr: where the fault handler saw it, if it did."""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        ours = [line.strip() for line in lines if "/src/napari_cpnn/" in line]
        first = next((line for line in lines if "Fatal" in line or "ERROR" in line), lines[-1] if lines else "")
        return f"{first} {ours[0].split('/src/napari_cpnn/')[-1] if ours else ''}"[:300]


class _EndedError(Exception):
    def __init__(self, fault: str, text: str) -> None:
        super().__init__(text)
        self.fault, self.text = fault, text


def _processor_seconds(process: psutil.Process) -> float:
    """Of a process and all that it has started."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += sum(child.cpu_times()[:2])
    return total


def _verdict(outcomes: list[dict[str, str]], seconds: float, mb: float) -> Verdict:
    for outcome in outcomes:
        if outcome["kind"] in ("traceback", "no sentence"):
            return Verdict(outcome["kind"], outcome["text"], outcome["where"], seconds, mb)
    refused = [outcome["text"] for outcome in outcomes if outcome["kind"] == "sentence"]
    fault = "memory" if mb > MB else ""
    return Verdict(fault, " | ".join(refused), seconds=seconds, mb=mb, refused=bool(refused))
