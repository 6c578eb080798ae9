"""SIGTERM, which a scheduler or a shutting system sends, ends the terminal's tasks as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import pytest

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.jobs.job import SampleFiles, TrainingJob
from napari_cpnn.training.jobs.watch import LOCK_FILE, is_running, look_at_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM on Windows")

#: Ctrl-C and SIGTERM as the shell names them.
ENDED = (130, 143)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "napari_cpnn.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def terminate_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> str:
    """What the process has written, after SIGTERM at the moment of ``condition``."""
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=60)[0]


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    sample = sample_folder()
    spots = anndata.read_h5ad(sample / SAMPLE_FILES["spots"])
    spots[::4].write_h5ad(tmp_path / "spots.h5ad")
    (tmp_path / "genes.txt").write_text("\n".join(spots.var_names[:20]) + "\n")
    settings = TrainingSettings(
        backbone="squeezenet", weights="none", patch=PatchSpec(32, 2.0), hidden=16, n_programs=2, max_epochs=500,
        batch_size=32, patience=500, genes=str(tmp_path / "genes.txt"), device="cpu", min_spot_fraction=0.0,
    )  # fmt: skip
    files = SampleFiles(sample / SAMPLE_FILES["slide"], tmp_path / "spots.h5ad", name="section")
    return TrainingJob((files,), sample / SAMPLE_FILES["prototypes"], settings, tmp_path / "run")


@pytest.mark.slow
def test_training_ends_with_its_best_model_and_leaves_no_mark(job: TrainingJob, tmp_path: Path) -> None:
    job.write(tmp_path / "job.json")
    process = start("train", "--job", str(tmp_path / "job.json"), "--quiet")
    said = terminate_when(process, (job.out / "model.safetensors").exists)
    assert process.returncode in (0, *ENDED), said  # 0: a run that was stopped after an epoch has a model
    assert "Traceback" not in said
    assert not is_running(job.out)
    assert not (job.out / LOCK_FILE).exists()
    assert look_at_run(job.out).resumable
    assert not [p.name for p in job.out.iterdir() if p.name.startswith(".")]


@pytest.mark.slow
def test_before_the_first_epoch_too(job: TrainingJob, tmp_path: Path) -> None:
    job.write(tmp_path / "job.json")
    process = start("train", "--job", str(tmp_path / "job.json"), "--quiet")
    said = terminate_when(process, (job.out / LOCK_FILE).exists)
    assert process.returncode in ENDED, said
    assert "Traceback" not in said
    assert not (job.out / LOCK_FILE).exists()


@pytest.mark.slow
def test_predicting_leaves_nothing_behind(tmp_path: Path, private_cache: Path) -> None:
    sample, out = sample_folder(), tmp_path / "out"
    out.mkdir()
    files = [str(sample / SAMPLE_FILES["slide"]), "--model", str(sample / SAMPLE_FILES["model"])]
    process = start("predict", *files, "--out", str(out / "map.zarr"), "--stride-um", "14", "--quiet")
    said = terminate_when(process, lambda: any(private_cache.rglob("*.zarr")))
    assert process.returncode in ENDED, said
    assert "Traceback" not in said
    assert list(out.iterdir()) == []
    assert not [p for p in private_cache.rglob("*") if p.name.startswith(".")]
