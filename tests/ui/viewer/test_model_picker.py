"""What the lists of models say of each, and which they offer for a slide."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import pytest
from qtpy.QtCore import Qt

from napari_cpnn.models import ZOO, save_model
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.ui.frame import model_card, model_label
from napari_cpnn.ui.viewer import model_entries, model_picker
from napari_cpnn.ui.viewer.model_picker import ModelPicker

SAMPLE_MODEL = sample_folder() / SAMPLE_FILES["model"]
SAMPLE_SLIDE = sample_folder() / SAMPLE_FILES["slide"]
C4_FILE = "5714_HE_BT_D2.jpg"
BREAST = ZOO["breast-her2st"].path


class Later:
    def __init__(self) -> None:
        self.jobs: list = []

    def __call__(self, work, done, failed) -> None:
        self.jobs.append((work, done, failed))

    def go(self) -> None:
        while self.jobs:
            work, done, _ = self.jobs.pop(0)
            done(work())


@pytest.fixture
def later(monkeypatch) -> Later:
    monkeypatch.setattr(model_entries, "_KNOWN", {})
    return Later()


@pytest.fixture
def picker(later, qtbot) -> ModelPicker:
    box = ModelPicker(later, "the model")
    qtbot.addWidget(box)
    return box


@pytest.fixture
def runs(model, tmp_path) -> list[Path]:
    """Two runs of two sections, whose models have the same file name."""
    paths = []
    for name in ("A", "B"):
        other = copy.deepcopy(model)
        other.provenance["settings"] = {"tissue": "colon"}
        other.provenance["training_data"] = [{"slide": name, "patient": "patient 1", "n_spots": 9}]
        path = tmp_path / f"section {name}" / "cpnn-runs" / "run-1" / "model.safetensors"
        path.parent.mkdir(parents=True)
        save_model(other, path)
        os.utime(path, (1.7e9, 1.7e9))
        paths.append(path)
    return paths


def texts(box: ModelPicker) -> list[str]:
    return [box.itemText(i) for i in range(box.count())]


def facts(box: ModelPicker, index: int) -> tuple[str, str]:
    return box.itemData(index, model_picker._DETAILS), box.itemData(index, model_picker._WARNING)


def test_runs_are_told_apart_and_described_when_their_cards_are_read(picker, later, runs):
    picker.show_models(runs, Path("B.svs"), runs[0])
    assert texts(picker) == ["run-1 (section A)", "run-1 (section B)", "Open a model file ..."]
    assert facts(picker, 0) == ("", "")
    later.go()
    assert facts(picker, 0) == ("colon, 1 patient, 1 slide · held-out PCC 0.15 · 2023-11-14", "")
    assert "trained on this slide" in facts(picker, 1)[1]
    assert str(runs[1]) in picker.itemData(1, Qt.ItemDataRole.ToolTipRole)
    assert picker.currentData() == runs[0]
    picker.show_models(runs, Path("A.svs"), runs[0])  # read once
    assert not later.jobs
    assert "trained on this slide" in facts(picker, 0)[1]
    os.utime(runs[0])  # it was trained further
    picker.show_models(runs, Path("A.svs"), runs[0])
    assert len(later.jobs) == 1


def test_a_model_that_cannot_be_chosen_is_grey_and_says_why(later, qtbot, runs):
    box = ModelPicker(later, "where to start from", lambda entry: "No." if entry.path == runs[1] else "")
    qtbot.addWidget(box)
    box.show_models(runs, None, None, [("random weights", "none")])
    later.go()
    assert [box.model().item(i).isEnabled() for i in range(4)] == [True, True, False, True]
    assert facts(box, 2)[1] == "No."
    qtbot.keyClick(box, Qt.Key.Key_Down)
    qtbot.keyClick(box, Qt.Key.Key_Down)  # goes past it
    assert box.currentIndex() == 3


def test_a_file_that_is_no_model_says_so(picker, later, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    picker.show_models([tmp_path / "broken.safetensors"], None, None, [("choose a model", None)])
    later.go()
    assert texts(picker) == ["choose a model", "broken", "Open a model file ..."]
    assert "not a napari-cpnn model" in facts(picker, 1)[0]
    assert picker.currentIndex() == 0


def test_the_synthetic_model_is_offered_for_its_own_slide_only(picker, later, tmp_path):
    models = [BREAST, SAMPLE_MODEL]
    picker.show_models(models, Path("real.svs"), None)
    assert texts(picker) == ["breast-her2st", "Open a model file ..."]
    picker.show_models(models, SAMPLE_SLIDE, None)
    assert texts(picker)[:2] == ["SYNTHETIC · sample model", "breast-her2st"]
    picker.show_models(models, None, None)
    assert texts(picker)[:2] == ["breast-her2st", "SYNTHETIC · sample model"]
    # A copy of it is known by its card.
    shutil.copy(SAMPLE_MODEL, tmp_path / "mine.safetensors")
    picker.show_models([BREAST, tmp_path / "mine.safetensors"], Path("real.svs"), None)
    later.go()
    assert texts(picker) == ["breast-her2st", "Open a model file ..."]
    picker.show_models([BREAST], Path("real.svs"), tmp_path / "mine.safetensors")  # it is in use
    assert picker.currentText() == "SYNTHETIC · mine"


def test_the_model_that_has_not_seen_a_sample_section_comes_first_there(picker):
    without = ZOO["breast-her2st-without-c4"].path
    picker.show_models([BREAST, without], Path(f"images/HE/{C4_FILE}"), None)
    assert texts(picker)[:2] == ["breast-her2st-without-c4", "breast-her2st"]
    picker.show_models([BREAST, without], Path("other.svs"), None)
    assert texts(picker)[:2] == ["breast-her2st", "breast-her2st-without-c4"]


def test_the_synthetic_model_says_so_where_it_is_named(model):
    drawn = copy.copy(model)
    drawn.provenance = {**model.provenance, "settings": {"tissue": "synthetic tissue"}}
    assert model_label(drawn) == "SYNTHETIC · SqueezeNet + CPNN · 3 types"
    assert model_label(drawn, SAMPLE_MODEL).startswith("SYNTHETIC · sample model · ")
    assert model_label(drawn, Path("x/run-3/model.safetensors")).startswith("SYNTHETIC · run-3 · ")
    assert dict(model_card(drawn))["Trained for"].startswith("SYNTHETIC")
    assert "Trained for" not in dict(model_card(model))


def test_the_list_of_models_is_wide_enough_in_a_narrow_dock(explore, qtbot, slide_path):
    dock = explore(slide_path, show=True)
    dock.model.setFixedWidth(240)
    for _ in range(2):  # also when it is opened for the first time, and napari's style sheet is applied
        dock.model.showPopup()
        qtbot.waitUntil(lambda: dock.model.view().isVisible(), timeout=120_000)
        assert dock.model.view().width() >= 520
        dock.model.hidePopup()


def test_the_explore_dock_names_models_and_follows_the_slide(explore, wait, slide_path, runs, monkeypatch):
    monkeypatch.setattr(model_entries, "_KNOWN", {})
    from napari_cpnn.ui.viewer import recent_models

    recent_models.remember(runs[1])
    recent_models.remember(runs[0])
    dock = explore(slide_path)
    wait(lambda: dock.state.slide is not None)
    names = texts(dock.model)
    assert names[:3] == ["choose a model", "run-1 (section A)", "run-1 (section B)"]
    assert not any(name.startswith("SYNTHETIC") for name in names)
    wait(lambda: "colon" in str(facts(dock.model, 1)[0]))
    dock.model.setCurrentIndex(2)
    dock.model.activated.emit(2)
    wait(lambda: dock.state.model is not None)
    assert dock.controller.model_path == runs[1]
    assert dock.model.currentText() == "run-1 (section B) · SqueezeNet + CPNN · 3 types"
    assert dock.model.currentData() == runs[1]
