"""A wrong choice can be taken back in every dock, and a slide that is opened again looks as it did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.ui.conftest import TYPES, tissue_image, write_slide

from napari_cpnn.errors import CpnnError
from napari_cpnn.samples import SAMPLE_FILES, cache_folder, sample_folder
from napari_cpnn.slides import open_slide
from napari_cpnn.ui.compare.spots_controller import SpotsController
from napari_cpnn.ui.frame.history import History
from napari_cpnn.ui.regions.dock import Regions
from napari_cpnn.ui.viewer.slide_memory import Memory, keep, memory_in, recall
from napari_cpnn.ui.viewer.state import ExploreState, Look, Shown

SQUARE = np.array([[200.0, 200], [200, 500], [500, 500], [500, 200]])


def test_choices_are_taken_back_in_order():
    history, value = History(), [0]

    def choose(new: int, merge: str = "") -> None:
        old = value[0]
        value[0] = new
        history.add(f"value {new}", lambda: choose(old), merge)

    for new in (1, 2):
        choose(new)
    for new in (5, 6, 7):
        choose(new, "slider")
    assert history.text == "value 7"
    history.undo()
    assert value == [2]
    for _ in range(3):
        history.undo()
    assert value == [0]
    assert history.text == ""


def test_a_choice_that_cannot_be_taken_back_leaves_the_others():
    history = History()

    def broken() -> None:
        raise ValueError("gone")

    history.add("first", lambda: None)
    history.add("second", broken)
    with pytest.raises(ValueError, match="gone"):
        history.undo()
    assert history.text == "first"
    history.add("third", lambda: None)
    assert history.text == "third"


def test_choices_of_what_is_gone_are_forgotten():
    history, done, dock, layer = History(), [], object(), object()
    for number, owner in enumerate((None, dock, layer, dock)):
        history.add(f"choice {number}", lambda number=number: done.append(number), owner=owner)
    history.forget(dock)
    assert history.text == "choice 2"
    history.forget(layer)
    history.undo()
    history.undo()
    assert done == [0]


@pytest.mark.parametrize("mpp_first", [False, True])
def test_choices_on_a_slide_that_is_gone_are_not_taken_back(explore, wait, tmp_path, mpp_first):
    dock = explore(*(write_slide(tmp_path / f"{name}.tiff", tissue_image(), mpp=None) for name in "ab"))
    wait(lambda: dock.state.slide is not None)
    gone = dock.state.layer
    if mpp_first:
        dock.session.set_mpp(2.0)
    dock.viewer.layers.remove(gone)
    wait(lambda: dock.state.layer is not gone and dock.state.slide is not None)
    assert not dock.undo.isEnabled()
    dock.state.history.undo()
    assert dock.state.layer in dock.viewer.layers
    assert dock.state.slide.mpp is None


@pytest.mark.slow  # choices are taken back above
def test_gene_colours_and_model_are_taken_back(explore, wait, slide_path, model, model_path):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None and dock.is_settled())
    assert not dock.undo.isEnabled()
    dock.controller.show_gene("ERBB2")
    dock.controller.show_type(TYPES[0])
    for value in (50, 40, 30):
        dock.look.opacity.setValue(value)
    assert dock.undo.toolTip() == "undo: colours"
    dock.undo.click()
    assert dock.state.look.opacity == Look().opacity
    dock.undo.click()
    assert dock.state.shown == Shown("gene", ("ERBB2",))
    dock.open_model(model_path)
    wait(lambda: dock.state.model is not None and dock.state.model is not model)
    assert dock.undo.toolTip() == f"undo: model {model_path.stem}"
    dock.undo.click()
    assert dock.state.model is model
    assert dock.controller.model_path is None
    wait(lambda: dock.state.map is not None)


def test_a_wrong_pixel_size_is_taken_back(explore, wait, tmp_path):
    dock = explore(write_slide(tmp_path / "bare.tiff", tissue_image(), mpp=None))
    wait(lambda: dock.state.slide is not None)
    layer = dock.state.layer
    dock.mpp.setValue(5.0)
    dock.mpp_set.click()
    assert dock.state.slide.mpp == (5.0, 5.0)
    assert tuple(layer.scale) == (5.0, 5.0)
    dock.undo.click()
    assert dock.state.slide.mpp is None
    assert tuple(layer.scale) == (1.0, 1.0)
    assert not dock.mpp_row.isHidden()


def test_a_slide_that_is_opened_again_looks_as_it_did(explore, wait, tmp_path, model_path):
    path = write_slide(tmp_path / "bare.tiff", tissue_image(), mpp=None)
    first = explore(path)
    regions = Regions(first.viewer)
    wait(lambda: first.state.slide is not None)
    first.session.set_mpp(0.5)
    first.open_model(model_path)
    wait(lambda: first.state.map is not None)
    first.controller.show_gene("ERBB2")
    first.look.opacity.setValue(40)
    regions.draw.click()
    regions.layer.add(SQUARE, shape_type="polygon")
    wait(lambda: len(regions.controller.regions) == 1)
    regions.shut_down()
    first.shut_down()

    again = explore(path)
    others = Regions(again.viewer)
    wait(lambda: again.state.map is not None)
    assert again.controller.model_path == model_path
    assert again.state.shown == Shown("gene", ("ERBB2",))
    assert again.state.look.opacity == pytest.approx(0.4)
    assert again.state.slide.mpp == (0.5, 0.5)
    assert tuple(again.state.layer.scale) == (0.5, 0.5)
    wait(lambda: len(others.controller.regions) == 1)
    assert others.controller.regions[0].name == "Region 1"
    assert others.controller.regions[0].area_mm2 == pytest.approx(0.09)
    others.shut_down()


def test_regions_are_taken_back(explore, wait, slide_path):
    dock = Regions(explore(slide_path).viewer)
    wait(lambda: dock.state.slide is not None)
    dock.draw.click()
    layer = dock.layer
    for shift in (0, 100):
        layer.add(SQUARE + shift, shape_type="polygon")
        wait(lambda: len(dock.controller.regions) == len(layer.data))
    dock.table.select([0])
    dock._remove()
    wait(lambda: len(dock.controller.regions) == 1)
    dock.undo.click()
    wait(lambda: len(dock.controller.regions) == 2)
    assert [region.name for region in dock.controller.regions] == ["Region 1", "Region 2"]
    dock.undo.click()
    wait(lambda: len(dock.controller.regions) == 1)
    dock.undo.click()
    wait(lambda: not dock.controller.regions)
    assert not dock.undo.isEnabled()
    dock.shut_down()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"shown": {"kind": 3}}',
        '{"look": {"manual": ["a", 1]}}',
        '{"mpp": 7}',
        '{"move": ["by", [1, 0, 0]]}',
    ],
)
def test_a_damaged_memory_is_none(slide_path, text):
    slide = open_slide(slide_path)
    keep(slide, Memory(model="m.safetensors", spots=("a.tsv", "b.tsv"), regions=(("A", "POINT (0 0)"),)))
    assert recall(slide).spots == ("a.tsv", "b.tsv")
    assert recall(slide).model_file() is None
    (file,) = (cache_folder() / "slides").glob("*.json")
    file.write_text(text)
    assert recall(slide) == Memory()


def test_a_memory_that_cannot_be_written_harms_nothing(slide_path, monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "file"))
    slide = open_slide(slide_path)
    keep(slide, Memory(model="x"))
    assert recall(slide) == Memory()


def test_the_memory_survives_json(slide_path):
    slide = open_slide(slide_path)
    memory = Memory(
        "m", Shown("contribution", ("A", "B")), Look(manual=(0.5, 2.0)), (0.25, 0.26), ("s",), (("R", "W"),)
    )
    keep(slide, memory)
    assert recall(slide) == memory
    assert json.loads(next((cache_folder() / "slides").glob("*.json")).read_text())["model"] == "m"


def test_spots_are_opened_again_with_their_slide(slide_path):
    spots = sample_folder() / SAMPLE_FILES["spots"]

    def at_once(work, done, failed):
        done(work())

    state, told = ExploreState(), []
    state.set_slide(None, open_slide(slide_path), Memory())
    first = SpotsController(state, at_once, told.append)
    first.recall()
    assert first.table is None
    first.open(spots)
    assert state.memory.spots == (str(spots),)
    again = SpotsController(state, at_once, told.append)
    again.recall()
    assert again.table.n_obs == first.table.n_obs
    state.set_slide(None, open_slide(slide_path), Memory(spots=("gone.h5ad",)))
    third = SpotsController(state, at_once, told.append)
    third.recall()
    assert third.table is None
    assert not told


@pytest.mark.parametrize(
    "facts",
    [
        {"look": {"opacity": "x"}},
        {"look": {"opacity": 7}},
        {"look": {"colormap": "none"}},
        {"look": {"smooth": "yes"}},
        {"look": {"scale_um": float("nan")}},
        {"shown": {"kind": "gene", "names": []}},
        {"shown": {"kind": "other", "names": ["a"]}},
        {"shown": {"kind": "gene", "names": ["a"], "measure": "other"}},
        {"mpp": [0, 1]},
    ],
)
def test_a_memory_with_a_value_that_cannot_be_is_none(facts):
    with pytest.raises((ValueError, TypeError, LookupError, CpnnError)):
        memory_in(facts)
