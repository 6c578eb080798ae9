"""Handle termination signals like Ctrl-C, so that commands clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Sent by schedulers, at shutdown, or when a terminal is closed; Windows has neither.
_ENDINGS = ("SIGTERM", "SIGHUP")


class Ended:
    """The signal that ended a command.

    Attributes
    ----------
    by
        Signal number; that of Ctrl-C by default.
    asked
        Whether it came. What was running then may say something else: libraries that are not written in Python can make
        an error of their own of it, such as that of a damaged file.
    """

    def __init__(self) -> None:
        self.by, self.asked = int(signal.SIGINT), False

    @contextmanager
    def like_ctrl_c(self, has_window: bool = False) -> Iterator[None]:
        """Context manager in which termination signals act like Ctrl-C.

        Signals that the process was started to ignore (``nohup``) stay ignored. Commands with a window (``has_window``)
        are unchanged, since the GUI's event loop does not run Python's signal handlers.
        """
        if has_window or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            previous[int(signal.SIGINT)] = signal.signal(signal.SIGINT, self._interrupt)
        for name in _ENDINGS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, self._end)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.default_int_handler(number, frame)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.by = number
        handler = signal.getsignal(signal.SIGINT)  # a training run stops after the current batch
        if not callable(handler):  # background processes of a shell ignore Ctrl-C
            self.asked = True
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)
