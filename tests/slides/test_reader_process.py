"""Patches that processes read into shared memory: the same bits, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import napari_cpnn as nc
from napari_cpnn.errors import SlideError
from napari_cpnn.slides import PatchReader, PatchRing, ReaderProcess, reader_process
from slide_files import picture, write_tiff

#: Copied pixels, and resampled ones.
SPECS = [nc.PatchSpec(24, 0.5), nc.PatchSpec(16, 0.8)]


@pytest.fixture
def path(tmp_path):
    return write_tiff(
        tmp_path / "slide.tif", picture(300, 400), tile=(64, 64), photometric="rgb",
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip


def places(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-20, 180, (n, 2))  # some beyond the slide


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("spec", SPECS, ids=["copied", "resampled"])
def test_pixels_are_those_of_a_patch_reader_also_after_the_process_was_killed(path, spec):
    with nc.open_slide(path) as slide, PatchRing(2, 20, spec.size_px, shared=True) as ring:
        expected, _ = PatchReader(slide, spec).read(places(20))
        reader = ReaderProcess(slide, spec, ring)
        for slot in (1, 0):
            ok, problem = reader.read(slot, places(20))
            assert ok.all()
            assert problem == ""
            assert np.array_equal(ring[slot], expected)
            killed = reader.pid
            os.kill(killed, signal.SIGKILL)
        ok, _ = reader.read(1, places(7))
        assert ok.shape == (7,)
        assert np.array_equal(ring[1], expected)  # 7 of them again, by another process
        assert reader.pid != killed
        last = reader.pid
        reader.close()
        assert not is_there(last)


def test_a_process_that_ends_each_time_is_one_sentence(path, monkeypatch):
    monkeypatch.setattr(reader_process, "_CODE", "raise SystemExit(3)")
    with nc.open_slide(path) as slide, PatchRing(1, 4, 24, shared=True) as ring:
        reader = ReaderProcess(slide, SPECS[0], ring)
        with pytest.raises(SlideError, match=r"ended 2 times at the same patches .*reader_processes=0"):
            reader.read(0, places(4))
        reader.close()


def test_patches_that_cannot_be_read_are_marked_and_a_bug_is_told(path):
    with nc.open_slide(path) as slide, PatchRing(1, 4, 24, shared=True) as ring:
        reader = ReaderProcess(slide, SPECS[0], ring)
        with pytest.raises(RuntimeError, match=r"IndexError.*in a process that reads patches"):
            reader.read(5, places(4))
        ok, problem = reader.read(0, np.full((4, 2), np.nan))
        assert not ok.any()
        assert "must be finite" in problem
        path.unlink()
        ok, _ = reader.read(0, places(4) * 0 + 90)
        assert not ok.any()
        assert (ring[0] == 255).all()
        reader.close()


def test_a_slide_that_cannot_be_mapped_is_said_before_a_process_starts(tmp_path):
    grey = write_tiff(tmp_path / "grey.tif", picture(64, 64)[..., 0], photometric="minisblack")
    with nc.open_slide(grey) as slide, PatchRing(1, 4, 24, shared=True) as ring, pytest.raises(SlideError, match="RGB"):
        ReaderProcess(slide, SPECS[0], ring)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is reserved on Linux")
def test_too_little_shared_memory_is_one_sentence_and_takes_none(monkeypatch):
    made = []

    def full(file, *_):
        made.append(Path(f"/proc/self/fd/{file}").readlink())
        assert made[0].exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SlideError, match=r"no shared memory for 72 MB .*--shm-size"):
        PatchRing(2, 250, 224, shared=True)
    assert not made[0].exists()


def test_an_array_outlives_its_ring():
    ring = PatchRing(1, 2, 8, shared=True)
    images = ring[0]
    images[:] = 7
    ring.close()
    ring.close()
    assert (images == 7).all()


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let programs in the background ignore it
import numpy as np
import napari_cpnn as nc
from napari_cpnn.slides import PatchRing, ReaderProcess
with nc.open_slide(sys.argv[1]) as slide, PatchRing(1, 4, 24, shared=True) as ring:
    reader = ReaderProcess(slide, nc.PatchSpec(24, 0.5), ring)
    reader.read(0, np.full((4, 2), 90.0))
    print(ring.name, reader.pid, flush=True)
    if sys.argv[2] == "raise":
        raise SystemExit(7)
    while True:
        reader.read(0, np.full((4, 2), 90.0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /dev/shm and /proc")
@pytest.mark.parametrize("end", ["raise", "SIGINT", "SIGKILL"])
def test_however_the_program_ends_neither_memory_nor_process_is_left(path, end):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), end], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        name, pid = program.stdout.readline().split()
        if end != "raise":
            assert Path("/dev/shm", name).exists()
            program.send_signal(getattr(signal, end))
        try:
            _, said = program.communicate(timeout=60)
        finally:
            program.kill()  # one that goes on would be waited for without end
    assert "BrokenPipe" not in said
    assert wait_until(lambda: not Path("/dev/shm", name).exists())
    assert wait_until(lambda: not is_there(int(pid)))
