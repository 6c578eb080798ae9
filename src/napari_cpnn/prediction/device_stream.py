"""Batches of one fixed size on one device: while one is computed, the next is on its way there.

On a GPU, uint8 patches are copied by a stream of their own from pinned memory into one of two buffers on the device,
and are normalised and computed there; results go to pinned memory. The program only waits where it takes a result, when
the next batch is under way already, so that the device is never without work. Nothing of this changes the numbers.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.models import Prediction, is_out_of_memory
from napari_cpnn.prediction.predictor import Predictor

if TYPE_CHECKING:
    import torch

#: Buffers on a GPU: one is computed while the next is filled.
_BUFFERS = 2


@dataclass(eq=False)
class Flight:
    """A batch that was given to a device: ``n`` patches, their results, and the event after which these are there."""

    n: int
    parts: list[Prediction[torch.Tensor]]
    done: Any = None


class DeviceStream:
    """Predict batches of patches of a model without surroundings, the next on its way while one is computed.

    Parameters
    ----------
    predictor
        The model on its device.
    batch
        Most patches of a batch. Smaller batches are padded on a GPU, so that all have one shape.
    graph
        Record the network as a CUDA graph, which is then started as a whole; for small networks on fast cards. Where it
        cannot be recorded, a :class:`CpnnWarning` says so.
    padded
        Whether smaller batches are padded; ``None``: on a GPU.

    Attributes
    ----------
    name
        Device and arithmetic, for messages.
    step
        Patches computed together: the batch, halved each time that the memory of the device did not suffice.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.prediction import DeviceStream, Predictor
    >>> stream = DeviceStream(Predictor(model), batch=4)
    >>> flights = [stream.start(np.full((3, 224, 224, 3), grey, np.uint8)) for grey in (80, 160)]
    >>> [stream.finish(flight).weights.shape for flight in flights]
    [(3, 8), (3, 8)]
    """

    #: Batches that may be started before the oldest is finished.
    depth = _BUFFERS

    def __init__(self, predictor: Predictor, batch: int, *, graph: bool = False, padded: bool | None = None) -> None:
        self.predictor = predictor
        self.step = self._batch = batch
        is_cuda = predictor.device.type == "cuda"
        self._padded = is_cuda if padded is None else padded
        self._copies: _Copies | None = _Copies(predictor.device) if is_cuda else None
        self._wants_graph = graph and is_cuda
        self._graph: Callable[[torch.Tensor], Prediction[torch.Tensor]] | None = None
        self.name = predictor.description + (f" ({self._copies.device})" if self._copies else "")

    def start(self, images: npt.NDArray[np.uint8]) -> Flight:
        """Give patches ``(n, S, S, 3)``, at most a batch, to the device; they must not change until :meth:`finish`.

        Raises
        ------
        MappingError
            If not even one patch fits into the memory of the device.
        """
        while True:
            try:
                return self._started(images)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.step == 1:
                    raise self.predictor.has_no_room() from error
            self.step, self._graph = self.step // 2, None
            self.predictor.free_memory()

    def finish(self, flight: Flight) -> Prediction[Float32Array]:
        """Wait for a batch, in the order in which they were started, and return its ``n`` predictions."""
        if flight.done is not None:
            flight.done.synchronize()
        columns = zip(*flight.parts, strict=True)
        return Prediction(*(np.concatenate([part.numpy() for part in column])[: flight.n] for column in columns))

    def _started(self, images: npt.NDArray[np.uint8]) -> Flight:
        import torch

        n = len(images)
        with torch.inference_mode():
            if self._copies is not None:
                with self._copies.arriving(images, self._batch) as batch:
                    parts = [self._copies.back(part) for part in self._parts(batch, n)]
                    return Flight(n, parts, self._copies.mark())
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.predictor.device)
            if self._padded and n < self._batch:
                batch = torch.cat([batch, batch.new_zeros((self._batch - n, *batch.shape[1:]))])
            return Flight(n, [Prediction(*(p.cpu() for p in part)) for part in self._parts(batch, n)])

    def _parts(self, batch: torch.Tensor, n: int) -> list[Prediction[torch.Tensor]]:
        """Predictions of the first ``n`` rows of a batch, `step` rows at a time."""
        starts = range(0, n, self.step)
        rows = [batch[start : start + self.step] for start in starts]
        if self._wants_graph and len(batch) % self.step == 0:
            return [self._by_graph(part) for part in rows]
        return [self.predictor.compute(part) for part in rows]

    def _by_graph(self, part: torch.Tensor) -> Prediction[torch.Tensor]:
        if self._graph is None:
            try:
                self._graph = record(self.predictor, part)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._wants_graph = False
                reason = str(error).splitlines()[0][:200]
                warnings.warn(
                    f"{self.name}: the network cannot be recorded as a CUDA graph ({reason}); it runs without.",
                    CpnnWarning,
                    stacklevel=2,
                )
                return self.predictor.compute(part)
        return self._graph(part)


def record(predictor: Predictor, example: torch.Tensor) -> Callable[[torch.Tensor], Prediction[torch.Tensor]]:
    """Record a predictor for batches like ``example`` as a CUDA graph, on the stream that is current."""
    import torch

    given = example.clone()
    for _ in range(3):  # what is chosen and allocated at first must not be recorded
        predictor.compute(given)
    torch.cuda.current_stream().synchronize()
    graph = torch.cuda.CUDAGraph()
    # Other threads may copy, and compute on other devices, meanwhile.
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        results = predictor.compute(given)

    def play(part: torch.Tensor) -> Prediction[torch.Tensor]:
        given.copy_(part, non_blocking=True)
        graph.replay()
        return Prediction(*(values.clone() for values in results))  # the next batch is written over them

    return play


@contextlib.contextmanager
def pinned(array: npt.NDArray[np.uint8], device: torch.device) -> Iterator[None]:
    """Lock the memory of an array in which batches arrive, so that GPUs copy from it beside their work.

    On other devices nothing is done. If it cannot be locked, a :class:`CpnnWarning` says so: copies then take longer.
    """
    if device.type != "cuda":
        yield
        return
    import torch

    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    code = int(runtime.cudaHostRegister(array.ctypes.data, array.nbytes, 1))  # 1: for all GPUs
    if code:
        warnings.warn(
            f"{array.nbytes / 2**20:,.0f} MB of memory cannot be locked for the GPU (CUDA error {code}); copying to it "
            "takes longer.",
            CpnnWarning,
            stacklevel=3,
        )
    try:
        yield
    finally:
        if not code:
            runtime.cudaHostUnregister(array.ctypes.data)


class _Copies:
    """Copying to and from a GPU beside its work; CUDA only."""

    def __init__(self, device: torch.device) -> None:
        import torch

        if ":" not in str(device):  # another thread may have another current device
            device = torch.device("cuda", torch.cuda.current_device())
        self.device, self._turn = device, 0
        self._stream, self._work = torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers: list[torch.Tensor] = []
        self._free = [torch.cuda.Event() for _ in range(_BUFFERS)]  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def arriving(self, images: npt.NDArray[np.uint8], batch: int) -> Iterator[torch.Tensor]:
        """Patches ``(batch, S, S, 3)`` on the device, in a block on the stream of its work.

        The rows after ``images`` are those of an earlier batch.
        """
        import torch

        with torch.cuda.device(self.device):
            if not self._buffers:
                shape = (batch, *images.shape[1:])
                self._buffers = [torch.zeros(shape, dtype=torch.uint8, device=self.device) for _ in range(_BUFFERS)]
                torch.cuda.current_stream().synchronize()
            self._turn = (self._turn + 1) % _BUFFERS
            buffer, free = self._buffers[self._turn], self._free[self._turn]
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(free)
                buffer[: len(images)].copy_(torch.from_numpy(images), non_blocking=True)
                arrived.record(self._stream)
            with torch.cuda.stream(self._work):
                self._work.wait_event(arrived)
                try:
                    yield buffer
                finally:
                    free.record(self._work)

    def back(self, part: Prediction[torch.Tensor]) -> Prediction[torch.Tensor]:
        """Send results to pinned memory; they are there after :meth:`mark`."""
        import torch

        def sent(values: torch.Tensor) -> torch.Tensor:
            place = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            return place.copy_(values, non_blocking=True)

        return Prediction(*(sent(values) for values in part))

    def mark(self) -> Any:
        import torch

        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(self._work)
        return done
