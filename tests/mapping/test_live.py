"""The live mapper with a fake viewport: what is drawn, in which order, and what it does when things go wrong."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time

import numpy as np
import pytest
import torch

from fakes import MPP, ColorModel, settings, tissue_image, true_weights
from napari_cpnn.errors import CpnnWarning, NoTissueError, PixelSizeError
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DONE, FAILED, UNKNOWN, CompositionMap, LiveMapper, Viewport
from napari_cpnn.slides import PatchReader, Slide

EVERYTHING = Viewport(Rect(0, 0, 24 * 32, 30 * 32), px_per_um=1.0)


def test_the_whole_view_is_mapped_and_right(slide, model, image):
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        progress = mapper.progress()
        cmap = mapper.map
    assert progress.idle
    assert progress.done == progress.wanted == int(cmap.tissue.sum()) > 400
    assert progress.failed == 0
    assert (cmap.state[cmap.tissue] == DONE).all()
    for row, col in [(5, 7), (12, 20), (18, 25)]:
        np.testing.assert_allclose(cmap.weights[row, col], true_weights(image, row, col), atol=2e-3)


def test_batches_share_their_memory_and_none_is_kept_when_all_is_done(slide, model, monkeypatch):
    images: dict[int, np.ndarray] = {}
    read, n_reads = PatchReader.read, []

    def noted(self, centers):
        pixels, ok = read(self, centers)
        memory = pixels if pixels.base is None else pixels.base
        images[id(memory)] = memory  # kept, so that no id comes twice
        n_reads.append(len(centers))
        return pixels, ok

    monkeypatch.setattr(PatchReader, "read", noted)
    with LiveMapper(slide, model, settings(max_batch=16)) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        after, _ = read(mapper._reader, [[100.0, 100.0]])
        assert not any(np.shares_memory(after, memory) for memory in images.values())
    # A queue of one more than the readers, and the batch that is computed; the first batches may be smaller.
    assert len(images) <= 2 * (mapper.settings.readers + 2) < len(n_reads)


def test_the_first_batch_covers_the_view_coarsely(slide, model):
    """After one batch every tissue cell of the view shows something."""
    with LiveMapper(slide, model, settings(max_batch=16)) as mapper:
        first = threading.Event()
        snapshot = {}

        def look(_cells):
            if not first.is_set():
                snapshot["donors"] = mapper.map.donors()
                first.set()

        mapper.map.changed.connect(look)
        mapper.set_viewport(EVERYTHING)
        assert first.wait(20)
    assert (snapshot["donors"][mapper.map.tissue] >= 0).all()


def test_only_the_view_and_its_margin_are_mapped(slide, model):
    with LiveMapper(slide, model, settings(margin=0.25, coarsest=1)) as mapper:
        mapper.set_viewport(Viewport(Rect(320, 320, 448, 448), 1.0))
        assert mapper.wait_until_mapped(30)
        row, col = np.nonzero(mapper.map.state == DONE)
    assert (row.min(), row.max()) == (9, 14)
    assert (col.min(), col.max()) == (9, 14)


def test_areas_are_mapped_in_full_after_the_view(slide, model):
    with LiveMapper(slide, model, settings(margin=0.0)) as mapper:
        mapper.set_viewport(Viewport(Rect(320, 320, 384, 384), 1.0))
        mapper.map_areas([Rect(320, 640, 420, 760), Rect(-50, -50, -10, -10)])
        assert mapper.wait_until_mapped(30)
        window = mapper.grid.window(Rect(320, 640, 420, 760))
        assert mapper.map.tissue[window].any()
        assert (mapper.map.state[window][mapper.map.tissue[window]] == DONE).all()
        assert (mapper.map.state == UNKNOWN).any()  # and no more


def test_whole_slide_goes_on_after_the_view(slide, model):
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.set_viewport(Viewport(Rect(320, 320, 448, 448), 1.0))
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
        assert (mapper.map.state[mapper.map.tissue] == DONE).all()


class Gate(ColorModel):
    """Computes only while the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.started = threading.Event()

    def __deepcopy__(self, memo):  # locks can't be copied; the copy must share the gate
        return self

    def forward(self, x):
        self.started.set()
        assert self.gate.wait(20)
        return super().forward(x)


def test_a_new_view_replaces_the_order_at_once(slide):
    """While the first batch is held, the view moves; then at most that batch and nothing else of the old view comes."""
    model = Gate().eval()
    with LiveMapper(slide, model, settings(max_batch=8, margin=0.0, coarsest=1, readers=2)) as mapper:
        mapper.set_viewport(Viewport(Rect(64, 64, 704, 320), 1.0))
        assert model.started.wait(20)
        time.sleep(0.3)  # readers fill the queue with the old view
        mapper.set_viewport(Viewport(Rect(64, 640, 704, 896), 1.0))
        model.gate.set()
        assert mapper.wait_until_mapped(30)
        cols = np.nonzero(mapper.map.state == DONE)[1]
    assert (cols < 10).sum() <= 8
    assert (cols >= 20).sum() == mapper.map.tissue[2:22, 20:28].sum()


def test_a_view_that_grows_while_the_queue_is_full_is_mapped(slide):
    """What waits is still in view and stays in the queue; the first batch of the new view must be read all the same."""
    model = Gate().eval()
    with LiveMapper(slide, model, settings(max_batch=8, margin=0.0, coarsest=1, readers=2)) as mapper:
        mapper.set_viewport(Viewport(Rect(64, 64, 704, 320), 1.0))
        assert model.started.wait(20)
        time.sleep(0.3)  # readers fill the queue
        mapper.set_viewport(Viewport(Rect(64, 64, 704, 640), 1.0))
        time.sleep(0.3)  # and the new view is planned while it is full
        model.gate.set()
        assert mapper.wait_until_mapped(20)
        assert (mapper.map.state[2:22, 2:20] == DONE).all()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux only")
def test_mapping_stands_back_for_the_screen(slide):
    model = Gate().eval()
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.nice = 3
        mapper.set_viewport(EVERYTHING)
        assert model.started.wait(20)
        threads = {t.name: os.getpriority(os.PRIO_PROCESS, t.native_id) for t in threading.enumerate()}
        model.gate.set()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert threads["napari-cpnn model_loop"] == min(19, own + 3)
    assert threads["MainThread"] == own


def test_nothing_is_computed_twice(slide):
    class Counting(ColorModel):
        seen = 0

        def forward(self, x):
            Counting.seen += len(x)
            return super().forward(x)

    with LiveMapper(slide, Counting().eval(), settings()) as mapper:
        for x in range(0, 600, 60):  # a pan
            mapper.set_viewport(Viewport(Rect(100, x, 400, x + 300), 1.0))
            time.sleep(0.02)
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
        assert Counting.seen == (mapper.map.state == DONE).sum()


def test_pause_and_resume(slide, model):
    with LiveMapper(slide, model, settings(max_batch=8)) as mapper:
        mapper.pause()
        mapper.set_viewport(EVERYTHING)
        time.sleep(0.3)
        assert (mapper.map.state != DONE).all()
        assert not mapper.progress().running
        assert not mapper.progress().idle
        mapper.resume()
        assert mapper.wait_until_mapped(30)


@pytest.mark.parametrize("paused", [True, False])
def test_a_pause_and_an_idle_time_are_left_out_of_the_throughput(slide, model, paused):
    with LiveMapper(slide, model, settings(max_batch=8, batch_seconds=1e-9)) as mapper:
        mapper.set_viewport(Viewport(Rect(64, 64, 400, 400), 1.0))
        assert mapper.wait_until_mapped(30)
        assert mapper.progress().patches_per_second > 0
        if paused:
            mapper.pause()
            mapper.resume()
        else:
            mapper.set_viewport(None)
        assert mapper.progress().patches_per_second == 0
        assert mapper.progress().limited_by == ""


def test_stop_ends_all_threads_also_before_a_start_and_twice(slide, model):
    before = set(threading.enumerate())

    def ours():
        return [t for t in threading.enumerate() if t.name.startswith("napari-cpnn") and t not in before]

    mapper = LiveMapper(slide, model, settings())
    mapper.stop()  # a cancelled start
    mapper.set_viewport(EVERYTHING)
    assert not mapper.wait_until_mapped(0.1)
    assert not ours()
    mapper = LiveMapper(slide, model, settings())
    mapper.set_viewport(EVERYTHING)
    mapper.stop()
    mapper.stop()
    assert not ours()


def test_a_mapper_that_is_stopped_by_another_thread_while_it_starts(slide, model, monkeypatch):
    mapper = LiveMapper(slide, model, settings())
    failed, start = [], threading.Thread.start

    def stop():
        try:
            mapper.stop()
        except RuntimeError as error:
            failed.append(error)

    stopping = threading.Thread(target=stop)

    def start_late(thread):
        if not stopping.ident:
            start(stopping)
            stopping.join(0.2)  # as far as it comes
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    mapper.set_viewport(EVERYTHING)
    stopping.join()
    assert not failed
    assert not any(thread.is_alive() for thread in mapper._threads)
    assert mapper.error is None


@pytest.mark.parametrize("n_before", [0, 2])
def test_a_system_without_a_thread_left_stops_mapping_and_says_so(slide, model, monkeypatch, n_before):
    mapper = LiveMapper(slide, model, settings())
    started, start = [], threading.Thread.start

    def start_some(thread):
        if len(started) == n_before:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    mapper.set_viewport(EVERYTHING)
    assert not mapper.wait_until_mapped(10)
    assert mapper.progress().message == "can't start new thread"
    mapper.stop()
    assert not any(thread.is_alive() for thread in started)


def test_a_patch_that_cannot_be_read_fails_and_the_rest_goes_on(slide, model, monkeypatch):
    read = PatchReader.read

    def broken(self, centers):
        images, ok = read(self, centers)
        return images, ok & (centers[:, 1] > 400)

    monkeypatch.setattr(PatchReader, "read", broken)
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        progress = mapper.progress()
        state = mapper.map.state
    assert (state[:, :12][mapper.map.tissue[:, :12]] == FAILED).all()
    assert (state[:, 13:][mapper.map.tissue[:, 13:]] == DONE).all()
    assert progress.failed > 0
    assert "could not be read from coloured" in progress.message


def test_a_network_that_breaks_stops_mapping_and_says_so(slide, caplog):
    class Broken(ColorModel):
        def forward(self, x):
            raise ValueError("weights on fire")

    with LiveMapper(slide, Broken().eval(), settings()) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert not mapper.wait_until_mapped(30)
        assert "weights on fire" in mapper.progress().message
        assert not mapper.progress().running
        assert (mapper.map.state[mapper.map.tissue] == UNKNOWN).all()


def test_out_of_memory_halves_the_batch(slide, image):
    class Small(ColorModel):
        def forward(self, x):
            if len(x) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    with LiveMapper(slide, Small().eval(), settings()) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        assert mapper.predictor.max_batch == 4
        assert (mapper.map.state[mapper.map.tissue] == DONE).all()
        np.testing.assert_allclose(mapper.map.weights[12, 20], true_weights(image, 12, 20), atol=2e-3)


def test_no_memory_even_for_one_patch_stops_with_a_sentence(slide, caplog):
    class Never(ColorModel):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with LiveMapper(slide, Never().eval(), settings()) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert not mapper.wait_until_mapped(30)
        assert "not enough memory for one patch" in mapper.progress().message


def test_reopening_is_instant(slide, image):
    class Once(ColorModel):
        allowed = True

        def forward(self, x):
            assert Once.allowed, "the network ran although the map was cached"
            return super().forward(x)

    with LiveMapper(slide, Once().eval(), settings()) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
        weights = mapper.map.weights
    Once.allowed = False
    again = Slide.from_arrays([image, image[::4, ::4].copy()], MPP, name="coloured")
    with LiveMapper(again, Once().eval(), settings()) as mapper:
        np.testing.assert_array_equal(mapper.map.weights, weights)
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(1)
        assert mapper.progress().done == mapper.progress().wanted


@pytest.mark.parametrize("change", ["model", "slide", "stride"])
def test_the_cache_is_of_one_slide_model_and_grid(slide, model, image, change):
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
    options = {}
    if change == "model":
        model.fingerprint = "another"
    elif change == "slide":
        other = tissue_image(24, 30, seed=2)
        slide = Slide.from_arrays([other, other[::4, ::4].copy()], MPP, name="coloured")
    else:
        options["stride_um"] = 16.0
    with LiveMapper(slide, model, settings(**options)) as mapper:
        assert (mapper.map.state != DONE).all()


def test_a_damaged_cache_is_computed_anew(slide, model, private_cache):
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
    chunks = [p for p in private_cache.rglob("weights/c/**/*") if p.is_file()]
    assert chunks
    for chunk in chunks:
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 0xFF
        chunk.write_bytes(data)
    with pytest.warns(CpnnWarning, match="damaged"):
        mapper = LiveMapper(slide, model, settings())
    with mapper:
        assert (mapper.map.state != DONE).all()
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
    with LiveMapper(slide, model, settings()) as mapper:
        assert (mapper.map.state == DONE).any()


def test_a_cache_is_not_deleted_for_a_fault_that_is_not_its_own(slide, model, private_cache, monkeypatch, caplog):
    """Such as an interpreter that is shutting down, or no memory, while it is opened."""
    import zarr

    with LiveMapper(slide, model, settings()) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
    before = sorted(p for p in private_cache.rglob("*") if p.is_file())

    def interrupted(*_args, **_kwargs):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(zarr.Array, "__getitem__", interrupted)
        with LiveMapper(slide, model, settings()) as mapper:
            assert "interpreter shutdown" in mapper.progress().message
    assert not caplog.records  # a program that ends while it maps says nothing of it
    assert sorted(p for p in private_cache.rglob("*") if p.is_file()) == before
    with LiveMapper(slide, model, settings()) as mapper:
        assert (mapper.map.state[mapper.map.tissue] == DONE).all()


def test_what_a_killed_program_left_in_the_cache_is_cleared(slide, model, private_cache):
    import os

    for name, age in (("old", 3e5), ("new", 10)):
        left = private_cache / "maps" / f".{name.encode().hex():0>32}.zarr.0123abcd"
        left.mkdir(parents=True)
        os.utime(left, (time.time() - age,) * 2)
    LiveMapper(slide, model, settings()).stop()
    assert [p.name[-18:] for p in (private_cache / "maps").glob(".*")] == ["6e6577.zarr.0123abcd"[-18:]]


@pytest.mark.parametrize("damage", ["empty", "short", "json"])
def test_every_kind_of_damage_is_recognised(slide, model, private_cache, damage):
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
    pattern = "zarr.json" if damage == "json" else "state/c/**/*"
    for path in [p for p in private_cache.rglob(pattern) if p.is_file()]:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(CpnnWarning, match="damaged"):
        LiveMapper(slide, model, settings()).stop()
    with LiveMapper(slide, model, settings()) as mapper:
        assert not mapper.progress().message


def test_failed_patches_are_tried_again_next_time(slide, model, monkeypatch):
    with monkeypatch.context() as patched:
        read = PatchReader.read
        patched.setattr(PatchReader, "read", lambda s, c: (read(s, c)[0], c[:, 1] > 400))
        with LiveMapper(slide, model, settings()) as mapper:
            mapper.map_whole_slide()
            assert mapper.wait_until_mapped(30)
            assert mapper.progress().failed > 0
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
        assert mapper.progress().failed == 0
        assert (mapper.map.state[mapper.map.tissue] == DONE).all()


def test_a_cache_that_cannot_be_written_is_said_and_mapping_goes_on(slide, model, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with LiveMapper(slide, model, settings(cache_dir=str(blocker / "maps"))) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        assert "not kept on disk" in mapper.progress().message


def delete_all(cache):
    shutil.rmtree(cache)


def empty_all(cache):
    for path in cache.iterdir():
        shutil.rmtree(path)


def garble_all(cache):
    for path in [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"]:
        path.write_bytes(b"garbage")


def put_a_file_in_its_place(cache):
    shutil.rmtree(cache)
    cache.write_text("not a folder any more")


@pytest.mark.parametrize("harm", [delete_all, empty_all, garble_all, put_a_file_in_its_place])
def test_a_cache_that_is_lost_while_it_is_in_use(slide, model, private_cache, tmp_path, caplog, harm):
    """Mapping goes on in memory, the result is written, and one note says so."""
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        mapper.store.flush()
        harm(private_cache)
        mapper.map_whole_slide()
        assert mapper.wait_until_mapped(30)
        mapper.store.flush()
        mapper.map.revision += 1
        mapper.store._mark(np.zeros((1, 2), dtype=int))
        mapper.store.flush()
        assert mapper.error is None
        mapper.map.save(tmp_path / "map.zarr")
    (note,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "Maps are not kept on disk" in note
    again = CompositionMap.load(tmp_path / "map.zarr")
    np.testing.assert_array_equal(again.weights, mapper.map.weights)
    assert (again.state[again.tissue] == DONE).all()


def test_a_disk_that_fills_up_ends_caching_not_mapping(slide, model, monkeypatch):
    import zarr

    with LiveMapper(slide, model, settings()) as mapper:

        def full(*_args, **_kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(zarr.Array, "__setitem__", full)
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        mapper.store.flush()
        assert "No space left on device" in mapper.progress().message


def test_a_slide_that_cannot_be_mapped_is_refused_in_a_sentence(image, model):
    with pytest.raises(PixelSizeError, match="coloured"):
        LiveMapper(Slide.from_arrays([image], None, name="coloured"), model, settings())
    white = np.full((400, 400, 3), 245, dtype=np.uint8)
    with pytest.raises(NoTissueError):
        LiveMapper(Slide.from_arrays([white], MPP, name="white"), model, settings())


def test_a_slide_deleted_while_open(tmp_path, image, model):
    import tifffile

    from napari_cpnn.slides import open_slide

    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, image, tile=(128, 128), compression="zlib", photometric="rgb")
    slide = open_slide(path, mpp=MPP)
    with LiveMapper(slide, model, settings()) as mapper:
        slide.close()
        path.unlink()
        mapper.set_viewport(EVERYTHING)
        assert mapper.wait_until_mapped(30)
        progress = mapper.progress()
    assert progress.failed > 0
    assert progress.message
