"""What later actions need is imported and compiled beside the event loop, once per process. No Qt here."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

_LOG = logging.getLogger(__name__)

#: How much less than the GUI thread the steps get of a busy processor, where threads have priorities (Linux).
_NICENESS = 5

#: How long the end of the program waits for a step that runs.
_PATIENCE_S = 10.0


class WarmUp:
    """Steps of work that only make something later quick, one after another in a thread of their own.

    Each is done once, however often it is asked for. One that fails is left out: whoever needs it will see the reason.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: set[Callable[[], object]] = set()
        self._waiting: list[Callable[[], object]] = []
        self._thread: threading.Thread | None = None

    def add(self, *steps: Callable[[], object]) -> None:
        """Do these steps after those that wait."""
        with self._lock:
            new = [step for step in steps if step not in self._asked]
            self._asked.update(new)
            self._waiting += new
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="napari-cpnn warm-up", daemon=True)
                self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether there are steps that are not done."""
        return self._thread is not None

    def stop(self) -> None:
        """Leave out what waits, and wait for what runs."""
        with self._lock:
            self._waiting.clear()
            thread = self._thread
        if thread is not None:
            thread.join(_PATIENCE_S)

    def _run(self) -> None:
        if sys.platform == "linux":
            thread = threading.get_native_id()
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS))
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                step = self._waiting.pop(0)
            try:
                step()
            except Exception:  # noqa: BLE001 -- nobody waits for it
                _LOG.debug("a step of the warm-up failed", exc_info=True)


WARM_UP = WarmUp()
"""The one of this process."""

atexit.register(WARM_UP.stop)


def imports(face: str, *names: str) -> Sequence[Callable[[], object]]:
    """Return steps that load names of a lazy face; the same names give equal steps."""
    return [_Import(face, name) for name in names]


class _Import:
    def __init__(self, face: str, name: str) -> None:
        self._what = face, name

    def __call__(self) -> object:
        from importlib import import_module

        return getattr(import_module(self._what[0]), self._what[1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Import) and other._what == self._what

    def __hash__(self) -> int:
        return hash(self._what)
