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
    model.trust.lower.neg_()
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


def test_a_calibration_of_an_earlier_version_knows_no_slopes(calibrated, tmp_path, monkeypatch):
    del calibrated.trust._buffers["slope"]
    monkeypatch.setattr("napari_cpnn.models.checkpoint._check_trust", lambda model, path: None)
    save_model(calibrated, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors").trust
    assert not again.knows_slopes
    assert np.isnan(again.slope_of(0))
    assert again.spread_note(0) == ""
    np.testing.assert_array_equal(again.marked_um, calibrated.trust.marked_um)


def test_values_that_spread_more_than_measured_are_said(calibrated):
    calibrated.trust.slope[:3] = torch.tensor([0.25, 0.5, -0.1])
    notes = [calibrated.trust.spread_note(i) for i in range(3)]
    assert notes[:2] == ["values spread more than measured (slope 0.25); read the ranks", ""]
    assert "(slope -0.10)" in notes[2]


def test_no_scale_is_finer_than_a_patch():
    trust = Trust(4)
    trust.scale_um.copy_(torch.tensor([187.0, 400.0, -1.0, -2.0]))
    assert [trust.scale(i, 224.0) for i in range(3)] == [224, 400, np.inf]
    assert np.isnan(trust.scale(3, 224.0))
    assert trust.ranking("abcd", 224.0)["trusted_um"]["a"] == 224
    assert trust.scale(0) == 187


def test_a_table_of_an_earlier_version_has_no_slopes(calibrated):
    table = calibrated.trust.to_table()
    again, before = Trust.from_table(table), Trust.from_table(table[:-1])
    np.testing.assert_array_equal(again.slope, calibrated.trust.slope)
    assert not before.knows_slopes
    for trust in (again, before):
        np.testing.assert_array_equal(trust.pcc, calibrated.trust.pcc)
        np.testing.assert_array_equal(trust.upper, calibrated.trust.upper)


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
    [
        ("false_share", -1.0),
        ("false_share", 1.5),
        ("marked_um", -100.0),
        ("pcc", 7.0),
        ("scale_um", -77.0),
        ("lower", 0.5),
        ("upper", -0.5),
        ("floor", -0.5),
        ("most", 2e4),
        ("slope", -2e4),
    ],
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
