"""Colour statistics as an encoder, and several encoders side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_cpnn.errors import SettingsError, WeightsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import (
    CPNN,
    ENCODERS,
    build_model,
    colour_statistics,
    encoder_files,
    fuse_for_inference,
    get_encoder,
    load_model,
    read_card,
    save_model,
)
from napari_cpnn.models.backbones import named_parts
from napari_cpnn.models.backbones.build import encoder_fingerprint
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.studies.benchmarking import image_statistics

NAMES = ["a", "b", "c"], ["x", "y"]
PROFILES, MEAN = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], [1.0, 2.0, 0.5]


@pytest.fixture
def pictures(rng: np.random.Generator) -> np.ndarray:
    """Patches (N, 64, 64, 3), one of a single colour among them."""
    images = rng.integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    images[3] = (200, 150, 180)
    return images


@pytest.fixture
def ciga_file(tmp_path: Path) -> Path:
    path = tmp_path / "a+b" / "ciga.safetensors"
    path.parent.mkdir()
    save_file(ENCODERS["ciga"].build("none").state_dict(), path)
    return path


def settings_of(encoder: str, weights: str = "none") -> TrainingSettings:
    return TrainingSettings(
        backbone="frozen", encoder=encoder, encoder_weights=weights, hidden=8, n_programs=2, patch=PatchSpec(64, 1.0)
    )


def built(encoder: str, weights: str = "none") -> CPNN:
    return build_model(settings_of(encoder, weights), *NAMES, PROFILES, MEAN).eval()


def by_numpy(image: np.ndarray) -> np.ndarray:
    """The 21 numbers, from the pixels."""
    pixels = image.reshape(-1, 3).astype(float)
    density = -np.log10((pixels + 1) / 256)
    percentiles = np.percentile(pixels, [10, 50, 90], axis=0, method="inverted_cdf")
    return np.concatenate([pixels.mean(0), pixels.std(0), *percentiles, density.mean(0), density.std(0)])


def features(model: CPNN, images: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return model.features(model.normalize(images))


def test_the_colour_encoder_gives_the_numbers_of_the_benchmark(pictures: np.ndarray) -> None:
    wanted = np.stack([by_numpy(image) for image in pictures])
    given = colour_statistics(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    np.testing.assert_allclose(given, wanted, atol=1e-9)
    baseline = np.stack([image_statistics.colour_statistics(image) for image in pictures])
    np.testing.assert_array_equal(given, baseline)
    model = built("colour", "pretrained")
    assert torch.equal(features(model, pictures), given.float())
    # As maps are computed with bfloat16 on a processor: the levels survive the rounding of their images.
    assert torch.equal(features(fuse_for_inference(model, bfloat16=True), pictures), given.float())


def test_colour_needs_no_weights_and_takes_none(tmp_path: Path) -> None:
    first, second = (built("colour", weights) for weights in ("none", "pretrained"))
    assert first.encoder_fingerprint == second.encoder_fingerprint
    assert second.provenance["licence_notes"] == []
    with pytest.raises(WeightsError, match=r"'colour' has no weights to load"):
        built("colour", str(tmp_path / "file.pth"))
    with pytest.raises(SettingsError, match=r"no backbone 'colour'.*'colour' is an encoder of backbone 'frozen'"):
        build_model(TrainingSettings(backbone="colour"), *NAMES, PROFILES, MEAN)


@pytest.mark.parametrize("encoder", ["colour", "squeezenet+colour"])
def test_the_same_bits_in_every_batch(encoder: str, pictures: np.ndarray) -> None:
    model = built(encoder)
    together = features(model, pictures)
    assert torch.equal(features(model, pictures[::-1].copy()).flip(0), together)
    assert torch.equal(features(model, pictures[4:5]), together[4:5])


def test_colour_is_invariant_to_the_eight_symmetries(pictures: np.ndarray) -> None:
    model, wanted = built("colour"), None
    for turns in range(4):
        for image in (np.rot90(pictures, turns, (1, 2)), np.rot90(pictures[:, ::-1], turns, (1, 2))):
            given = features(model, np.ascontiguousarray(image))
            wanted = given if wanted is None else wanted
            assert torch.equal(given, wanted)


def test_features_are_those_of_each_encoder_with_its_own_normalisation(pictures: np.ndarray) -> None:
    model = built("nic+squeezenet+colour")
    assert model.backbone.n_features == 512 + 512 + 21
    alone = []
    for part, name in zip(model.backbone.encoder.parts, ("nic", "squeezenet", "colour"), strict=True):
        one = built(name)
        one.backbone.encoder.load_state_dict(part.network.state_dict())
        alone.append(features(one, pictures))
    torch.testing.assert_close(features(model, pictures), torch.cat(alone, dim=1), atol=2e-4, rtol=1e-4)
    fused = features(fuse_for_inference(model), pictures)
    torch.testing.assert_close(fused, torch.cat(alone, dim=1), atol=1e-3, rtol=1e-3)


def test_names_are_split_and_checked() -> None:
    assert named_parts("nic+hf:/data/a+b+colour", "none") == [
        ("nic", "none"),
        ("hf:/data/a+b", "none"),
        ("colour", "none"),
    ]
    two = f"/x+y/nic.h5{os.pathsep}pretrained"
    assert named_parts("nic+colour", two) == [("nic", "/x+y/nic.h5"), ("colour", "pretrained")]
    assert named_parts("nic", two) == [("nic", two)]
    info = get_encoder("he-small+ciga")
    assert (info.name, info.commercial_use, info.embed, info.n_features) == ("he-small+ciga", False, False, 1024)
    assert info.licence.startswith("he-small: BSD-3-Clause (napari-cpnn); ciga: none is stated")
    with pytest.raises(SettingsError, match=r"There is no encoder 'vgg'; use one of stnet,.*joined by \+"):
        get_encoder("nic+vgg")
    with pytest.raises(SettingsError, match=r"There is no encoder ''"):
        get_encoder("nic+")
    with pytest.raises(SettingsError, match=r"names nic twice"):
        get_encoder("nic+colour+nic")
    with pytest.raises(SettingsError, match=r"at most 8 encoders"):
        get_encoder("+".join(["nic"] * 9))
    for weights in ("/one.pth", os.pathsep.join("abc"), f"/one.pth{os.pathsep}"):
        with pytest.raises(SettingsError, match=r"Encoder 'nic\+colour' has 2 parts"):
            named_parts("nic+colour", weights)
    with pytest.raises(SettingsError, match=r"random for some parts only"):
        named_parts("nic+colour", f"/one.pth{os.pathsep}none")
    with pytest.raises(SettingsError, match=r"needs patches of at least 64 px"):
        build_model(settings_of("squeezenet+nic").replace(patch=PatchSpec(32, 1.0)), *NAMES, PROFILES, MEAN)


@pytest.mark.parametrize(("change", "message"), [
    ({"encoder": "nic+colour"}, "one network, not by 'nic"),
    ({"target": "colour", "encoder": "squeezenet"}, "'colour' cannot be trained"),
])  # fmt: skip
def test_triplex_takes_one_network(change: dict[str, str], message: str) -> None:
    settings = TrainingSettings(backbone="triplex", weights="none", encoder_weights="none", context_pitch_um=200.0)
    with pytest.raises(SettingsError, match=message):
        build_model(settings.replace(**change), *NAMES, PROFILES, MEAN)


def test_features_of_another_combination_or_order_are_never_taken(pictures: np.ndarray) -> None:
    encoders = {name: get_encoder(name).build("none") for name in ("nic", "squeezenet", "colour")}

    def key(name: str) -> str:
        network = get_encoder(name).build("none")
        for part, one in zip(network.parts, name.split("+"), strict=True):
            part.network.load_state_dict(encoders[one].state_dict())
        return encoder_fingerprint(network)

    names = ["nic+squeezenet", "squeezenet+nic", "nic+colour", "nic+squeezenet+colour"]
    keys = {key(name) for name in names} | {encoder_fingerprint(network) for network in encoders.values()}
    assert len(keys) == len(names) + len(encoders)
    assert key("nic+colour") == key("nic+colour")
    # What is fitted on the training tissue is no part of it: other folds take the same features.
    model = built("colour")
    before = model.encoder_fingerprint
    raw = features(model, pictures)
    model.backbone.standardise(raw)
    assert model.encoder_fingerprint == before


def test_standardised_features_by_numpy(pictures: np.ndarray) -> None:
    model = built("colour+squeezenet")
    raw = features(model, pictures).numpy().astype(np.float64)
    raw[:, [5, 30]] = 17.0
    raw[1:, 40], raw[0, 40] = 0.0, 1e-7  # hardly varies in training
    model.backbone.standardise(torch.from_numpy(raw))
    spread = raw.std(axis=0)
    spread[21:] = np.sqrt(raw[:, 21:].var(axis=0).mean())
    spread[5] = 1.0
    given = model.backbone.views(torch.from_numpy(raw))[0].numpy()
    np.testing.assert_allclose(given, (raw - raw.mean(axis=0)) / spread, atol=1e-4)
    assert float(model.backbone.spread[5]) == 1.0
    assert np.abs(given[:, [5, 30, 40]]).max() < 1e-4
    with torch.inference_mode():
        own = model.features(model.normalize(pictures)).numpy()
    keep = np.setdiff1d(np.arange(533), [5, 30, 40])
    np.testing.assert_allclose(own[:, keep], given[:, keep], atol=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_a_model_file_holds_all_parts(tmp_path: Path, pictures: np.ndarray, half: bool) -> None:
    model = built("he-small+colour", "pretrained")
    model.backbone.standardise(features(model, pictures))
    save_model(model, tmp_path / "m.safetensors", half=half)
    back, card = load_model(tmp_path / "m.safetensors"), read_card(tmp_path / "m.safetensors")
    assert (card["encoder"]["name"], card["backbone"]["commercial_use"]) == ("he-small+colour", True)
    assert card["encoder"]["source"] == "he_small.safetensors"
    assert card["provenance"]["licence_notes"] == ["weights of the encoder he-small: BSD-3-Clause (napari-cpnn)"]
    torch.testing.assert_close(features(back, pictures), features(model, pictures), atol=1e-2, rtol=1e-2)
    assert torch.equal(back.backbone.spread, model.backbone.spread)
    if not half:
        assert back.fingerprint == model.fingerprint
        assert torch.equal(features(back, pictures), features(model, pictures))


def test_weights_that_must_not_be_passed_on_stay_out(
    tmp_path: Path, ciga_file: Path, pictures: np.ndarray, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    given = os.pathsep.join([str(ciga_file), "pretrained"])
    model, path = built("ciga+colour", given), tmp_path / "m.safetensors"
    save_model(model, path)
    assert not [name for name in load_file(path) if name.startswith("backbone.encoder.")]
    assert str(tmp_path) not in json.dumps(read_card(path))
    assert read_card(path)["provenance"]["backbone_weights"] == os.pathsep.join(["ciga.safetensors", "pretrained"])
    wanted = features(model, pictures)
    assert torch.equal(features(load_model(path, given), pictures), wanted)
    monkeypatch.setattr(encoder_files, "_FOUND", {})  # the next process takes the note
    assert torch.equal(features(load_model(path), pictures), wanted)
    # The note is of this combination: another one that claims its fingerprint gets nothing from it.
    assert encoder_files.known_place(model.encoder_fingerprint, "ciga+nic") is None
    for note in (private_cache / "weights").glob("*.place"):
        note.unlink()
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    with pytest.raises(WeightsError, match=r"needs the weights of encoder 'ciga\+colour'"):
        load_model(path)
    ciga_file.unlink()
    with pytest.raises(WeightsError, match=r"needs the weights of encoder 'ciga\+colour'"):
        load_model(path, given)
