from __future__ import annotations

import json
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_cpnn.errors import CheckpointError
from napari_cpnn.models import CPNN, build_model, load_model, read_card, save_model
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import TrainingSettings


@pytest.fixture
def saved(model: CPNN, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    return path


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def with_card(path: Path, **changes: object) -> None:
    """Rewrite the file with another card."""
    card = {**json.loads(metadata(path)["napari_cpnn"]), **changes}
    save_file(load_file(path), path, {"napari_cpnn": json.dumps(card)})


@pytest.mark.parametrize("kind", ["model", "linear_model"])
def test_a_saved_model_comes_back_to_the_bit(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, patches: np.ndarray
) -> None:
    model: CPNN = request.getfixturevalue(kind)
    model.scale.copy_(torch.linspace(0, 2, 40))
    model.shift.copy_(torch.linspace(-1, 1, 40))
    path = tmp_path / "deep" / "er" / "model.safetensors"
    save_model(model, path)
    again = load_model(path)
    assert again.spec == model.spec
    assert again.fingerprint == model.fingerprint
    assert not again.training
    with torch.no_grad():
        first, second = model(model.normalize(patches)), again(again.normalize(patches))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(model.decode(*first), again.decode(*second))
    state = again.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


def test_a_densenet_model_comes_back_too(profiles: np.ndarray, mean_expression: np.ndarray, tmp_path: Path) -> None:
    settings = TrainingSettings(weights="none", hidden=8)
    model = build_model(settings, [f"g{i}" for i in range(40)], ["a", "b", "c"], profiles, mean_expression)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))  # gives the batch statistics values of their own
    path = tmp_path / "stnet.safetensors"
    save_model(model, path, half=True)
    assert path.stat().st_size < 14.6e6
    again = load_model(path)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(images)[1], model.eval()(images)[1], rtol=0.02, atol=0.02)


def test_half_precision_halves_the_network_only(model: CPNN, saved: Path, tmp_path: Path, patches: np.ndarray) -> None:
    path = tmp_path / "half.safetensors"
    save_model(model, path, half=True)
    assert path.stat().st_size < 0.6 * saved.stat().st_size
    stored = load_file(path)
    assert stored["backbone.features.0.weight"].dtype == torch.float16
    assert stored["head.composition.0.weight"].dtype == torch.float16
    for name in ("backbone.features.0.bias", "head.log_prototypes", "head.program_genes", "scale"):
        assert stored[name].dtype == torch.float32
    again = load_model(path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert again.fingerprint == load_model(path).fingerprint == read_card(path)["fingerprint"]
    assert again.fingerprint != model.fingerprint
    with torch.inference_mode():
        images = model.normalize(patches)
        torch.testing.assert_close(again(images)[0], model(images)[0], atol=1e-3, rtol=0)
    assert torch.equal(again.prototypes, model.prototypes)
    save_model(again, path, half=True)
    assert load_model(path).fingerprint == again.fingerprint


def test_weights_too_large_for_half_precision_stay_as_they_are(model: CPNN, tmp_path: Path) -> None:
    model.backbone.features[0].weight.data[0, 0, 0, 0] = 1e6
    save_model(model, tmp_path / "m.safetensors", half=True)
    assert load_model(tmp_path / "m.safetensors").backbone.features[0].weight[0, 0, 0, 0] == 1e6


def test_card_says_what_the_model_is(model: CPNN, tmp_path: Path) -> None:
    model.provenance["training_data"] = ["B4", "C2"]
    model.provenance["metrics"] = {"pcc": np.float32(0.5), "scc": float("nan"), "genes": np.array([1, 2])}
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    card = read_card(path)
    assert card["format_version"] == 1
    assert card["fingerprint"] == model.fingerprint
    assert tuple(card["model"]["genes"]) == model.genes
    assert card["model"]["patch"] == {"size_px": 64, "mpp": 1.0}
    assert card["colors"] == type_colors(model.cell_types)
    assert card["backbone"]["name"] == "squeezenet"
    assert "commercial_use" in card["backbone"]
    assert card["provenance"]["training_data"] == ["B4", "C2"]
    assert card["provenance"]["metrics"] == {"pcc": 0.5, "scc": None, "genes": [1, 2]}
    settings = TrainingSettings.from_dict(card["provenance"]["settings"])
    assert (settings.backbone, settings.n_programs) == ("squeezenet", 4)
    assert load_model(path).provenance == card["provenance"]


def test_the_folder_of_the_start_weights_stays_private(
    model: CPNN, saved: Path, tmp_path: Path, profiles: np.ndarray, mean_expression: np.ndarray
) -> None:
    settings = TrainingSettings(backbone="squeezenet", weights=str(saved), patch=model.patch)
    built = build_model(settings, model.genes, model.cell_types, profiles, mean_expression)
    path = tmp_path / "again.safetensors"
    save_model(built, path)
    assert str(tmp_path) not in metadata(path)["napari_cpnn"]
    assert read_card(path)["provenance"]["backbone_weights"] == "model.safetensors"


def test_channels_last_models_are_saved_alike(model: CPNN, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(model.to(memory_format=torch.channels_last), path)
    assert load_model(path).fingerprint == load_model(saved).fingerprint


def test_a_loaded_model_does_not_hang_on_its_file(saved: Path, patches: np.ndarray) -> None:
    model = load_model(saved)
    with torch.inference_mode():
        before = model(model.normalize(patches))[0]
    with saved.open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xff" * 100_000)
    with torch.inference_mode():
        assert torch.equal(model(model.normalize(patches))[0], before)


@pytest.mark.parametrize("length", [0, 5, 300, 100_000, -1])
def test_truncated_files(saved: Path, length: int) -> None:
    saved.write_bytes(saved.read_bytes()[:length])
    for read in (read_card, load_model):
        with pytest.raises(CheckpointError, match=r"model\.safetensors is (truncated|not a napari-cpnn model)"):
            read(saved)


def test_a_flipped_bit_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1000] ^= 4
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its tensors are not the ones that were saved"):
        load_model(saved)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a napari-cpnn model; it has no model card"):
        load_model(path)
    for content in (b"\x89PNG\r\n\x1a\n" + bytes(100), b"x" * 50, struct.pack("<Q", 12) + b"{not a json}"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"other\.safetensors"):
            read_card(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="is not a napari-cpnn model"):
        load_model(path)
    with pytest.raises(CheckpointError, match=r"missing\.safetensors cannot be read: No such file"):
        load_model(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(tmp_path)


def test_a_newer_format_is_refused_and_says_so(saved: Path) -> None:
    with_card(saved, format_version=7)
    for read in (read_card, load_model):
        with pytest.raises(CheckpointError, match="has model format 7, and this napari-cpnn reads up to 6; update"):
            read(saved)


def test_cards_that_cannot_be_used(saved: Path) -> None:
    card = read_card(saved)
    changes: list[dict[str, object]] = [
        {"model": None},
        {"model": {**card["model"], "genes": 7}},
        {"model": {**card["model"], "backbone": "vgg"}},
        {"model": {**card["model"], "n_programs": -1}},
        {"model": {**card["model"], "hidden": 10**15}},
        {"model": {k: v for k, v in card["model"].items() if k != "patch"}},
        {"provenance": 3},
        {"format_version": "one"},
    ]
    for change in changes:
        with_card(saved, **{**card, **change})
        with pytest.raises(CheckpointError, match=r"model card in .*model\.safetensors"):
            load_model(saved)


def test_tensors_that_do_not_fit_the_card(saved: Path) -> None:
    state, header = load_file(saved), metadata(saved)
    save_file({n: t for n, t in state.items() if n != "scale"}, saved, header)
    with pytest.raises(CheckpointError, match="scale is missing"):
        load_model(saved)
    save_file({**state, "more": torch.zeros(1)}, saved, header)
    with pytest.raises(CheckpointError, match="more is not part of the model"):
        load_model(saved)
    save_file({**state, "shift": torch.zeros(39)}, saved, header)
    with pytest.raises(CheckpointError, match=r"shift has shape \(39,\), not \(40,\)"):
        load_model(saved)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(
    model: CPNN, saved: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    model.shift += 1
    with pytest.raises(CheckpointError, match=r"cannot be written to .*model\.safetensors: No space left on device"):
        save_model(model, saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir() if p.is_file()] == ["model.safetensors"]


def test_the_hierarchy_is_kept_and_changes_neither_fingerprint_nor_predictions(model: CPNN, tmp_path: Path) -> None:
    before = model.fingerprint
    majors = {name: f"major {i // 2}" for i, name in enumerate(model.cell_types)}
    model.set_hierarchy(majors)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.hierarchy == majors
    assert again.fingerprint == before
    assert read_card(tmp_path / "model.safetensors")["colors"] == type_colors(model.cell_types, majors)


@pytest.mark.parametrize("odd", [3, ["x"], {"other": "y"}, {"x": 5}, None])
def test_a_hierarchy_that_means_nothing_is_none(saved: Path, odd: object) -> None:
    provenance = read_card(saved)["provenance"]
    with_card(saved, provenance={**provenance, "hierarchy": odd}, digest=None)
    card = json.loads(metadata(saved)["napari_cpnn"])
    del card["digest"]
    save_file(load_file(saved), saved, {"napari_cpnn": json.dumps(card)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_model(saved).hierarchy == {}
