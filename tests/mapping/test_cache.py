"""The folder of kept maps stays within its size, and no map that is in use goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from map_world import empty_map, make_world
from napari_cpnn.mapping import DONE, CompositionMap
from napari_cpnn.mapping.cache import InUse, is_in_use, prune
from napari_cpnn.mapping.store import MapStore


def key_of(name):
    """Maps in the cache have the name of a hash."""
    return name.encode().hex().ljust(32, "0")


def fake_map(folder, name, age_s, size=1000):
    path = folder / f"{key_of(name)}.zarr"
    path.mkdir()
    (path / "zarr.json").write_bytes(b'{"napari_cpnn": 1}'.ljust(size))
    used = time.time() - age_s
    os.utime(path, (used, used))
    return path


def names(folder):
    return sorted(bytes.fromhex(p.stem).rstrip(b"\0").decode() for p in folder.glob("*.zarr"))


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
    path = tmp_path / f"{key_of('key')}.zarr"
    store = MapStore(make_world().cmap, path)
    assert is_in_use(path)
    store.close()
    store.close()
    assert not is_in_use(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_map_is_made_by_the_first_writing_with_what_is_known_by_then(tmp_path):
    path, world, live = tmp_path / f"{key_of('key')}.zarr", make_world(), empty_map()
    store = MapStore(live, path)
    assert not path.exists()
    done = np.flatnonzero(world.cmap.state == DONE)
    first, later = done[:5], done[5:]
    values = (world.cmap.weights.reshape(-1, 4), world.cmap.programs.reshape(-1, 2))
    live.fill(first, *(v[first] for v in values))
    store.flush()
    assert (CompositionMap.load(path).state.reshape(-1) == DONE).nonzero()[0].tolist() == first.tolist()
    live.fill(later, *(v[later] for v in values))
    store.close()
    np.testing.assert_array_equal(CompositionMap.load(path).weights, world.cmap.weights)


def test_two_windows_that_begin_a_map_at_once_keep_what_both_have_computed(tmp_path):
    path, maps = tmp_path / f"{key_of('key')}.zarr", [empty_map(), empty_map()]
    stores = [MapStore(cmap, path) for cmap in maps]
    tissue = np.flatnonzero(maps[0].tissue)
    for cmap, store, part in zip(maps, stores, (tissue[:4], tissue[4:8]), strict=True):
        cmap.fill(part, np.full((4, 4), 0.25), np.zeros((4, 2)))
        store.flush()
    for store in stores:
        store.close()
        assert store.problem is None
    assert (CompositionMap.load(path).state.reshape(-1) == DONE).nonzero()[0].tolist() == tissue[:8].tolist()


def test_a_map_that_cannot_be_made_is_said_and_mapping_goes_on(tmp_path):
    path, live = tmp_path / f"{key_of('key')}.zarr", empty_map()
    store = MapStore(live, path)
    path.write_text("in the way")
    live.fill(np.flatnonzero(live.tissue)[:4], np.full((4, 4), 0.25), np.zeros((4, 2)))
    store.flush()
    assert store.problem.startswith("Maps are not kept on disk")
    assert "deleted" not in store.problem
    store.close()


def test_a_size_that_makes_no_sense():
    from napari_cpnn.errors import SettingsError
    from napari_cpnn.settings import MappingSettings

    with pytest.raises(SettingsError, match="positive number of GB"):
        MappingSettings(cache_gb=0)


def test_nothing_but_our_own_maps_is_ever_deleted(tmp_path):
    """A folder of somebody's data, given as the folder of the cache; some of it looks much like ours."""
    import zarr

    hexes = [f"{i:032x}" for i in range(5)]
    zarr.open_group(tmp_path / "cohort.zarr", mode="w", attributes={"napari_cpnn": {}})
    zarr.open_group(tmp_path / f"{hexes[0]}.zarr", mode="w", attributes={"of": "somebody"})
    fake_map(tmp_path, "a", 500)
    ours = tmp_path / f"{key_of('a')}.zarr"
    (ours / "notes.txt").write_text("mine")
    (tmp_path / f"{hexes[1]}.zarr").mkdir()
    (tmp_path / f"{hexes[1]}.zarr" / "photo.jpg").write_text("mine")
    (tmp_path / f"{hexes[2]}.zarr").write_text("mine")
    (tmp_path / f"{hexes[3]}.zarr").symlink_to(fake_map(tmp_path, "target", 1), target_is_directory=True)
    (tmp_path / f".{hexes[4]}.zarr.abcdabcd").mkdir()
    (tmp_path / f".{hexes[4]}.zarr.abcdabcd" / "photo.jpg").write_text("mine")
    (tmp_path / "yarn.lock").write_text("mine")
    (tmp_path / ".mine.zarr.bak").mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    before = sorted(p.name for p in tmp_path.iterdir())
    os.utime(tmp_path / f"{key_of('target')}.zarr")
    prune(tmp_path, 0)
    gone = {f"{key_of('target')}.zarr"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [name for name in before if name not in gone]


def test_marks_of_killed_programs_go_though_their_map_has_gone(tmp_path):
    for name, age in ((f"{key_of('a')}.0123abcd.lock", 100), (f"{key_of('b')}.0123abcd.lock", 1)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    prune(tmp_path, 10)
    assert [p.name for p in tmp_path.iterdir()] == [f"{key_of('b')}.0123abcd.lock"]


def test_a_chosen_folder_has_a_folder_of_ours(tmp_path, private_cache):
    from napari_cpnn.storage.caches import folder_of

    assert folder_of("maps") == private_cache / "maps"
    assert folder_of("maps", tmp_path) == tmp_path / "napari-cpnn" / "maps"


def test_a_map_that_is_somebody_elses_is_never_set_aside(tmp_path):
    path = tmp_path / "cohort.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("{}")
    store = MapStore(make_world().cmap, path)
    assert "cohort.zarr is not a map of napari-cpnn" in store.problem
    assert (path / "zarr.json").read_text() == "{}"
