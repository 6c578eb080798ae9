"""Slow work outside the GUI thread, with the answer delivered in it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from qtpy.QtCore import QEventLoop, QObject, Qt, Signal

from napari_cpnn.ui.frame.plain_text import plain
from napari_cpnn.ui.frame.tasks import in_a_sentence

T = TypeVar("T")


class Background(Protocol):
    """Runs a function outside the GUI thread and calls back in it."""

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None: ...


class QtBackground(QObject):
    """Runs functions in a few threads; made in the GUI thread, it calls back there.

    It has no parent on purpose: an answer may arrive after the dock is gone.
    """

    _finished = Signal(object, object, object)

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="napari-cpnn ui")
        # Always queued: an answer that is there at once must not come before the asker is ready for it.
        self._finished.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        try:
            future = self._pool.submit(work)
        except RuntimeError:  # the program is ending: no thread can be begun, and nobody waits for an answer
            work()
            return
        future.add_done_callback(lambda f: self._finished.emit(f, done, failed))

    def close(self, *, wait: bool = False) -> None:
        """Take no more work; what is under way ends by itself, or is waited for."""
        self._pool.shutdown(wait=wait)

    def _deliver(
        self, future: Future[Any], done: Callable[[Any], None], failed: Callable[[BaseException], None]
    ) -> None:
        error = future.exception()
        if error is None:
            done(future.result())
        else:
            failed(in_a_sentence(error) if isinstance(error, Exception) else error)


def while_screen_lives(work: Callable[[], T], what: str) -> T:
    """Run ``work`` in a thread and wait for it here, with the window still answering.

    napari wants the layers of a sample, and the files of a writer, as a return value, so this must wait; a download or
    a large file must not freeze the window.
    """
    from napari.utils import progress

    results: list[T] = []
    errors: list[BaseException] = []
    loop = QEventLoop()
    background = QtBackground()

    def done(result: T) -> None:
        results.append(result)
        loop.quit()

    def failed(error: BaseException) -> None:
        errors.append(error)
        loop.quit()

    with progress(total=0, desc=plain(what)):
        background(work, done, failed)
        loop.exec()
    background.close()
    if errors:
        raise errors[0]
    return results[0]
