"""What a command says: text for people; or with ``--json`` one JSON object on stdout, and lines of JSON on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from napari_cpnn.errors import CpnnWarning
from napari_cpnn.progress import ROUNDING, Reporting, ShareBar
from napari_cpnn.texts import json_value

Facts = dict[str, Any]
"""What a command has found, by name; ``written``: the files that it has written."""

#: Least interval in seconds between two lines about the same step.
_STEP_SECONDS = 1.0


class Console:
    """Where a command says what it does and finds.

    With ``as_json``, stdout has nothing but JSON: what is printed for people is in the result, too.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._warnings: list[str] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Say what the package notes and warns of; with ``as_json``, what is printed for people goes nowhere."""
        printed = contextlib.redirect_stdout(_Nowhere()) if self.as_json else contextlib.nullcontext()
        with warnings.catch_warnings(), _handling(_Notes(self.note)), printed:
            warnings.simplefilter("always", CpnnWarning)
            warnings.showwarning = self._warn  # type: ignore[assignment]
            try:
                yield
            finally:
                ShareBar.close_all()  # before an error is said on a line of its own

    def note(self, text: str) -> None:
        """Say something on a line of stderr, above a progress bar if there is one."""
        if self.as_json:
            self._line({"note": text})
            return
        bars = sys.modules.get("tqdm")  # where it was not imported, there is none
        write: Callable[..., object] = print if bars is None else bars.tqdm.write
        write(f"napari-cpnn: {text}", file=sys.stderr)

    def progress(self, *, quiet: bool = False) -> Reporting:
        """How progress is reported: by a bar, by lines of JSON, or not at all."""
        if quiet:
            return False
        return _Steps(self._line) if self.as_json else True

    def event(self, event: Facts) -> None:
        """Print an event of a long run as a line of JSON on stdout, before the result; its reader may have gone."""
        try:
            print(json.dumps(json_value(event), allow_nan=False), file=self._stdout, flush=True)
        except BrokenPipeError:  # no reason to stop a run
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())

    def finish(self, command: str | None, facts: Facts) -> None:
        """Print the result, which was printed for people already."""
        if self.as_json:
            self._result(command, {"written": [], **facts})

    def fail(self, command: str | None, error: BaseException, message: str = "") -> None:
        """Say why the command ends without a result; all problems that the error knows, or facts, go with it."""
        message = message or str(error)
        if not self.as_json:
            print(f"napari-cpnn: {message}", file=sys.stderr)
            return
        why: Facts = {"type": type(error).__name__, "message": message}
        if problems := getattr(error, "problems", ()):
            why["problems"] = problems
        self._result(command, {**getattr(error, "facts", {}), "error": why})

    def _result(self, command: str | None, facts: Facts) -> None:
        whole = {"command": command, **facts, "warnings": self._warnings}
        print(json.dumps(json_value(whole), allow_nan=False), file=self._stdout, flush=True)

    def _warn(self, message: Warning | str, category: type[Warning], *_: Any) -> None:
        """Say a warning; one that is repeated for a slide is said once."""
        if issubclass(category, CpnnWarning) and str(message) not in self._warnings:
            self._warnings.append(str(message))
            if self.as_json:
                self._line({"warning": str(message)})
            else:
                self.note(f"warning: {message}")

    def _line(self, facts: Facts) -> None:
        print(json.dumps(json_value(facts), allow_nan=False), file=self._stderr, flush=True)


class _Steps:
    """Report progress as lines of JSON, about once a second: what is done, its share, and the time left."""

    def __init__(self, line: Callable[[Facts], None]) -> None:
        self._line = line
        self._done, self._began, self._said = 1.0, 0.0, 0.0

    def __call__(self, text: str, done: float) -> None:
        now = time.monotonic()
        if done < self._done - ROUNDING or self._done >= 1:  # another step has begun
            self._began = now
        elif now - self._said < _STEP_SECONDS and done < 1:
            return
        self._done, self._said = done, now
        left = round((now - self._began) * (1 - done) / done, 1) if done > 0 else None
        self._line({"progress": text, "done": round(done, 4), "seconds_left": left})


class _Notes(logging.Handler):
    """Hand on log messages of the package, such as the number of spots left out."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info:  # records with a traceback are raised as well, and reported then
            self._note(record.getMessage())


class _Nowhere(io.TextIOBase):
    """A text stream that forgets what is written."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _handling(handler: logging.Handler) -> Iterator[None]:
    """Let a handler, and no other, have what the package logs."""
    logger = logging.getLogger("napari_cpnn")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
