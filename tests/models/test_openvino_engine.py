"""OpenVINO says what torch says, whatever the batch; what it cannot do is said; nothing is reported to anybody."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fakes import tissue_image
from napari_cpnn import MappingSettings, Slide, predict_map
from napari_cpnn.errors import CpnnWarning, MappingError, SettingsError
from napari_cpnn.models import CPNN, ENCODERS, Prediction, compile_with_openvino, get_encoder, openvino_engine
from napari_cpnn.models.backbones.frozen import frozen_backbone
from napari_cpnn.models.openvino_engine import OpenVinoNetwork
from napari_cpnn.prediction import Predictor
from napari_cpnn.prediction import predictor as predicting
from tiny_triplex import tiny_triplex

pytest.importorskip("openvino")

#: OpenVINO asks the processor for bfloat16, which its oneDNN must not use then; by itself it gives way to torch there.
as_the_processor_is = pytest.mark.skipif(
    "ONEDNN_MAX_CPU_ISA" in os.environ, reason="OpenVINO cannot be limited to other instruction sets in bfloat16"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images_of(model: CPNN, n: int) -> np.ndarray:
    side = model.patch.size_px
    return np.random.default_rng(0).integers(0, 255, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["squeezenet", "resnet18", "he-small", "nic"])
def test_an_encoder_has_the_features_of_torch(name: str) -> None:
    network = ENCODERS[name].build("none").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected, found = network(images), OpenVinoNetwork(network, "f32", keep=False)(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@as_the_processor_is
def test_a_model_predicts_the_same_whatever_the_batch(model: CPNN) -> None:
    images = images_of(model, 11)
    ours, torchs = (Predictor(model, "cpu", "float32", engine=engine) for engine in ("openvino", "torch"))
    whole = ours.predict(images)
    for found, expected in zip(whole, torchs.predict(images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for rows in (slice(0, 1), slice(2, 9)):
        for part, expected in zip(ours.predict(images[rows]), whole, strict=True):
            np.testing.assert_array_equal(part, expected[rows])
    coarse = Predictor(model, "cpu", "bfloat16", engine="openvino").predict(images)
    np.testing.assert_allclose(coarse.weights, whole.weights, atol=0.02)


def test_encoders_side_by_side_and_triplex(model: CPNN) -> None:
    both = frozen_backbone(get_encoder("he-small+colour").build("none")).eval()
    replaced = openvino_engine._replaced(both, "f32", keep=False)
    kinds = [type(module) for module in replaced.modules() if isinstance(module, OpenVinoNetwork)]
    assert len(kinds) == 1  # colour statistics have no weights
    triplex = tiny_triplex().eval()
    images = images_of(triplex, 3)
    found, expected = (Predictor(triplex, "cpu", "float32", engine=name) for name in ("openvino", "torch"))
    for one, other in zip(found.patch_and_own_features(images), expected.patch_and_own_features(images), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_converted_network_is_kept_and_a_damaged_one_made_again(
    model: CPNN, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of(model, 2)
    first = Predictor(model, "cpu", "float32", engine="openvino").predict(images)
    (entry,) = (cache / "engines").iterdir()
    calls = []
    convert = openvino_engine._convert
    monkeypatch.setattr(openvino_engine, "_convert", lambda *args: calls.append(args) or convert(*args))
    again = Predictor(model, "cpu", "float32", engine="openvino").predict(images)
    assert not calls
    np.testing.assert_array_equal(again.weights, first.weights)
    (entry / "network.xml").write_text("<no network")
    made = Predictor(model, "cpu", "float32", engine="openvino").predict(images)
    assert len(calls) == 1
    np.testing.assert_array_equal(made.weights, first.weights)


class Unknown(nn.Module):
    """Network with an operation that OpenVINO does not know."""

    n_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(3))

    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.eigvals(images.mean(dim=1)[:, :3, :3]).real * self.factor


def test_warnings_of_ours_are_heard_while_a_network_is_converted() -> None:
    """It may be converted in a thread, while the others warn of what they leave out."""

    class Warns(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            warnings.warn("of torch", UserWarning, stacklevel=1)
            warnings.warn("of ours", CpnnWarning, stacklevel=1)
            return images * 2

    with pytest.warns(CpnnWarning, match="of ours") as said:
        openvino_engine._convert(Warns(), "forward", (1, 3, 8, 8))
    assert {one.category for one in said} == {CpnnWarning}


def test_a_network_that_it_does_not_know(model: CPNN) -> None:
    model.backbone = Unknown()
    with pytest.raises(MappingError, match=r"OpenVINO cannot compute Unknown: .* choose the engine 'torch'"):
        compile_with_openvino(model)


def test_by_itself_it_gives_way_to_torch_and_says_so(model: CPNN, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MappingError("OpenVINO cannot compute X.")

    monkeypatch.setattr("napari_cpnn.models.compile_with_openvino", fail)
    monkeypatch.delenv("NAPARI_CPNN_ENGINE", raising=False)
    with pytest.warns(CpnnWarning, match="cannot compute X. .* torch is used instead"):
        predictor = Predictor(model, "cpu", "float32")
    assert (predictor.engine, predictor.arithmetic) == ("torch", "float32")
    with pytest.raises(MappingError, match="cannot compute X"):
        Predictor(model, "cpu", "float32", engine="openvino")


def test_it_is_chosen_where_it_is_installed(model: CPNN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAPARI_CPNN_ENGINE", raising=False)
    predictor = Predictor(model, "cpu", "float32")
    assert (predictor.engine, predictor.arithmetic) == ("openvino", "float32 (OpenVINO)")
    monkeypatch.setenv("NAPARI_CPNN_ENGINE", "torch")
    assert Predictor(model, "cpu", "float32").engine == "torch"
    monkeypatch.setenv("NAPARI_CPNN_ENGINE", "abacus")
    with pytest.raises(MappingError, match="no engine 'abacus'; use 'auto', 'torch' or 'openvino'"):
        Predictor(model, "cpu")
    monkeypatch.delenv("NAPARI_CPNN_ENGINE")
    monkeypatch.setattr("napari_cpnn.models.devices.find_spec", lambda _: None)
    assert Predictor(model, "cpu", "float32").engine == "torch"
    with pytest.raises(MappingError, match=r'not installed; pip install "napari-cpnn\[fast\]"'):
        Predictor(model, "cpu", engine="openvino")
    with pytest.raises(SettingsError, match="Unknown engine 'abacus'"):
        MappingSettings(engine="abacus")  # type: ignore[arg-type]


def test_a_map_says_how_it_was_computed_and_is_not_mixed_with_that_of_another_engine(model: CPNN, cache: Path) -> None:
    slide = Slide.from_arrays([tissue_image(14, 14, size=64)], mpp=0.5)
    settings = MappingSettings(device="cpu", precision="float32")
    maps = [predict_map(slide, model, settings=settings.replace(engine=name)) for name in ("openvino", "torch")]
    assert [cmap.provenance["arithmetic"] for cmap in maps] == ["float32 (OpenVINO)", "float32"]
    assert len(list((cache / "maps").iterdir())) == 2
    done = maps[0].state == 2
    np.testing.assert_allclose(maps[0].weights[done], maps[1].weights[done], atol=2e-3)


@pytest.fixture
def trusted(model: CPNN, monkeypatch: pytest.MonkeyPatch) -> CPNN:
    """A model all of whose genes count little, so that int8 passes."""
    monkeypatch.setattr("napari_cpnn.models.held_out_pcc", lambda of: dict.fromkeys(of.genes, 0.05))
    return model


@as_the_processor_is
def test_int8_is_near_and_kept(trusted: CPNN, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([tissue_image(1, 1, size=trusted.patch.size_px, seed=i)[None] for i in range(64)])
    predictor = Predictor(trusted, "cpu", "int8", engine="openvino")
    before = predictor.predict(images)
    assert predictor.quantize(images) <= 0.002
    assert predictor.arithmetic == "int8 (OpenVINO)"
    after = predictor.predict(images)
    assert not np.array_equal(after.weights, before.weights)
    assert np.corrcoef(after.weights.ravel(), before.weights.ravel())[0, 1] > 0.999
    np.testing.assert_array_equal(predictor.predict(images[3:5]).weights, after.weights[3:5])
    monkeypatch.setattr(openvino_engine, "_quantized", lambda *_: pytest.fail("was kept"))
    again = Predictor(trusted, "cpu", "int8", engine="openvino")
    again.quantize(images)
    np.testing.assert_array_equal(again.predict(images).weights, after.weights)


@as_the_processor_is
def test_int8_that_costs_too_much_is_taken_back(trusted: CPNN, monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of(trusted, 40)
    predictor = Predictor(trusted, "cpu", "int8", engine="openvino")
    before, usual = predictor.predict(images), predictor.arithmetic
    monkeypatch.setattr(predicting, "MAX_DRIFT", -1.0)
    with pytest.warns(CpnnWarning, match=r"the worst gene would lose 0\.\d+ of its correlation.*OpenVINO\) is used"):
        predictor.quantize(images)
    assert predictor.arithmetic == usual
    np.testing.assert_array_equal(predictor.predict(images).weights, before.weights)


def test_the_drift_is_that_of_the_worst_gene_by_its_score(model: CPNN, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(len(model.cell_types)), 50).astype(np.float32)
    programs = rng.normal(size=(50, model.n_programs)).astype(np.float32)
    old = Prediction(weights, programs, np.zeros(50, np.float32))
    new = Prediction(weights, programs + 0.1 * rng.normal(size=programs.shape).astype(np.float32), old.out_of_domain)
    scores = {gene: 0.1 + 0.05 * i for i, gene in enumerate(model.genes[:-1])}  # of the last nothing is known
    monkeypatch.setattr("napari_cpnn.models.held_out_pcc", lambda _: scores)
    a, b = (model.decoder().expression(one.weights, one.programs, list(scores)) for one in (old, new))
    losses = [score * (1 - np.corrcoef(a[:, i], b[:, i])[0, 1]) for i, score in enumerate(scores.values())]
    assert predicting._drift(model, old, new) == pytest.approx(max(losses), rel=1e-3)


@as_the_processor_is
def test_int8_where_it_cannot_be(model: CPNN) -> None:
    with pytest.warns(CpnnWarning, match="5 patches are too few to choose the ranges of int8"):
        Predictor(model, "cpu", "int8", engine="openvino").quantize(images_of(model, 5))
    with pytest.raises(MappingError, match="int8 needs a CPU and OpenVINO"):
        Predictor(model, "cpu", "int8", engine="torch").quantize(images_of(model, 64))
    with pytest.raises(SettingsError, match="int8 needs the engine"):
        MappingSettings(precision="int8", engine="torch")


@as_the_processor_is
def test_a_map_in_int8_says_so(trusted: CPNN) -> None:
    slide = Slide.from_arrays([tissue_image(14, 14, size=64)], mpp=0.5)
    settings = MappingSettings(device="cpu", precision="int8", engine="openvino", cache=False)
    cmap = predict_map(slide, trusted, settings=settings)
    assert cmap.provenance["arithmetic"] == "int8 (OpenVINO)"


def test_its_telemetry_is_not_imported() -> None:
    sample = Path(__file__).parents[2] / "sample_data" / "model.safetensors"
    code = (
        "import sys; from napari_cpnn.models import compile_with_openvino, load_model\n"
        f"compile_with_openvino(load_model({str(sample)!r}))\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')], 'openvino' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert out.stdout.strip() == "[] True"
