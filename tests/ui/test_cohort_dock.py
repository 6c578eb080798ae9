"""The Cohort dock with a mouse and keys, over a run that was made by the network of coloured squares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt

from cohort_world import CohortWorld, make_cohort
from napari_cpnn.cohort_run import RunFolder, slide_tables
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.painting import Shown, color_table
from napari_cpnn.ui.cohort.dock import CohortDock
from napari_cpnn.ui.cohort.slide_model import NAME, VALUE
from napari_cpnn.ui.cohort.thumbnails import Gallery, decoder_of, read_small
from napari_cpnn.ui.layers.slide_layers import OVERLAY_KEY


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> CohortWorld:
    """Four slides of two patients in two groups, and their run."""
    world = make_cohort(tmp_path_factory.mktemp("cohort"))
    assert world.run().done == 4
    return world


@pytest.fixture
def world(made, tmp_path) -> CohortWorld:
    """A copy that can be spoiled; its slides stay where they are."""
    shutil.copytree(made.folder / "out", tmp_path / "out")
    return CohortWorld(tmp_path, made.manifest)


@pytest.fixture
def open_dock(make_napari_viewer_proxy, wait, monkeypatch):
    docks = []

    def build(folder: Path | None = None) -> CohortDock:
        dock = CohortDock(make_napari_viewer_proxy(show=True))
        dock.timer.stop()  # tests look themselves
        monkeypatch.setattr(dock, "open_explore", lambda: None)
        dock.viewer.window.add_dock_widget(dock, name="Cohort (CPNN)")
        docks.append(dock)
        if folder is not None:
            dock.controller.open(folder)
            wait(lambda: dock.controller.picture is not None and dock.controller.is_settled)
        return dock

    yield build
    for dock in docks:
        dock.shut_down()


def names_of(dock: CohortDock) -> list[str]:
    model = dock.slides.model
    return [model.name_at(row) for row in range(model.rowCount())]


def click_heading(qtbot, dock: CohortDock, column: str) -> None:
    header = dock.slides.table.horizontalHeader()
    at = dock.slides.model.columns.index(column)
    dock.slides.table.scrollTo(dock.slides.model.index(0, at))
    place = header.rect().center()
    place.setX(header.sectionViewportPosition(at) + header.sectionSize(at) // 2)
    qtbot.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=place)


def column_of(dock: CohortDock, column: str) -> list[str]:
    model = dock.slides.model
    return [model.index(row, model.columns.index(column)).data() for row in range(model.rowCount())]


# -- thumbnails ----------------------------------------------------------------------------------------------


def test_thumbnails_agree_with_the_maps_and_share_their_colours(made):
    folder = RunFolder(made.folder / "out")
    gallery = Gallery(folder.read_run()["fingerprint"])
    found = {name: read_small(folder.slide(name)) for name in ("s0", "s1")}
    gallery.add(found, decoder_of([folder.slide("s0")], gallery.fingerprint))
    maps = {name: CompositionMap.load(folder.slide(name).map) for name in found}
    painted = gallery.paint(Shown("gene", ("CD3E",)), "viridis")
    values = {name: cmap.expression("CD3E") for name, cmap in maps.items()}
    for name, cmap in maps.items():
        assert painted.means[name] == pytest.approx(float(np.nanmean(values[name])), abs=1e-5)
        assert cmap.grid.shape == (12, 14)
    low, high = painted.limits
    pooled = np.concatenate([v[np.isfinite(v)] for v in values.values()])
    middle, half = np.percentile(pooled, (2, 99)).mean(), max(np.ptp(np.percentile(pooled, (2, 99))), 0.1) / 2
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-4)
    # One pixel in the middle of a patch, from the picture and the map alone.
    height, width = painted.pictures["s1"].shape[:2]
    row, col = 5, 6
    y, x = int((row + 0.5) / 12 * height), int((col + 0.5) / 14 * width)
    at = np.clip((values["s1"][row, col] - low) / (high - low), 0, 1)
    color = color_table("viridis")[round(255 * float(at))]
    tissue = found["s1"].picture[y, x]
    wanted = 255 * color[:3] * color[3] * 0.85 + tissue * (1 - 0.85 * color[3])
    assert painted.pictures["s1"][y, x] == pytest.approx(wanted, abs=1.5)


def test_thumbnails_of_a_large_map_are_means_of_patches(tmp_path, made):
    files = RunFolder(made.folder / "out").slide("s0")
    copied = RunFolder(tmp_path).slide("big")
    shutil.copytree(files.path, copied.path)
    small = CompositionMap.load(files.map)
    from napari_cpnn.geometry import Grid

    grid = Grid((100, 90), small.grid.stride_um)
    cmap = CompositionMap(grid, small.decoder, provenance=small.provenance)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), grid.n_cells)
    cmap.fill(np.arange(0, grid.n_cells), weights, rng.normal(size=(grid.n_cells, 1)))
    cmap.save(copied.map)
    copied.small.unlink()
    found = read_small(copied)
    kept = np.asarray(cmap.weights, dtype=np.float64)
    assert found.rows.shape == (34 * 30, 4)  # three by three patches each
    assert found.rows[31 + 1, :3] == pytest.approx(kept[3:6, 6:9].mean(axis=(0, 1)), abs=2e-3)
    assert found.n_patches.sum() == grid.n_cells
    assert found.n_patches[-1] == 3


def spoil_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def spoil_values(path: Path) -> None:
    from napari_cpnn.cohort_run.small_maps import SmallRows, _read, write_small

    key = json.loads((path.parent / "slide.json").read_text())["map_key"]
    small = _read(path, key)
    write_small(SmallRows(**{**vars(small), "places": small.places + 1}), path, key)


def spoil_key(path: Path) -> None:
    from napari_cpnn.cohort_run.small_maps import _read, write_small

    key = json.loads((path.parent / "slide.json").read_text())["map_key"]
    small = _read(path, key)
    small.rows[:] = 0
    write_small(small, path, "another map")


@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_values, spoil_key, Path.unlink])
def test_the_small_copy_has_the_values_of_the_map_and_can_be_missed(world, spoil):
    files = RunFolder(world.folder / "out").slide("s2")
    small = read_small(files)
    cmap = CompositionMap.load(files.map)
    np.testing.assert_array_equal(small.rows, cmap.rows[(cmap.state == 2).ravel()])
    spoil(files.small)
    again = read_small(files)
    np.testing.assert_array_equal(again.rows, small.rows)
    np.testing.assert_array_equal(again.index, small.index)
    assert (again.cell_types, again.fingerprint, again.problem) == (small.cell_types, small.fingerprint, "")


def test_maps_are_not_read_where_there_are_small_copies(world, monkeypatch):
    import napari_cpnn.cohort_run.small_maps as module

    monkeypatch.setattr(module, "read_rows", lambda path: pytest.fail(f"{path} was read"))
    assert len(read_small(RunFolder(world.folder / "out").slide("s2")).rows)


# -- table and gallery ---------------------------------------------------------------------------------------


def test_a_run_is_shown_as_gallery_and_table(open_dock, world):
    dock = open_dock(world.folder / "out")
    assert dock.text.text().startswith("4 of 4 slides mapped")
    assert names_of(dock) == ["s0", "s1", "s2", "s3"]
    assert column_of(dock, "group") == ["control", "control", "treated", "treated"]
    assert len(dock.controller.picture.pictures) == 4
    assert dock.controller.picture.shown == Shown("dominant")
    assert not dock.slides.bar.isVisible()


def test_a_gene_is_typed_and_the_slides_are_sorted_by_it(open_dock, world, qtbot, wait):
    dock = open_dock(world.folder / "out")
    qtbot.keyClicks(dock.slides.gene, "cd3e")
    qtbot.keyClick(dock.slides.gene, Qt.Key.Key_Return)
    wait(lambda: dock.controller.picture.shown == Shown("gene", ("CD3E",)))
    assert dock.slides.bar.isVisible()
    assert dock.slides.quantity.currentText() == "Gene CD3E"
    means = dock.controller.picture.means
    click_heading(qtbot, dock, VALUE)
    assert names_of(dock) == sorted(means, key=lambda name: -means[name])
    click_heading(qtbot, dock, VALUE)
    assert names_of(dock) == sorted(means, key=lambda name: means[name])


def test_the_selection_follows_its_slide_in_both_views(open_dock, world, qtbot):
    dock = open_dock(world.folder / "out")
    page = dock.slides
    rect = page.table.visualRect(page.model.index(1, 0))
    qtbot.mouseClick(page.table.viewport(), Qt.MouseButton.LeftButton, pos=rect.center())
    assert page.selected == "s1"
    assert page.gallery.selectionModel() is page.table.selectionModel()
    click_heading(qtbot, dock, NAME)
    click_heading(qtbot, dock, NAME)
    assert names_of(dock)[0] == "s3"
    assert page.selected == "s1"
    qtbot.keyClicks(page.filter, "control")
    assert names_of(dock) == ["s1", "s0"]
    assert page.selected == "s1"
    qtbot.keyClicks(page.filter, "x")
    assert names_of(dock) == []
    page.filter.clear()
    assert len(names_of(dock)) == 4
    assert not dock.viewer.layers  # selecting opens nothing


def test_slides_are_coloured_by_any_column(open_dock, world, qtbot):
    dock = open_dock(world.folder / "out")
    box = dock.slides.color_by
    for column, n_colors in (("group", 2), ("patient", 2), ("patches", None)):
        box.setFocus()
        box.setCurrentIndex(0)
        for _ in range(box.findData(column)):
            qtbot.keyClick(box, Qt.Key.Key_Down)
        assert box.currentData() == column
        dock.slides._color()
        model = dock.slides.model
        colors = {model.index(row, 0).data(Qt.ItemDataRole.DecorationRole).name() for row in range(4)}
        if n_colors is not None:
            assert len(colors) == n_colors
        assert dock.slides.key.isVisibleTo(dock.slides)


def test_a_run_that_goes_on_fills_the_gallery_and_moves_no_row(open_dock, world, qtbot, wait):
    late = world.folder / "out" / "slides" / "s1" / "slide.json"
    text = late.read_text()
    late.unlink()
    dock = open_dock(world.folder / "out")
    assert "3 of 4 slides mapped" in dock.text.text()
    dock.controller.show(Shown("type", ("Pink",)))
    wait(lambda: bool(dock.controller.picture.means))
    click_heading(qtbot, dock, VALUE)
    dock.slides.select("s1")
    before = names_of(dock)
    assert before[-1] == "s1"  # unknown values are last
    late.write_text(text[:100])  # half of a file, as while it is written
    dock.controller.look()
    wait(lambda: dock.controller.is_settled)
    assert names_of(dock) == before
    late.write_text(text)
    dock.controller.look()
    wait(lambda: dock.controller.picture is not None and "s1" in dock.controller.picture.means)
    assert "4 of 4 slides mapped" in dock.text.text()
    assert names_of(dock) == before
    assert dock.slides.selected == "s1"
    assert dock.slides.sort_again.isVisible()
    qtbot.mouseClick(dock.slides.sort_again, Qt.MouseButton.LeftButton)
    means = dock.controller.picture.means
    assert names_of(dock) == sorted(means, key=lambda name: -means[name])
    assert dock.slides.selected == "s1"
    assert not dock.slides.sort_again.isVisible()


# -- opening slides ------------------------------------------------------------------------------------------


def kept_layers(dock: CohortDock) -> list:
    return [layer for layer in dock.viewer.layers if OVERLAY_KEY in layer.metadata]


def test_a_click_opens_the_slide_with_its_kept_map(open_dock, world, qtbot, wait):
    dock = open_dock(world.folder / "out")
    gallery = dock.slides.gallery
    place = gallery.visualRect(dock.slides.model.index(2, 0)).center()
    qtbot.mouseClick(gallery.viewport(), Qt.MouseButton.LeftButton, pos=place)
    wait(lambda: dock.opener.kept_layer is not None)
    assert [layer.name for layer in dock.viewer.layers] == ["s2", "Kept map: dominant cell type"]
    slide, kept = dock.viewer.layers
    assert tuple(slide.scale) == (1.0, 1.0)
    cmap = CompositionMap.load(RunFolder(world.folder / "out").slide("s2").map)
    assert kept.data.shape == (*cmap.grid.shape, 4)
    assert (np.asarray(kept.data)[..., 3] > 0).sum() == cmap.tissue.sum()
    corner = kept.data_to_world((-0.5, -0.5))  # the corner of the first patch is that of the slide
    assert corner == pytest.approx(slide.data_to_world((-0.5, -0.5)), abs=1e-6)
    assert dock.viewer.layers.selection.active is not None
    assert dock.viewer.layers.selection.active.name == "s2"
    # Enter in the table opens another; the first slide stays open, hidden, and its kept map goes.
    table = dock.slides.table
    table.setCurrentIndex(dock.slides.model.index(0, 0))
    qtbot.keyClick(table, Qt.Key.Key_Return)
    wait(lambda: dock.opener.opened is not None and dock.opener.opened.name == "s0")
    assert len(kept_layers(dock)) == 1
    assert [layer.visible for layer in dock.viewer.layers if not layer.metadata.get(OVERLAY_KEY)] == [False, True]
    dock.opener.open("s2")
    wait(lambda: dock.opener.opened.name == "s2")
    assert sum(layer.name == "s2" for layer in dock.viewer.layers) == 1


def test_few_slides_stay_open(open_dock, world, wait, monkeypatch):
    monkeypatch.setattr("napari_cpnn.ui.cohort.opening.MOST_OPEN", 2)
    dock = open_dock(world.folder / "out")
    for name in ("s0", "s1", "s2"):
        dock.opener.open(name)
        wait(lambda name=name: dock.opener.opened is not None and dock.opener.opened.name == name)
    assert [layer.name for layer in dock.viewer.layers if OVERLAY_KEY not in layer.metadata] == ["s1", "s2"]


def test_the_live_map_begins_with_the_kept_one(explore, model_path, made, tmp_path, wait):
    world = CohortWorld(tmp_path, made.manifest)
    world.run("own", world.cohort.subset(["s0", "s1"]), model=model_path)
    folder = RunFolder(tmp_path / "own").slide("s1")
    kept = CompositionMap.load(folder.map)
    n = int(kept.tissue.sum())
    # Values that no network would give, so that it is seen where they come from.
    weights = np.tile([0.25, 0.5, 0.25], (n, 1))
    kept.fill(np.flatnonzero(kept.tissue), weights, np.zeros((n, kept.n_programs)))
    kept.save(folder.map)
    main = explore()
    main.controller.set_live(False)
    dock = CohortDock(main.viewer)
    dock.timer.stop()
    dock.controller.open(tmp_path / "own")
    wait(lambda: dock.controller.picture is not None and dock.controller.is_settled)
    dock.controller.show_gene("ERBB2")
    dock.opener.open("s1")
    wait(lambda: dock.opener.kept_layer is not None)
    wait(lambda: dock.state.mapper is not None and dock.opener.kept_layer is None)
    live = dock.state.map
    assert np.nanmax(np.abs(live.weights[live.state == 2].astype(float) - [0.25, 0.5, 0.25])) < 1e-3
    assert (live.state == kept.state).all()
    assert dock.state.shown == Shown("gene", ("ERBB2",))
    dock.shut_down()


# -- what is wrong -------------------------------------------------------------------------------------------


def spoil_run(folder: Path) -> Path:
    (folder / "run.json").write_text((folder / "run.json").read_text()[:150])
    return folder


def spoil_slides(folder: Path) -> Path:
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**content, "slides": ["s0", 3]}))
    return folder


def empty_folder(folder: Path) -> Path:
    (folder.parent / "empty").mkdir()
    return folder.parent / "empty"


def other_table(folder: Path) -> Path:
    path = folder.parent / "genes.csv"
    path.write_text("gene,count\nERBB2,3\n")
    return path


def absent(folder: Path) -> Path:
    return folder.parent / "nowhere"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (empty_folder, "is no folder of a run over a cohort"),
        (absent, "is no folder of a run over a cohort"),
        (spoil_run, "run.json"),
        (spoil_slides, "is damaged; start the run again"),
        (other_table, "genes.csv"),
    ],
)
def test_what_is_no_run_is_one_sentence_and_the_run_before_stays(open_dock, made, world, wait, spoil, sentence):
    dock = open_dock(made.folder / "out")
    dock.controller.open(spoil(world.folder / "out"))
    wait(lambda: dock.controller.tasks.problem is not None)
    text = dock.message.text()
    assert sentence in text
    assert text.endswith((".", "?"))
    assert "\n" not in text
    assert names_of(dock) == ["s0", "s1", "s2", "s3"]
    assert len(dock.controller.picture.pictures) == 4


def test_missing_pictures_and_damaged_maps_leave_the_rest(open_dock, world, wait):
    slides = world.folder / "out" / "slides"
    (slides / "s0" / "thumbnail.jpg").unlink()
    (slides / "s1" / "thumbnail.jpg").write_bytes(b"no picture")
    shutil.rmtree(slides / "s2" / "map.zarr" / "weights")
    (slides / "s2" / "small.safetensors").unlink()
    dock = open_dock(world.folder / "out")
    dock.controller.show(Shown("type", ("Blue",)))
    wait(lambda: bool(dock.controller.picture.means))
    assert sorted(dock.controller.picture.means) == ["s0", "s1", "s3"]
    for name, words in {"s0": "thumbnail.jpg is missing", "s1": "thumbnail.jpg is missing", "s2": "map.zarr"}.items():
        assert any(words in text for text in dock.controller.remarks(name))
        dock.slides.select(name)
        assert words in dock.slides.details.text()


def test_a_slide_that_was_moved_is_one_sentence(open_dock, world, wait):
    content = json.loads((world.folder / "out" / "run.json").read_text())
    content["slides"][1]["path"] = str(world.folder / "gone.svs")
    (world.folder / "out" / "run.json").write_text(json.dumps(content))
    dock = open_dock(world.folder / "out")
    dock.opener.open("s1")
    wait(lambda: dock.controller.tasks.problem is not None)
    assert dock.message.text().startswith(f"s1: there is no file {world.folder / 'gone.svs'} any more; put it back")
    assert not dock.viewer.layers


def test_an_unknown_gene_is_one_sentence(open_dock, world, qtbot):
    dock = open_dock(world.folder / "out")
    qtbot.keyClicks(dock.slides.gene, "nonsense")
    qtbot.keyClick(dock.slides.gene, Qt.Key.Key_Return)
    assert dock.message.text() == "The model of this run does not predict nonsense."
    assert dock.controller.picture.shown == Shown("dominant")


def test_a_folder_that_vanishes_is_said_once(open_dock, world, wait):
    dock = open_dock(world.folder / "out")
    told = []
    dock.controller.tasks.notify = told.append
    shutil.rmtree(world.folder / "out")
    for _ in range(3):
        dock.controller.look()
        wait(lambda: dock.controller.is_settled)
    assert "is no folder of a run" in dock.message.text()
    assert told == []
    assert len(names_of(dock)) == 4


def test_a_model_that_is_not_there_is_said_and_the_kept_map_stays(open_dock, world, wait):
    path = world.folder / "out" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_file": "/gone/model.safetensors"}))
    dock = open_dock(world.folder / "out")
    dock.opener.open("s0")
    wait(lambda: dock.opener.kept_layer is not None)
    wait(lambda: "is not at /gone/model.safetensors any more" in dock.message.text())


# -- manifest and groups -------------------------------------------------------------------------------------


def test_columns_of_a_manifest_are_added(open_dock, world, made, wait):
    import pandas as pd

    table = pd.read_csv(made.manifest).assign(outcome=["pCR", "pCR", "residual", "residual"])
    later = made.folder / "later.csv"
    table.to_csv(later, index=False)
    dock = open_dock()
    dock.controller.open(later)
    wait(lambda: len(names_of(dock)) == 4)
    assert not dock.tabs.isTabVisible(1)
    dock.controller.open(world.folder / "out")
    wait(lambda: dock.controller.tables is not None and dock.controller.is_settled)
    assert column_of(dock, "outcome") == ["pCR", "pCR", "residual", "residual"]
    assert column_of(dock, "status") == ["done"] * 4


def test_groups_are_those_of_the_report(open_dock, world):
    dock = open_dock(world.folder / "out")
    dock.tabs.setCurrentWidget(dock.groups)
    wanted = slide_tables(world.folder / "out").groups["group"]
    table = dock.groups.table
    assert table.rowCount() == 3
    heads = [table.horizontalHeaderItem(i).text() for i in range(table.columnCount())]
    assert heads == ["Cell type", "", "p", "q", "treated less control", "control (1)", "treated (1)"]
    for line in range(3):
        part = wanted[wanted["type"] == table.item(line, 0).text()].set_index("group")
        assert table.item(line, 5).text() == f"{100 * part.loc['control', 'mean']:.1f}"  # one patient: no interval
        assert table.item(line, 6).text() == f"{100 * part.loc['treated', 'mean']:.1f}"
    assert "Patients are the unit" in dock.groups.note.text()


def test_pictures_that_are_not_square_keep_their_shape(made):
    small = read_small(RunFolder(made.folder / "out").slide("s0"))
    with Image.open(made.folder / "out" / "slides" / "s0" / "thumbnail.jpg") as image:
        assert small.picture.shape[1] / small.picture.shape[0] == pytest.approx(image.width / image.height, rel=0.05)
    assert small.index.shape == small.picture.shape[:2]


# -- outcome -------------------------------------------------------------------------------------------------


@pytest.fixture
def typed_file(tmp_path):
    """Typed expression of four samples, and how to write it as of a model that was trained on some patients."""
    import pandas as pd

    from napari_cpnn.prototypes import TypedExpression

    def write(trained_on: tuple[str, ...] = ()) -> Path:
        rng = np.random.default_rng(0)
        types, genes, samples = ["A", "B"], [f"G{i}" for i in range(6)], [f"s{i}" for i in range(4)]
        relative = rng.gamma(5, 0.2, (2, 4, 6)).astype(np.float32)
        table = pd.DataFrame(rng.dirichlet(np.ones(6), 2), types, genes)
        shares = pd.DataFrame(rng.dirichlet(np.ones(2), 4), samples, types)
        known = pd.DataFrame(np.full((6, 2), 0.5), genes, types)
        TypedExpression(relative * 10, relative, table, shares, known, known, trained_on).save(tmp_path / "typed.h5ad")
        return tmp_path / "typed.h5ad"

    return write


def outcome_dock(open_dock, world, wait, path: Path) -> CohortDock:
    dock = open_dock(world.folder / "out")
    dock.tabs.setCurrentWidget(dock.outcome)
    assert dock.outcome.column.currentData() == "group"
    clinical = [dock.outcome.clinical.item(i) for i in range(dock.outcome.clinical.count())]
    assert [item.text() for item in clinical if item.isHidden()] == ["group"]  # the outcome itself
    dock.outcome.open_typed(path)
    wait(lambda: dock.outcome.typed is not None or dock.controller.tasks.problem is not None)
    return dock


def test_patients_that_trained_the_model_are_refused(open_dock, world, wait, qtbot, typed_file):
    dock = outcome_dock(open_dock, world, wait, typed_file(("P1",)))
    qtbot.mouseClick(dock.outcome.run, Qt.MouseButton.LeftButton)
    wait(lambda: dock.controller.tasks.problem is not None)
    assert "a model that was trained on P1 of this cohort" in dock.message.text()
    assert not dock.outcome.table.isVisible()


def test_too_few_patients_are_one_sentence(open_dock, world, wait, qtbot, typed_file):
    dock = outcome_dock(open_dock, world, wait, typed_file())
    qtbot.mouseClick(dock.outcome.run, Qt.MouseButton.LeftButton)
    wait(lambda: dock.controller.tasks.problem is not None)
    assert "needs 5 of each" in dock.message.text()


def test_what_is_no_typed_expression_or_result_is_one_sentence(open_dock, world, wait, made):
    dock = outcome_dock(open_dock, world, wait, made.manifest)
    assert "manifest.csv" in dock.message.text()
    assert not dock.outcome.run.isEnabled()
    dock.outcome.open_result(made.manifest)
    wait(lambda: "is no result of napari-cpnn outcome" in dock.message.text())


def test_a_study_of_a_cohort_and_its_file_show_the_same(open_dock, world, wait, tmp_path):
    """The study of the page is that of the features themselves, and the table of the terminal shows as it."""
    import pandas as pd

    from napari_cpnn.prototypes import TypedExpression
    from napari_cpnn.studies import cohort_outcome, feature_sets, outcome_study

    rng = np.random.default_rng(1)
    n, types, genes = 24, ["A", "B"], [f"G{i}" for i in range(5)]
    samples, outcome = [f"x{i}" for i in range(n)], np.arange(n) % 2
    relative = np.exp(rng.normal(0, 0.3, (2, n, 5)) + outcome[None, :, None] * [1, 0, 0, 0, 0]).astype(np.float32)
    profiles = pd.DataFrame(rng.dirichlet(np.ones(5), 2), types, genes)
    shares = pd.DataFrame(rng.dirichlet(np.ones(2), n), samples, types)
    known = pd.DataFrame(np.full((5, 2), 0.5), genes, types)
    typed = TypedExpression(relative, relative, profiles, shares, known, known)
    table = pd.DataFrame({"sample": samples, "patient": samples, "pCR": outcome, "age": rng.normal(50, 9, n)})
    order = rng.permutation(n)
    study, left_out = cohort_outcome(table.iloc[order], typed, "pCR", ["age"], 3, 2)
    sets = feature_sets(typed.stacked().astype(float), shares.to_numpy(), types, table[["age"]])
    direct = outcome_study(sets, samples, outcome.tolist(), 3, 2)
    assert left_out == 0
    assert study.table["auc"].to_numpy() == pytest.approx(direct.table["auc"].to_numpy())
    study.table.to_csv(tmp_path / "result.csv")
    dock = open_dock(world.folder / "out")
    dock.tabs.setCurrentWidget(dock.outcome)
    dock.outcome.open_result(tmp_path / "result.csv")
    wait(lambda: dock.outcome.study is not None)
    shown = dock.outcome.table
    assert [shown.item(i, 0).text() for i in range(shown.rowCount())] == list(study.table.index)
    first = study.table.iloc[0]
    assert shown.item(0, 2).text() == f"{first['auc']:.2f} [{first['low']:.2f}, {first['high']:.2f}]"
    assert "12 patients with, 12 without" in dock.outcome.note.text()
