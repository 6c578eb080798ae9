"""Patches from readers to devices as fast as both can: a ring of batches, a thread per reader and per device."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.models import Prediction, is_device_lost
from napari_cpnn.slides import PatchRing, RingReader

#: Longest time in seconds between two reports of :meth:`Pipeline.run`.
_REPORT_SECONDS = 0.5


class Lane(Protocol):
    """A device that predicts batches; :class:`~napari_cpnn.prediction.DeviceStream` is one.

    Attributes
    ----------
    name
        Device, for messages.
    depth
        Batches that may be started before the oldest is finished.
    """

    @property
    def name(self) -> str: ...

    @property
    def depth(self) -> int: ...

    def start(self, images: npt.NDArray[np.uint8]) -> Any:
        """Give patches ``(n, S, S, 3)`` to the device."""
        ...

    def finish(self, flight: Any) -> Prediction[Float32Array]:
        """Wait for the oldest batch that was started, and return its ``n`` predictions."""
        ...


@dataclass(frozen=True, eq=False)
class Done:
    """A batch that is through.

    Attributes
    ----------
    number
        Its place among the batches.
    ok
        ``(n,)`` bool, which of its patches were readable.
    prediction
        Predictions of these; ``None`` if there are none.
    seconds
        Time that it took on its device, without that of the batch before.
    problem
        Why patches could not be read, or an empty text.
    """

    number: int
    ok: BoolArray
    prediction: Prediction[Float32Array] | None = None
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, eq=False)
class _Read:
    number: int
    slot: int
    ok: BoolArray
    problem: str


class Pipeline:
    """Read batches of patches with several readers, and predict them on several devices.

    A reader takes the next batch and a free slot of the ring; whichever device has room takes the batch that was read
    first, and the slot is free when its predictions are there. A device that is lost, or has no memory left for even
    one patch, is dropped with a :class:`CpnnWarning`, and the others compute its batches.

    Parameters
    ----------
    ring
        Slots; at least one for each reader and for each batch under way on a device keep all at work.
    readers
        What fills the slots; closed by :meth:`run`.
    lanes
        The devices.
    """

    def __init__(self, ring: PatchRing, readers: Sequence[RingReader], lanes: Sequence[Lane]) -> None:
        self._ring, self._readers, self._lanes = ring, readers, list(lanes)
        self._condition = threading.Condition()
        self._free = deque(range(ring.n_slots))
        self._todo: deque[tuple[int, FloatArray]] = deque()
        self._ready: deque[_Read] = deque()
        self._done: list[Done] = []
        self._left = 0  # batches that are not through
        self._stopped = False
        self._error: BaseException | None = None
        self._lost: list[str] = []

    def run(self, batches: Sequence[FloatArray]) -> Iterator[list[Done]]:
        """Yield what is through, about twice per second or more often, in the order in which batches are finished.

        Parameters
        ----------
        batches
            Centres ``(n, 2)`` of the patches of each batch, slide um; ``n`` is at most that of the ring.

        Raises
        ------
        MappingError
            If no device is left. What was yielded before is valid.
        SlideError
            If processes that read end again and again.
        """
        self._todo.extend(enumerate(batches))
        self._left = len(batches)
        work: list[tuple[Callable[[Any], None], Any]] = [(self._read, reader) for reader in self._readers]
        work += [(self._compute, lane) for lane in self._lanes]
        threads = [threading.Thread(target=self._guard, args=one, name="napari-cpnn map", daemon=True) for one in work]
        try:
            for thread in threads:
                thread.start()
            yield from self._results(len(batches))
        finally:
            with self._condition:
                self._stopped = True
                self._condition.notify_all()
            for reader in self._readers:
                reader.close()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _results(self, n_left: int) -> Iterator[list[Done]]:
        while n_left:
            with self._condition:
                self._condition.wait_for(lambda: self._done or self._error or self._lost, _REPORT_SECONDS)
                done, self._done = self._done, []
                lost, self._lost = self._lost, []
                error = self._error
            for text in lost:
                warnings.warn(text, CpnnWarning, stacklevel=4)
            n_left -= len(done)
            yield done
            if error is not None and n_left:
                raise error

    def _guard(self, work: Callable[[Any], None], one: Any) -> None:
        try:
            work(one)
        except Exception as error:  # noqa: BLE001 -- raised by run
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._condition:
            self._error = self._error or error
            self._condition.notify_all()

    def _read(self, reader: RingReader) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopped or not self._todo or self._free)
                if self._stopped or not self._todo:
                    return
                (number, centers), slot = self._todo.popleft(), self._free.popleft()
            ok, problem = reader.read(slot, centers)
            with self._condition:
                if ok.any():
                    self._ready.append(_Read(number, slot, ok, problem))
                else:
                    self._through(slot, Done(number, ok, problem=problem))
                self._condition.notify_all()

    def _through(self, slot: int, done: Done) -> None:
        """Free a slot and note what became of its batch (lock held)."""
        self._free.append(slot)
        self._done.append(done)
        self._left -= 1
        self._condition.notify_all()

    def _compute(self, lane: Lane) -> None:
        flights: deque[tuple[_Read, Any, float]] = deque()
        finished = 0.0
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopped or self._ready or flights or not self._left)
                if self._stopped or not (self._ready or flights):
                    return
                read = self._ready.popleft() if self._ready and len(flights) < lane.depth else None
            try:
                if read is not None:
                    began = time.monotonic()
                    flights.append((read, lane.start(self._ring[read.slot][: len(read.ok)]), began))
                    continue
                first, flight, began = flights[0]
                prediction = lane.finish(flight)
            except Exception as error:  # noqa: BLE001 -- raised by run, unless another device can do it
                self._drop(lane, [*(one for one, *_ in flights), *([] if read is None else [read])], error)
                return
            del flights[0], flight
            seconds, finished = time.monotonic() - max(began, finished), time.monotonic()
            if not first.ok.all():
                prediction = Prediction(*(part[first.ok] for part in prediction))
            with self._condition:
                self._through(first.slot, Done(first.number, first.ok, prediction, seconds, first.problem))

    def _drop(self, lane: Lane, batches: Sequence[_Read], error: Exception) -> None:
        """Go on without a device, if there are others and the fault is its own."""
        if not (is_device_lost(error) or isinstance(error, MappingError)):
            self._fail(error)
            return
        reason = str(error).splitlines()[0][:200].removesuffix(".")
        with self._condition:
            self._lanes.remove(lane)
            if self._lanes:
                self._ready.extendleft(reversed(batches))
                self._lost.append(f"{lane.name} is not used any more ({reason}); the map goes on without it.")
            else:
                self._error = self._error or MappingError(
                    f"No device is left to map on: {lane.name} failed ({reason})."
                )
                self._error.__cause__ = error
            self._condition.notify_all()
