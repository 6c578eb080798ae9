"""A run on several devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cpnn import load_model, train
from napari_cpnn.errors import SettingsError
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data.batches import _TrainingBatches
from napari_cpnn.training.fit.processes import is_first_process, trainer_options
from training.prepared import prepare

SCRIPT = """
import os, sys
sys.path[:0] = {tests!r}
import numpy as np
from small_world import PATCH, TYPES, World
from napari_cpnn import Prototypes, TrainingSettings, train
from napari_cpnn.training.fit import run_folder
run_folder.draw_curves = lambda _rows, path, _title: path.touch()  # takes longer than the run

profiles = np.random.default_rng(7).dirichlet(np.full(40, 0.5), 3).astype(np.float32)
world = World(Prototypes(profiles, TYPES, tuple(f"GENE{{i}}" for i in range(40)), np.full(3, 100), {{}}))
settings = TrainingSettings(
    backbone="squeezenet", weights="none", patch=PATCH, hidden=16, n_programs=2, max_epochs=2, batch_size=18,
    learning_rate=1e-2, backbone_learning_rate=1e-3, composition_weight=1.0, device="cpu", devices="2", strategy="ddp",
)
heard = []
samples = [world.sample(1, rows=5), world.sample(2, rows=4)]
model = train(samples, world.prototypes, settings, sys.argv[1], progress=False, on_epoch=heard.append)
os.write(1, f"{{os.environ['LOCAL_RANK']}} {{model.fingerprint}} {{len(heard)}}\\n".encode())  # in one piece
"""


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=[str(Path(__file__).parents[2])]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")], env=environment, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = sorted(line.split() for line in done.stdout.splitlines())
    fingerprint = load_model(tmp_path / "run" / "model.safetensors").fingerprint
    assert said == [["0", fingerprint, "2"], ["1", fingerprint, "0"]]
    names = {"settings.json", "metrics.csv", "curves.png", "model.safetensors"}
    assert {p.name for p in (tmp_path / "run").iterdir()} == names
    assert done.stderr == ""


@pytest.mark.parametrize("n_processes", [2, 3, 4])
def test_batches_are_dealt_whole_and_in_equal_numbers(world, quick, tmp_path, n_processes):
    settings = quick.replace(validation="none", batch_size=20, stain_augment=0.1)
    data = prepare([world.sample(1), world.sample(2)], world.prototypes, settings, tmp_path)

    def orders(process):
        sampler = _TrainingBatches(data, settings, process)
        sampler.set_epoch(3)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    alone = orders((0, 1))
    shares = [orders((rank, n_processes)) for rank in range(n_processes)]
    assert {len(share) for share in shares} == {-(-len(alone) // n_processes)}
    together = [order for turn in zip(*shares, strict=True) for order in turn]
    for i, order in enumerate(together):
        assert (order.rows == alone[i % len(alone)].rows).all()
        assert (order.symmetries == alone[i % len(alone)].symmetries).all()
        assert (order.stains == alone[i % len(alone)].stains).all()
    assert set(np.concatenate([order.rows for order in together])) == set(data.train)


@pytest.mark.parametrize(
    ("devices", "device", "expected"),
    [
        ("1", torch.device("cpu"), {"accelerator": "cpu", "devices": 1}),
        ("1", torch.device("cuda", 3), {"accelerator": "gpu", "devices": [3]}),
        ("4", torch.device("cuda"), {"accelerator": "gpu", "devices": 4, "strategy": "ddp"}),
        ("0,2", torch.device("cuda"), {"accelerator": "gpu", "devices": [0, 2], "strategy": "ddp"}),
        ("auto", torch.device("cuda"), {"accelerator": "gpu", "devices": "auto", "strategy": "ddp"}),
        ("3", torch.device("cpu"), {"accelerator": "cpu", "devices": 3, "strategy": "ddp"}),
    ],
)
def test_what_lightning_is_told(devices, device, expected):
    settings = TrainingSettings(devices=devices, strategy="ddp")
    assert trainer_options(settings, device) == {**expected, "use_distributed_sampler": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": "two"}, "a number, a list such as 0,2 or auto, not 'two'"),
        ({"devices": "0"}, "not '0'"),
        ({"devices": "0,1"}, "no numbered devices"),
        ({"devices": "2", "device": "cpu:0"}, "names one device, cpu:0, and devices asks for 2"),
    ],
)
def test_devices_that_make_no_sense_are_refused_at_once(world, quick, tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message):
        train([world.sample(1)], world.prototypes, quick.replace(**changes), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_on_one_device_writes_whatever_a_cluster_calls_the_process(monkeypatch):
    monkeypatch.setattr("lightning.fabric.utilities.rank_zero.rank_zero_only", type("Rank", (), {"rank": 5}))
    assert is_first_process(TrainingSettings())
    assert not is_first_process(TrainingSettings(devices="2"))
