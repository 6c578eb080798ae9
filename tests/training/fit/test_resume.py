"""A run that was killed goes on as if it had not been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
import torch
from anndata import read_h5ad

from napari_cpnn import load_model, open_slide, train
from napari_cpnn.errors import TrainingError
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.storage.temporaries import temporary_beside
from napari_cpnn.training.fit.module import CpnnTraining
from napari_cpnn.training.fit.recorder import Recorder
from napari_cpnn.training.fit.resume import RunState
from napari_cpnn.training.jobs.watch import look_at_run


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def samples(world):
    return [world.sample(1, rows=3), world.sample(2, rows=3)]


class Killed(BaseException):
    """Ends a run as a kill does: nothing of ours sees it coming."""


def run(samples, world, settings, out, killed_in=None, **options):
    """Train; ``killed_in`` is the epoch, counted from 1, in whose second batch the run ends."""
    original = CpnnTraining.training_step

    def step(self, batch, index):
        if self.current_epoch + 1 == killed_in and index == 1:
            raise Killed
        return original(self, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpnnTraining, "training_step", step)
        if killed_in is not None:
            patch.setattr(Recorder, "close", lambda _: None)
        return train(samples, world.prototypes, settings, out, progress=False, **options)


def read(path):
    """Samples and prototypes as another process finds them."""
    slides = [open_slide(path / f"{name}.tif", mpp=0.5) for name in ("one", "two")]
    return [(slide, read_h5ad(path / f"{slide.name.split('.')[0]}.h5ad")) for slide in slides]


@pytest.mark.slow  # the tests below end runs in this process, and tests/kills kills processes that train
def test_a_process_that_is_killed_and_resumed_gives_the_same_bits(world, quick, tmp_path, private_cache):
    world.prototypes.save(tmp_path / "prototypes.h5ad")
    for seed, name in enumerate(("one", "two")):
        slide, spots = world.sample(seed, rows=4)
        tifffile.imwrite(tmp_path / f"{name}.tif", np.asarray(slide.levels[0]), photometric="rgb", tile=(64, 64))
        spots.write_h5ad(tmp_path / f"{name}.h5ad")
    settings = quick.replace(max_epochs=6, batch_size=14, patience=8, weight_average=0.9, stain_augment=0.1)
    command = [sys.executable, "-m", "napari_cpnn.cli", "train", "--prototypes", str(tmp_path / "prototypes.h5ad")]
    for name in ("one", "two"):
        command += ["--slide", str(tmp_path / f"{name}.tif"), "--spots", str(tmp_path / f"{name}.h5ad")]
    command += ["--mpp", "0.5", "--patch", "32", "0.5", "--out", str(tmp_path / "run"), "--quiet"]
    changed = {name: value for name, value in settings.to_dict().items() if name != "patch"}
    for name, value in changed.items():
        if value != getattr(TrainingSettings(), name):
            command += [f"--{name.replace('_', '-')}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    metrics, deadline = tmp_path / "run" / "metrics.csv", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_text().splitlines()) > 3:
            break
        time.sleep(0.01)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -9, errors.decode()
    done = RunState.read(tmp_path / "run" / "resume.safetensors").epoch
    assert 1 <= done < 6  # states are written some seconds apart

    epochs = []
    resumed = train(
        read(tmp_path), world.prototypes, settings, tmp_path / "run", progress=False, resume=True,
        on_epoch=lambda row: epochs.append(row["epoch"]),
    )  # fmt: skip
    assert epochs == list(range(done + 1, 7))
    unbroken = train(read(tmp_path), world.prototypes, settings, tmp_path / "unbroken", progress=False)
    assert resumed.fingerprint == unbroken.fingerprint
    names = {"settings.json", "metrics.csv", "curves.png", "model.safetensors"}
    of_the_command = {
        "job.json",
        "events.jsonl",
        ".step.json",
        ".running",
    }  # the killed process left its lock, which holds nobody up
    assert {p.name for p in (tmp_path / "run").iterdir()} == names | of_the_command
    without_time = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / folder / "metrics.csv").read_text().splitlines()]
        for folder in ("run", "unbroken")
    ]
    assert without_time[0] == without_time[1]


@pytest.mark.parametrize("killed_in", [1, 3])
def test_every_epoch_can_be_the_last_before_the_kill(samples, world, quick, tmp_path, killed_in):
    settings = quick.replace(max_epochs=3, batch_size=12)
    wanted = run(samples, world, settings, tmp_path / "unbroken")
    with pytest.raises(Killed):
        run(samples, world, settings, tmp_path / "run", killed_in)
    resumed = run(samples, world, settings, tmp_path / "run", resume=True)
    assert resumed.fingerprint == wanted.fingerprint


@pytest.mark.parametrize(
    ("validation", "seconds", "share", "rate"), [("auto", 1e9, 1.0, 1e-4), ("none", 0.0, 1e-9, 0.0)]
)
def test_what_was_held_back_is_written_when_a_run_is_interrupted(
    samples, world, quick, tmp_path, monkeypatch, validation, seconds, share, rate
):
    """States are written some seconds apart, and take a small share of the time; these epochs take less."""
    settings, path, rows = quick.replace(max_epochs=4, batch_size=12, validation=validation), tmp_path / "run", []
    settings = settings.replace(backbone_learning_rate=rate)

    def on_epoch(row):
        rows.append(row)
        assert RunState.read(path / "resume.safetensors").epoch == 1
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("napari_cpnn.training.fit.recorder._STATE_SECONDS", seconds)
    monkeypatch.setattr("napari_cpnn.training.fit.recorder._STATE_SHARE", share)
    stopped = run(samples, world, settings, path, on_epoch=on_epoch)
    assert validation == "auto" or stopped.provenance["epoch"] == 3
    state = RunState.read(path / "resume.safetensors")
    assert state.epoch == len(state.history) == len(rows) == 3
    wanted = run(samples, world, settings, tmp_path / "unbroken")
    assert run(samples, world, settings, path, resume=True).fingerprint == wanted.fingerprint


def test_a_frozen_backbone_can_be_resumed_too(samples, world, quick, tmp_path):
    settings = quick.replace(max_epochs=3, batch_size=12, backbone_learning_rate=0.0, gene_weights="reliability")
    wanted = run(samples, world, settings, tmp_path / "unbroken")
    with pytest.raises(Killed):
        run(samples, world, settings, tmp_path / "run", killed_in=3)
    assert run(samples, world, settings, tmp_path / "run", resume=True).fingerprint == wanted.fingerprint


@pytest.mark.parametrize("moment", ["load_model", "_calibrate"])
def test_a_kill_after_the_last_epoch(samples, world, quick, tmp_path, moment, monkeypatch):
    settings = quick.replace(max_epochs=3, patience=1)
    wanted = run(samples, world, settings, tmp_path / "unbroken")

    def kill(*_args):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"napari_cpnn.training.fit.fit.{moment}", kill)
        with pytest.raises(Killed):
            run(samples, world, settings, tmp_path / "run")
    epochs = []
    resumed = run(samples, world, settings, tmp_path / "run", resume=True, on_epoch=epochs.append)
    assert not epochs
    assert resumed.fingerprint == wanted.fingerprint


def test_ctrl_c_can_be_resumed(samples, world, quick, tmp_path):
    settings = quick.replace(max_epochs=3)

    def hook(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    run(samples, world, settings, tmp_path / "run", on_epoch=hook)
    with pytest.raises(TrainingError, match="already holds a trained model; resume it, choose another"):
        run(samples, world, settings, tmp_path / "run")
    resumed = run(samples, world, settings, tmp_path / "run", resume=True)
    assert resumed.fingerprint == run(samples, world, settings, tmp_path / "unbroken").fingerprint


def test_a_finished_run_says_so(samples, world, quick, tmp_path):
    settings = quick.replace(max_epochs=1)
    run(samples, world, settings, tmp_path)
    with pytest.raises(TrainingError, match=r"The run in .* is finished; its model is .*model\.safetensors"):
        run(samples, world, settings, tmp_path, resume=True)


def test_nothing_to_resume_is_a_start(samples, world, quick, tmp_path):
    assert run(samples, world, quick.replace(max_epochs=1), tmp_path / "new", resume=True).genes


@pytest.fixture
def killed(samples, world, quick, tmp_path):
    settings = quick.replace(max_epochs=3, batch_size=12)
    with pytest.raises(Killed):
        run(samples, world, settings, tmp_path, killed_in=2)
    return settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, r"started with learning_rate 0\.01, not 0\.5; resume it with"),
        ({"batch_size": 30, "seed": 3}, r"started with batch_size 12 and seed 0, not 30 and 3"),
    ],
)
def test_other_settings_are_refused(samples, world, killed, tmp_path, change, message):
    with pytest.raises(TrainingError, match=message):
        run(samples, world, killed.replace(**change), tmp_path, resume=True)
    assert load_model(tmp_path / "model.safetensors")


def test_where_patches_are_kept_may_differ(samples, world, killed, tmp_path):
    assert run(samples, world, killed.replace(patch_cache="none"), tmp_path, resume=True)


def test_other_data_are_refused(samples, world, killed, tmp_path):
    with pytest.raises(TrainingError, match="started on other slides, spots or prototypes"):
        run([samples[0], world.sample(3, rows=3)], world, killed, tmp_path, resume=True)


def test_a_damaged_state_is_a_sentence(samples, world, killed, tmp_path):
    path = tmp_path / "resume.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-100], content[:20], b"", b"\xff" * 200):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"resume\.safetensors is damaged"):
            run(samples, world, killed, tmp_path, resume=True)


def test_a_state_of_another_version(samples, world, killed, tmp_path):
    path = tmp_path / "resume.safetensors"
    content = path.read_bytes().replace(b'\\"format\\": 1', b'\\"format\\": 9')
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="another version"):
        run(samples, world, killed, tmp_path, resume=True)


def test_leftovers_of_a_killed_run_are_cleared_and_nothing_else(samples, world, quick, tmp_path):
    """A run folder may be any folder of the user, with hidden files and folders of others in it."""
    computer = temporary_beside(tmp_path).name.split("-")[2]
    left = tmp_path / f".napari-cpnn-{computer}-{os.getppid()}-1000-0123abcd"  # of a process that had this number
    left.mkdir()
    (left / "targets.f32").write_bytes(b"x" * 1000)
    (tmp_path / f"{left.name}.safetensors").write_bytes(b"x")
    mine = [tmp_path / ".run-mine" / "notes", tmp_path / ".patches-mine" / "notes", tmp_path / ".mine.part"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    run(samples, world, quick.replace(max_epochs=1), tmp_path)
    assert all(file.read_text() == "mine" for file in mine)
    assert not list(tmp_path.glob(".napari-cpnn-*"))
    assert json.loads((tmp_path / "settings.json").read_text())["max_epochs"] == 1


def test_a_run_that_was_killed_before_its_first_state_begins_anew(samples, world, quick, tmp_path, monkeypatch):
    """Its first model is there then, which is not the result of the run."""
    settings = quick.replace(max_epochs=1)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("napari_cpnn.training.fit.run_folder.RunFolder.write_state", killed)
        patch.setattr("napari_cpnn.training.fit.recorder.Recorder.close", lambda _self: None)  # a kill closes nothing
        with pytest.raises(Killed):
            run(samples, world, settings, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert look_at_run(tmp_path / "run").resumable
    run(samples, world, settings, tmp_path / "run", resume=True)
    assert not look_at_run(tmp_path / "run").resumable
    with pytest.raises(TrainingError, match="is finished"):
        run(samples, world, settings, tmp_path / "run", resume=True)
