"""Whole slides at the speed of the device: reader processes, several devices, and what happens when one is lost."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coloured_slide import image, model, slide
from fakes import COLORS, PATCH, ColorModel, settings
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.mapping import DONE, FAILED, LiveMapper, predict_map
from napari_cpnn.mapping import streamed as module
from napari_cpnn.mapping.pipeline import Pipeline
from napari_cpnn.models import Prediction
from napari_cpnn.prediction import DeviceStream, Predictor
from napari_cpnn.samples import sample_folder
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import PatchReader, PatchRing, ReaderThread, open_slide
from slide_files import write_tiff

__all__ = ["image", "model", "slide"]


@pytest.fixture
def path(tmp_path, image):
    return write_tiff(
        tmp_path / "coloured.tif", image, tile=(64, 64), resolution=(10_000, 10_000), resolutionunit="CENTIMETER"
    )


class StandIn:
    """A device that knows the colours, without torch; ``breaks`` says when it fails."""

    depth = 2

    def __init__(self, name="card", breaks=None):
        self.name, self.breaks, self.started, self.finished = name, breaks, 0, 0

    def start(self, images):
        self.started += 1
        return images

    def finish(self, images):
        if self.breaks is not None:
            self.breaks(self)
        self.finished += 1
        colour = images.mean(axis=(1, 2), dtype=np.float64)
        near = np.exp(-np.linalg.norm(colour[:, None] - COLORS, axis=2) / 20)
        weights = (near / near.sum(axis=1, keepdims=True)).astype(np.float32)
        programs = (colour[:, :1] / 255).astype(np.float32)
        return Prediction(weights, programs, (colour.mean(axis=1) / 300).astype(np.float32))


class CardError(RuntimeError):
    """What torch raises of a card that is gone."""


def gone(_):
    raise CardError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`")


def expected(slide, model):
    return predict_map(slide, model, settings=settings(cache=False))


def assert_same(cmap, other):
    np.testing.assert_array_equal(cmap.state, other.state)
    for part in ("weights", "programs", "out_of_domain"):
        ours, theirs = (getattr(one, part).astype(float) for one in (cmap, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)  # float16; products of another size round differently


def test_reader_processes_give_the_same_map_and_tell_their_progress(path, model):
    heard = []
    with open_slide(path) as slide:
        chosen = settings(cache=False, reader_processes=2, max_batch=64)
        cmap = predict_map(slide, model, settings=chosen, on_progress=heard.append)
        assert_same(cmap, expected(slide, model))
    assert heard[-1].idle
    assert heard[-1].done == heard[-1].wanted == cmap.tissue.sum()
    assert all(a.done <= b.done for a, b in pairwise(heard))


def test_of_a_real_network_the_map_is_the_same_bit_for_bit():
    from napari_cpnn.models import build_model
    from napari_cpnn.settings import TrainingSettings

    torch.manual_seed(0)
    kind = TrainingSettings(backbone="squeezenet", weights="none", n_programs=2, patch=PatchSpec(64, 1.0))
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(30)]
    network = build_model(kind, genes, list("ABCD"), rng.dirichlet(np.ones(30), 4).astype(np.float32), np.ones(30))
    plain = MappingSettings(device="cpu", precision="float32", engine="torch", cache=False)
    with open_slide(sample_folder() / "slide.tiff") as slide:
        one, other = (
            predict_map(slide, network.eval(), region=(2000, 2000, 2400, 2400), settings=chosen)
            for chosen in (plain, plain.replace(reader_processes=2, max_batch=12))
        )
    assert (one.state == DONE).sum() > 24
    for part in ("weights", "programs", "state"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_several_devices_share_a_slide(slide, model):
    met = threading.Barrier(3)

    def all_three(lane):
        if not lane.finished:
            met.wait(30)  # each of them has a first batch

    lanes = [StandIn(f"card {i}", all_three) for i in range(3)]
    with LiveMapper(slide, model, settings(cache=False, max_batch=16)) as mapper:
        assert module.fill(mapper, lanes) == ""
    assert_same(mapper.map, expected(slide, model))
    assert sum(lane.finished for lane in lanes) == -(-int(mapper.map.tissue.sum()) // 16)


def test_a_card_that_is_lost_is_dropped_and_the_others_compute_its_batches(slide, model):
    broken = threading.Event()

    def second_time(lane):
        if lane.finished:
            broken.set()
            gone(lane)

    def when_the_other_is_gone(_):
        assert broken.wait(30)

    lanes = [StandIn("card 0", when_the_other_is_gone), StandIn("card 1", second_time)]
    with (
        LiveMapper(slide, model, settings(cache=False, max_batch=16)) as mapper,
        pytest.warns(CpnnWarning, match=r"card 1 is not used any more \(CUDA error: unspecified launch failure\)"),
    ):
        module.fill(mapper, lanes)
    assert lanes[1].started > lanes[1].finished == 1
    assert_same(mapper.map, expected(slide, model))


def test_when_no_card_is_left_it_is_one_sentence_and_the_map_so_far_is_kept(slide, model, tmp_path):
    def third_time(lane):
        if lane.finished == 2:
            gone(lane)

    chosen = settings(cache_dir=str(tmp_path), max_batch=16)
    with LiveMapper(slide, model, chosen) as mapper, pytest.raises(MappingError) as caught:
        module.fill(mapper, [StandIn("card", third_time)])
    assert str(caught.value) == (
        "Mapping coloured failed: No device is left to map on: card failed (CUDA error: unspecified launch failure). "
        "What was mapped until then is kept, and the next run goes on from there."
    )
    assert isinstance(caught.value.__cause__.__cause__, CardError)
    lane = StandIn()
    with LiveMapper(slide, model, chosen) as mapper:
        assert (mapper.map.state == DONE).sum() == 32
        module.fill(mapper, [lane])
    assert lane.finished == -(-(int(mapper.map.tissue.sum()) - 32) // 16)
    assert_same(mapper.map, expected(slide, model))


def test_a_card_without_room_is_dropped_too_but_a_bug_is_not_taken_for_a_lost_card(slide, model):
    def full(_):
        raise MappingError("card 1: not enough memory for one patch; close other programs or use the CPU.")

    def bug(_):
        raise RuntimeError("size mismatch")

    with (
        LiveMapper(slide, model, settings(cache=False, max_batch=16)) as mapper,
        pytest.raises(MappingError, match=r"failed: size mismatch$"),
    ):
        module.fill(mapper, [StandIn("card 0", bug), StandIn("card 1", bug)])
    met = threading.Barrier(2)

    def both(lane):
        if not lane.finished:
            met.wait(30)
        if lane.name == "card 1":
            full(lane)

    with (
        LiveMapper(slide, model, settings(cache=False, max_batch=16)) as mapper,
        pytest.warns(CpnnWarning, match="card 1 is not used any more .*not enough memory"),
    ):
        module.fill(mapper, [StandIn("card 0", both), StandIn("card 1", both)])
    assert_same(mapper.map, expected(slide, model))


def test_memory_of_one_of_two_devices_is_halved_there_only(slide, model):
    class Small(ColorModel):
        def forward(self, x):
            if len(x) > 5:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().forward(x)

    lanes = [DeviceStream(Predictor(one.eval(), "cpu", "float32"), 16) for one in (Small(), model)]
    with LiveMapper(slide, model, settings(cache=False, max_batch=16)) as mapper:
        module.fill(mapper, lanes)
    assert_same(mapper.map, expected(slide, model))
    assert lanes[1].step == 16
    assert lanes[0].step in (4, 16)  # 16: the other took all batches


def test_patches_that_cannot_be_read_are_failed_and_the_others_are_right(slide, model, monkeypatch):
    whole = expected(slide, model)
    read_into = PatchReader.read_into

    def partly(self, centers, images):
        read_into(self, centers, images)
        return centers[:, 1] > 200

    monkeypatch.setattr(PatchReader, "read_into", partly)
    with LiveMapper(slide, model, settings(cache=False, max_batch=16)) as mapper:
        module.fill(mapper, [StandIn()])
    cmap = mapper.map
    rows, cols = np.nonzero(cmap.tissue)
    failed = cmap.grid.centers_um(np.stack([rows, cols], axis=1))[:, 1] <= 200
    assert 0 < failed.sum() < len(rows)
    assert ((cmap.state[rows, cols] == FAILED) == failed).all()
    done = cmap.state == DONE
    np.testing.assert_allclose(cmap.weights[done].astype(float), whole.weights[done].astype(float), atol=1e-3)


def test_a_file_that_is_gone_is_said_and_leaves_no_memory_behind(path, model, monkeypatch):
    names = []

    class Watched(PatchRing):
        def __init__(self, *sizes, **options):
            super().__init__(*sizes, **options)
            names.append(self.name)

    monkeypatch.setattr(module, "PatchRing", Watched)
    with open_slide(path) as slide, LiveMapper(slide, model, settings(cache=False, reader_processes=1)) as mapper:
        path.unlink()
        problem = module.map_streamed(mapper, model)
    assert problem == "608 patches could not be read from coloured."
    assert (mapper.map.state[mapper.map.tissue] == FAILED).all()
    assert len(names) == 1
    assert not Path("/dev/shm", names[0]).exists()


def test_what_progress_raises_ends_the_map_and_the_threads(slide, model):
    class StopError(Exception):
        pass

    def stop(_):
        raise StopError

    n = threading.active_count()
    with LiveMapper(slide, model, settings(cache=False, max_batch=16)) as mapper, pytest.raises(StopError):
        module.fill(mapper, [StandIn()], stop)
    assert threading.active_count() == n


def test_slots_are_used_again_and_a_batch_waits_for_one(slide):
    n_batches, ring = 9, PatchRing(2, 4, 32, shared=False)
    reader = ReaderThread(PatchReader(slide, PATCH), ring)
    lane = StandIn()
    centers = [np.full((4, 2), 100.0 + 32 * i) for i in range(n_batches)]
    done = [one for some in Pipeline(ring, [reader, reader], [lane]).run(centers) for one in some]
    assert sorted(one.number for one in done) == list(range(n_batches))
    by_number = {one.number: one.prediction.programs[0, 0] for one in done}
    images, _ = PatchReader(slide, PATCH).read([c[0] for c in centers])
    np.testing.assert_allclose(
        [by_number[i] for i in range(n_batches)], images[..., 0].mean(axis=(1, 2)) / 255, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("backend", "device", "cores", "share", "asked", "wanted"),
    [
        ("tifffile", "cpu", 16, 1, -1, 0),
        ("tifffile", "cuda", 16, 1, -1, 15),
        ("tifffile", "cuda", 16, 1 / 2, -1, 7),
        ("tifffile", "cuda", 16, 1 / 8, -1, 0),
        ("tifffile", "cuda", 4, 1, -1, 3),
        ("tifffile", "cuda", 3, 1, -1, 0),
        ("tifffile", "cuda", 200, 1, -1, 32),
        ("arrays", "cuda", 16, 1, -1, 0),
        ("tifffile", "cuda", 16, 1, 0, 0),
        ("tifffile", "cpu", 2, 1, 3, 3),
    ],
)
def test_processes_read_where_they_help(slide, monkeypatch, backend, device, cores, share, asked, wanted):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    slide.backend = backend
    assert module.n_processes(slide, settings(reader_processes=asked), device, share) == wanted


@pytest.mark.parametrize(
    ("device", "kind", "changes", "wanted"),
    [
        ("cpu", "patch", {}, False),
        ("cpu", "patch", {"reader_processes": 2}, True),
        ("cpu", "surroundings", {"reader_processes": 2}, False),
        ("cpu", "patch", {"n_gpus": 0}, False),
        ("cuda", "patch", {}, False),
        ("cuda", "patch", {"reader_processes": -1}, True),
        ("cpu", "patch", {"reader_processes": -1}, False),
        ("cuda", "patch", {"n_gpus": 2}, True),
        ("cuda", "surroundings", {}, False),
    ],
)
def test_which_slides_are_mapped_this_way(device, kind, changes, wanted):
    mapper = SimpleNamespace(predictor=SimpleNamespace(device=torch.device(device)), settings=settings(**changes))
    assert module.is_streamed(mapper, SimpleNamespace(input_kind=kind)) == wanted


def test_without_shared_memory_threads_read_unless_processes_were_asked_for(slide, model, monkeypatch):
    from napari_cpnn.errors import SlideError

    class Full(PatchRing):
        def __init__(self, *sizes, shared):
            if shared:
                raise SlideError("There is no shared memory for 12 MB of patches.")
            super().__init__(*sizes, shared=shared)

    monkeypatch.setattr(module, "PatchRing", Full)
    with (
        LiveMapper(slide, model, settings(cache=False, reader_processes=1)) as mapper,
        pytest.raises(SlideError, match="no shared memory"),
    ):
        module.fill(mapper, [StandIn()])
    monkeypatch.setattr(module, "n_processes", lambda *_: 2)
    with (
        LiveMapper(slide, model, settings(cache=False)) as mapper,
        pytest.warns(CpnnWarning, match="no shared memory.*Threads read"),
    ):
        module.fill(mapper, [StandIn()])
    assert_same(mapper.map, expected(slide, model))
