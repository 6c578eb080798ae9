"""Files that earlier versions wrote are opened, and hold what was written; numbers are those that version computed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.mapping import BACKGROUND, DONE
from napari_cpnn.prediction import FeatureStore, Predictor
from napari_cpnn.slides import PatchReader
from napari_cpnn.spots import expression
from napari_cpnn.studies import cross_validation, report
from napari_cpnn.training.data import feature_cache, patch_cache, shares
from napari_cpnn.training.fit.resume import RunState
from written_before import make

VERSIONS = sorted(Path(__file__).parent.glob("*.zip"))
#: The settings of the files, where the defaults have changed since.
TRAINING = make.TRAINING.replace(composition_loss="squares", deconvolution="nnls")
#: SHA-256 of the measured expression: of a logarithm, the last bit depends on the processor.
MEASURED = "b46d633220760a48a14e389588bb59ec5a5f5331577b8809d1f8e4d508c969b8"


@pytest.fixture(autouse=True, params=VERSIONS, ids=lambda path: path.stem)
def written(request, tmp_path, monkeypatch):
    """The present folder is the one that was written in, and the registry knows its network."""
    shutil.unpack_archive(request.param, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    for registry, entry in make.REGISTERED:
        monkeypatch.setitem(registry, "tiny", entry)
    for module in (feature_cache, patch_cache, shares):  # caches of another version are not used
        monkeypatch.setattr(module, "__version__", request.param.stem)


def fail(*_args, **_kwargs):
    raise AssertionError("computed again")


@pytest.fixture
def nothing_cut(monkeypatch):
    """Patches come from the cache."""
    monkeypatch.setattr(PatchReader, "read", fail)


def test_a_model():
    model = nc.load_model("frozen/model.safetensors")
    assert model.fingerprint == "880da41f040c12c48b454fb9cd8bc2560bb1a8ac5b8737515acfad315ad083fc"
    assert (model.genes, model.cell_types) == (make.prototypes().genes, make.TYPES)
    decoded = model.decode(torch.tensor([[0.5, 0.25, 0.25]]), torch.ones(1, model.n_programs)).detach().numpy()
    np.testing.assert_allclose(
        decoded[0], [6.066216, 7.567501, 6.980619, 146.06918, 7.449832, 6.757931, 7.336238, 7.316478], rtol=1e-4
    )


def test_prototypes():
    found = nc.Prototypes.load("prototypes.h5ad")
    np.testing.assert_array_equal(found.profiles, make.prototypes().profiles)
    assert found.provenance == {"source": "made"}
    assert list(found.n_cells) == [30, 30, 30]


def test_a_map():
    found = nc.CompositionMap.load("map.zarr")
    assert (found.cell_types, found.decoder.genes) == (make.TYPES, make.prototypes().genes)
    assert (found.state == DONE).sum() == 38
    assert found.state[0, 0] == BACKGROUND
    np.testing.assert_array_equal(found.weights[9, 10], np.float16([0.32373046875, 0.3232421875, 0.35302734375]))
    programs = [0.37158203125, 0.2276611328125, 0.400634765625, -0.0677490234375]
    np.testing.assert_array_equal(found.programs[9, 10], np.float16(programs))
    assert found.out_of_domain[9, 10] == np.float16(0.2134)
    assert found.expression("GENE3")[9, 10] == pytest.approx(6.8614273, rel=1e-5)


def test_the_cached_map_of_a_slide(nothing_cut):
    slide, _ = make.sample("A1", 0)
    with pytest.warns(CpnnWarning, match="unlike what this model was trained on .2 slides"):
        found = nc.predict_map(slide, nc.load_model("frozen/model.safetensors"), settings=make.MAPPING)
    np.testing.assert_array_equal(found.weights, nc.CompositionMap.load("map.zarr").weights)


def test_cached_patches_and_features(nothing_cut, monkeypatch):
    monkeypatch.setattr(Predictor, "patch_features", fail)
    model = nc.train(make.samples(), make.prototypes(), make.FROZEN, "again", progress=False)
    assert model.genes == make.prototypes().genes


def test_features_around_patches():
    store = FeatureStore(make.FEATURES.shape[1], next(Path("cache/features").iterdir()))
    np.testing.assert_array_equal(store.get(make.KEYS), make.FEATURES)


def test_a_run_goes_on(monkeypatch, nothing_cut):
    samples, epochs = make.samples(), []
    measured = b"".join(expression(spots).tobytes() for _, spots in samples)
    if hashlib.sha256(measured).hexdigest() != MEASURED:
        monkeypatch.setattr(RunState, "require_same_data", lambda *_: None)
    nc.train(
        samples, make.prototypes(), TRAINING, "run", progress=False, resume=True,
        on_epoch=lambda row: epochs.append(row["epoch"]),
    )  # fmt: skip
    assert epochs == [2]
    losses = pd.read_csv("run/metrics.csv")["loss"]
    assert losses[0] == 1.49336
    assert losses[1] == pytest.approx(1.5283, rel=1e-3)
    assert not Path("run/resume.safetensors").exists()


@pytest.mark.filterwarnings("ignore:A1 and B1 show the same picture")
def test_folds(monkeypatch):
    monkeypatch.setattr(cross_validation, "train", fail)
    monkeypatch.setattr(report, "draw_cross_validation", lambda *_, **__: None)
    settings = TRAINING.replace(max_epochs=1)
    table = nc.cross_validate(
        make.samples(), make.prototypes(), settings, out="folds", evaluation=make.EVALUATION, progress=False
    )
    pd.testing.assert_frame_equal(table, pd.read_csv("folds/scores.csv"), check_dtype=False, check_exact=False)
    # Predicted again from the kept model: the folder does not say in which precision it was predicted.
    expected = {"A1": -0.4664210125, "B1": -0.6025303375}
    assert table.groupby("slide")["pcc"].mean().to_dict() == pytest.approx(expected, rel=1e-4)
    assert [slide.slide for slide in report.held_out_slides("folds")] == ["A1", "B1"]
