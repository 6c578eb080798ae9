"""Our page of napari's preferences, with napari's own models, kept in a folder of the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from npe2 import PluginManifest
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog

import napari_cpnn
from napari_cpnn.errors import CpnnError
from napari_cpnn.painting import COLORMAPS
from napari_cpnn.palette import choose_colors, colors, family_of, read_colors, type_colors, write_colors
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.explore.color_choice import use_color
from napari_cpnn.ui.viewer.preferences import Preferences, keep_color, read_preferences

MANIFEST = Path(napari_cpnn.__file__).parent / "napari.yaml"


@pytest.fixture(autouse=True)
def _own_colors(monkeypatch):
    monkeypatch.setattr(colors, "_chosen", {})
    monkeypatch.delenv("NAPARI_CPNN_CACHE", raising=False)


@pytest.fixture
def page(plugin_settings, npe2pm):
    from napari.settings import get_plugin_settings

    npe2pm.register(PluginManifest.from_file(MANIFEST))
    return get_plugin_settings("napari-cpnn")


def refuse(error: CpnnError) -> None:
    raise error


def test_the_page_begins_with_our_defaults(page):
    assert read_preferences(refuse) == Preferences()
    assert read_preferences(refuse).mapping == MappingSettings()


def test_colour_maps_of_the_page_are_those_of_the_dock(page):
    schema = type(page.colors).model_fields["colormap"].json_schema_extra
    assert tuple(schema["enum"]) == COLORMAPS


def test_what_is_set_counts_and_is_kept(page, tmp_path):
    page.mapping.device, page.mapping.engine = "cpu", "torch"
    page.mapping.max_batch = 32
    page.mapping.readers = 5
    page.mapping.keep_maps = False
    page.mapping.cache_gb = 7.5
    page.mapping.cache_dir = str(tmp_path / "maps")
    page.colors.colormap = "cividis"
    page.colors.cell_types = "T-cells = #00ff00, Cancer Epithelial=red"
    found = read_preferences(refuse)
    assert found.mapping == MappingSettings(
        device="cpu",
        engine="torch",
        max_batch=32,
        readers=5,
        cache=False,
        cache_gb=7.5,
        cache_dir=str(tmp_path / "maps"),
    )
    assert found.look.colormap == "cividis"
    assert type_colors(["B-cells", "T-cells"]) == {"B-cells": family_of("B-cells").color, "T-cells": "#00FF00"}
    assert "max_batch: 32" in page.config_path.read_text()


def test_the_environment_wins(page, monkeypatch, tmp_path):
    page.mapping.cache_dir = "/elsewhere"
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path))
    assert read_preferences(refuse).mapping.cache_dir is None


def test_what_cannot_be_used_is_said_and_the_rest_counts(page):
    page.mapping.max_batch = 8
    page.colors.cell_types = "T-cells = blu"
    said = []
    found = read_preferences(said.append)
    assert found.mapping.max_batch == 8
    assert found.colors == {}
    (error,) = said
    assert str(error).startswith("The preferences of CPNN, Colours: 'T-cells = blu' is not a cell type and its colour")


def test_numbers_out_of_range_do_not_get_in(page):
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        page.mapping.max_batch = 0
    with pytest.raises(ValidationError):
        page.mapping.device = "abacus"
    assert read_preferences(refuse).mapping == MappingSettings()


def test_a_chosen_colour_is_kept(page):
    keep_color("CAFs", "#123456")
    keep_color("B-cells", "#abcdef")
    assert read_preferences(refuse).colors == {"CAFs": "#123456", "B-cells": "#ABCDEF"}
    keep_color("CAFs", None)
    assert read_preferences(refuse).colors == {"B-cells": "#ABCDEF"}
    assert type_colors(["CAFs"])["CAFs"] == family_of("CAFs").color


def test_a_colour_holds_for_each_spelling_of_a_name_and_is_taken_back_by_any(page):
    keep_color("CAFs", "#123456")
    assert type_colors(["Cancer-associated fibroblasts", "CAF"])["CAF"] == "#123456"
    keep_color("CAF", "#654321")
    assert page.colors.cell_types == "CAF = #654321"
    keep_color("CAFs", None)
    assert page.colors.cell_types == ""


def test_without_our_plugin_in_napari_there_are_the_defaults(plugin_settings):
    assert read_preferences(refuse) == Preferences()
    keep_color("CAFs", "#123456")  # for this session
    assert type_colors(["CAFs"]) == {"CAFs": "#123456"}


def test_colours_as_text():
    given = {"T/NK cells": "#00FF00", "A = b": "#FF0000"}
    assert read_colors(write_colors(given)) == given
    assert read_colors(" ;\n") == {}
    for wrong in ("T-cells", "= red", "T-cells = ", "red"):
        with pytest.raises(CpnnError, match="not a cell type and its colour"):
            read_colors(wrong)


def test_colours_chosen_before_are_forgotten():
    choose_colors({"a": "#111111"})
    choose_colors({"b": "#222222"})
    assert type_colors(["a", "b"])["a"] != "#111111"
    assert type_colors(["a", "b"])["b"] == "#222222"


def test_a_colour_chosen_in_the_dock_is_on_screen_and_can_be_taken_back(page):
    from types import SimpleNamespace

    from napari_cpnn.ui.explore.color_choice import use_color
    from napari_cpnn.ui.viewer.state import ExploreState

    state, news = ExploreState(), []
    use_color(state, "CAFs", "#112233")  # no model, nothing to colour
    state.model = SimpleNamespace(cell_types=("CAFs", "B-cells"))
    state.look_changed.connect(lambda: news.append(type_colors(state.model.cell_types)["CAFs"]))
    use_color(state, "CAFs", "#112233")
    use_color(state, "CAFs", "#445566")
    state.history.undo()
    state.history.undo()
    assert news == ["#112233", "#445566", "#112233", family_of("CAFs").color]
    assert page.colors.cell_types == ""


def test_the_terminal_wins(page, monkeypatch, capsys):
    from napari_cpnn.cli import main

    given = []
    monkeypatch.setattr("napari_cpnn.ui.viewer.open_viewer", lambda _slide, **more: given.append(more["settings"]))
    page.mapping.device, page.mapping.max_batch, page.colors.cell_types = "cuda", 8, "wrong"
    assert main(["open", "slide.tif", "--device", "cpu"]) == 0
    assert (given[0].device, given[0].max_batch) == ("cpu", 8)
    assert "'wrong' is not a cell type and its colour" in capsys.readouterr().err


def test_tests_have_settings_of_their_own(explore, qtbot, tmp_path, slide_path, model):
    """What a test chooses in a dock goes neither to the user nor to the next test."""
    from napari.settings import get_plugin_settings, get_settings
    from napari.utils._base import _DEFAULT_CONFIG_PATH

    users = Path(_DEFAULT_CONFIG_PATH).parent
    before = {path: path.stat().st_mtime_ns for path in users.glob("*.yaml")}
    assert users not in Path(get_settings().config_path).parents
    ours = get_plugin_settings("napari-cpnn")
    assert ours.colors.cell_types == ours.window.open_groups == ""
    dock = explore(slide_path)
    dock.controller.use_model(model)
    use_color(dock.state, "Stroma", "#123456")
    dock.folds[0].button.click()
    assert "Stroma = #123456" in (tmp_path / "preferences" / "napari-cpnn.yaml").read_text()
    assert ours.window.open_groups
    assert {path: path.stat().st_mtime_ns for path in users.glob("*.yaml")} == before
    env = subprocess.run([sys.executable, "-c", _WHERE], capture_output=True, text=True, check=True).stdout
    assert users not in Path(env.strip()).parents


_WHERE = "from napari.settings import get_settings; print(get_settings().config_path)"


@pytest.mark.parametrize(("color", "says"), [("#4b3579", True), pytest.param("#009e73", False, marks=pytest.mark.slow)])
def test_a_chosen_colour_that_reads_as_stain_is_used_and_said(explore, slide_path, model, monkeypatch, color, says):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    told = []
    monkeypatch.setattr("napari_cpnn.ui.explore.color_choice.show_info", told.append)
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_args: QColor(color))
    dock.types.color_wanted.emit("Immune")
    assert type_colors(dock.state.model.cell_types)["Immune"] == color.upper()
    sentence = "The colour of Immune is close to haematoxylin or eosin: on the map it may be taken for tissue."
    assert told == ([sentence] if says else [])
