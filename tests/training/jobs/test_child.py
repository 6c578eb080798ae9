"""Training in a process of its own, on the packaged sample."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_cpnn import Prototypes, load_model
from napari_cpnn.cli import main
from napari_cpnn.errors import CpnnWarning, GenesError, SettingsError, TrainingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.jobs.child import ChildRun
from napari_cpnn.training.jobs.job import CellsFile, SampleFiles, TrainingJob
from napari_cpnn.training.jobs.job_run import json_line, run_job
from napari_cpnn.training.jobs.watch import ask_to_stop, is_running, job_of_run, look_at_run, read_log


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def job(tmp_path, private_cache) -> TrainingJob:
    """Few spots, few genes, a small network: an epoch in a second."""
    sample = sample_folder()
    spots = anndata.read_h5ad(sample / SAMPLE_FILES["spots"])
    spots[::4].write_h5ad(tmp_path / "spots.h5ad")
    (tmp_path / "genes.txt").write_text("\n".join(spots.var_names[:20]) + "\n")
    settings = TrainingSettings(
        backbone="squeezenet", weights="none", patch=PatchSpec(32, 2.0), hidden=16, n_programs=2, max_epochs=2,
        batch_size=32, patience=500, genes=str(tmp_path / "genes.txt"), device="cpu", min_spot_fraction=0.0,
    )  # fmt: skip
    files = SampleFiles(sample / SAMPLE_FILES["slide"], tmp_path / "spots.h5ad", name="section")
    return TrainingJob((files,), sample / SAMPLE_FILES["prototypes"], settings, tmp_path / "run")


def wait_for(condition, run, seconds=240):  # the child stands back, and starts slowly on a busy machine
    deadline = time.monotonic() + seconds
    while not condition():
        assert run.running, run.look().error + read_log(run.folder)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_is_a_file(job, tmp_path):
    cells = CellsFile(tmp_path / "cells.h5ad", "celltype", "patient")
    moved = SampleFiles(
        tmp_path / "a.tif", tmp_path / "a", tmp_path / "p.tsv", (0.5, 0.6), "a", ((1.0, 0.0, 3.0), (0.0, -1.0, 9.0))
    )
    for one in (job, job.replace(prototypes=cells, samples=(moved, *job.samples), resume=True)):
        one.write(tmp_path / "job.json")
        assert TrainingJob.read(tmp_path / "job.json") == one


def test_relative_paths_count_from_the_file(tmp_path):
    file = tmp_path / "job.json"
    file.write_text('{"samples": [{"slide": "a.svs", "spots": "a.h5ad"}], "prototypes": "p.h5ad", "out": "run"}')
    job = TrainingJob.read(file)
    assert job.samples == (SampleFiles(tmp_path / "a.svs", tmp_path / "a.h5ad"),)
    assert (job.prototypes, job.out, job.settings) == (tmp_path / "p.h5ad", tmp_path / "run", TrainingSettings())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is it a JSON file"),
        ("[]", "describes no training run"),
        ('{"samples": [], "out": "o"}', "'prototypes' is missing"),
        ('{"samples": [{"slide": "a", "spots": "b", "moved": [1, 2]}], "prototypes": "p", "out": "o"}', "no training"),
        ('{"samples": [{"slide": 3, "spots": "b"}], "prototypes": "p", "out": "o"}', "describes no training run"),
        ('{"format": 2}', "newer version of napari-cpnn"),
    ],
)
def test_a_file_that_is_no_job_is_a_sentence(tmp_path, text, message):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(TrainingError, match=message):
        TrainingJob.read(tmp_path / "job.json")


def test_settings_of_a_job_are_checked(tmp_path):
    file = tmp_path / "job.json"
    file.write_text('{"samples": [], "prototypes": "p", "out": "o", "settings": {"epochs": 3}}')
    with pytest.raises(SettingsError, match="no setting epochs"):
        TrainingJob.read(file)


def test_check_names_what_is_missing(job, tmp_path):
    with pytest.raises(TrainingError, match="add a slide"):
        job.replace(samples=()).check()
    with pytest.raises(TrainingError, match=r"no file or folder .*nothing\.h5ad"):
        job.replace(prototypes=tmp_path / "nothing.h5ad").check()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").touch()
    with pytest.raises(TrainingError, match="already holds a trained model"):
        job.check()
    job.replace(resume=True).check()


def test_numbers_that_are_not_finite_are_null_in_json():
    assert json.loads(json_line({"row": {"a": float("nan"), "b": 1.5}})) == {"row": {"a": None, "b": 1.5}}


def test_a_child_trains_is_stopped_and_resumed(job):
    """Stopped half-way, and resumed by its folder in this process, as `napari-cpnn train --job` does in its own."""
    job = job.replace(settings=job.settings.replace(max_epochs=300))
    run = ChildRun(job)
    try:
        assert run.look().running
        wait_for(lambda: is_running(job.out), run)
        with pytest.raises(TrainingError, match="Another process"):
            ChildRun(job)
        wait_for(lambda: run.look().epoch >= 2, run)
        status = run.look()
        assert status.running
        assert status.max_epochs == 300
        assert status.seconds_left > 0
        assert status.model is not None
        run.stop()
        assert run.wait(60) == 0
    finally:
        run.kill()
        run.wait()
    stopped = run.look()
    assert (stopped.running, stopped.error, stopped.resumable) == (False, "", True)
    assert 2 <= stopped.epoch < 300
    # The folder alone tells what the run was; more epochs than it has are one more than it has run.
    known = job_of_run(job.out)
    assert known == job.replace(resume=True)
    state = job.out / "resume.safetensors"
    assert state.exists()
    lines = [json.loads(line) for line in (job.out / "events.jsonl").read_text().splitlines()]
    assert lines[0] == {"event": "preparing", "text": "Opening slide.tiff (1 of 1) ..."}
    kinds = [line["event"] for line in lines]
    assert kinds[-1] == "finished"
    assert not lines[-1]["complete"]
    assert kinds.index("epoch") < kinds.index("saved")
    assert {"epoch", "loss", "held_out_pcc"} <= set(lines[kinds.index("epoch")]["row"])
    epochs = []  # asked once: a second stop, of an epoch that ends meanwhile, would end pytest

    def stop_once(event):
        if event["event"] == "epoch" and not epochs:
            epochs.append(event)
            ask_to_stop(job.out)

    with pytest.warns(CpnnWarning, match="5 of 20 genes"):
        run_job(known, stop_once)
    again = look_at_run(job.out)
    assert stopped.epoch < again.epoch < 300
    assert [row["epoch"] for row in again.history] == list(range(1, again.epoch + 1))
    assert load_model(again.model).provenance["training_data"][0]["slide"] == "section"


@pytest.mark.slow
def test_a_child_that_is_killed_says_so_and_can_be_resumed(job):
    job = job.replace(settings=job.settings.replace(max_epochs=300))
    run = ChildRun(job)
    try:
        wait_for(lambda: run.look().epoch >= 2, run)
    finally:
        os.kill(run.pid, signal.SIGKILL)  # as the system does when memory runs out
        run.wait()
    assert run.wait() == -9
    status = run.look()
    assert "killed the training process, most often because memory ran out" in status.error
    assert "can be resumed" in status.error
    assert not status.running
    assert status.resumable
    # Seen from elsewhere it is just a run that has not ended.
    seen = look_at_run(job.out)
    assert (seen.running, seen.resumable, seen.error) == (False, True, "")


def test_a_child_with_a_bad_file_fails_in_one_sentence(job, tmp_path):
    (tmp_path / "broken.tiff").write_bytes(b"II*\0nothing of a slide")
    files = SampleFiles(tmp_path / "broken.tiff", tmp_path / "spots.h5ad")
    run = ChildRun(job.replace(samples=(files,)))
    assert run.wait(60) == 2
    status = run.look()
    assert "broken.tiff" in status.error
    assert "\n" not in status.error
    assert "broken.tiff" in read_log(run.folder)


def test_a_file_that_is_wrong_is_said_before_torch_is_loaded(job, tmp_path):
    """Torch and Lightning take seconds, which nobody should wait for to read that a file cannot be used."""
    (tmp_path / "broken.tiff").write_bytes(b"II*\0nothing of a slide")
    job.replace(samples=(SampleFiles(tmp_path / "broken.tiff", tmp_path / "spots.h5ad"),)).write(tmp_path / "job.json")
    code = (
        "import sys; from napari_cpnn.cli import main; "
        f"code = main(['train', '--job', {str(tmp_path / 'job.json')!r}]); "
        "print(code, [m for m in ('torch', 'lightning', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "2 []"
    assert "broken.tiff" in done.stderr


def test_a_child_that_crashes_says_so(job, tmp_path, monkeypatch):
    """A module that ends the process stands in for a crash in a library."""
    (tmp_path / "napari_cpnn").mkdir()
    (tmp_path / "napari_cpnn" / "__init__.py").write_text("import os, sys\nsys.stderr.write('ouch')\nos._exit(3)\n")
    monkeypatch.chdir(tmp_path)  # comes first for ``python -m``
    run = ChildRun(job)
    assert run.wait(60) == 3
    assert "has crashed (exit code 3)" in run.look().error
    assert read_log(run.folder) == "ouch"


def test_jobs_from_the_terminal(job, tmp_path, capsys):
    """From single cells, with positions that are moved back to where they were, in lines of JSON."""
    cells = anndata.read_h5ad(sample_folder() / SAMPLE_FILES["cells"])
    column = next(name for name in cells.obs if cells.obs[name].nunique() > 2)
    spots = anndata.read_h5ad(tmp_path / "spots.h5ad")
    spots.obsm["spatial"] = np.asarray(spots.obsm["spatial"]) / 2
    spots.write_h5ad(tmp_path / "half.h5ad")
    moved = SampleFiles(
        job.samples[0].slide, tmp_path / "half.h5ad", name="moved", moved=((2.0, 0.0, 0.0), (0.0, 2.0, 0.0))
    )
    job = job.replace(
        samples=(moved,),
        prototypes=CellsFile(sample_folder() / SAMPLE_FILES["cells"], column),
        settings=job.settings.replace(max_epochs=1),
    )
    job.write(tmp_path / "job.json")
    assert main(["train", "--job", str(tmp_path / "job.json"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    for text in ("estimating prototypes", "cutting patches", "deconvolving", "epoch 1/1", "calibrating"):
        assert any(line["text"].startswith(text) and 0 <= line["done"] <= 1 for line in steps), text
    assert not (job.out / ".step.json").exists()
    lines = [line for line in lines if line["event"] != "step"]
    assert [line["event"] for line in lines][-3:] == ["epoch", "saved", "finished"]
    model = str(job.out / "model.safetensors")
    finished = {"event": "finished", "path": model, "complete": True}
    assert lines[-1] == {"command": "train", **finished, "written": [model], "warnings": lines[-1]["warnings"]}
    assert json.loads((job.out / "events.jsonl").read_text().splitlines()[-1]) == finished
    assert Prototypes.load(job.out / "prototypes.h5ad").cell_types == load_model(lines[-1]["path"]).cell_types
    metrics = pd.read_csv(job.out / "metrics.csv")
    assert lines[-3]["row"]["loss"] == pytest.approx(metrics["loss"].iloc[0], rel=1e-4)
    assert main(["train", "--job", str(tmp_path / "job.json"), "--json"]) == 2
    out = capsys.readouterr()
    assert "already holds a trained model" in json.loads(out.out)["error"]["message"]
    assert out.err == ""
    assert not look_at_run(job.out).resumable


def test_options_and_a_job_do_not_mix(job, tmp_path, capsys):
    job.write(tmp_path / "job.json")
    assert main(["train", "--job", str(tmp_path / "job.json"), "--max-epochs", "3"]) == 2
    assert "With --job, all options are read from" in capsys.readouterr().err
    assert main(["train", "--slide", "a.svs"]) == 2
    assert "Training needs --spots, --prototypes, --out" in capsys.readouterr().err


def test_a_folder_of_something_else_is_a_sentence(tmp_path):
    with pytest.raises(TrainingError, match="no folder of a training run"):
        look_at_run(tmp_path)
    assert not is_running(tmp_path)
    assert read_log(tmp_path) == ""


def test_a_run_in_this_process_reports_its_failure(job):
    events = []
    with pytest.raises(GenesError, match=r"none\.txt cannot be read"):
        run_job(job.replace(settings=job.settings.replace(genes="none.txt")), events.append)
    assert events[-1]["event"] == "failed"
    assert [e["event"] for e in events].count("failed") == 1
    assert look_at_run(job.out).error == events[-1]["error"]


def test_looking_at_runs_needs_no_torch():
    code = "import sys, napari_cpnn.training.jobs.child; print('torch' in sys.modules or 'anndata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
