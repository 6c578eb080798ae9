"""How a command is ended from outside: whoever asks it to end, it cleans up as after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Of a scheduler or a shutdown, and of a terminal that is closed; Windows has neither.
_ENDINGS = ("SIGTERM", "SIGHUP")


class Ended:
    """Which signal has ended a command.

    Attributes
    ----------
    by
        Its number; Ctrl-C until another one comes.
    """

    def __init__(self) -> None:
        self.by = int(signal.SIGINT)

    @contextmanager
    def like_ctrl_c(self, has_window: bool = False) -> Iterator[None]:
        """While inside, what asks the program to end does what Ctrl-C does.

        A signal that the program was started to ignore (``nohup``) stays ignored. A command that ``has_window`` is
        left as it is: the loop of a window does not listen to Python.
        """
        if has_window or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {}
        for name in _ENDINGS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, self._end)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.by = number
        handler = signal.getsignal(signal.SIGINT)  # a run in training ends after the present batch
        if not callable(handler):  # a shell starts programs in the background with Ctrl-C ignored
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)
