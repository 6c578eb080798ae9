"""The folder of kept maps stays within its size, and no map that is in use goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from map_world import make_world
from napari_cpnn.mapping.cache import InUse, is_in_use, prune
from napari_cpnn.mapping.store import MapStore


def fake_map(folder, name, age_s, size=1000):
    path = folder / f"{name}.zarr"
    path.mkdir()
    (path / "c").write_bytes(b"x" * size)
    used = time.time() - age_s
    os.utime(path, (used, used))
    return path


def names(folder):
    return sorted(p.stem for p in folder.glob("*.zarr"))


def test_the_map_that_was_used_longest_ago_goes_first(tmp_path):
    for name, age in (("old", 300), ("older", 400), ("new", 100)):
        fake_map(tmp_path, name, age)
    prune(tmp_path, 2500)
    assert names(tmp_path) == ["new", "old"]
    prune(tmp_path, 1000)
    assert names(tmp_path) == ["new"]
    prune(tmp_path, 10)
    assert names(tmp_path) == []


def test_a_map_in_use_stays_until_its_last_user_goes(tmp_path):
    path = fake_map(tmp_path, "mine", 500)
    fake_map(tmp_path, "other", 100)
    first, second = InUse(path), InUse(path)
    prune(tmp_path, 10)
    assert names(tmp_path) == ["mine"]
    first.release()
    assert is_in_use(path)
    prune(tmp_path, 10)
    assert names(tmp_path) == ["mine"]
    second.release()
    assert not is_in_use(path)
    prune(tmp_path, 10)
    assert not list(tmp_path.iterdir())


def test_the_mark_of_another_program_counts_and_goes_with_it(tmp_path):
    path = fake_map(tmp_path, "mine", 500)
    code = (
        "import sys, pathlib; from napari_cpnn.mapping.cache import InUse; "
        "use = InUse(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline().strip() == "held"
        prune(tmp_path, 10)
        assert names(tmp_path) == ["mine"]
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    assert list(tmp_path.glob("*.lock"))
    prune(tmp_path, 10)
    assert not list(tmp_path.iterdir())


def test_the_store_of_a_map_marks_it(tmp_path):
    path = tmp_path / "key.zarr"
    store = MapStore(make_world().cmap, path)
    assert is_in_use(path)
    store.close()
    store.close()
    assert not is_in_use(path)
    assert [p.name for p in tmp_path.iterdir()] == ["key.zarr"]


def test_a_size_that_makes_no_sense():
    from napari_cpnn.errors import SettingsError
    from napari_cpnn.settings import MappingSettings

    with pytest.raises(SettingsError, match="positive number of GB"):
        MappingSettings(cache_gb=0)
