"""Frozen encoders on the command line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cpnn.cli import main
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import ENCODERS, build_model, encoder_files, read_card, save_model
from napari_cpnn.settings import TrainingSettings


@pytest.fixture
def slide_path(tmp_path):
    import tifffile

    from fakes import tissue_image

    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, tissue_image(8, 8), tile=(128, 128), compression="zlib", photometric="rgb")
    return path


@pytest.fixture
def model_path(tmp_path, private_cache, monkeypatch):
    """A model whose encoder is elsewhere, as it comes to another computer."""
    torch.manual_seed(0)
    weights = tmp_path / "ciga.pth"
    torch.save(ENCODERS["ciga"].build("none").state_dict(), weights)
    settings = TrainingSettings(
        backbone="frozen",
        encoder="ciga",
        encoder_weights=str(weights),
        hidden=8,
        n_programs=2,
        patch=PatchSpec(64, 1.0),
    )
    path = tmp_path / "model.safetensors"
    save_model(build_model(settings, ["a", "b"], ["x", "y"], [[0.5, 0.5], [0.1, 0.9]], [1.0, 2.0]), path)
    for note in (private_cache / "weights").glob("*.place"):
        note.unlink()
    monkeypatch.setattr(encoder_files, "_FOUND", {})
    return path


def test_encoders_are_listed_with_their_terms(capsys):
    assert main(["encoders"]) == 0
    printed = capsys.readouterr().out
    for name in (*ENCODERS, "uni", "uni2-h", "virchow2", "phikon-v2", "h-optimus-0", "frozen", "triplex"):
        assert f"\n  {name} " in printed
    assert printed.count("commercial use: yes") == 7
    assert printed.count("its weights are not stored in model files") == 6


def test_encoder_weights_are_given_once(model_path, slide_path, tmp_path, capsys):
    predict = ["predict", str(slide_path), "--mpp", "1.0", "--model", str(model_path), "--device", "cpu", "--quiet"]
    assert main([*predict, "--out", str(tmp_path / "none.zarr")]) == 2
    assert "model.safetensors needs the weights of encoder 'ciga', which it does not hold" in capsys.readouterr().err
    weights = ["--encoder-weights", str(tmp_path / "ciga.pth")]
    assert main([*predict, *weights, "--out", str(tmp_path / "first.zarr")]) == 0
    assert main([*predict, "--out", str(tmp_path / "second.zarr")]) == 0

    from napari_cpnn import CompositionMap

    first, second = (CompositionMap.load(tmp_path / f"{name}.zarr") for name in ("first", "second"))
    np.testing.assert_array_equal(first.weights, second.weights)


def test_open_notes_where_the_encoder_is(model_path, slide_path, tmp_path, monkeypatch):
    pytest.importorskip("napari_cpnn.ui.viewer.launch")
    monkeypatch.setattr("napari_cpnn.ui.viewer.open_viewer", lambda *_, **__: None)
    weights = str(tmp_path / "ciga.pth")
    assert main(["open", str(slide_path), "--model", str(model_path), "--encoder-weights", weights]) == 0
    assert encoder_files.known_place(read_card(model_path)["encoder"]["fingerprint"], "ciga") == weights
