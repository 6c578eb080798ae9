"""What a run says while it works, and how it answers to a stop."""

from __future__ import annotations

import gc
import json
import math
import time

import anndata
import pytest

from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.progress import counting
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.jobs import job_run
from napari_cpnn.training.jobs.job import SampleFiles, TrainingJob
from napari_cpnn.training.jobs.job_run import run_job
from napari_cpnn.training.jobs.watch import STEP_FILE, STOP_FILE, look_at_run


@pytest.fixture
def job(tmp_path, private_cache) -> TrainingJob:
    sample = sample_folder()
    spots = anndata.read_h5ad(sample / SAMPLE_FILES["spots"])
    spots[::4].write_h5ad(tmp_path / "spots.h5ad")
    known = set(Prototypes.load(sample / SAMPLE_FILES["prototypes"]).genes)
    genes = [gene for gene in spots.var_names if gene in known][:20]
    (tmp_path / "genes.txt").write_text("\n".join(genes) + "\n")
    settings = TrainingSettings(
        backbone="squeezenet", weights="none", patch=PatchSpec(32, 2.0), hidden=16, n_programs=2, max_epochs=300,
        batch_size=32, patience=500, genes=str(tmp_path / "genes.txt"), device="cpu", min_spot_fraction=0.0,
    )  # fmt: skip
    files = SampleFiles(sample / SAMPLE_FILES["slide"], tmp_path / "spots.h5ad", name="section")
    return TrainingJob((files,), sample / SAMPLE_FILES["prototypes"], settings, tmp_path / "run")


def wait_for_the_stop(file):
    """Work that lasts until the run has noticed its stop file."""
    deadline = time.monotonic() + 60
    while file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_patches_are_counted_and_a_stop_between_them_ends_the_run(job):
    seen, status = [], []

    def report(event):
        if event["event"] == "step" and event["text"] == "cutting patches" and not event["stopping"]:
            seen.append(event["done"])
            if len(seen) == 1:
                status.append(look_at_run(job.out))
                (job.out / STOP_FILE).touch()
                wait_for_the_stop(job.out / STOP_FILE)

    with pytest.raises(KeyboardInterrupt):
        run_job(job, report)
    assert seen == [0.0]
    assert (status[0].running, status[0].step, status[0].step_done) == (True, "cutting patches", 0.0)
    after = look_at_run(job.out)
    assert (after.running, after.step, after.model) == (False, "", None)
    assert after.error == "Training was stopped before the end of its first epoch: no model."
    assert not (job.out / STEP_FILE).exists()


def test_a_stop_finishes_the_model_and_a_second_one_does_not(job):
    steps = []

    def report(event):
        if event["event"] == "step":
            steps.append((event["text"], event["stopping"]))
        first = event["event"] == "epoch" and event["epoch"] == 1
        if first or (event["event"] == "step" and event["text"] == "calibrating the model" and event["done"] == 0):
            (job.out / STOP_FILE).touch()
            wait_for_the_stop(job.out / STOP_FILE)
            time.sleep(0.2)  # the signal follows

    with pytest.raises(KeyboardInterrupt):
        run_job(job, report)
    assert ("calibrating the model", True) in steps
    status = look_at_run(job.out)
    assert status.error == "Training was stopped at once: its best model so far is kept; the run can be resumed."
    assert status.model is not None
    assert status.resumable
    # Resumed, and stopped once: the model is finished.
    events = []

    def stop_once(event):
        """A second stop, of an epoch that ends before the first has been noticed, would end the run, and pytest."""
        first = not any(before["event"] == "epoch" for before in events)
        events.append(event)
        if event["event"] == "epoch" and first:
            (job.out / STOP_FILE).touch()

    run_job(job.replace(resume=True), stop_once)
    assert events[-1] == {"event": "finished", "path": str(job.out / "model.safetensors"), "complete": False}
    assert any(event.get("text") == "testing on the held-out spots" for event in events)


def test_steps_are_reported_a_few_times_a_second(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(job_run.time, "monotonic", lambda: now[0])
    events = []
    say = job_run._Reporter(events.append)
    say.start_file(tmp_path / "events.jsonl")
    for i in range(101):
        say.step("cutting patches", i / 100)
        now[0] += 0.01
    assert 4 <= len(events) <= 6
    assert [events[0]["done"], events[-1]["done"]] == [0.0, 1.0]
    assert json.loads((tmp_path / STEP_FILE).read_text()) == events[-1]
    assert events[-1]["seconds"] == 1.0
    say.stopping()
    assert events[-1]["stopping"]
    assert math.isnan(events[-1]["done"])
    assert json.loads((tmp_path / STEP_FILE).read_text())["done"] is None


def test_counting():
    said = []
    with counting(lambda text, done: said.append((text, done)), "spots", 4, "spot") as count:
        count(1)
        count(3)
    assert said == [("spots", 0.0), ("spots", 0.25), ("spots", 1.0)]
    with counting(lambda *_: said.append("nothing to do"), "spots", 0, "spot") as count:
        count(0)
    assert "nothing to do" not in said


def test_garbage_is_not_collected_while_files_are_opened_and_again_afterwards(job, monkeypatch):
    states = []

    def cannot_open(*_args, **_kwargs):
        states.append(gc.isenabled())
        raise SlideError("no slide")

    monkeypatch.setattr(job_run, "open_files", cannot_open)
    with pytest.raises(SlideError):
        run_job(job, progress=False)
    assert states == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
