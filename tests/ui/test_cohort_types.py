"""The tab Cell types of the Cohort dock: scores, filters, and the map of a gene in a cell type on slide and gallery."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt

from cohort_world import CohortWorld, make_cohort
from napari_cpnn.cohort import read_cohort
from napari_cpnn.errors import CohortError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.painting import Shown
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.slides import open_slide
from napari_cpnn.training.bags import BagReader
from napari_cpnn.training.bags.typed import TypedEnsemble
from napari_cpnn.ui.cohort.dock import CohortDock
from napari_cpnn.ui.cohort.typed_files import about_row, genes_meant, open_typed_files, read_scores
from typed_world import GENES, TYPES, trained_on_colours


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> CohortWorld:
    """Four slides and their run."""
    world = make_cohort(tmp_path_factory.mktemp("cohort"))
    assert world.run().done == 4
    return world


READER = SlideLevelSettings(encoder="colour", patch=PatchSpec(32, 1.0))


@pytest.fixture(scope="module")
def ensemble(request, made) -> TypedEnsemble:
    """Trained on features that lie where those of the slides do."""
    path = read_cohort(made.manifest).table.loc["s0", "path"]
    with open_slide(path, 1.0) as slide:
        own = BagReader(READER, keep=False).features(slide, [(160.0, 160.0), (200.0, 230.0), (240.0, 176.0)])[0]
    return trained_on_colours(
        getattr(request, "param", "bag-linear"), mpp=1.0, scale=(own.mean(axis=0), own.std(axis=0) + 1.0)
    )[0]


def table_of_scores(**changes) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    index = pd.MultiIndex.from_product([TYPES, GENES], names=["cell_type", "gene"])
    scores = pd.DataFrame({"r": rng.uniform(-0.2, 0.9, 12), "specificity": rng.uniform(0, 1, 12)}, index=index)
    scores["robust"] = scores["r"] > 0.4
    return scores.assign(**changes)


@pytest.fixture
def files(tmp_path: Path, ensemble: TypedEnsemble) -> Path:
    """A folder with a model, its scores, and other tables."""
    folder = tmp_path / "typed"
    folder.mkdir()
    ensemble.save(folder / "model.safetensors")
    table_of_scores().to_csv(folder / "scores.csv")
    pd.DataFrame({"a": [1]}).to_csv(folder / "other.csv")
    (folder / "other.safetensors").write_bytes(b"no model")
    return folder


@pytest.fixture
def open_dock(explore, made, wait):
    docks = []

    def build() -> CohortDock:
        main = explore()
        dock = CohortDock(main.viewer)
        dock.timer.stop()
        main.viewer.window.add_dock_widget(dock, name="Cohort (CPNN)")
        docks.append(dock)
        dock.controller.open(made.folder / "out")
        wait(lambda: dock.controller.picture is not None and dock.controller.is_settled)
        return dock

    yield build
    for dock in docks:
        dock.shut_down()


def pairs(dock: CohortDock) -> list[tuple[str, str]]:
    model = dock.typed.model
    return [(model.index(i, 1).data(), model.index(i, 0).data()) for i in range(model.rowCount())]


def open_files(dock: CohortDock, path: Path, wait) -> None:
    dock.tabs.setCurrentWidget(dock.typed)
    dock.typed_controller.open(path)
    wait(lambda: dock.typed_controller.files is not None)


def click_row(qtbot, dock: CohortDock, row: int) -> None:
    table = dock.typed.table
    place = table.visualRect(dock.typed.model.index(row, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)


def click_heading(qtbot, dock: CohortDock, column: str) -> None:
    header = dock.typed.table.horizontalHeader()
    at = dock.typed.model.columns.index(column)
    place = header.rect().center()
    place.setX(header.sectionViewportPosition(at) + header.sectionSize(at) // 2)
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)


# -- files ---------------------------------------------------------------------------------------------------


def test_scores_and_model_of_a_folder_are_opened_together(files):
    for name in ("scores.csv", "model.safetensors"):
        found = open_typed_files(files / name)
        assert found.scores_path == files / "scores.csv"
        assert found.model_path == files / "model.safetensors"
        assert found.can_map("CAFs", "FAP")
        assert len(found.scores) == 12


def test_of_two_tables_beside_a_model_the_one_of_its_name_is_taken(files):
    table_of_scores(r=0.0).to_csv(files / "later.csv")
    assert open_typed_files(files / "model.safetensors").scores_path is None
    (files / "later.csv").rename(files / "model_scores.csv")
    assert open_typed_files(files / "model.safetensors").scores_path == files / "model_scores.csv"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: table.drop(columns="robust"), "lacks robust"),
        (lambda table: table[:0], "has no rows"),
        (lambda table: pd.concat([table, table[:1]]), "has two rows of FAP in tumour"),
    ],
)
def test_other_tables_are_one_sentence(tmp_path, change, sentence):
    change(table_of_scores()).to_csv(tmp_path / "scores.csv")
    with pytest.raises(CohortError, match=sentence):
        read_scores(tmp_path / "scores.csv")


def test_a_synonym_finds_its_gene():
    assert genes_meant("her2", ["ERBB2", "ESR1"]) == {"ERBB2"}
    assert genes_meant("r", ["ERBB2", "ESR1", "FAP"]) >= {"ERBB2", "ESR1"}


def test_what_the_map_means_is_said(files):
    found = open_typed_files(files / "scores.csv")
    rows = found.scores.to_dict("records")
    good, bad = (next(row for row in rows if row["robust"] is wanted) for wanted in (True, False))
    assert "not robust: do not read its map" in about_row(bad, found)
    assert "not robust" not in about_row(good, found)
    assert f"Not where {good['cell_type']} express it" in about_row(good, found)


# -- the table -----------------------------------------------------------------------------------------------


def test_filters_and_sorting_keep_the_chosen_row(open_dock, files, qtbot, wait):
    dock = open_dock()
    (files / "model.safetensors").unlink()
    open_files(dock, files / "scores.csv", wait)
    assert dock.typed_controller.files.model is None
    scores = read_scores(files / "scores.csv").sort_values("specificity", ascending=False)
    assert pairs(dock) == list(zip(scores["cell_type"], scores["gene"], strict=True))
    click_row(qtbot, dock, 3)
    chosen = dock.typed_controller.chosen
    assert chosen == pairs(dock)[3]
    assert "open the model of train-typed, too" in dock.typed.about.text()
    click_heading(qtbot, dock, "r")
    by_r = scores.sort_values("r", ascending=False)
    assert pairs(dock) == list(zip(by_r["cell_type"], by_r["gene"], strict=True))
    assert pairs(dock)[dock.typed.table.currentIndex().row()] == chosen
    other = next(name for name in TYPES if name != chosen[0])
    dock.typed.cell_type.setCurrentIndex(dock.typed.cell_type.findData(other))
    dock.typed.cell_type.activated.emit(dock.typed.cell_type.currentIndex())
    assert {name for name, _ in pairs(dock)} == {other}
    assert not dock.typed.table.currentIndex().isValid()
    assert dock.typed_controller.chosen == chosen  # nothing else is chosen by a filter
    dock.typed.cell_type.setCurrentIndex(0)
    dock.typed.cell_type.activated.emit(0)
    assert pairs(dock)[dock.typed.table.currentIndex().row()] == chosen
    qtbot.keyClicks(dock.typed.search, "cd3")
    assert {gene for _, gene in pairs(dock)} == {"CD3E"}
    dock.typed.search.clear()
    qtbot.mouseClick(dock.typed.robust, Qt.MouseButton.LeftButton, pos=dock.typed.robust.rect().center() * 0.2)
    dock.typed.robust.setChecked(True)
    assert len(pairs(dock)) == int(scores["robust"].sum())
    assert not dock.viewer.layers


# -- maps ----------------------------------------------------------------------------------------------------


def keep_features(made: CohortWorld, names: list[str]) -> dict[str, np.ndarray]:
    """Compute the features of slides, as training does, and return them."""
    reader = BagReader(READER)
    table, found = read_cohort(made.manifest).table, {}
    for name in names:
        with open_slide(table.loc[name, "path"], 1.0) as slide:
            grid, _, _ = reader.kept(slide)
            found[name] = reader.features(slide, grid.centers_um(np.argwhere(np.ones(grid.shape, bool))))[0]
    return found


@pytest.mark.parametrize("ensemble", ["bag-linear", "typed"], indirect=True)
def test_a_row_shows_the_gene_in_its_type_on_slide_and_gallery(
    open_dock, files, made, qtbot, wait, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    features = keep_features(made, ["s0", "s1", "s2"])
    dock = open_dock()
    dock.opener.open("s1")
    wait(lambda: dock.opener.opened is not None)
    open_files(dock, files / "model.safetensors", wait)
    row = pairs(dock).index(("CAFs", "FAP"))
    click_row(qtbot, dock, row)
    name = "FAP in CAFs"
    wait(lambda: dock.state.shown == Shown("gene", (name,)) and dock.state.mapper is not None)
    wait(lambda: dock.typed_controller.n_kept == (3, 4))
    wait(lambda: dock.controller.picture is not None and dock.controller.picture.shown == Shown("gene", (name,)))
    # Means of the gallery are those of the patches, computed from the kept features.
    model = dock.typed_controller.model
    import torch

    for slide, values in features.items():
        programs = model.head(torch.from_numpy(values))[1].numpy()
        mean = model.decoder().expression(np.zeros((len(values), 0)), programs, [name]).mean()
        assert dock.controller.picture.means[slide] == pytest.approx(float(mean), abs=0.02)
    assert "s3" not in dock.controller.picture.means
    assert "Features of 3 of 4 slides" in dock.typed.kept.text()
    assert dock.typed.bar.isVisibleTo(dock.typed)
    assert dock.state.slide is not None and dock.state.slide.name.startswith("s1")  # noqa: PT018
    # Another slide of the gallery is mapped with the same model, and no kept map of the run lies on it.
    before = dock.typed_controller.model
    dock.opener.open("s0")
    wait(lambda: dock.state.slide is not None and dock.state.slide.name.startswith("s0"))
    wait(lambda: dock.state.mapper is not None and dock.opener.kept_layer is None)
    assert dock.state.model is before
    assert dock.state.shown == Shown("gene", (name,))
    # A cell type in the tab Slides: the maps of the run again.
    dock.controller.show(Shown("type", ("Pink",)))
    wait(lambda: dock.controller.picture.shown == Shown("type", ("Pink",)))
    assert not dock.typed_controller.is_on
    assert len(dock.controller.picture.means) == 4
    # A click on the row that is chosen comes back to it.
    click_row(qtbot, dock, row)
    wait(lambda: dock.controller.picture.shown == Shown("gene", (name,)))
    assert dock.typed_controller.is_on


def test_another_model_forgets_the_maps_of_the_first(open_dock, files, wait, tmp_path, qtbot):
    dock = open_dock()
    open_files(dock, files / "model.safetensors", wait)
    click_row(qtbot, dock, 0)
    wait(lambda: dock.typed_controller.is_on)
    shutil.copytree(files, tmp_path / "second")
    dock.typed_controller.open(tmp_path / "second" / "model.safetensors")
    wait(lambda: dock.typed_controller.files.model_path.parent.name == "second")
    assert dock.typed_controller.model is None
    assert dock.typed_controller.chosen is None
    wait(lambda: dock.controller.is_settled)
    assert dock.controller.picture.shown in (None, Shown("dominant"))


def test_the_gallery_of_dominant_types_names_its_colours(open_dock, qtbot):
    dock = open_dock()
    assert dock.tabs.currentWidget() is dock.slides
    entries = dock.slides.types.entries()
    colors = type_colors(list(dock.controller.gallery.cell_types), None)
    assert entries
    assert entries == {name: colors[name] for name in entries}
    assert set(entries) == set(dock.controller.picture.colors)
    assert dock.slides.types.isVisibleTo(dock.slides)
    dock.controller.show(Shown("type", ("Pink",)))
    qtbot.waitUntil(lambda: dock.controller.picture.shown == Shown("type", ("Pink",)), timeout=120_000)
    assert not dock.slides.types.isVisibleTo(dock.slides)
