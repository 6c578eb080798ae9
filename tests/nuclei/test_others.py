"""Detectors of other packages, by modules of the same interface: what they are asked, and what becomes of labels."""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import KDTree

import napari_cpnn as nc
from napari_cpnn.errors import NucleiError, SettingsError
from napari_cpnn.nuclei import haematoxylin, others


def dark(tile: np.ndarray) -> np.ndarray:
    """Labels of what is dark, in no order and with gaps, as detectors number them."""
    found, n = ndimage.label(ndimage.gaussian_filter(haematoxylin(tile), 1.0) > 0.3)
    return np.concatenate([[0], 7 + 3 * np.random.default_rng(0).permutation(n)])[found]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The three packages, and with what they were called."""
    said = SimpleNamespace(made=[], calls=[], version="4.0.6")

    class StarDist2D:
        def __init__(self, config, name=None, basedir="."):
            said.made.append((config, name, basedir))
            self.thresholds = SimpleNamespace(prob=0.6, nms=0.3)

        def predict_instances(self, img, axes=None, normalizer=None, prob_thresh=None, **more):
            assert (img.dtype, axes, img.max() <= 1) == (np.float32, "YXC", True)
            said.calls.append(prob_thresh)
            labels = dark(np.rint(img * 255).astype(np.uint8))
            return labels.astype(np.int32), {"coord": [], "points": [], "prob": []}

    class InstanSeg:
        def __init__(self, model_type="brightfield_nuclei", device=None, image_reader="tiffslide", verbosity=1):
            said.made.append((model_type, device))

        def eval_small_image(
            self, image, pixel_size=None, normalise=True, return_image_tensor=True, target="all_outputs", **more
        ):
            said.calls.append((pixel_size, return_image_tensor, target))
            return torch.from_numpy(dark(image).astype(np.float32))[None, None]

    class CellposeModel:
        def __init__(self, gpu=False, pretrained_model="cpsam", model_type=None, diam_mean=None, device=None):
            said.made.append((gpu, pretrained_model, str(device)))

        def eval(self, x, batch_size=8, channels=None, diameter=None, cellprob_threshold=0.0, **more):
            said.calls.append((channels, cellprob_threshold))
            return dark(x).astype(np.uint16), [], np.zeros(256)

    modules = {"stardist": {}, "stardist.models": {"StarDist2D": StarDist2D}, "instanseg": {"InstanSeg": InstanSeg}}
    modules |= {"cellpose": {}, "cellpose.models": {"CellposeModel": CellposeModel}}
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(others, "version", lambda _: said.version)
    return said


@pytest.fixture
def weights(tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    (tmp_path / "2D_he").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Net()), str(tmp_path / "instanseg.pt"))
    (tmp_path / "nuclei.model").write_bytes(b"weights")
    return {
        "stardist": tmp_path / "2D_he", "instanseg": tmp_path / "instanseg.pt", "cellpose": tmp_path / "nuclei.model",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["stardist", "instanseg", "cellpose"])
def test_nuclei_of_all_tiles_are_found_once(asked, weights, painted, method):
    nuclei = nc.detect_nuclei(painted.slide, method=method, weights=weights[method], progress=False)
    away, _ = KDTree(nuclei.centers_um).query(painted.centers_um)
    assert np.mean(away < 1.5) > 0.97
    assert len(nuclei) == pytest.approx(len(painted.centers_um), rel=0.03)
    assert len(KDTree(nuclei.centers_um).query_pairs(1.5)) == 0  # also where tiles meet
    assert nuclei.outlines is not None
    assert np.median(nuclei.areas_um2()) == pytest.approx(np.pi * 3.7 * 2.9, rel=0.35)
    name = {"stardist": "StarDist", "instanseg": "InstanSeg", "cellpose": "Cellpose"}[method]
    assert nuclei.source == f"{name} 4.0.6, {weights[method].name}"
    assert len(asked.made) == 1
    assert len(asked.calls) == 4  # tiles


def test_what_each_is_given(asked, weights, painted):
    def detect(method: str, **changes: object) -> list:
        asked.made.clear(), asked.calls.clear()
        settings = nc.NucleiSettings(method=method, weights=str(weights[method]), device="cpu", **changes)
        nc.detect_nuclei(painted.slide, (100, 100, 200, 200), settings, progress=False)
        return asked.calls

    assert detect("stardist") == [pytest.approx(0.6)]
    assert asked.made == [(None, "2D_he", str(weights["stardist"].parent))]
    assert detect("stardist", sensitivity=0.75) == [pytest.approx(1 / 3)]  # odds 3 to 1, of .6 / .4 there are .5
    assert detect("instanseg") == [(0.5, False, "nuclei")]
    assert (isinstance(asked.made[0][0], torch.jit.ScriptModule), asked.made[0][1]) == (True, "cpu")
    assert detect("cellpose") == [(None, pytest.approx(0.0))]
    assert asked.made == [(False, str(weights["cellpose"]), "cpu")]
    asked.version = "3.1.1"
    assert detect("cellpose", sensitivity=0.75) == [([0, 0], pytest.approx(-np.log(3)))]


def test_what_is_missing_or_wrong_is_one_sentence(asked, weights, painted, tmp_path, monkeypatch):
    def error(**given: object) -> str:
        with pytest.raises(NucleiError) as caught:
            nc.detect_nuclei(painted.slide, (100, 100, 200, 200), progress=False, **given)
        return str(caught.value)

    assert "StarDist needs weights on this computer" in error(method="stardist")
    assert "There are no weights of Cellpose at" in error(method="cellpose", weights=tmp_path / "none")
    assert "StarDist takes the folder of a model" in error(method="stardist", weights=weights["cellpose"])
    assert "is it a TorchScript file" in error(method="instanseg", weights=weights["cellpose"])
    small = np.zeros((3, 3))
    monkeypatch.setattr(sys.modules["cellpose.models"].CellposeModel, "eval", lambda *_a, **_k: (small, [], []))
    assert "Cellpose returned no labels of 640 x 640 pixels" in error(method="cellpose", weights=weights["cellpose"])
    monkeypatch.setitem(sys.modules, "stardist.models", None)  # as if it were not installed
    said = error(method="stardist", weights=weights["stardist"])
    assert "StarDist is not installed here" in said
    assert "run pip install stardist, or use method='network'" in said
    with pytest.raises(SettingsError, match="takes no weights"):
        nc.NucleiSettings(weights="x")
    with pytest.raises(SettingsError, match="instanseg has no sensitivity"):
        nc.NucleiSettings(method="instanseg", sensitivity=0.6)
    with pytest.raises(SettingsError, match="Unknown method 'hovernet'"):
        nc.NucleiSettings(method="hovernet")


def test_versions_that_are_not_known(monkeypatch):
    def none(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(others, "version", none)
    assert others.other_source(nc.NucleiSettings(method="cellpose", weights="a/b.model")) == "Cellpose, b.model"
