"""What is written from the docks, without Qt; background work runs when the test says so."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from tests.ui.test_explore_controller import Later

from map_world import GENES, TYPES, empty_map, make_world
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.settings import ExportSettings
from napari_cpnn.ui.export import controller as module
from napari_cpnn.ui.export.controller import KINDS, ExportController, Request
from napari_cpnn.ui.export.name_lists import split_names
from napari_cpnn.ui.viewer.state import ExploreState, Shown

BY_KEY = {kind.key: kind for kind in KINDS}


@pytest.fixture
def later():
    return Later()


@pytest.fixture
def state():
    world = make_world()
    state = ExploreState()
    state.slide = world.slide
    state.mapper = SimpleNamespace(map=world.cmap)
    state.shown = Shown("gene", (GENES[0],))
    state.limits = (0.5, 2.5)
    return state


@pytest.fixture
def controller(state, later):
    return ExportController(state, later)


@pytest.mark.parametrize("key", BY_KEY)
def test_every_kind_is_written_and_says_where(controller, later, tmp_path, key):
    kind = BY_KEY[key]
    for genes in [one for one in kind.genes if one != "above"][:2]:  # the scores of this map are not known
        path = tmp_path / f"{genes}{kind.endings[0]}"
        controller.export(Request(kind, path, genes, f"{GENES[1]}, {GENES[2].lower()}", dpi=60))
        assert controller.running
        assert controller.message == f"Writing {path.name} ..."
        later.run()
        assert not controller.running
        assert path.exists()
        assert controller.message.startswith(f"Written: {path} (")
        assert controller.written == path


def test_genes_that_are_written(controller, later, tmp_path):
    def columns(genes, typed=""):
        path = tmp_path / "a.csv"
        controller.export(Request(BY_KEY["csv"], path, genes, typed, overwrite=True))
        later.run()
        return [name for name in pd.read_csv(path).columns if name.startswith("GENE")]

    assert columns("shown") == [GENES[0]]
    assert columns("all") == list(GENES)
    path = tmp_path / "b.csv"
    controller.export(Request(BY_KEY["csv"], path, "shown", area=Rect(0.0, 0.0, 90.0, 90.0)))
    later.run()
    assert pd.read_csv(path).x_um.max() < 90
    assert columns("some", "gene3  GENE1\nGENE3") == [GENES[3], GENES[1]]


def test_a_saved_part_can_be_loaded(controller, later, tmp_path):
    controller.export(Request(BY_KEY["map"], tmp_path / "a.zarr", "none", area=Rect(0.0, 0.0, 80.0, 80.0)))
    later.run()
    assert CompositionMap.load(tmp_path / "a.zarr").grid.shape == (5, 5)


def test_a_figure_looks_as_the_screen(controller, state, later, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("napari_cpnn.export.to_figure", lambda *args, **more: seen.append((args, more)) or args[1])
    path = tmp_path / "a.png"
    path.write_text("")
    state.set_look(colormap="magma", opacity=0.4, smooth=False)
    controller.export(Request(BY_KEY["figure"], path, "shown"))
    later.run()
    (_, _, shown, slide, settings), _ = seen.pop()
    assert shown == [state.shown]
    assert slide is state.slide
    assert (settings.colormap, settings.opacity, settings.smooth) == ("magma", 0.4, False)
    assert (settings.low, settings.high) == (0.5, 2.5)
    # Other panels have ranges of their own, unless the user has fixed one for all.
    controller.export(Request(BY_KEY["figure"], path, "some", f"{GENES[1]}, t/nk CELLS, dominant"))
    later.run()
    (_, _, shown, _, settings), _ = seen.pop()
    assert shown == [GENES[1], TYPES[1], "dominant"]
    assert (settings.low, settings.high) == (None, None)
    state.set_look(range_mode="manual", manual=(0.0, 3.0))
    controller.export(Request(BY_KEY["figure"], path, "some", GENES[1]))
    later.run()
    assert (seen[0][0][4].low, seen[0][0][4].high) == (0.0, 3.0)


def test_what_the_user_changes_meanwhile_is_no_part_of_it(controller, state, later, tmp_path):
    controller.export(Request(BY_KEY["csv"], tmp_path / "a.csv", "shown"))
    state.shown = Shown("gene", (GENES[5],))
    later.run()
    assert GENES[0] in pd.read_csv(tmp_path / "a.csv").columns


@pytest.mark.parametrize(
    ("change", "request_", "sentence"),
    [
        ({"mapper": None}, Request(BY_KEY["csv"], Path("a.csv"), "shown"), "There is no map to export yet"),
        (
            {"mapper": SimpleNamespace(map=empty_map())},
            Request(BY_KEY["csv"], Path("a.csv"), "shown"),
            "No patch of the map has been computed",
        ),
        ({}, Request(BY_KEY["csv"], Path(), "shown"), "Enter the folder and name"),
        ({}, Request(BY_KEY["csv"], Path("a.csv"), "some", " , "), "Enter the names"),
        ({}, Request(BY_KEY["csv"], Path("a.csv"), "some", "NOPE"), "does not have NOPE"),
        ({}, Request(BY_KEY["figure"], Path("a.png"), "some", "NOPE"), "has no 'NOPE'"),
        ({}, Request(BY_KEY["csv"], Path("no/a.csv"), "shown"), "does not exist; create it"),
        ({}, Request(BY_KEY["csv"], Path("there.csv"), "shown"), "exists already"),
        ({}, Request(BY_KEY["map"], Path("there.csv"), "none", overwrite=True), "exists and is not a map"),
        ({}, Request(BY_KEY["csv"], Path("a.csv"), "shown", area=Rect(0, 0, 9, 9)), "No patch of this area"),
    ],
)
def test_mistakes_are_a_sentence_and_nothing_is_written(
    controller, state, later, tmp_path, monkeypatch, change, request_, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    for name, value in change.items():
        setattr(state, name, value)
    controller.export(request_)
    later.run()
    assert sentence in controller.message
    assert controller.message.count(". ") == 0
    assert not controller.running
    assert [p.name for p in tmp_path.iterdir()] == ["there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_full_disk(controller, later, tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    controller.export(Request(BY_KEY["csv"], tmp_path / "a.csv", "all"))
    later.run()
    assert "No space left on device" in controller.message
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    controller.export(Request(BY_KEY["csv"], tmp_path / "a.csv", "all"))
    later.run()
    assert controller.message.startswith("Written:")


def test_cancelling_leaves_nothing(controller, later, tmp_path):
    controller.export(Request(BY_KEY["anndata"], tmp_path / "a.h5ad", "all"))
    controller.export(Request(BY_KEY["csv"], tmp_path / "b.csv", "all"))  # one at a time
    controller.cancel()
    later.run()
    assert controller.message == "Cancelled; nothing was written."
    assert not controller.running
    assert not list(tmp_path.iterdir())


def test_cancelling_in_the_middle(controller, later, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ExportSettings", lambda **more: ExportSettings(block_mb=1e-4, **more))

    class Meddler(threading.Event):
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > 3

    monkeypatch.setattr(module.threading, "Event", Meddler)
    controller.export(Request(BY_KEY["csv"], tmp_path / "a.csv", "all"))
    later.run()
    assert controller.message.startswith("Cancelled")
    assert controller.share > 0
    assert not list(tmp_path.iterdir())


def test_an_answer_that_comes_after_the_end(controller, later, tmp_path):
    controller.export(Request(BY_KEY["csv"], tmp_path / "a.csv", "all"))
    controller.close()
    later.run()
    assert not list(tmp_path.iterdir())


def test_paths(controller, state, tmp_path):
    state.slide.name = "a/b: 3"
    assert controller.default_path(BY_KEY["figure"]).name == "a_b_ 3_figure.png"
    for text, key, name in (
        ("x.pdf", "figure", "x.pdf"),
        ("x.csv", "figure", "x.png"),
        ("x", "anndata", "x.h5ad"),
        ("x.ome.zarr", "map", "x.ome.zarr"),
        ("x.h5ad", "ome-zarr", "x.ome.zarr"),
        ("a.b", "csv", "a.b.csv"),
    ):
        assert controller.path_of(f" {tmp_path / text} ", BY_KEY[key]) == tmp_path / name


def test_names_as_people_type_them():
    known = ["ERBB2", "CD3E", "T cells", "B cells"]
    assert split_names("erbb2 cd3e", known) == ("ERBB2", "CD3E")
    assert split_names("t cells, ERBB2; NOPE\nERBB2", known) == ("T cells", "ERBB2", "NOPE")
    assert split_names("ERBB2 from T cells", known) == ("ERBB2 from T cells",)
    assert split_names("", known) == ()
