"""The files of a run folder, garbled or edited: a sentence, or what can still be shown."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import case
from napari_cpnn.errors import CpnnError, TrainingError
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.studies.fold_folder import FoldFolder
from napari_cpnn.training.fit.resume import RunState
from napari_cpnn.training.jobs.job import SampleFiles, TrainingJob
from napari_cpnn.training.jobs.watch import LOCK_FILE, is_running, job_of_run, look_at_run, read_log

COLUMNS = "epoch,loss,held_out_pcc,held_out_scc,seconds\n"
GARBAGE = [b"", b"{", b"null", b"3", b"[]", b'"x"', b"\xff\xfe\x00", b"\x00" * 50, b"[" * 100_000, b'{"a":' * 50_000]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    settings = TrainingSettings(max_epochs=7)
    files = SampleFiles(tmp_path / "a.tif", tmp_path / "a.h5ad", name="a")
    TrainingJob((files,), tmp_path / "p.h5ad", settings, folder).write(folder / "job.json")
    (folder / "settings.json").write_text(json.dumps(settings.to_dict()))
    (folder / "metrics.csv").write_text(COLUMNS + "1,3.0,0.1,0.1,0.27\n2,2.9,nan,nan,0.15\n")
    (folder / "events.jsonl").write_text('{"event": "epoch", "epoch": 2}\n')
    return folder


def test_a_whole_folder_is_shown(run: Path) -> None:
    status = look_at_run(run)
    assert (status.epoch, status.max_epochs, status.error) == (2, 7, "")
    assert status.best is not None
    assert status.best["epoch"] == 1
    assert status.seconds_left == pytest.approx(5 * 0.21)


@pytest.mark.parametrize("name", ["job.json", "settings.json", "metrics.csv", "events.jsonl", "log.txt"])
@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_a_garbled_file_hides_no_other(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    status = look_at_run(run)
    assert status.max_epochs == 7
    assert status.epoch == (0 if name == "metrics.csv" else 2)
    _ = status.best, status.seconds_left, read_log(run)


@pytest.mark.parametrize(
    "row",
    [
        "x,1,1,1,1", "nan,1,1,1,1", "inf,1,1,1,1", "-1,1,1,1,1", "1", "1,1,1,1,1,1,1,1", "1,1,1,1,nan", "1,1,1,1,-1",
        "1,1,1,1,inf", '"1', "1,1,1,1,x", "\x00,1,1,1,1", "1," + "9" * 200_000 + ",1,1,1",
    ],
    ids=range(13),
)  # fmt: skip
def test_a_damaged_row_is_told(run: Path, row: str) -> None:
    (run / "metrics.csv").write_text(COLUMNS + row + "\n")
    status = look_at_run(run)
    assert status.history == ()
    assert "metrics.csv cannot be read" in status.error
    assert "\n" not in status.error
    assert math.isnan(status.seconds_left)


def change(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**data, **changes}


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: change(d, samples=3),
        lambda d: change(d, samples=[3]),
        lambda d: change(d, samples={"a": 1}),
        lambda d: change(d, samples=[{"slide": 3, "spots": "b"}]),
        lambda d: change(d, samples=[{"slide": "a"}]),
        lambda d: change(d, samples=[{"slide": "a", "spots": "b", "mpp": 0}]),
        lambda d: change(d, samples=[{"slide": "a", "spots": "b", "mpp": "x"}]),
        lambda d: change(d, samples=[{"slide": "a", "spots": "b", "mpp": [0.5, float("nan")]}]),
        lambda d: change(d, samples=[{"slide": "a", "spots": "b", "mpp": [1, 1, 1]}]),
        lambda d: change(d, samples=[{"slide": "a", "spots": "b", "moved": [[1, 0, 0]]}]),
        lambda d: change(d, samples=[{"slide": "a", "spots": "b", "moved": [[1, 0, float("inf")], [0, 1, 0]]}]),
        lambda d: change(d, prototypes=3),
        lambda d: change(d, prototypes={"path": "a"}),
        lambda d: change(d, out=None),
        lambda d: change(d, settings=[]),
        lambda d: change(d, settings={"wings": 2}),
        lambda d: change(d, settings={"max_epochs": "many"}),
        lambda d: change(d, format="x"),
        lambda d: change(d, format=99),
        lambda _: [],
        lambda _: None,
    ],
    ids=range(21),
)
def test_an_edited_job_is_a_sentence(run: Path, edit: Any) -> None:
    data = json.loads((run / "job.json").read_text())
    (run / "job.json").write_text(json.dumps(edit(data)))
    with pytest.raises(CpnnError) as caught:
        job_of_run(run)
    assert "\n" not in str(caught.value)
    look_at_run(run)


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_a_garbled_job_is_a_sentence(run: Path, content: bytes) -> None:
    (run / "job.json").write_bytes(content)
    with pytest.raises(TrainingError):
        job_of_run(run)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_names_that_no_disk_takes(run: Path, tmp_path: Path, name: str) -> None:
    job = TrainingJob.read(run / "job.json")
    doors = (
        lambda: look_at_run(tmp_path / name),
        lambda: job_of_run(tmp_path / name),
        lambda: TrainingJob.read(tmp_path / name),
        lambda: job.replace(prototypes=tmp_path / name, samples=(SampleFiles(run, run),)).check(),
        lambda: job.replace(prototypes=run, samples=(SampleFiles(run, run),), out=tmp_path / name).check(),
        lambda: job.write(tmp_path / name),
        lambda: RunState.read(tmp_path / name),
    )
    for door in doors:
        with pytest.raises(TrainingError, match=r"is not a file name|File name too long"):
            door()


@pytest.mark.parametrize("damage", ["bit", "epoch", "history", "best", "settings", "more", "nested"])
def test_a_damaged_state_is_a_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "resume.safetensors"
    row = {"epoch": 1, "loss": 3.0}
    state = RunState(1, 0.1, 1, [row], TrainingSettings().to_dict(), "abc", {"a": torch.ones(300)})
    path.write_bytes(state.to_bytes())
    assert RunState.read(path).tensors["a"].sum() == 300
    changes: dict[str, tuple[bytes, bytes]] = {
        "epoch": (b'\\"epoch\\": 1, \\"best\\"', b'\\"epoch\\": 5, \\"best\\"'),
        "history": (b'\\"history\\": [', b'\\"history\\": 3 '),
        "best": (b'\\"best\\": 0.1', b'\\"best\\": []0'),
        "settings": (b'\\"settings\\"', b'\\"settinge\\"'),
        "more": (b'\\"data_key\\"', b'\\"data_kez\\"'),
        "nested": (b'{\\"format\\"', b"[[[[[[[[[[["),
    }
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-600] ^= 1
    else:
        assert changes[damage][0] in content
        content = content.replace(*changes[damage])
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"resume\.safetensors is damaged"):
        RunState.read(path)


def test_a_state_of_an_earlier_version_has_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "resume.safetensors"
    state = RunState(0, -math.inf, 0, [], {}, "abc", {"a": torch.ones(3)})
    content = state.to_bytes()
    start = content.index(b'\\"crc32\\"')
    stop = content.index(b"}", start)
    path.write_bytes(content[: start - 2] + b" " * (stop - start + 2) + content[stop:])
    assert RunState.read(path).best == -math.inf


@pytest.mark.parametrize(
    "settings", [[], {"wings": 1}, {"patch": {"size_px": []}}, {"patch": {"mpp": {}}}, {"seed": {}}]
)
def test_a_state_with_settings_that_are_none(tmp_path: Path, settings: Any) -> None:
    path = tmp_path / "resume.safetensors"
    path.write_bytes(RunState(0, 0.0, 0, [], settings, "abc", {"a": torch.ones(3)}).to_bytes())
    with pytest.raises(TrainingError, match=r"resume\.safetensors (is damaged|was written by another version)"):
        RunState.read(path)


def test_the_mark_of_a_killed_run_goes(run: Path) -> None:
    (run / LOCK_FILE).touch()
    assert not is_running(run)
    assert not (run / LOCK_FILE).exists()


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("name", ["fold.json", "scores.json"])
def test_a_garbled_fold_is_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    from napari_cpnn.settings import EvaluationSettings

    folder = FoldFolder(tmp_path / "head" / "fold", "head", "fold", ["a"])
    folder.path.mkdir(parents=True)
    (folder.path / name).write_bytes(content)
    if name == "scores.json" and content == b"[]":  # an empty table
        assert folder.read_scores(EvaluationSettings()) == {}
        return
    with pytest.raises(TrainingError, match="delete its folder to run the fold again"):
        FoldFolder.all_in(tmp_path) if name == "fold.json" else folder.read_scores(EvaluationSettings())


def test_a_run_that_is_begun_anew_loses_no_file_of_the_user(tmp_path: Path) -> None:
    folder = FoldFolder(tmp_path / "head" / "fold", "head", "fold", ["a"])
    folder.run_path.mkdir(parents=True)
    for name in ("settings.json", "model.safetensors", "notes.txt"):
        (folder.run_path / name).write_text("x")
    assert not folder.clear_unusable_run()
    assert [path.name for path in folder.run_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("file", ["*.csv", "*.json"])
def test_the_cases_of_the_campaign(run: Path, file: str) -> None:
    for path in sorted((case("fuzz") / "fuzz_run").glob(file)):
        for name in ("metrics.csv",) if path.suffix == ".csv" else ("job.json", "settings.json"):
            shutil.copyfile(path, run / name)
            status = look_at_run(run)
            _ = status.best, status.seconds_left, status.epoch
            if name == "job.json":
                with suppress(CpnnError):
                    job_of_run(run)
