"""Batches of one size on one device. What only a GPU has, streams that run beside each other, is played on a CPU."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fakes import ColorModel
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import choose_devices, is_device_lost, is_out_of_memory
from napari_cpnn.prediction import DeviceStream, Predictor, device_stream, pinned

IMAGES = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
BATCHES = [IMAGES[:8], IMAGES[8:16], IMAGES[16:]]


def streamed(stream: DeviceStream) -> list[np.ndarray]:
    """All batches, two at a time under way, as columns."""
    flights, parts = [], []
    for images in BATCHES:
        flights.append(stream.start(images))
        if len(flights) == stream.depth:
            parts.append(stream.finish(flights.pop(0)))
    parts += [stream.finish(flight) for flight in flights]
    assert [len(part.weights) for part in parts] == [8, 8, 4]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def network():
    from napari_cpnn.models import build_model
    from napari_cpnn.settings import TrainingSettings

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    settings = TrainingSettings(backbone="he-small", weights="none", n_programs=2, patch=PatchSpec(224, 1.0))
    genes = [f"G{i}" for i in range(30)]
    return build_model(settings, genes, list("ABCD"), rng.dirichlet(np.ones(30), 4).astype(np.float32), np.ones(30))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_predictions_are_those_of_a_predictor_bit_for_bit(padded, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    predictor = Predictor(network().eval(), "cpu", "float32", engine=engine)
    expected = predictor.predict(IMAGES)
    for column, wanted in zip(streamed(DeviceStream(predictor, 8, padded=padded)), expected, strict=True):
        assert column.dtype == np.float32
        np.testing.assert_allclose(column, wanted, atol=1e-5)  # as models.chunks promises
        if engine == "torch":
            np.testing.assert_array_equal(column, wanted)


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_a_batch_that_exceeds_the_memory_is_halved_and_the_answers_are_the_same(model, limit):
    sizes = []

    class Small(ColorModel):
        def forward(self, x):
            if len(x) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            sizes.append(len(x))
            return super().forward(x)

    stream = DeviceStream(Predictor(Small().eval(), "cpu", "float32"), 8, padded=True)
    weights, *_ = streamed(stream)
    expected = Predictor(model, "cpu", "float32").predict(IMAGES).weights
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert set(sizes) == {stream.step}
    assert stream.step <= limit < 2 * stream.step


def test_no_room_for_one_patch_is_one_sentence():
    class Full(ColorModel):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    stream = DeviceStream(Predictor(Full().eval(), "cpu", "float32"), 8)
    with pytest.raises(MappingError, match="CPU float32: not enough memory for one patch"):
        stream.start(IMAGES[:8])


class Stream:
    """Work in order that is done when somebody waits for it or, if ``eager``, as soon as what it waits for is done."""

    def __init__(self, eager: bool) -> None:
        self.work, self.done, self.eager = [], 0, eager

    def append(self, work) -> None:
        self.work.append(work)
        if self.eager:
            self.run(len(self.work))

    def wait_event(self, event) -> None:
        if event.stream is not None:
            stream, at = event.stream, event.at
            self.append(lambda: stream.run(at))

    def synchronize(self) -> None:
        self.run(len(self.work))

    def run(self, until: int) -> None:
        while self.done < until:
            self.done += 1
            with torch.inference_mode():
                self.work[self.done - 1]()


class Event:
    stream, at, waits = None, 0, 0

    def __init__(self, blocking: bool = False) -> None:
        self.blocking = blocking

    def record(self, stream) -> None:
        self.stream, self.at = stream, len(stream.work)

    def synchronize(self) -> None:
        assert self.blocking  # else the wait would take a core
        Event.waits += 1
        self.stream.run(self.at)


class Late:
    """A tensor whose pixels arrive when the stream of the copies gets there."""

    def __init__(self, place, streams) -> None:
        self.place, self.streams = place, streams

    def __getitem__(self, rows) -> Late:
        return Late(self.place[rows], self.streams)

    def __len__(self) -> int:
        return len(self.place)

    def copy_(self, images, non_blocking) -> None:
        assert non_blocking
        self.streams[-1].append(lambda: self.place.copy_(images))


@pytest.fixture(params=["copies early, work late", "copies late, work early"])
def late(request, monkeypatch, model) -> DeviceStream:
    """A device whose two streams run as far apart as their events allow, as those of a GPU may."""
    made, streams = [], [Stream(eager=True)]  # the current one is the last

    def stream(_) -> Stream:
        made.append(Stream(eager=request.param.startswith("copies early") == (not made)))
        return made[-1]

    @contextlib.contextmanager
    def on(stream):
        streams.append(stream)
        yield
        streams.pop()

    zeros = torch.zeros
    replaced = {
        "Stream": stream, "Event": Event, "device": lambda _: contextlib.nullcontext(),
        "stream": on, "current_stream": lambda: streams[-1],
    }  # fmt: skip
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(
        torch, "zeros", lambda *a, device=None, **k: Late(zeros(*a, **k), streams) if device else zeros(*a, **k)
    )
    predictor = Predictor(model, "cpu", "float32")
    compute = predictor.compute

    def later(batch: Late):
        results = compute(torch.zeros(len(batch), 32, 32, 3, dtype=torch.uint8))

        def work() -> None:
            for place, part in zip(results, compute(batch.place), strict=True):
                place.copy_(part)

        streams[-1].append(work)
        return results

    monkeypatch.setattr(predictor, "compute", later)
    found = DeviceStream(predictor, 8, padded=True)
    found._copies = device_stream._Copies("cuda:0")
    monkeypatch.setattr(found._copies, "back", lambda part: part)
    return found


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_copies_and_work_on_two_streams_never_overtake_each_other(late, model, depth):
    late.depth = depth
    before = Event.waits
    weights, *_ = streamed(late)
    np.testing.assert_allclose(weights, Predictor(model, "cpu", "float32").predict(IMAGES).weights, atol=1e-6)
    assert Event.waits == before + 3  # for results only


def test_a_network_that_cannot_be_recorded_runs_without_and_says_so(late, model, monkeypatch):
    def fails(*_):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")

    monkeypatch.setattr(device_stream, "record", fails)
    late._wants_graph = True
    with pytest.warns(CpnnWarning, match=r"cannot be recorded as a CUDA graph \(CUDA error: .* capturing\)") as heard:
        weights, *_ = streamed(late)
    assert len(heard) == 1
    np.testing.assert_allclose(weights, Predictor(model, "cpu", "float32").predict(IMAGES).weights, atol=1e-6)


def test_a_recorded_network_gives_each_batch_its_own_results(model, monkeypatch):
    predictor = Predictor(model, "cpu", "float32")
    compute, recording, n_computed = predictor.compute, [], []

    class Graph:
        def replay(self) -> None:
            with torch.inference_mode():
                for place, part in zip(self.results, compute(self.given), strict=True):
                    place.copy_(part)

    @contextlib.contextmanager
    def graph(one, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        recording.append(one)
        yield
        recording.pop()

    def computed(batch):
        n_computed.append(len(batch))
        if recording:  # nothing runs while a graph is recorded, and its input and results stay where they are
            recording[0].given, recording[0].results = batch, compute(torch.zeros_like(batch))
            return recording[0].results
        return compute(batch)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(eager=True))
    monkeypatch.setattr(predictor, "compute", computed)
    stream = DeviceStream(predictor, 8, padded=True)
    stream._wants_graph = True
    weights, *_ = streamed(stream)
    np.testing.assert_allclose(weights, Predictor(model, "cpu", "float32").predict(IMAGES).weights, atol=1e-6)
    assert n_computed == [8] * 4  # three to warm up, one recorded; then it is replayed


def test_memory_of_batches_is_locked_for_all_gpus_and_unlocked_again(monkeypatch):
    calls = []

    def register(place, size, flags):
        calls.append((place, size, flags))
        return len(calls) - 1  # the second time it fails

    runtime = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=calls.append)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    place = IMAGES.ctypes.data
    with pytest.raises(KeyError), pinned(IMAGES, torch.device("cuda")):
        raise KeyError
    assert calls == [(place, IMAGES.nbytes, 1), place]
    with (
        pytest.warns(CpnnWarning, match=r"cannot be locked for the GPU \(CUDA error 2\)"),
        pinned(IMAGES, torch.device("cuda")),
    ):
        pass
    assert len(calls) == 3
    with pinned(IMAGES, torch.device("cpu")):
        pass
    assert len(calls) == 3


def test_devices_of_one_slide(monkeypatch):
    assert [str(d) for d in choose_devices("cpu", 0)] == ["cpu"]
    monkeypatch.setattr("napari_cpnn.models.devices.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [d.index for d in choose_devices("cuda", 1)] == [1]
    assert [d.index for d in choose_devices("cuda", 0)] == [1, 0, 2, 3]
    assert [d.index for d in choose_devices("cuda:2", 0)] == [2, 3]
    with pytest.raises(MappingError, match="3 GPUs are asked for, and from cuda:2 on there are 2"):
        choose_devices("cuda:2", 3)


def test_a_lost_device_is_told_from_other_errors():
    lost = RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous")
    assert is_device_lost(lost)
    assert not is_device_lost(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_device_lost(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not is_device_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_device_lost(ValueError("CUDA error"))
