"""Training end to end, on a small world that can be learned."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from margins import less_than, more_than
from napari_cpnn import evaluate, load_model, train
from napari_cpnn.errors import MappingError, TrainingError, WeightsError
from napari_cpnn.evaluation import predict_spots, summarise
from napari_cpnn.evaluation.metrics import pearson
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import build_model, read_card
from napari_cpnn.settings import EvaluationSettings, TrainingSettings
from napari_cpnn.training.fit.module import CpnnTraining


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_learns_composition_and_expression(world, quick, tmp_path, real_curves):
    samples = [world.sample(i) for i in (1, 2, 3)]
    model = train(samples, world.prototypes, quick, out=tmp_path / "run", progress=False)

    slide, spots = world.sample(4)  # never seen
    truth = spots.obsm["truth"]
    weights, _ = predict_spots(model, slide, spots)
    more_than(0.85, pearson(weights.to_numpy(), truth).min(), "correlation of shares with the truth")
    # What no model can beat: the correlation of the noiseless expression with the counts.
    perfect = pearson(truth @ world.prototypes.profiles, spots.layers["counts"].toarray())
    reached = summarise(evaluate(model, slide, spots))["pcc"]
    more_than(0.88, reached / perfect.mean(), "PCC over that of the noiseless expression")

    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "settings.json", "metrics.csv", "curves.png", "model.safetensors",
    }  # fmt: skip
    assert TrainingSettings.from_dict(json.loads((tmp_path / "run/settings.json").read_text())) == quick
    history = rows_of(tmp_path / "run")
    assert [row["epoch"] for row in history] == list(range(1, len(history) + 1))
    less_than(1, history[-1]["loss"] / history[0]["loss"], "last loss over first")
    with Image.open(tmp_path / "run/curves.png") as picture:
        assert picture.size[0] > 600


def test_card_says_where_the_model_comes_from(world, quick, tmp_path):
    samples = [world.sample(1, name="first"), world.sample(2, name="second")]
    model = train(samples, world.prototypes, quick.replace(max_epochs=3), tmp_path, progress=False)
    provenance = read_card(tmp_path / "model.safetensors")["provenance"]
    assert provenance["training_data"] == [{"slide": "first", "n_spots": 90}]
    assert provenance["prototypes"] == {"source": "synthetic"}
    assert provenance["settings"]["batch_size"] == 36
    held_out = provenance["metrics"]["held_out"]
    best = max(rows_of(tmp_path), key=lambda row: row["held_out_pcc"])
    assert held_out["slide"] == "second"
    assert held_out["n_genes"] == 40
    assert held_out["pcc_mean"] == pytest.approx(best["held_out_pcc"], abs=1e-3)
    assert provenance["epoch"] == best["epoch"]
    # The same numbers again by the public way, over the same spots.
    scores = evaluate(model, *samples[1], settings=EvaluationSettings(precision="float32"))
    assert held_out["per_gene_pcc"] == {g: pytest.approx(r, abs=2e-3) for g, r in scores["pcc"].items()}


def test_calibration_brings_predictions_into_the_units_of_the_measurement(world, quick, tmp_path):
    samples = [world.sample(1), world.sample(2)]
    settings = quick.replace(max_epochs=4, validation="none")
    raw = train(samples, world.prototypes, settings.replace(calibrate=False), tmp_path / "raw", progress=False)
    fitted = train(samples, world.prototypes, settings, tmp_path / "fitted", progress=False)
    predicted = {}
    for name, model in (("raw", raw), ("fitted", fitted)):
        both = [predict_spots(model, *sample, precision="float32") for sample in samples]
        weights, programs = np.concatenate([w for w, _ in both]), np.concatenate([z for _, z in both])
        predicted[name] = model.decoder().expression(weights, programs, model.genes)
    counts = np.concatenate([spots.layers["counts"].toarray() for _, spots in samples]).astype(float)
    index = [world.prototypes.genes.index(g) for g in fitted.genes]
    measured = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))[:, index]
    np.testing.assert_allclose(pearson(predicted["raw"], measured), pearson(predicted["fitted"], measured), atol=1e-5)
    for g in range(len(index)):
        slope, intercept = np.polyfit(predicted["raw"][:, g], measured[:, g], 1)
        if slope > 1e-3:
            wanted = slope * predicted["raw"][:, g] + intercept
            np.testing.assert_allclose(predicted["fitted"][:, g], wanted, atol=2e-3)
    np.testing.assert_allclose(predicted["fitted"].mean(axis=0), measured.mean(axis=0), atol=1e-3)


def test_same_seed_same_bits_another_seed_others(world, quick, tmp_path):
    samples = [world.sample(1), world.sample(2)]

    def model(name, seed):
        settings = quick.replace(max_epochs=2, seed=seed)
        return train(samples, world.prototypes, settings, tmp_path / name, progress=False)

    torch.manual_seed(123)
    first = model("a", 0)
    drawn = torch.rand(3)
    torch.manual_seed(123)
    assert torch.equal(torch.rand(3), drawn), "a run must leave the caller's random numbers alone"
    assert model("b", 0).fingerprint == first.fingerprint
    assert model("c", 1).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "settings",
    [
        TrainingSettings.plain(loss="mse"),
        TrainingSettings.plain(loss="pcc"),
        TrainingSettings.paper(),
        TrainingSettings(prototype_mode="fixed", backbone_learning_rate=0.0, augment=False),
        TrainingSettings(prototype_mode="random", scale_shift=False, composition_weight=0.0),
    ],
    ids=["mse", "pcc", "paper", "frozen", "random"],
)
def test_every_kind_of_model_trains(world, quick, tmp_path, settings):
    keep = {
        name: getattr(quick, name) for name in ("backbone", "weights", "patch", "hidden", "learning_rate", "device")
    }
    settings = settings.replace(**keep, max_epochs=2, batch_size=30)
    model = train([world.sample(1), world.sample(2)], world.prototypes, settings, tmp_path, progress=False)
    history = rows_of(tmp_path)
    assert len(history) == 2
    assert (history[0]["composition_loss"] > 0) == (settings.composition_weight > 0)
    assert model.cell_types == (() if settings.head == "linear" else world.prototypes.cell_types)
    assert np.isfinite(summarise(evaluate(model, *world.sample(2)))["pcc"])
    if settings.prototype_mode == "fixed":
        np.testing.assert_allclose(model.decoder().prototypes, world.prototypes.profiles, atol=1e-4)


def test_frozen_backbone_stays_as_it_was(world, quick, tmp_path):
    settings = quick.replace(backbone_learning_rate=0.0, max_epochs=1)
    start = build_model(settings, ["a"], ["x"], [[1.0]], [1.0]).backbone.state_dict()
    model = train([world.sample(1), world.sample(2)], world.prototypes, settings, tmp_path, progress=False)
    assert all(torch.equal(start[name], tensor) for name, tensor in model.backbone.state_dict().items())


@pytest.mark.parametrize("rate", [0.0, 1e-3], ids=["frozen", "fine-tuned"])
def test_modes_are_right_in_every_epoch_also_after_validation(world, quick, tmp_path, monkeypatch, rate):
    """The network has batch normalisation, which averages what it sees where it is in train mode."""
    steps: dict[str, list[tuple[int, bool, set[bool]]]] = {"training_step": [], "validation_step": []}

    def noted(name):
        step = getattr(CpnnTraining, name)

        def function(self, batch, index):
            network = self.model.backbone_interface.network
            rest = {module.training for module in self.model.head.modules()} | {self.model.training}
            assert len({module.training for module in network.modules()}) == 1
            steps[name].append((self.current_epoch, network.training, rest))
            return step(self, batch, index)

        monkeypatch.setattr(CpnnTraining, name, function)

    for name in steps:
        noted(name)
    monkeypatch.setattr(CpnnTraining, "setup", lambda self, **_: self.model.eval())  # as one that has predicted before
    # With changes of the stains a frozen network, too, is computed at each step.
    settings = quick.replace(backbone="he-small", patch=PatchSpec(32, 1.0), max_epochs=3, stain_augment=0.05)
    settings = settings.replace(backbone_learning_rate=rate)
    model = train([world.sample(1), world.sample(2)], world.prototypes, settings, tmp_path, progress=False)
    trained, validated = steps["training_step"], steps["validation_step"]
    assert {epoch for epoch, *_ in trained} == {epoch for epoch, *_ in validated} == {0, 1, 2}
    assert all(mode is (rate > 0) and rest == {True} for _, mode, rest in trained)
    assert all(mode is False and rest == {False} for _, mode, rest in validated)
    seen = {int(value) for name, value in model.backbone.state_dict().items() if name.endswith("num_batches_tracked")}
    start = build_model(settings, ["a"], ["x"], [[1.0]], [1.0]).backbone.state_dict()
    before = {int(value) for name, value in start.items() if name.endswith("num_batches_tracked")}
    n_steps = len(trained) // 3 * model.provenance["epoch"]
    assert seen == {count + n_steps * (rate > 0) for count in before}
    averages = [name for name in start if name.endswith("running_mean")]
    assert all(torch.equal(start[n], model.backbone.state_dict()[n]) == (rate == 0) for n in averages)


def test_stops_early_and_returns_the_best(world, quick, tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1])

    def pretend(self):
        self.held_out = {"pcc": next(scores), "scc": 0.0, "n_genes": 40}

    monkeypatch.setattr(CpnnTraining, "on_validation_epoch_end", pretend)
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    train(samples, world.prototypes, quick.replace(patience=2), tmp_path, progress=False)
    assert [row["held_out_pcc"] for row in rows_of(tmp_path)] == [0.1, 0.5, 0.4, 0.3]
    assert load_model(tmp_path / "model.safetensors").provenance["epoch"] == 2


def test_hook_hears_each_epoch(world, quick, tmp_path):
    heard = []
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    train(samples, world.prototypes, quick.replace(max_epochs=2), tmp_path, progress=False, on_epoch=heard.append)
    assert [row["epoch"] for row in heard] == [1, 2]
    assert set(heard[0]) == set(rows_of(tmp_path)[0])


def interrupt_in(epoch):
    def hook(row):
        if row["epoch"] == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return hook


@pytest.fixture
def interruptible():
    """Ctrl-C is heard also where the tests run in the background of a shell, which ignores it there."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_the_best_so_far(world, quick, tmp_path, capsys):
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    before = signal.getsignal(signal.SIGINT)
    model = train(samples, world.prototypes, quick, tmp_path, on_epoch=interrupt_in(3))
    assert signal.getsignal(signal.SIGINT) is before
    assert len(rows_of(tmp_path)) == 3
    assert model.provenance["metrics"]["held_out"]["per_gene_pcc"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    out, err = capsys.readouterr()
    assert "Interrupted: the best model so far" in out + err


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_before_the_first_epoch_ends_leaves_no_model(world, quick, tmp_path, monkeypatch):
    original = CpnnTraining.training_step

    def step(self, batch, index):
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, index)

    monkeypatch.setattr(CpnnTraining, "training_step", step)
    with pytest.raises(TrainingError, match="interrupted before"):
        train([world.sample(1), world.sample(2)], world.prototypes, quick, tmp_path, progress=False)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_loss_that_is_not_finite_names_the_epoch_and_keeps_the_best(world, quick, tmp_path, monkeypatch):
    original = CpnnTraining.terms

    def terms(self, batch):
        result = original(self, batch)
        if self.current_epoch == 2:
            result["expression"] = result["expression"] * float("nan")
        return result

    monkeypatch.setattr(CpnnTraining, "terms", terms)
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    with pytest.raises(TrainingError, match=r"nan in epoch 3.*best model so far is in .*model\.safetensors"):
        train(samples, world.prototypes, quick, tmp_path, progress=False)
    assert load_model(tmp_path / "model.safetensors").provenance["epoch"] <= 2
    assert (tmp_path / "curves.png").exists()


def test_a_finished_run_is_not_replaced(world, quick, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(TrainingError, match="already holds a trained model"):
        train([world.sample(1)], world.prototypes, quick, tmp_path, progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


def test_a_folder_that_cannot_be_made(world, quick, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TrainingError, match="cannot be written"):
        train([world.sample(1)], world.prototypes, quick, tmp_path / "file" / "run", progress=False)


def test_a_full_disk_is_one_sentence(world, quick, tmp_path, monkeypatch):
    def full(model, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_cpnn.training.fit.run_folder.save_model", full)
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    with pytest.raises(
        TrainingError, match=r"cannot be written \(No space left on device\); free some space"
    ) as caught:
        train(samples, world.prototypes, quick, tmp_path, progress=False)
    assert "best model so far" not in str(caught.value)  # there is none


def test_leftovers_of_a_killed_run_are_cleared(world, quick, tmp_path):
    killed = (
        "import sys, pathlib; from napari_cpnn.storage import temporary_beside; "
        "temporary_beside(pathlib.Path(sys.argv[1])).mkdir()"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "patches")], check=True)
    assert list(tmp_path.glob(".napari-cpnn-*"))
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    train(samples, world.prototypes, quick.replace(max_epochs=1), tmp_path, progress=False)
    assert not list(tmp_path.glob(".*"))


def test_wrong_weights_show_before_any_patch_is_cut(world, quick, tmp_path, monkeypatch):
    def cut(*_args):
        raise AssertionError("patches were cut for a run that cannot start")

    monkeypatch.setattr("napari_cpnn.training.fit.fit.prepare", cut)
    with pytest.raises(WeightsError, match="nowhere"):
        train([world.sample(1)], world.prototypes, quick.replace(weights="nowhere.pth"), tmp_path, progress=False)


def test_an_unknown_device(world, quick, tmp_path):
    with pytest.raises(MappingError, match="'cuda:99'"):
        train([world.sample(1)], world.prototypes, quick.replace(device="cuda:99"), tmp_path, progress=False)


def test_it_is_quiet_but_for_its_own_bar(world, quick, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(samples, world.prototypes, quick.replace(max_epochs=2), "run", progress=False)
    assert capfd.readouterr() == ("", "")
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["run"]
    train(samples, world.prototypes, quick.replace(max_epochs=2), "other", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 2/2, loss" in err
    assert "held-out PCC" in err
    assert "Tip" not in err


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_too_little_memory_is_one_sentence(world, quick, tmp_path, monkeypatch, error):
    def terms(self, batch):
        raise error

    monkeypatch.setattr(CpnnTraining, "terms", terms)
    with pytest.raises(TrainingError, match=r"A batch of 36 patches does not fit into memory; lower batch_size"):
        train([world.sample(1), world.sample(2)], world.prototypes, quick, tmp_path, progress=False)


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_ends_at_once(world, quick, tmp_path, monkeypatch):
    original = CpnnTraining.training_step

    def step(self, batch, index):
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, index)

    monkeypatch.setattr(CpnnTraining, "training_step", step)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train([world.sample(1), world.sample(2)], world.prototypes, quick, tmp_path, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert load_model(tmp_path / "model.safetensors").provenance["epoch"] == 1


def test_trains_in_a_thread(world, quick, tmp_path):
    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    with ThreadPoolExecutor(1) as pool:
        settings = quick.replace(max_epochs=1)
        model = pool.submit(train, samples, world.prototypes, settings, tmp_path, progress=False).result()
    assert model.genes


def test_a_broken_hook_is_not_hidden(world, quick, tmp_path):
    def hook(row):
        raise ZeroDivisionError

    samples = [world.sample(1, rows=4), world.sample(2, rows=4)]
    with pytest.raises(ZeroDivisionError):
        train(samples, world.prototypes, quick, tmp_path, progress=False, on_epoch=hook)
    assert (tmp_path / "model.safetensors").exists()
