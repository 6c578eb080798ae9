"""The fuzzing in small: valid inputs are opened, and some changed ones of each format end in a sentence or a result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fuzz.campaign import Format, regressions
from fuzz.judge import Judge
from fuzz.mutators import mutate, mutators_of
from fuzz.seeds import FORMATS

#: How many changed inputs of each format are opened here; fewer where opening one takes long.
_FEW = {"spatialdata": 3, "spots-h5ad": 4, "cells-h5ad": 4, "10x-h5": 4, "prototypes": 4, "model": 6, "run-folder": 12}
_MANY = 24


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as one:
        yield one


@pytest.fixture(scope="module")
def trouble() -> Iterator[Judge]:
    with Judge(warm=False) as one:
        yield one


def made(name: str, folder: Path) -> Format:
    try:
        return Format(name, folder)
    except FileNotFoundError as missing:
        pytest.skip(f"{missing.filename} is missing; set NAPARI_CPNN_DATA")


@pytest.mark.parametrize("name", FORMATS)
def test_changed_files_end_in_a_sentence_or_a_result(name: str, judge: Judge, tmp_path: Path) -> None:
    one = made(name, tmp_path / "f")
    verdict = judge.judge(one.seed.door, one.valid.path)
    assert not verdict.fault, f"unchanged: {verdict}"
    assert not verdict.refused or name == "run-folder", verdict  # of a run there is only the folder, not its slides
    for number in range(_FEW.get(name, _MANY)):
        changed = one.changed(number)
        verdict = judge.judge(one.seed.door, changed.path)
        assert not verdict.fault, f"seed {number}, {changed.how}: {verdict}"


@pytest.mark.parametrize("name", sorted({name for name, _ in regressions()}))
def test_what_failed_once_does_not_fail_again(name: str, judge: Judge, tmp_path: Path) -> None:
    one = made(name, tmp_path / "f")
    for number in sorted(number for of, number in regressions() if of == name):
        changed = one.changed(number)
        verdict = judge.judge(one.seed.door, changed.path)
        assert not verdict.fault, f"seed {number}, {changed.how}: {verdict}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("name", FORMATS)
def test_a_pipe_in_place_of_a_file_is_waited_for_by_nobody(name: str, judge: Judge, tmp_path: Path) -> None:
    one = made(name, tmp_path / "f")
    files = sorted(p for p in one.valid.folder.rglob("*") if p.is_file())
    for file in files[:: max(1, len(files) // 4)]:
        content = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        verdict = judge.judge(one.seed.door, one.valid.path)
        file.unlink()
        file.write_bytes(content)
        assert not verdict.fault, f"{file.name}: {verdict}"
        assert verdict.refused or file != one.valid.path, f"{file.name}: {verdict}"


@pytest.mark.parametrize("name", ["svs", "geojson", "legacy-st", "10x-h5", "run-folder"])
def test_an_input_follows_from_its_seed(name: str, tmp_path: Path) -> None:
    def content(one: Format, number: int) -> list[bytes]:
        folder = one.changed(number).folder
        return [p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()]

    first, second = Format(name, tmp_path / "a"), Format(name, tmp_path / "b")
    assert all(content(first, n) == content(second, n) for n in range(5))
    assert len({tuple(content(first, n)) for n in range(8)}) > 4


def test_every_mutator_changes_a_file_of_its_kind() -> None:
    text = json.dumps({"a": [1, 2.5], "b": "x"}).encode()
    for change in mutators_of(Path("a.json")):
        assert any(change(text, np.random.default_rng(seed)) != text for seed in range(5)), change.__name__
    assert mutate(b"", Path("a.png"), np.random.default_rng(0))[0] == b""


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("crash", "crash"), ("hang", "hang"), ("traceback", "traceback"), ("memory", "memory"),
     ("two lines", "no sentence"), ("sentence", ""), ("result", "")],
)  # fmt: skip
def test_the_judge_sees_what_is_wrong_and_goes_on(kind: str, fault: str, tmp_path: Path, trouble: Judge) -> None:
    file = tmp_path / "a"
    file.write_text(kind)
    trouble.seconds = 1.0 if kind == "hang" else 30.0
    verdict = trouble.judge("trouble", file)
    assert verdict.fault == fault
    assert verdict.refused == (kind == "sentence")
