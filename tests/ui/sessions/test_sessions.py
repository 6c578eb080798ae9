"""A script draws the figure on screen without a screen, and a session opens the same window elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog
from tests.ui.conftest import write_slide

from napari_cpnn.models import load_model, save_model
from napari_cpnn.palette import choose_colors, chosen_color
from napari_cpnn.regions import Region
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.ui.explore.color_choice import use_color
from napari_cpnn.ui.export.controller import KINDS
from napari_cpnn.ui.layers import holds_regions
from napari_cpnn.ui.regions import new_layer, regions_of
from napari_cpnn.ui.sessions import restore
from napari_cpnn.ui.sessions.collect import dock_of, session_of
from napari_cpnn.ui.sessions.commands import get_session_reader
from napari_cpnn.ui.sessions.python_code import python_code
from napari_cpnn.ui.sessions.restore import open_session
from napari_cpnn.ui.sessions.session_file import read_session
from napari_cpnn.ui.viewer import preferences

FIGURE = next(i for i, kind in enumerate(KINDS) if kind.key == "figure")
MAP = next(i for i, kind in enumerate(KINDS) if kind.key == "csv")
SQUARE = Region.from_vertices("Tumour", [(200, 200), (200, 500), (500, 500), (500, 200)])


@pytest.fixture(autouse=True)
def colors_of_this_test():
    yield
    preferences.use_colors({})
    choose_colors({})


@pytest.fixture
def answer(monkeypatch):
    """Answer the file dialogs with a path."""

    def to(path):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_args, **_more: (str(path), ""))
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_args, **_more: (str(path), ""))

    return to


def press(dock, text):
    """Choose an entry of the Session button's menu."""
    next(action for action in dock.keep.menu().actions() if action.text() == text).trigger()


def zoom(viewer, zoom, centre):
    viewer.scene.camera.center = centre
    viewer.scene.camera.zoom = zoom


@pytest.fixture
def sample(explore, qtbot):
    """The sample in a window, zoomed in, so that mapping takes seconds."""
    dock = explore(sample_folder() / SAMPLE_FILES["slide"], show=True)
    zoom(dock.viewer, 1.8, (2000.0, 1750.0))
    qtbot.waitUntil(lambda: dock.state.mapper is not None, timeout=120_000)
    dock.session.read_view()
    qtbot.waitUntil(dock.is_settled, timeout=120_000)
    return dock


def test_a_script_draws_the_figure_on_screen_without_a_screen(sample, wait, qtbot, answer, tmp_path):
    dock = sample
    # What a user does: a gene, a colour map, more or less opaque, single patches; then a table and a figure.
    gene = dock.state.model.genes[7]
    dock.gene.setText(gene)
    qtbot.keyPress(dock.gene, "\r")
    assert dock.state.shown.gene == gene
    dock.look.colormap.setCurrentText("magma")
    dock.look.colormap.textActivated.emit("magma")
    assert dock.state.look.colormap == "magma"
    dock.state.choose_look(opacity=0.5, smooth=False)
    # Zoomed in from what is mapped already: the rim of a map is drawn fainter while its neighbours are not known.
    zoom(dock.viewer, 5.0, (2000.0, 1750.0))
    wait(dock.is_settled)
    dock.finish_drawing()
    dock.export.click()
    dialog = dock.export.dialog
    dialog.area.setCurrentText("the present view")
    for kind, name in ((MAP, "table.csv"), (FIGURE, "figure.png")):
        dialog.kind.setCurrentIndex(kind)
        dialog.path.setText(str(tmp_path / name))
        dialog.start.click()
        wait(lambda: not dialog.controller.running)
        assert (tmp_path / name).is_file(), dialog.message.text()
    answer(tmp_path / "mine.py")
    press(dock, "Save script ...")
    wait((tmp_path / "mine.py").exists)
    press(dock, "Copy as Python")
    code = (tmp_path / "mine.py").read_text()
    assert QGuiApplication.clipboard().text() == code
    assert "sample_folder" in code  # runs wherever the package is installed
    assert len(code.splitlines()) < 40

    hidden = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "mine.py"],
        cwd=tmp_path,
        env={**hidden, "NAPARI_CPNN_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    made = tmp_path / "slide_cpnn"
    by_script = np.asarray(Image.open(made / "slide_on_screen.png"))
    on_screen = np.asarray(Image.open(tmp_path / "figure.png"))
    np.testing.assert_array_equal(by_script, on_screen)
    assert on_screen[..., :3].std() > 20
    np.testing.assert_array_equal(np.asarray(Image.open(made / "figure.png")), on_screen)
    assert (made / "table.csv").read_text() == (tmp_path / "table.csv").read_text()


@pytest.fixture
def window(explore, wait, slide_path, model_path, tmp_path):
    """A window with many choices made, its model beside the slide."""
    model = tmp_path / "quick.safetensors"
    shutil.copy(model_path, model)
    dock = explore(slide_path, show=True)
    dock.open_model(model)
    wait(lambda: dock.state.mapper is not None)
    dock.controller.show_gene("CD3E")
    dock.state.choose_look(colormap="cividis", range_mode="manual", manual=(0.0, 3.0), opacity=0.8)
    use_color(dock.state, "Stroma", "#123456")
    dock.viewer.add_layer(new_layer(dock.state.layer, [SQUARE], dock.state.slide.mpp))
    zoom(dock.viewer, 1.5, (300.0, 420.0))
    return dock


@pytest.fixture
def saved(window, wait, answer, tmp_path):
    answer(tmp_path / "mine")
    press(window, "Save session ...")
    path = tmp_path / "mine.cpnn.json"
    wait(path.exists)
    window.shut_down()
    window.viewer.layers.clear()
    preferences.keep_color("Stroma", None)
    return path


def is_restored(opening):
    return lambda: opening.is_done and opening.state.model is not None and opening.state.mapper is not None


def check(viewer, state):
    """The window is as it was."""
    assert state.shown.gene == "CD3E"
    assert (state.look.colormap, state.look.manual, state.look.opacity) == ("cividis", (0.0, 3.0), 0.8)
    assert chosen_color("Stroma") == "#123456"
    assert viewer.scene.camera.zoom == pytest.approx(1.5)
    assert viewer.scene.camera.center[-2:] == pytest.approx((300.0, 420.0))
    shapes = [layer for layer in viewer.layers if holds_regions(layer)]
    assert len(shapes) == 1
    [region] = regions_of(shapes[0], state.layer, state.slide.mpp)[1]
    assert region.name == "Tumour"
    assert region.outline.equals_exact(SQUARE.outline, 1e-3, normalize=True)


def test_a_session_opens_the_same_window(saved, explore, wait):
    dock = explore(show=True)
    opening = open_session(dock.viewer, saved)
    wait(is_restored(opening))
    assert opening.notes == []
    check(dock.viewer, dock.state)
    assert dock_of(dock.viewer, "regions") is not None
    # Again in the same window, with another quantity on screen and a region more.
    dock.controller.show_dominant()
    wait(dock.is_settled)
    assert dock.finer.parts == 1
    saved.write_text(json.dumps({**json.loads(saved.read_text()), "finer": 2}))
    again = open_session(dock.viewer, saved)
    wait(is_restored(again))
    assert dock.state.shown.gene == "CD3E"
    assert again.notes == []
    # The stride of the map, in the map, in the list of strides, and in the script.
    half = dock.state.model.patch.size_um / 2
    assert (dock.finer.parts, dock.state.mapper.settings.stride_um) == (2, half)
    assert dock.stride.stride.currentIndex() == 1
    assert session_of(dock.viewer, dock).finer == 2
    assert f"stride_um={half!r}" in python_code(session_of(dock.viewer, dock))


def test_dropping_a_session_opens_it(saved, make_napari_viewer, monkeypatch, wait):
    viewer = make_napari_viewer(show=True)
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    assert viewer.open(str(saved), plugin="napari-cpnn") == []
    wait(lambda: dock_of(viewer, "explore") is not None and dock_of(viewer, "explore").state.mapper is not None)
    dock = dock_of(viewer, "explore")
    wait(lambda: dock.state.shown is not None and dock.state.shown.gene == "CD3E")
    check(viewer, dock.state)
    dock.shut_down()
    dock_of(viewer, "regions").shut_down()


def test_what_was_moved_or_replaced_is_said(saved, explore, wait, tmp_path, model, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    slide = read_session(saved).slide.path
    moved = folder / "renamed.tif"
    shutil.move(slide, moved)
    other = load_model(tmp_path / "quick.safetensors")
    with torch.no_grad():
        other.head.log_alpha += 1
    save_model(other, tmp_path / "quick.safetensors")
    asked = []

    def ask(_parent, _title, sentence, path):
        asked.append((sentence, path))
        return answer

    monkeypatch.setattr(restore, "ask_for_file", ask)
    dock = explore(show=True)
    answer = None
    refused = open_session(dock.viewer, saved)
    wait(lambda: refused.problem is not None)
    assert str(refused.problem) == f"The slide section is not at {slide}; choose it."
    assert not dock.viewer.layers
    answer = moved
    opening = open_session(dock.viewer, saved)
    wait(is_restored(opening))
    wait(lambda: bool(opening.notes))
    assert [path for _, path in asked] == [slide, slide]
    assert dock.state.slide.path == moved
    assert "another model than the one of the session" in opening.notes[0]
    check(dock.viewer, dock.state)


def test_another_slide_and_a_model_that_is_gone_are_said(saved, explore, wait, tmp_path, monkeypatch):
    slide = read_session(saved).slide.path
    write_slide(slide, np.full((1536, 2048, 3), 200, np.uint8))
    (tmp_path / "quick.safetensors").unlink()
    monkeypatch.setattr(restore, "ask_for_file", lambda *_: None)
    dock = explore(show=True)
    opening = open_session(dock.viewer, saved)
    wait(lambda: opening.is_done)
    assert [("not the slide" in note, "choose one in the Explore dock" in note) for note in opening.notes] == [
        (True, False),
        (False, True),
    ]
    assert dock.state.slide is not None


def test_bad_files_are_one_sentence_and_the_window_goes_on(window, wait, tmp_path):
    for content in ("{", "[]", json.dumps({"format": "napari-cpnn session", "version": 1, "slide": 3})):
        path = tmp_path / "bad.cpnn.json"
        path.write_text(content)
        opening = open_session(window.viewer, path)
        wait(lambda opening=opening: opening.problem is not None)
        assert str(opening.problem).startswith(str(path))
        assert "Traceback" not in str(opening.problem)
    assert window.state.shown.gene == "CD3E"
    assert get_session_reader("a.json") is None
    assert get_session_reader(["a.cpnn.json", "b.tif"]) is None


def test_without_slide_or_file_it_says_what_is_missing(explore, wait, answer, tmp_path, slide_path, monkeypatch):
    said = []
    monkeypatch.setattr("napari_cpnn.ui.sessions.actions.warn", said.append)
    dock = explore()
    answer(tmp_path / "a")
    for text in ("Copy as Python", "Save script ...", "Save session ..."):
        press(dock, text)
    assert [text.split(":")[0] for text in said] == ["No slide is open yet"] * 3
    dock.viewer.add_image(np.zeros((600, 600, 3), np.uint8), rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    wait(lambda: dock.state.slide is not None)
    press(dock, "Save session ...")
    assert "has no file" in said[-1]
    assert not list(tmp_path.glob("a*"))
