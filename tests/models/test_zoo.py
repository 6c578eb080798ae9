"""Models by name."""

from __future__ import annotations

import shutil

import pytest

from napari_cpnn.cli import main
from napari_cpnn.errors import CheckpointError
from napari_cpnn.models import ZOO, ZooModel, load_model, model_file, read_card
from napari_cpnn.models.backbones.sources import WeightsSource


def test_the_breast_model_is_in_the_package():
    model = load_model("breast-her2st")
    assert model.trained_on == "HER2+ breast cancer, 2 patients, 4 slides"
    assert "Epithelial" in " ".join(model.cell_types)
    assert {"ERBB2", "KRT8", "COL1A1"} <= set(model.genes)
    assert model.domain is not None
    assert float(model.trust.n_spots) > 800
    baselines = model.provenance["metrics"]["held_out"]["baselines"]
    assert set(baselines) == {"depth alone", "colour alone"}
    assert all(baselines[name]["ERBB2"] > 0 for name in baselines)
    assert (
        model.provenance["metrics"]["held_out"]["slide"]
        == "each of B4, C2, C3, C4 (2 patients) by a model of the others"
    )
    assert ZOO["breast-her2st"].path.stat().st_size < 8e6
    assert read_card("breast-her2st")["fingerprint"] == model.fingerprint


def test_the_model_for_the_sample_has_not_seen_it():
    model, other = load_model("breast-her2st-without-c4"), load_model("breast-her2st")
    assert [item["slide"] for item in model.provenance["training_data"]] == ["B4", "C2", "C3"]
    assert model.provenance["trust"]["calibrated_on"] == "cross-validation, B4, C2, C3"
    assert float(model.trust.n_spots) == sum(item["n_spots"] for item in model.provenance["training_data"])
    assert model.provenance["metrics"]["held_out"]["slide"] == "C4, which it has not seen"
    assert model.provenance["purpose"].startswith("the sample slide C4")
    assert model.provenance["settings"] == other.provenance["settings"]
    assert model.cell_types == other.cell_types
    assert "ERBB2" in model.genes
    assert ZOO["breast-her2st-without-c4"].sample == "C4"
    assert ZOO["breast-her2st-without-c4"].path.stat().st_size < 8e6
    assert [name for name in ZOO if not ZOO[name].sample] == ["breast-her2st"]


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_file("breast-her2st"), tmp_path / "breast-her2st")
    assert model_file("breast-her2st").resolve() == tmp_path / "breast-her2st"


def test_another_name_is_a_missing_file():
    with pytest.raises(CheckpointError, match="no model of that name; known are breast-her2st"):
        load_model("breast-her3st")


@pytest.mark.parametrize(
    ("sha256", "said"),
    [("0" * 64, "could not be downloaded"), (None, "no published checksum, so it is not downloaded")],
)
def test_a_model_to_download_says_so_offline(monkeypatch, tmp_path, sha256, said):
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path))
    source = WeightsSource("http://127.0.0.1:9/other.safetensors", sha256)
    monkeypatch.setitem(ZOO, "other", ZooModel("other", "lung", "CC BY 4.0", source))
    with pytest.raises(CheckpointError, match=said):
        load_model("other")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_models_in_the_terminal(capsys, monkeypatch):
    source = WeightsSource("https://example.org/other.safetensors", "0" * 64)
    monkeypatch.setitem(ZOO, "other", ZooModel("other", "lung", "CC BY 4.0", source))
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "breast-her2st: HER2-positive breast cancer" in text
    assert "mean PCC 0." in text
    assert "for the sample slide C4" in text
    assert "other: lung" in text
    assert "not on this computer" in text
