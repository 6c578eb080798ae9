"""Slow work outside the GUI thread, with its result delivered in that thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from qtpy.QtCore import QEventLoop, QObject, Qt, Signal

from napari_cpnn.ui.frame.plain_text import plain
from napari_cpnn.ui.frame.tasks import as_cpnn_error

T = TypeVar("T")


class QtBackground(QObject):
    """Thread pool that calls back in the GUI thread, where it must be created.

    It has no parent on purpose: a result may arrive after the dock is gone.
    """

    _finished = Signal(object, object, object)

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="napari-cpnn ui")
        # Always queued: an immediate result must not arrive before the caller is ready for it.
        self._finished.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        try:
            future = self._pool.submit(work)
        except RuntimeError:  # the program is ending: no thread can be started, and nobody waits for a result
            work()
            return
        future.add_done_callback(lambda f: self._finished.emit(f, done, failed))

    def close(self, *, wait: bool = False) -> None:
        """Accept no more work; running work ends by itself, or is waited for."""
        self._pool.shutdown(wait=wait)

    def _deliver(
        self, future: Future[Any], done: Callable[[Any], None], failed: Callable[[BaseException], None]
    ) -> None:
        error = future.exception()
        if error is None:
            done(future.result())
        else:
            failed(as_cpnn_error(error) if isinstance(error, Exception) else error)


def run_with_live_window(work: Callable[[], T], text: str) -> T:
    """Run ``work`` in a thread and return its result, while the window keeps responding and shows ``text``.

    napari expects the layers of a sample, and the files of a writer, as a return value, so this must wait; a download
    or a large file must not freeze the window.
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

    with progress(total=0, desc=plain(text)):
        background(work, done, failed)
        loop.exec()
    background.close()
    if errors:
        raise errors[0]
    return results[0]
