"""The calibration of a model in its file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cpnn.errors import CheckpointError, GenesError, SettingsError
from napari_cpnn.models import Trust, load_model, read_card, save_model


@pytest.fixture
def calibrated(model):
    n = len(model.genes) + len(model.cell_types)
    model.trust = Trust(n)
    generator = torch.Generator().manual_seed(0)
    for buffer in model.trust.buffers():
        buffer.copy_(torch.rand(buffer.shape, generator=generator))
    for name in ("centers", "marked_um"):
        buffer = model.trust.get_buffer(name)
        buffer.copy_(buffer.sort(dim=0).values)
    return model


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded(calibrated, tmp_path, half):
    save_model(calibrated, tmp_path / "model.safetensors", half=half)
    again = load_model(tmp_path / "model.safetensors").trust
    for name, buffer in calibrated.trust.named_buffers():
        np.testing.assert_allclose(again.get_buffer(name), buffer, rtol=1e-3 if half else 0)
    assert read_card(tmp_path / "model.safetensors")["format_version"] == 4


def test_a_calibration_of_an_earlier_version_knows_no_places(calibrated, tmp_path, monkeypatch):
    """Model files of before places could be marked lack two tensors."""
    del calibrated.trust._buffers["false_share"], calibrated.trust._buffers["marked_um"]
    monkeypatch.setattr("napari_cpnn.models.checkpoint._check_trust", lambda model, path: None)
    save_model(calibrated, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.trust.lower, calibrated.trust.lower)
    assert not again.marks_places
    assert again.selection(again.genes[0], "high", 0.5) is None
    save_model(again, tmp_path / "again.safetensors")
    assert not load_model(tmp_path / "again.safetensors").marks_places


def test_calibration_does_not_change_which_maps_belong_to_a_model(model, tmp_path):
    before = model.fingerprint
    model.trust = Trust(len(model.genes) + len(model.cell_types))
    assert model.fingerprint == before
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").fingerprint == before


def test_a_model_without_calibration_is_readable_by_earlier_versions(model, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    assert read_card(tmp_path / "model.safetensors")["format_version"] <= 3
    assert load_model(tmp_path / "model.safetensors").trust is None


def test_a_changed_calibration_is_noticed(calibrated, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(calibrated, path)
    content = bytearray(path.read_bytes())
    values = calibrated.trust.lower.numpy().tobytes()
    content[content.index(values)] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its tensors are not the ones that were saved"):
        load_model(path)


@pytest.mark.parametrize("broken", ["size", "value"])
def test_a_calibration_that_could_not_be_read_is_not_written(calibrated, tmp_path, broken):
    if broken == "size":
        calibrated.trust = Trust(3)
    else:
        calibrated.trust.lower[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="its calibration is of another model, or has values that are not"):
        save_model(calibrated, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [("false_share", -1.0), ("false_share", 1.5), ("marked_um", -100.0), ("pcc", 7.0), ("scale_um", -77.0)],
)
def test_a_calibration_that_makes_no_sense_is_not_written(calibrated, tmp_path, name, value):
    calibrated.trust.get_buffer(name).view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=f"{name} of its calibration makes no sense"):
        save_model(calibrated, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_intervals_by_name(calibrated):
    gene, kind = calibrated.genes[1], calibrated.cell_types[0]
    assert calibrated.interval(gene, 0.5) == calibrated.trust.interval(1, 0.5)
    assert calibrated.interval(kind, 0.5) == calibrated.trust.interval(len(calibrated.genes), 0.5)
    with pytest.raises(GenesError):
        calibrated.interval("NOTAGENE", 0.5)
    calibrated.trust = None
    with pytest.raises(SettingsError, match="has no intervals"):
        calibrated.interval(gene, 0.5)
