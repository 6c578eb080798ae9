"""Patches are cut once, and what is found on disk is trusted only when it is whole."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_cpnn import Slide
from napari_cpnn.errors import CpnnWarning, SlideError, TrainingError
from napari_cpnn.geometry import PatchSpec, spatial_to_um
from napari_cpnn.slides import read_patches
from napari_cpnn.training.data import patch_cache
from napari_cpnn.training.data.patch_cache import PatchArray, PatchCache
from training.prepared import prepare

SPEC = PatchSpec(32, 0.5)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(patch_cache, "CHUNK", 40)


@pytest.fixture
def sample(world):
    slide, spots = world.sample(1)
    return slide, spatial_to_um(spots.obsm["spatial"], slide.mpp)


class Counting:
    def __init__(self):
        self.n = 0

    def __call__(self, n):
        self.n += n


def cut(cache, slide, centers, spec=SPEC):
    counter = Counting()
    chunks, ok = cache.read(slide, centers, spec, counter)
    return PatchArray(chunks), ok, counter.n


def test_the_second_time_nothing_is_cut(sample, tmp_path, private_cache):
    slide, centers = sample
    wanted = read_patches(slide, centers, SPEC)
    for n_cut in (90, 0):
        cache = PatchCache("auto", tmp_path / "scratch")
        assert cache.missing(slide, centers, SPEC) == n_cut
        images, ok, n = cut(cache, slide, centers)
        assert n == n_cut
        assert ok.all()
        assert images.shape == wanted.shape
        assert (np.asarray(images) == wanted).all()
    files = [p for p in private_cache.rglob("*") if p.is_file()]
    assert [p.stat().st_size for p in sorted(files)] == [128 + 40 * 3 * 32**2] * 2 + [128 + 10 * 3 * 32**2]
    assert not (tmp_path / "scratch").exists()


def test_rows_are_gathered_from_all_chunks(sample, tmp_path):
    slide, centers = sample
    wanted = read_patches(slide, centers, SPEC)
    images = PatchArray(PatchCache("auto", tmp_path).read(slide, centers, SPEC)[0], np.arange(89, 9, -2))
    rows = np.array([39, 0, 7, 7])
    assert (images[rows] == wanted[np.arange(89, 9, -2)][rows]).all()
    assert (images[3:5] == wanted[[83, 81]]).all()
    assert len(images) == 40


@pytest.mark.parametrize(
    "change",
    [
        lambda slide, centers: (slide.with_mpp(0.4), centers, SPEC),
        lambda slide, centers: (slide, centers + 3.0, SPEC),
        lambda slide, centers: (slide, centers, PatchSpec(32, 0.6)),
        lambda slide, centers: (
            Slide.from_arrays([255 - np.asarray(slide.levels[0])], 0.5),
            centers,
            SPEC,
        ),
    ],
    ids=["pixel size", "places", "patch", "slide"],
)
def test_whatever_changes_the_pixels_is_cut_anew(sample, tmp_path, change):
    cache = PatchCache("auto", tmp_path)
    cut(cache, *sample)
    slide, centers, spec = change(*sample)
    images, _, n = cut(cache, slide, centers, spec)
    assert n == 90
    assert (np.asarray(images) == read_patches(slide, centers, spec)).all()


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00garbage"),
    ],
    ids=["bit", "truncated", "empty", "header"],
)
def test_a_damaged_chunk_is_cut_anew(sample, tmp_path, private_cache, damage):
    cut(PatchCache("auto", tmp_path), *sample)
    damage(min(private_cache.rglob("00001-*.npy")))
    with pytest.warns(CpnnWarning, match="Cached patches of slide1 were damaged"):
        images, _, n = cut(PatchCache("auto", tmp_path), *sample)
    assert n == 40
    assert (np.asarray(images) == read_patches(*sample, SPEC)).all()
    assert cut(PatchCache("auto", tmp_path), *sample)[2] == 0


def test_a_cut_that_was_killed_goes_on_where_it_stopped(sample, tmp_path, private_cache):
    groups = []

    def stop(n):
        groups.append(n)
        if len(groups) == 3:  # in the second chunk
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PatchCache("auto", tmp_path).read(*sample, SPEC, stop)
    assert cut(PatchCache("auto", tmp_path), *sample)[2] == 50


def test_two_at_a_time(sample, tmp_path, private_cache):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: cut(PatchCache("auto", tmp_path), *sample)[0], range(4)))
    wanted = read_patches(*sample, SPEC)
    assert all((np.asarray(images) == wanted).all() for images in results)
    assert len(list(private_cache.rglob("*.npy"))) == 3
    assert not list(private_cache.rglob("*.part"))


class Flaky(Slide):
    """Reads fail in the upper half until told otherwise."""

    broken = True

    def read_region(self, y, x, height, width, level=0):
        if self.broken and y < 100:
            raise SlideError("bad tile")
        return super().read_region(y, x, height, width, level)


def test_a_failure_is_not_kept(sample, tmp_path, private_cache):
    slide = Flaky.from_arrays([np.asarray(sample[0].levels[0])], 0.5, name="flaky")
    _, ok, n = cut(PatchCache("auto", tmp_path), slide, sample[1])
    assert n == 90
    assert (~ok).sum() == 40
    slide.broken = False
    images, ok, n = cut(PatchCache("auto", tmp_path), slide, sample[1])
    assert n == 40
    assert ok.all()
    assert (np.asarray(images) == read_patches(*sample, SPEC)).all()


def test_none_keeps_nothing_and_a_folder_keeps_there(sample, tmp_path, private_cache):
    assert [cut(PatchCache("none", tmp_path / f"run{i}"), *sample)[2] for i in range(2)] == [90, 90]
    chosen = PatchCache(str(tmp_path / "mine"), tmp_path / "unused")
    assert [cut(chosen, *sample)[2] for _ in range(2)] == [90, 0]
    assert not private_cache.exists()
    assert not (tmp_path / "unused").exists()


def test_a_full_disk_is_a_sentence_and_leaves_no_litter(sample, tmp_path, private_cache, monkeypatch):
    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"cannot be written .*\(No space left on device\); free some space"):
        cut(PatchCache("auto", tmp_path), *sample)
    assert not [p for p in private_cache.rglob("*") if p.is_file()]


def test_a_folder_that_cannot_be_made(sample, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TrainingError, match="patch_cache"):
        PatchCache(str(tmp_path / "file" / "cache"), tmp_path).require_space(1)


def test_the_oldest_go_when_there_are_too_many(world, tmp_path, private_cache):
    cache = PatchCache("auto", tmp_path)
    for seed in range(3):
        slide, spots = world.sample(seed)
        cut(cache, slide, spatial_to_um(spots.obsm["spatial"], slide.mpp))
    folders = sorted((private_cache / "patches").iterdir())
    for age, folder in zip((3, 2, 0.5), folders, strict=True):
        left = folder / f".00000-{'a' * 32}.part"
        left.write_bytes(b"x")
        then = time.time() - 3600 * age
        os.utime(left, (then, then))
        os.utime(folder, (then, then))
    cache.prune(10**9)
    assert [len(list(f.glob("*.npy"))) for f in folders] == [3, 3, 3]
    assert [len(list(f.glob(".*"))) for f in folders] == [0, 0, 1]
    cache.prune(600_000)
    assert [f.exists() for f in folders] == [False, True, True]
    cache.prune(0)
    assert [f.exists() for f in folders] == [False, False, True], "the last may be in use"


def test_a_second_run_or_another_split_decodes_nothing(world, quick, tmp_path, monkeypatch):
    samples = [world.sample(1), world.sample(2)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = prepare(samples, world.prototypes, quick, tmp_path / "a")

    def read(*_args):
        raise AssertionError("decoded again")

    monkeypatch.setattr("napari_cpnn.training.data.patch_cache.PatchReader.read", read)
    again = prepare(samples, world.prototypes, quick.replace(validation="slide1"), tmp_path / "b")
    assert (np.asarray(first.images) == np.asarray(again.images)).all()
    assert list(first.train) == list(again.held_out)


def test_nothing_but_our_own_is_ever_deleted(sample, tmp_path, private_cache):
    """Whatever the user keeps in the folder that is chosen for patches, and even inside one of ours."""
    chosen = tmp_path / "data"
    cache = PatchCache(str(chosen), tmp_path)
    cut(cache, *sample)
    mine = [
        chosen / "slides" / "a.svs",
        chosen / ("a" * 32) / "b.npy",
        cache.folder / "cohort-of-thirty-two-letters-xyz" / "c",
    ]
    (ours,) = cache.folder.iterdir()
    mine.append(ours / "notes.txt")
    mine.append(cache.folder / ("b" * 32) / "00000-of-mine.npy")
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    for folder in cache.folder.iterdir():
        os.utime(folder, (1e9, 1e9))
    cache.prune(0)
    assert [file.read_text() for file in mine] == ["mine"] * len(mine)
    assert not list(ours.glob("*.npy"))


def test_a_cache_that_vanishes_while_it_is_in_use(sample, tmp_path, private_cache):
    """Patches that are mapped stay, and those that are still to be cut go into the run's own folder."""
    import shutil

    cache = PatchCache("auto", tmp_path / "scratch")
    wanted = read_patches(*sample, SPEC)
    n = []

    def lose(_):
        n.append(1)
        if len(n) == 3:  # in the second chunk: the first one is kept
            shutil.rmtree(private_cache)
            private_cache.write_text("not a folder any more")

    with pytest.warns(CpnnWarning, match="The run goes on without its cache: .*cannot be written"):
        chunks, ok = cache.read(*sample, SPEC, lose)
    assert ok.all()
    assert (np.asarray(PatchArray(chunks)) == wanted).all()
    assert len(list((tmp_path / "scratch").rglob("*.npy"))) == 2
