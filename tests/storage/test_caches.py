"""Names of cache entries, which must stay as they are, and pruning."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_cpnn._version import __version__
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.prediction import FeatureStore
from napari_cpnn.storage import key_of, prune_kept
from napari_cpnn.training.data.patch_cache import CHUNK, PatchCache

NAMES = re.compile(r"[a-z]+\.bin|\.[a-z]+\.part")


def test_keys_are_those_of_earlier_versions():
    assert key_of([1, "a", None, [0.5, 0.25]]) == "315d310f3c2d0bd7797327deb2f3a208"
    assert key_of({"b": {"d": 1, "c": 2}, "a": 0}) == "4bc23b69d6b3df2bf0cadf42140f5419"
    places = np.arange(6, dtype="<f8").reshape(3, 2)
    assert key_of([], places) == hashlib.sha256(b"[]" + places.tobytes()).hexdigest()[:32]
    assert key_of([], places[:, ::-1]) == key_of([], np.ascontiguousarray(places[:, ::-1]))
    assert key_of([], np.empty((0, 2)), length=64) == hashlib.sha256(b"[]").hexdigest()


def test_patches_and_features_have_the_names_of_earlier_versions(tmp_path):
    slide = SimpleNamespace(identity="abc", mpp=(0.5, 0.25))
    centers = np.array([[1.5, 2.5], [3.5, 4.5]])
    facts = ["abc", [0.5, 0.25], 32, 1.0, 2, CHUNK, __version__]
    expected = hashlib.sha256(json.dumps(facts).encode() + centers.astype("<f8").tobytes()).hexdigest()[:32]
    assert PatchCache("none", tmp_path)._folder_of(slide, centers.astype("f4"), PatchSpec(32, 1.0)).name == expected
    model = SimpleNamespace(patch=PatchSpec(32, 1.0), features_fingerprint="def", n_own_features=4)
    store = FeatureStore.of(slide, model, "float32", cache_dir=str(tmp_path))
    facts = [1, "abc", [0.5, 0.25], 32, 1.0, "def", "float32"]
    assert store.folder.name == hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def entry(folder: Path, name: str, hours: float, size: int = 100) -> Path:
    made = folder / (name * 32)
    made.mkdir(parents=True)
    (made / "values.bin").write_bytes(b"x" * size)
    then = time.time() - 3600 * hours
    os.utime(made / "values.bin", (then, then))
    os.utime(made, (then, then))
    return made


def test_the_least_recently_used_go_first(tmp_path):
    old, older, oldest = (entry(tmp_path, name, hours) for name, hours in (("a", 2), ("b", 3), ("c", 4)))
    prune_kept(tmp_path, 300, NAMES)
    assert oldest.exists()
    prune_kept(tmp_path, 250, NAMES)
    assert [e.exists() for e in (old, older, oldest)] == [True, True, False]
    prune_kept(tmp_path, 0, NAMES)
    assert not any(tmp_path.iterdir())


def test_recent_entries_and_files_of_others_stay(tmp_path):
    recent, mixed = entry(tmp_path, "a", 0.5), entry(tmp_path, "b", 2)
    (mixed / "notes.txt").write_text("mine")
    then = time.time() - 7200
    os.utime(mixed, (then, then))
    other = tmp_path / "mine"
    other.mkdir()
    prune_kept(tmp_path, 0, NAMES)
    assert recent.exists()
    assert other.exists()
    assert [file.name for file in mixed.iterdir()] == ["notes.txt"]


def test_old_temporaries_go_without_counting_as_use(tmp_path):
    kept = entry(tmp_path, "a", 2)
    (kept / ".old.part").write_bytes(b"x")
    (kept / ".new.part").write_bytes(b"x")
    used = time.time() - 7200
    os.utime(kept / ".old.part", (used, used))
    os.utime(kept, (used, used))
    prune_kept(tmp_path, 1000, NAMES)
    assert sorted(file.name for file in kept.iterdir()) == [".new.part", "values.bin"]
    assert kept.stat().st_mtime == pytest.approx(used, abs=1)
