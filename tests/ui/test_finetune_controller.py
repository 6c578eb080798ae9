"""The Fine-tune dock's controller without Qt; background work runs when the test says so, and no process is started."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import anndata
import numpy as np
import pytest
import zarr

from napari_cpnn.errors import CheckpointError, TrainingError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.jobs.job import CellsFile, SampleFiles
from napari_cpnn.training.jobs.watch import RunStatus
from napari_cpnn.ui.finetune import run as module
from napari_cpnn.ui.finetune.controller import FineTuneController
from napari_cpnn.ui.finetune.inputs import moved_by, start_from, start_text
from napari_cpnn.ui.viewer.reference import inspect_reference
from napari_cpnn.ui.viewer.state import ExploreState

SAMPLE = {name: sample_folder() / file for name, file in SAMPLE_FILES.items()}


class Later:
    """Background work that waits in a list."""

    def __init__(self):
        self.jobs = []

    def __call__(self, work, done, failed):
        self.jobs.append((work, done, failed))

    def run(self):
        while self.jobs:
            work, done, failed = self.jobs.pop(0)
            future = ThreadPoolExecutor(1).submit(work)
            error = future.exception()
            if error is None:
                done(future.result())
            else:
                failed(error)


class FakeChild:
    """What the controller needs of a ChildRun; the test says how it stands."""

    started: ClassVar[list[FakeChild]] = []

    def __init__(self, job):
        job.check()
        self.folder, self.job, self.killed = job.out, job, False
        self.now = RunStatus(running=True)
        FakeChild.started.append(self)

    def look(self):
        return self.now

    def kill(self):
        self.killed = True


@pytest.fixture
def setup(monkeypatch):
    monkeypatch.setattr(module, "ChildRun", FakeChild)
    FakeChild.started = []
    background, notes, state = Later(), [], ExploreState()
    controller = FineTuneController(state, background, notes.append)
    return SimpleNamespace(c=controller, background=background, notes=notes, state=state, go=background.run)


def ready(setup, tmp_path):
    c = setup.c
    c.add_sample(SampleFiles(SAMPLE["slide"], SAMPLE["spots"]))
    c.choose_reference(SAMPLE["prototypes"])
    c.choose_out(tmp_path / "run")
    setup.go()
    return c


def row(epoch, pcc):
    return {"epoch": epoch, "loss": 1.0, "held_out_pcc": pcc, "seconds": 30.0}


def test_says_what_is_missing_one_after_the_other(setup, tmp_path):
    c = setup.c
    assert c.message == "Add a slide with its spots."
    c.train()
    assert not FakeChild.started
    c.add_sample(SampleFiles(SAMPLE["slide"], SAMPLE["spots"]))
    assert c.samples[0].text == "slide: reading slide and spots ..."
    setup.go()
    assert "spots, 1" in c.samples[0].text or "on tissue" in c.samples[0].text
    assert c.message == "Choose prototypes, or single cells to make them from."
    c.choose_reference(SAMPLE["prototypes"])
    assert c.message == "Reading prototypes.h5ad ..."
    setup.go()
    assert c.message == ""
    assert c.run_folder() == SAMPLE["spots"].parent / "cpnn-runs" / "run-1"
    c.remove_sample(0)
    assert c.message == "Add a slide with its spots."


@pytest.mark.filterwarnings("ignore:.*the pitch of its spots implies")
def test_spots_that_do_not_fit_are_offered_a_fix_and_an_undoing(setup, tmp_path):
    spots = anndata.read_h5ad(SAMPLE["spots"])
    spots.obsm["spatial"] = np.asarray(spots.obsm["spatial"]) / 4
    spots.write_h5ad(tmp_path / "small.h5ad")
    c = setup.c
    c.add_sample(SampleFiles(SAMPLE["slide"], tmp_path / "small.h5ad"))
    setup.go()
    wrong = c.samples[0]
    assert "would put" in wrong.problem
    before = wrong.fit.on_tissue
    c.apply_fix(0)
    setup.go()
    mended = c.samples[0]
    assert mended.problem == ""
    assert mended.fit.on_tissue > before
    assert np.array(mended.files.moved)[0, 0] == pytest.approx(4, rel=0.05)
    assert "when moved" in mended.text
    c.undo_fix(0)
    setup.go()
    assert c.samples[0].files.moved is None
    assert c.samples[0].problem == wrong.problem


def test_fixes_follow_each_other():
    scale, shift = [[2, 0, 0], [0, 2, 0]], [[1, 0, 5], [0, 1, 7]]
    files = moved_by(moved_by(SampleFiles(Path("a"), Path("b")), scale), shift)
    assert files.moved == ((2, 0, 5), (0, 2, 7))


def test_bad_files_are_sentences_and_the_dock_stays(setup, tmp_path):
    c = setup.c
    (tmp_path / "bad.h5ad").write_text("nothing")
    c.add_sample(SampleFiles(SAMPLE["slide"], tmp_path / "bad.h5ad"))
    setup.go()
    assert "bad.h5ad" in c.samples[0].problem
    assert c.samples[0].text == "slide: cannot be used"
    assert c.message == c.samples[0].problem
    c.remove_sample(0)
    c.choose_reference(tmp_path / "bad.h5ad")
    setup.go()
    assert "bad.h5ad" in c.message
    c.choose_start(tmp_path / "bad.h5ad")
    setup.go()
    assert isinstance(setup.notes[-1], CheckpointError)
    c.open_run(tmp_path)
    setup.go()
    assert "no folder of a training run" in c.message
    assert not c.change("max_epochs", 0)
    assert "epoch" in c.message
    assert not c.change("learning_rate", "fast")
    assert c.settings == TrainingSettings()
    (tmp_path / "a.svs").touch()
    c.add_files([tmp_path / "a.svs"])
    assert "Drop one slide and its spots" in c.message
    c.add_sample(SampleFiles(SAMPLE["slide"], SAMPLE["spots"]))
    setup.go()
    assert c.samples[0].usable


def test_files_dropped_together_are_a_sample(setup):
    c = setup.c
    c.add_files([SAMPLE["spots"], SAMPLE["slide"]])
    assert (c.samples[0].files.slide, c.samples[0].files.spots) == (SAMPLE["slide"], SAMPLE["spots"])
    c.add_files([SAMPLE["spots"]], SampleFiles(SAMPLE["slide"], Path(), mpp=0.5))
    assert c.samples[1].files == SampleFiles(SAMPLE["slide"], SAMPLE["spots"], mpp=0.5)


def test_an_ome_zarr_and_its_spots_dropped_together_are_a_sample(setup, tmp_path):
    group = zarr.open_group(str(tmp_path / "he.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=np.full((300, 400, 3), 200, np.uint8), chunks=(256, 256, 3))
    axes = [*({"name": a, "unit": "micrometer"} for a in "yx"), {"name": "c"}]
    scale = {"coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5, 1]}]}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0", **scale}]}]
    setup.c.add_files([SAMPLE["spots"], tmp_path / "he.zarr"])
    assert (setup.c.samples[0].files.slide, setup.c.samples[0].files.spots) == (tmp_path / "he.zarr", SAMPLE["spots"])


def test_a_sample_removed_while_it_is_looked_at_stays_away(setup):
    c = setup.c
    c.add_sample(SampleFiles(SAMPLE["slide"], SAMPLE["spots"]))
    c.remove_sample(0)
    setup.go()
    assert c.samples == []


def test_prototypes_that_lack_genes_are_marked(setup, tmp_path):
    note = "Most genes are left out: of 400 detected genes 40 are in at least 200 of the 300 cells (min_cells)"
    whole = Prototypes.load(SAMPLE["prototypes"])
    dataclasses.replace(whole, provenance={"notes": [note]}).save(tmp_path / "few.h5ad")
    setup.c.choose_reference(tmp_path / "few.h5ad")
    setup.go()
    assert ". ⚠ The prototypes lack most genes of their cells: of 400 detected" in setup.c.reference.text
    assert "⚠" not in inspect_reference(SAMPLE["prototypes"]).text


def test_single_cells_offer_their_columns_with_counts(setup, tmp_path):
    cells = anndata.read_h5ad(SAMPLE["cells"])
    found = inspect_reference(SAMPLE["cells"])
    assert found.warning == ""
    assert (found.kind, found.n_cells) == ("cells", cells.n_obs)
    name = found.likely_column()
    column = next(column for column in found.columns if column.name == name)
    expected = cells.obs[name].astype(str).value_counts()
    assert column.counts == {str(k): int(v) for k, v in expected.items()}
    assert list(column.counts.values()) == sorted(column.counts.values(), reverse=True)
    c = ready(setup, tmp_path)
    c.choose_reference(SAMPLE["cells"])
    setup.go()
    assert c.job().prototypes == CellsFile(SAMPLE["cells"], name)
    c.choose_columns(name, "patient")
    assert c.job().prototypes == CellsFile(SAMPLE["cells"], name, "patient")


def test_settings_are_a_preset_and_changes(setup):
    c = setup.c
    c.change("max_epochs", 3)
    c.choose_preset("paper")
    assert c.settings == TrainingSettings.paper(max_epochs=3)
    c.choose_start(SAMPLE["model"])
    setup.go()
    spec = start_from(SAMPLE["model"])
    assert (c.settings.weights, c.settings.backbone) == (str(SAMPLE["model"]), spec["backbone"])
    assert "the image network" in start_text(c.settings)
    c.change("backbone", "squeezenet")  # weights of the model fit no other network
    assert (c.start_model, c.settings.weights) == (None, "imagenet")
    c.choose_start(None)
    assert c.settings == TrainingSettings.paper(max_epochs=3)
    assert "ImageNet" in start_text(c.settings)


def test_a_model_whose_network_is_frozen_is_no_start(setup, monkeypatch):
    from napari_cpnn.models import card

    known = card.read_card(SAMPLE["model"])
    known["model"]["backbone"] = "triplex"
    monkeypatch.setattr("napari_cpnn.models.read_card", lambda _path: known)
    with pytest.raises(TrainingError, match="cannot be a start model"):
        start_from(SAMPLE["model"])


def test_a_run_is_followed_shown_and_stopped(setup, tmp_path):
    c = ready(setup, tmp_path)
    wanted, model = [], tmp_path / "run" / "model.safetensors"
    setup.state.model_wanted.connect(wanted.append)
    c.renew = True
    c.train()
    assert c.message == "Starting ..."
    setup.go()
    child = FakeChild.started[0]
    assert child.job.out == tmp_path / "run"
    assert c.run.running
    child.now = RunStatus(running=True, text="Opening slide.tiff (1 of 1) ...")
    c.run.check()
    c.run.check()  # the first look is not back yet
    assert len(setup.background.jobs) == 1
    setup.go()
    assert c.run.text() == "Opening slide.tiff (1 of 1) ..."
    child.now = RunStatus((row(1, 0.1), row(2, 0.05)), 10, running=True, model=model, stamp=1)
    c.run.check()
    setup.go()
    assert c.run.text() == "epoch 2 of 10 · held-out PCC 0.050, best 0.100 at epoch 1 · at most 4 min left"
    assert wanted == [model]
    c.run.check()
    setup.go()
    assert wanted == [model]  # the same model
    (tmp_path / "run").mkdir()
    c.run.stop()
    assert (tmp_path / "run" / ".stop").exists()
    assert "Stopping after the present batch" in c.message
    child.now = dataclasses.replace(child.now, running=False, resumable=True)
    c.run.check()
    setup.go()
    assert c.message == ""
    assert c.run.text().endswith("stopped, can be resumed")
    c.choose_start(SAMPLE["model"])
    setup.go()
    c.show_before()
    c.show_after()
    assert wanted[1:] == [SAMPLE["model"], model]


def test_a_run_that_dies_says_why_once(setup, tmp_path):
    c = ready(setup, tmp_path)
    c.train()
    setup.go()
    FakeChild.started[0].now = RunStatus(error="The system has killed the training process.", resumable=True)
    c.run.check()
    setup.go()
    c.run.check()
    assert not setup.background.jobs
    assert c.message == "The system has killed the training process."
    assert [str(note) for note in setup.notes] == [c.message]
    c.train()
    setup.go()
    assert c.run.running  # the dock is as it was


def test_a_closed_dock_hears_nothing(setup, tmp_path):
    c = ready(setup, tmp_path)
    c.train()
    setup.go()
    c.add_sample(SampleFiles(SAMPLE["slide"], SAMPLE["spots"], name="again"))
    c.run.check()
    c.close()
    for signal in (c.samples_changed, c.run.changed, c.message_changed):
        signal.connect(lambda *_: pytest.fail("the widgets are gone"))
    assert setup.background.jobs
    setup.go()


def test_a_folder_that_holds_a_model_is_refused(setup, tmp_path):
    c = ready(setup, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").touch()
    c.train()
    setup.go()
    assert "already holds a trained model" in c.message
    assert not c.run.running


def test_a_run_is_opened_by_its_folder_and_resumed(setup, tmp_path):
    c = ready(setup, tmp_path)
    c.choose_preset("paper")
    c.change("max_epochs", 4)
    c.change("patch", PatchSpec(64, 1.0))
    job = c.job()
    job.write(tmp_path / "run" / "job.json")
    (tmp_path / "run" / "metrics.csv").write_text("epoch,loss,held_out_pcc,seconds\n1,2.5,,1\n2,1.5,0.25,1\n")
    background, state = Later(), ExploreState()
    other = FineTuneController(state, background, setup.notes.append)
    other.open_run(tmp_path / "run")
    background.run()
    assert other.job() == job.replace(out=other.run_folder())
    assert (other.preset, set(other.changes)) == ("paper", {"max_epochs", "patch"})
    assert other.run.text() == "epoch 2 of 4 · held-out PCC 0.250, best 0.250 at epoch 2 · stopped, can be resumed"
    other.run.resume()
    background.run()
    assert FakeChild.started[-1].job == job.replace(resume=True)
    other.close()


def test_choices_are_taken_back(setup, tmp_path):
    c, history = ready(setup, tmp_path), setup.state.history
    c.choose_preset("paper")
    c.change("max_epochs", 3)
    c.change("max_epochs", 4)
    c.remove_sample(0)
    history.undo()
    setup.go()
    assert [row.files.spots for row in c.samples] == [SAMPLE["spots"]]
    assert c.samples[0].usable
    history.undo()
    assert "max_epochs" not in c.changes
    history.undo()
    assert c.preset == "ours"
    for _ in range(3):
        history.undo()
    assert (c.samples, c.reference, c.out) == ([], None, None)
    assert c.message == "Add a slide with its spots."
