"""Encoders of transformers and timm; a tiny one in a folder stands for those of the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from napari_cpnn.errors import CheckpointError, CpnnWarning, SettingsError, WeightsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import CPNN, build_model, encoder_files, get_encoder, load_model, read_card, save_model
from napari_cpnn.models.backbones import FOUNDATION
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.settings import TrainingSettings

MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.25, 0.3)


def write_folder(folder: Path, kind: str = "Dinov2", seed: int = 0) -> Path:
    """What ``save_pretrained`` writes of a random model, with how its images are normalised."""
    transformers = pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes))
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tiny-dino")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub: what is not on this computer cannot be had, and nobody waits for it."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra 'foundation' is not installed")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def built(encoder: str, **changes: object) -> CPNN:
    facts = {"hidden": 8, "n_programs": 2, "patch": PatchSpec(64, 0.5), **changes}
    settings = TrainingSettings(backbone="frozen", encoder=encoder, **facts)
    return build_model(settings, ["a", "b"], ["x", "y"], [[0.5, 0.5], [0.1, 0.9]], [1.0, 2.0])


@pytest.mark.parametrize("kind", ["Dinov2", "ViT"])
def test_features_are_the_class_token(tmp_path: Path, kind: str) -> None:
    import transformers

    info = get_encoder(f"hf:{write_folder(tmp_path / 'tiny', kind)}")
    assert (info.name, info.n_features, info.mean, info.std, info.embed) == ("hf:tiny", 32, MEAN, STD, False)
    network = info.build("pretrained").eval()
    model = transformers.AutoModel.from_pretrained(tmp_path / "tiny").eval()
    images = torch.randn(3, 3, 56, 56)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), model(images).last_hidden_state[:, 0])
        assert network(torch.randn(2, 3, 70, 70)).shape == (2, 32)  # positions are interpolated
        with torch.autocast("cpu", torch.bfloat16):
            assert network(images).dtype == torch.float32


def test_a_model_of_it_is_built_saved_and_opened_again(
    folder: Path, tmp_path: Path, private_cache: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(f"hf:{folder}").eval()
    assert (model.mean, model.std) == (MEAN, STD)
    path = tmp_path / "m.safetensors"
    save_model(model, path)
    card = read_card(path)
    assert str(tmp_path) not in json.dumps(card)
    assert card["encoder"]["name"] == "hf:tiny-dino"
    assert card["backbone"]["commercial_use"] is False
    assert path.stat().st_size < 20_000  # without the encoder
    images = torch.randint(0, 256, (9, 64, 64, 3), dtype=torch.uint8).numpy()
    wanted = Predictor(model, "cpu", "float32").predict(images)
    fast = Predictor(model, "cpu", "bfloat16").predict(images)
    torch.testing.assert_close(fast.weights, wanted.weights, rtol=0, atol=0.01)
    again = load_model(path)
    assert again.fingerprint == model.fingerprint
    torch.testing.assert_close(Predictor(again, "cpu", "float32").predict(images).weights, wanted.weights)
    # On another computer.
    for note in (private_cache / "weights").glob("*.place"):
        note.unlink()
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    with pytest.raises(WeightsError, match=r"needs the weights of encoder 'hf:tiny-dino'.*encoder_weights\."):
        load_model(path)
    assert load_model(path, folder).fingerprint == model.fingerprint
    with pytest.raises(CheckpointError, match=r"trained on other weights of encoder 'hf:tiny-dino'"):
        load_model(path, write_folder(tmp_path / "other", seed=1))


def test_a_folder_stands_for_the_name_of_a_hub(folder: Path, offline: None) -> None:
    network = get_encoder("phikon-v2").build(str(folder))
    direct = get_encoder(f"hf:{folder}").build("pretrained")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), direct.parameters(), strict=True))


def test_patches_of_another_scale_than_the_encoders_are_told(folder: Path, offline: None) -> None:
    with pytest.warns(CpnnWarning, match=r"Encoder phikon-v2 was trained on 0.5 um/px, and patches have 1 um/px"):
        model = built("phikon-v2", encoder_weights=str(folder), patch=PatchSpec(64, 1.0))
    assert model.backbone.n_features == 32


def test_the_patch_that_fits_is_named(offline: None) -> None:
    with pytest.warns(CpnnWarning, match="choose patches of 224 px at 1 um/px") as told:
        built("he-small+colour", encoder_weights="pretrained", patch=PatchSpec(224, 0.5))
    (said,) = [str(one.message) for one in told]
    assert said == (
        "Encoder he-small was trained on 1 um/px, and patches have 0.5 um/px; it will know them less well; choose "
        "patches of 224 px at 1 um/px (--patch 224 1)."
    )


def test_a_hub_that_cannot_be_reached_gives_one_sentence(offline: None) -> None:
    with pytest.raises(WeightsError, match=r"Encoder owkin/phikon-v2 cannot be loaded .* go online once") as caught:
        get_encoder("phikon-v2").build("pretrained")
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="Encoder no/such cannot be loaded from no/such"):
        built("hf:no/such")


def test_a_folder_that_is_incomplete_is_told(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.0.norm1.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"does not hold the weights of .*: it misses encoder.layer.0.norm1.weight"):
        get_encoder(f"hf:{folder}").build("pretrained")
    (folder / "preprocessor_config.json").unlink()
    copy = folder.rename(tmp_path / "renamed")
    with pytest.raises(WeightsError, match=r"does not say how images are normalised; put a preprocessor_config.json"):
        get_encoder(f"hf:{copy}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="empty cannot be loaded"):
        get_encoder(f"hf:{tmp_path / 'empty'}")


@pytest.mark.parametrize("name", ["timm:resnet50", "hf:owkin/phikon-v2", "uni"])
def test_libraries_that_are_not_installed_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(WeightsError, match=r"install them with: pip install \"napari-cpnn\[foundation\]\""):
        get_encoder(name).build("pretrained")


def test_what_is_known_of_them() -> None:
    for name, info in FOUNDATION.items():
        assert get_encoder(name) is info
        assert not info.embed  # gigabytes, most of them not to be passed on
        assert info.licence
        assert info.trained_px == 224
    assert [name for name, info in FOUNDATION.items() if info.commercial_use] == ["h-optimus-0"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match=r"no encoder 'uni3'; use one of stnet, .*h-optimus-0, or timm:<name> or hf:"
    ):
        get_encoder("uni3")


def test_a_folder_or_file_of_timm_stands_for_the_hub(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm needs torchvision", exc_type=ImportError)
    wanted = timm.create_model("vit_tiny_patch16_224", num_classes=0, init_values=1e-5).eval()
    timm.models.save_for_hf(wanted, tmp_path)
    images = torch.randn(1, 3, 224, 224)
    for place in (tmp_path, tmp_path / "pytorch_model.bin"):
        assert torch.equal(get_encoder("uni").build(str(place)).eval()(images), wanted(images))
