"""A backbone whose encoder never learns; model files with and without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_cpnn.errors import CheckpointError, SettingsError, WeightsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import CPNN, ENCODERS, build_model, encoder_files, load_model, read_card, save_model
from napari_cpnn.models.backbones.build import encoder_fingerprint
from napari_cpnn.models.card import METADATA_KEY
from napari_cpnn.settings import TrainingSettings

NAMES = ["a", "b", "c"], ["x", "y"]
PROFILES, MEAN = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], [1.0, 2.0, 0.5]


@pytest.fixture
def settings() -> TrainingSettings:
    return TrainingSettings(
        backbone="frozen",
        encoder="squeezenet",
        encoder_weights="none",
        hidden=8,
        n_programs=2,
        patch=PatchSpec(64, 1.0),
    )


@pytest.fixture
def ciga_file(tmp_path: Path) -> Path:
    """Random weights in a file as Ciga's."""
    torch.manual_seed(1)
    state = ENCODERS["ciga"].build("none").features.state_dict()
    path = tmp_path / "tenpercent_resnet18.ckpt"
    torch.save({"state_dict": {f"model.resnet.{name}": t for name, t in state.items()}}, path)
    return path


@pytest.fixture
def forgetful(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No memory of where weights were found, as on another computer; the notes of this one are in the folder."""
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    return private_cache / "weights"


def built(settings: TrainingSettings) -> CPNN:
    return build_model(settings, *NAMES, PROFILES, MEAN)


def test_nothing_of_the_encoder_changes_in_training(settings: TrainingSettings) -> None:
    model = built(settings.replace(encoder="stnet"))
    before = {name: t.clone() for name, t in model.backbone.state_dict().items()}
    model.train()
    assert model.head.training
    assert not any(module.training for module in model.backbone.encoder.modules())
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    weights, programs = model(torch.randn(4, 3, 64, 64))
    model.decode(weights, programs).square().sum().backward()
    optimiser.step()
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.composition.parameters())


def test_it_sees_what_its_encoder_sees(settings: TrainingSettings) -> None:
    model = built(settings).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.features(images), model.backbone.encoder(images))
        torch.testing.assert_close(model.backbone.maps(images), model.backbone.encoder.maps(images))
    assert (model.mean, model.std) == (ENCODERS["squeezenet"].mean, ENCODERS["squeezenet"].std)
    assert model.backbone.n_features == 512


def test_small_patches_and_unknown_encoders_are_refused(settings: TrainingSettings) -> None:
    with pytest.raises(SettingsError, match=r"Backbone 'frozen' needs patches of at least 32 px, not 16"):
        built(settings.replace(patch=PatchSpec(16, 1.0)))
    with pytest.raises(SettingsError, match=r"There is no encoder 'vgg'; use one of stnet,"):
        built(settings.replace(encoder="vgg"))


def test_weights_come_from_a_file_and_are_named_without_its_folder(settings: TrainingSettings, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(ENCODERS["squeezenet"].build("none").state_dict(), path)
    model = built(settings.replace(encoder_weights=str(path)))
    assert encoder_fingerprint(model.backbone.encoder) == encoder_fingerprint(ENCODERS["squeezenet"].build(str(path)))
    assert model.provenance["backbone_weights"] == "mine.safetensors"
    assert str(tmp_path) not in json.dumps(model.provenance)
    assert model.provenance["licence_notes"] == [f"weights of the encoder squeezenet: {ENCODERS['squeezenet'].licence}"]


@pytest.mark.parametrize("half", [False, True])
def test_a_model_with_its_encoder_inside_needs_nothing_else(
    settings: TrainingSettings, tmp_path: Path, half: bool, forgetful: Path
) -> None:
    model = built(settings).eval()
    save_model(model, tmp_path / "m.safetensors", half=half)
    back = load_model(tmp_path / "m.safetensors")
    card = read_card(tmp_path / "m.safetensors")
    assert back.spec == model.spec
    assert card["format_version"] == 3
    assert card["encoder"]["fingerprint"] == encoder_fingerprint(back.backbone.encoder)
    assert card["backbone"]["commercial_use"] is True
    images = torch.randn(2, 3, 64, 64)
    if not half:
        assert back.fingerprint == model.fingerprint
        assert torch.equal(back(images)[0], model(images)[0])
    assert all(not p.requires_grad for p in back.backbone.parameters())
    assert not list(forgetful.glob("*.place"))


def test_weights_that_must_not_be_passed_on_stay_out_of_the_file(
    settings: TrainingSettings, ciga_file: Path, tmp_path: Path, forgetful: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(settings.replace(encoder="ciga", encoder_weights=str(ciga_file))).eval()
    path = tmp_path / "m.safetensors"
    save_model(model, path, half=True)
    with safe_open(path, framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("backbone.")]  # noqa: SIM118
    card = read_card(path)
    assert card["encoder"]["name"] == "ciga"
    assert card["encoder"]["source"].endswith("tenpercent_resnet18.ckpt")
    assert card["backbone"]["commercial_use"] is False
    assert "none is stated" in card["provenance"]["licence_notes"][0]
    images = torch.randn(2, 3, 64, 64)
    wanted = model.features(images)
    assert torch.equal(load_model(path, ciga_file).features(images), wanted)
    # It is remembered where they were, by this process and by the next.
    assert torch.equal(load_model(path).features(images), wanted)
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    assert torch.equal(load_model(path).features(images), wanted)
    # On another computer they are missing.
    for note in forgetful.glob("*.place"):
        note.unlink()
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    with pytest.raises(WeightsError, match=r"m.safetensors needs the weights of encoder 'ciga', .*encoder_weights\."):
        load_model(path)


def test_triplex_leaves_its_encoder_out_too(settings: TrainingSettings, ciga_file: Path, tmp_path: Path) -> None:
    triplex = settings.replace(
        backbone="triplex", encoder="ciga", encoder_weights=str(ciga_file), weights="none", context_pitch_um=200.0
    )
    model = built(triplex).eval()
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    assert not [name for name in names if name.startswith("backbone.encoder.")]
    assert [name for name in names if name.startswith("backbone.target.")]
    back = load_model(path, ciga_file)
    assert back.fingerprint == model.fingerprint
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(back(images)[0], model(images)[0])
    with pytest.raises(WeightsError, match=r"does not hold the weights of ResNet-18: it misses"):
        built(settings.replace(encoder="resnet18", encoder_weights=str(path)))


def test_one_of_our_models_gives_its_encoder(settings: TrainingSettings, tmp_path: Path) -> None:
    model = built(settings)
    save_model(model, tmp_path / "m.safetensors")
    other = built(settings.replace(encoder_weights=str(tmp_path / "m.safetensors"), seed=3))
    assert other.encoder_fingerprint == model.encoder_fingerprint


def test_other_weights_of_the_encoder_are_told_from_those_it_was_trained_on(
    settings: TrainingSettings, ciga_file: Path, tmp_path: Path, forgetful: Path
) -> None:
    path, other = tmp_path / "m.safetensors", tmp_path / "other.safetensors"
    save_model(built(settings.replace(encoder="ciga", encoder_weights=str(ciga_file))), path)
    torch.manual_seed(2)
    save_file(ENCODERS["ciga"].build("none").state_dict(), other)
    with pytest.raises(
        CheckpointError, match=r"trained on other weights of encoder 'ciga' than the weights in .*other"
    ):
        load_model(path, other)
    save_file(ENCODERS["squeezenet"].build("none").state_dict(), other)
    with pytest.raises(WeightsError, match=r"does not hold the weights of ResNet-18"):
        load_model(path, other)


def test_random_weights_are_nobodys_and_stay_in_the_file(settings: TrainingSettings, tmp_path: Path) -> None:
    model = built(settings.replace(encoder="ciga"))
    save_model(model, tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "squeezenet"}, r"does not hold the model that its card describes"),
        ({"backbone": "resnet18", "backbone_args": {}}, r"does not hold the model that its card describes"),
        ({"backbone_args": {"encoder": "resnet18"}}, r"does not hold the model that its card describes"),
        ({"backbone_args": {"encoder": "stnet", "embedded": True}}, r"does not hold the model that its card describes"),
        ({"backbone_args": {}}, r"card in .* cannot be used: The encoder network is not named"),
        ({"backbone_args": {"encoder": "vgg"}}, r"card in .* cannot be used: There is no encoder 'vgg'"),
        ({"backbone": "triplex"}, r"card in .* cannot be used"),
        ({"backbone_args": 3}, r"card in .* cannot be used"),
    ],
)  # fmt: skip
def test_a_file_of_one_backbone_is_no_file_of_another(
    settings: TrainingSettings, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "m.safetensors"
    save_model(built(settings), path)
    card = read_card(path)
    card["model"].update(changes)
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(card)})
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_a_model_of_stnet_is_not_opened_as_a_frozen_one(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(built(TrainingSettings(weights="none", hidden=8, n_programs=2)), path)
    card = read_card(path)
    assert card["format_version"] == 1
    card["model"].update(backbone="frozen", backbone_args={"encoder": "stnet"})
    save_file(load_file(path), path, {METADATA_KEY: json.dumps(card)})
    with pytest.raises(CheckpointError, match=r"backbone.encoder.features.conv0.weight is missing"):
        load_model(path)
