"""The Cells dock in a real napari: found, opened, coloured, counted, looked at, measured and written."""

from __future__ import annotations

from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from tests.ui.conftest import GENES, MPP, SHAPE, TYPES
from tests.ui.mouse import move_mouse
from tests.ui.seen import texts_on_canvas

import napari_cpnn as nc
from cell_maps import nuclei_at
from napari_cpnn.cells import CellMap
from napari_cpnn.counts import GeneSet
from napari_cpnn.nuclei import LiveNuclei
from napari_cpnn.palette import type_colors
from napari_cpnn.ui.cells.colored import CellContent, CellShown
from napari_cpnn.ui.cells.dock import CellsDock
from napari_cpnn.ui.cells.sources import FOUND
from napari_cpnn.ui.export.dialog import ExportDialog

MPP_PAIR = (MPP, MPP)


@pytest.fixture
def cells_dock(beside_explore):
    """Opens both docks: ``cells_dock(slide_path)``."""
    return partial(beside_explore, CellsDock)


@pytest.fixture
def made(model) -> CellMap:
    """Cells on the tissue of the slide, of which the upper are epithelial."""
    rng = np.random.default_rng(0)
    centers = rng.uniform((140, 140), (620, 880), (600, 2))
    shares = rng.dirichlet(np.full(3, 0.4), 600) * 0.3
    shares[np.arange(600), np.where(centers[:, 0] < 380, 0, rng.integers(1, 3, 600))] += 0.7
    facts = {"slide": "section.tif", "mpp": (MPP, MPP), "model": "made"}
    programs = rng.normal(size=(600, model.n_programs))
    return CellMap(nuclei_at(centers), model.decoder(), shares, programs, facts)


@pytest.fixture
def opened(cells_dock, wait, slide_path, made, tmp_path):
    path = made.save(tmp_path / "cells.zarr")
    other, dock = cells_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    dock.controller.sources.open(path)
    wait(lambda: dock.controller.drawing is not None)
    wait(lambda: dock.is_settled)
    return other, dock


def look_at(dock, wait, y: float, x: float, height: float) -> None:
    """Show a part of the slide, and wait until its cells are drawn."""
    before = dock.controller.drawing
    dock.viewer.scene.camera.center = (y, x)
    dock.viewer.scene.camera.zoom = min(dock.viewer.canvas.viewbox_size(dock.viewer.layers)) / height
    wait(lambda: dock.controller.drawing is not before and dock.is_settled)


def test_an_empty_dock_says_what_to_do(cells_dock, wait, slide_path):
    _, dock = cells_dock()
    assert "No slide yet" in dock.controller.tasks.message
    for press in (dock.find_view.click, dock.find_slide.click):
        press()
    dock.controller.sources.open("somewhere.csv")
    assert len(dock.told) == 3
    assert all("Open a slide first" in text for text in dock.told)
    assert not dock.save.isEnabled()
    assert dock.colors.isHidden()


def test_cells_of_a_file_are_drawn_counted_and_coloured(opened, wait, qtbot, made):
    _, dock = opened
    assert dock.source.text() == "600 cells of cells.zarr"
    assert dock.controller.shown == CellShown("type")
    counts = made.type_counts()
    rows = {dock.table.item(i, 0).text(): dock.table.item(i, 1).text() for i in range(dock.table.rowCount())}
    assert rows == {"All cells": "600", **{name: f"{n}" for name, n in counts.items() if n}}
    assert dock.canvas.layer.visible  # few cells are drawn one by one also from afar
    look_at(dock, wait, 250, 400, 100)
    assert dock.controller.drawing.style == "outlines"
    layer = dock.canvas.layer
    # The outline of a cell in the middle has its colour where the layer says it lies.
    number = int(made.nuclei.query((230, 380, 270, 420))[0])
    color = list(bytes.fromhex(type_colors(TYPES)[TYPES[made.dominant()[number]]][1:]))
    found = 0
    for vertex in made.nuclei.outlines[number]:
        world = np.asarray(vertex, float)  # the slide layer is in um
        y, x = np.rint(layer.world_to_data(world)).astype(int)
        near = layer.data[y - 2 : y + 3, x - 2 : x + 3, :3].reshape(-1, 3)
        found += (near == color).all(axis=1).any()
    assert found >= 9  # of twelve; neighbours may lie over some
    # A gene by name, as typed.
    dock.color.choose("gene")
    dock.color.gene.setText("col1a1")
    qtbot.keyClick(dock.color.gene, Qt.Key.Key_Return)
    wait(lambda: dock.controller.colored is not None and dock.controller.colored.shown.name == "COL1A1")
    wait(lambda: dock.is_settled)
    assert not dock.colors.isHidden()
    dock.color.gene.setText("nogene")
    qtbot.keyClick(dock.color.gene, Qt.Key.Key_Return)
    assert "nogene" in dock.message.text().lower()
    assert dock.controller.shown == CellShown("gene", "COL1A1")
    dock.state.history.undo()
    assert dock.controller.shown == CellShown("gene", "ERBB2")
    dock.state.history.undo()
    assert dock.controller.shown == CellShown("type")
    # Hidden and shown again.
    dock.visible.click()
    assert dock.canvas.layer is None
    dock.visible.click()
    wait(lambda: dock.canvas.layer is not None and dock.canvas.layer.visible)


def test_a_signature_colours_cells_and_fills_the_gallery(opened, wait, qtbot, made):
    _, dock = opened
    dock.state.gene_sets = [GeneSet("mine", ("HER2", "EPCAM", "no gene")), GeneSet("none", ("nothing",))]
    dock.color.choose("signature")
    wait(lambda: dock.controller.shown == CellShown("signature", "mine", ("ERBB2", "EPCAM")))
    wait(lambda: dock.controller.colored.shown.kind == "signature" and dock.is_settled)
    # The mean of the two genes, each in its own standard deviations over the cells.
    both = np.stack([made.expression(gene).astype(float) for gene in ("ERBB2", "EPCAM")])
    expected = ((both - both.mean(axis=1, keepdims=True)) / both.std(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(made.signature(["ERBB2", "EPCAM"]), expected, atol=1e-3)
    dock.controller.make_gallery()
    wait(lambda: dock.controller.crops is not None and dock.is_settled)
    numbers = dock.controller.crops.numbers
    np.testing.assert_allclose(expected[numbers], np.sort(expected)[::-1][:100], atol=1e-3)
    assert dock.gallery.title.text() == "Highest mine: 100 crops of 32 µm"
    assert dock.gallery.crops.item(0).text() == f"{expected.max():.2f}"
    assert "mean z-score" in dock.controller.colored.legend(means=False)[0][0]
    assert dock.color.name.currentText() == "mine"
    assert "2 genes" in dock.drawn.text()
    # A set of which no gene is known is refused, and the one before stays; markers of the model are offered, too.
    dock.color.name.setCurrentText("none")
    dock.color.name.activated.emit(dock.color.name.currentIndex())
    wait(lambda: bool(dock.told) or "No gene of none" in dock.message.text())
    wait(lambda: dock.is_settled)
    assert dock.color.name.currentText() == "mine"
    assert any(dock.color.name.itemText(i).startswith("markers of") for i in range(dock.color.name.count()))
    dock.state.history.undo()
    assert dock.controller.shown == CellShown("type")


def test_a_click_in_the_gallery_goes_to_the_cell(opened, wait, qtbot, made):
    _, dock = opened
    dock._row_chosen("Epithelial")
    wait(lambda: dock.controller.crops is not None and dock.is_settled)
    assert dock.gallery.crops.count() == 100
    best = int(np.argmax(made.weight("Epithelial")))
    assert dock.controller.crops.numbers[0] == best
    item = dock.gallery.crops.item(0)
    dock.gallery.crops.scrollToItem(item)
    place = dock.gallery.crops.visualItemRect(item).center()
    qtbot.mouseClick(dock.gallery.crops.viewport(), Qt.MouseButton.LeftButton, pos=place)
    center = np.asarray(dock.viewer.scene.camera.center[-2:])
    np.testing.assert_allclose(center, made.nuclei.centers_um[best], atol=0.5)
    wait(lambda: dock.is_settled)


def test_neighbours_and_nuclei_are_measured_and_written(opened, wait, qtbot, tmp_path):
    _, dock = opened
    dock.neighbours.count.click()
    wait(lambda: dock.controller.neighbours is not None and dock.is_settled)
    found = dock.controller.neighbours
    epithelial = found.names.index("Epithelial")
    assert found.z[epithelial, epithelial] > 10
    assert dock.neighbours.chart.figure is not None
    dock.neighbours.write_table(str(tmp_path / "pairs.csv"))
    dock.nuclei.measure.click()
    wait(lambda: dock.controller.morphology is not None and dock.is_settled)
    assert dock.controller.morphology.loc["all", "cells"] == 600
    assert np.isfinite(dock.controller.morphology["haematoxylin"]).all()
    dock.nuclei.write_figure(tmp_path / "nuclei.png")
    wait(lambda: (tmp_path / "pairs.csv").exists() and (tmp_path / "nuclei.png").exists())
    dock.export_as(str(tmp_path / "cells.h5ad"))
    wait((tmp_path / "cells.h5ad").exists)
    assert ad.read_h5ad(tmp_path / "cells.h5ad").shape == (600, len(GENES))
    dock.export_as(str(tmp_path / "cells.xyz"))
    assert ".xyz" in dock.told[-1] or "ending" in dock.told[-1]
    dock._save_as(str(tmp_path / "saved"))
    wait((tmp_path / "saved.zarr").exists)
    assert len(CellMap.load(tmp_path / "saved.zarr")) == 600


def test_many_cells_are_shown_as_means_and_the_map_is_hidden(cells_dock, wait, slide_path, model, tmp_path):
    other, dock = cells_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    other.controller.use_model(model)
    wait(lambda: dock.state.map is not None and other.is_settled() and other.is_drawn())
    rng = np.random.default_rng(0)
    nuclei = nc.Nuclei(rng.uniform((130, 130), (630, 890), (30_000, 2)))
    dock.controller.sources.open(nuclei.save(tmp_path / "many.zarr"))
    wait(lambda: dock.controller.drawing is not None and dock.is_settled)
    assert dock.controller.drawing.style == "mean"
    assert dock.canvas.mean_layer.visible
    overlay = other.session.overlays.layer_of("dominant")
    assert not overlay.visible
    assert "Density" in dock.drawn.text()
    look_at(dock, wait, 400, 500, 200)
    assert dock.controller.drawing.style == "dots"
    assert dock.canvas.layer.visible
    assert not dock.canvas.mean_layer.visible
    assert not overlay.visible
    assert dock.state.instead == (("cells", "#28C85A"),)
    dock.visible.click()
    assert dock.canvas.layer is None
    assert dock.canvas.mean_layer is None
    assert overlay.visible
    assert dock.state.instead == ()


@pytest.fixture
def quick_detector(monkeypatch):
    """Nuclei in every tile at once, at known places."""
    from napari_cpnn.nuclei import live
    from napari_cpnn.nuclei.detect import Part

    looked = []

    def by_tile(_slide, tiling, _finder, _settings, _progress):
        for y, x in tiling.centers_um.tolist():
            looked.append((y, x))
            outline = nuclei_at(np.array([[y, x], [y + 40.0, x - 40.0]]))
            centers = outline.centers_um.astype(float)
            yield Part((y, x), centers, outline.outlines, centers, np.zeros(2, bool))

    monkeypatch.setattr(live, "by_tile", by_tile)
    monkeypatch.setattr(live, "finder_of", lambda *_: object())
    return looked


def test_nuclei_are_found_in_view_on_the_slide_and_live(cells_dock, wait, qtbot, slide_path, quick_detector):
    _, dock = cells_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    dock.viewer.scene.camera.center, dock.viewer.scene.camera.zoom = (256.0, 384.0), 4.0
    dock.canvas.read_view()
    dock.find_view.click()
    wait(lambda: dock.controller.content is not None and dock.is_settled)
    in_view = len(dock.controller.content)
    assert dock.controller.source == FOUND
    assert 0 < in_view < 2 * dock.controller.sources.live.n_tiles
    searched = dock.controller.content.nuclei.searched
    assert 0 < searched.share < 0.95
    assert dock.source.text() == (
        f"{in_view:,} cells found in the views that were searched and around them; "
        f"{int(100 * searched.share)} % of the tissue is searched"
    )
    assert dock.controller.rows[0].per_mm2 == pytest.approx(in_view / searched.area_mm2)
    n_looked = len(quick_detector)
    dock.live.click()  # finds what is missing of another view
    dock.viewer.scene.camera.center = (500.0, 800.0)
    wait(lambda: len(quick_detector) > n_looked and dock.is_settled)
    assert len(dock.controller.content) > in_view
    dock.live.click()
    dock.find_slide.click()
    wait(lambda: dock.controller.sources.live.is_complete and dock.is_settled)
    assert len(set(quick_detector)) == len(quick_detector)  # each tile once
    assert len(dock.controller.content) > in_view
    assert dock.controller.rows[0].per_mm2 > 0
    assert dock.source.text() == f"{len(dock.controller.content):,} cells {FOUND}"


def test_regions_do_not_count_what_was_not_searched(cells_dock, wait, slide_path, quick_detector, tmp_path):
    from napari_cpnn.regions import Region
    from napari_cpnn.ui.regions.dock import Regions
    from napari_cpnn.ui.regions.layer import add_regions, new_layer

    _, dock = cells_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    live = LiveNuclei(dock.controller.slide)
    live.find(np.array([tile for tile in live.missing().tolist() if tile[1] < 512]))
    live.keep()
    dock.viewer.scene.camera.center, dock.viewer.scene.camera.zoom = (256.0, 128.0), 8.0
    dock.canvas.read_view()
    dock.find_view.click()  # knows what was kept
    wait(lambda: dock.controller.content is not None and dock.is_settled)
    regions = Regions(dock.viewer)
    dock.viewer.window.add_dock_widget(regions, name="Regions")
    try:
        layer = new_layer(dock.state.layer)
        dock.viewer.add_layer(layer)
        both, none = (
            Region.from_vertices(name, [(200, x0), (200, x1), (500, x1), (500, x0)])
            for name, x0, x1 in (("both", 412, 612), ("none", 600, 800))
        )
        add_regions(layer, dock.state.layer, [both, none], MPP_PAIR)
        wait(lambda: len(regions.controller.cells) == 2 and regions.is_settled)
        found = regions.controller.cells["both"]
        assert found.searched == pytest.approx(0.5, abs=0.05)
        assert found.per_mm2 == pytest.approx(found.n / 0.03, rel=0.1)
        assert regions.table.item(0, 4).text() == f"{found.per_mm2:,.0f} ({found.note})"
        assert regions.table.item(1, 4).text() == "not searched"
        regions.controller.write_table(tmp_path / "regions.csv")
        wait((tmp_path / "regions.csv").exists)
        table = pd.read_csv(tmp_path / "regions.csv").set_index(["region", "kind"]).sort_index()["value"]
        assert np.isnan(table["none", "cells"])
        assert table["both", "cells"] == found.n
    finally:
        regions.shut_down()
        regions.background.close(wait=True)


def test_the_legend_is_that_of_the_cells(cells_dock, wait, slide_path, model, made, tmp_path):
    other, dock = cells_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    dock.controller.sources.open(made.save(tmp_path / "cells.zarr"))  # before there is a map
    wait(lambda: dock.controller.drawing is not None and dock.is_settled)
    counts = sorted(((n, name) for name, n in made.type_counts().items() if n), reverse=True)
    colors = type_colors(TYPES)
    by_type = [("Cell type, single cells", "#FFFFFF"), *((name, colors[name]) for _, name in counts)]
    assert list(dock.state.instead) == by_type

    def legend():
        other.session.finish_drawing()
        return list(texts_on_canvas(dock.viewer).values())

    assert legend() == [text for text, _ in by_type]
    other.controller.use_model(model)
    wait(lambda: dock.state.map is not None and other.is_settled() and dock.is_settled)
    other.controller.show_gene("CD3E")  # a new layer of the map
    wait(lambda: other.session.overlays.layer_of("gene") in dock.viewer.layers and other.is_drawn())
    assert not other.session.overlays.layer_of("gene").visible
    assert legend() == [text for text, _ in by_type]
    dock.controller.show(CellShown("gene", "ERBB2"))
    wait(lambda: dock.controller.colored is not None and dock.controller.colored.shown.kind == "gene")
    wait(lambda: dock.is_settled)
    low, high = dock.controller.colored.limits
    title, top, *_, bottom = legend()
    assert title == "Gene: ERBB2, single cells, log1p CP10k"
    assert (top, bottom) == (f"{high:z.2f}", f"{low:z.2f}")
    dialog = ExportDialog(other.session.viewer, other.background)
    try:
        assert "not what is on screen in its place (Gene: ERBB2, single cells" in dialog.lines_note.text()
        dock.visible.click()
        dialog.refresh()
        assert dialog.lines_note.text() == ""
    finally:
        dialog.close()
        dialog.deleteLater()
    assert other.session.overlays.layer_of("gene").visible
    assert not other.session.overlays.layer_of("dominant").visible  # it was shown before the gene
    assert legend()[0].startswith("CD3E")
    dock.visible.click()
    wait(lambda: dock.canvas.layer is not None and not other.session.overlays.layer_of("gene").visible)


def test_predicted_cells_are_coloured_by_type_unless_the_user_chose(opened, made):
    _, dock = opened
    control = dock.controller
    found = CellContent(nc.Nuclei(made.nuclei.centers_um, made.nuclei.outlines))
    control.set_content(found, FOUND)
    assert control.shown == CellShown("plain")
    control.set_content(CellContent(made.nuclei, made), "predicted by model")
    assert control.shown == CellShown("type")
    control.set_content(found, FOUND)
    control.show(CellShown("area"))
    control.set_content(CellContent(made.nuclei, made), "predicted by model")
    assert control.shown == CellShown("area")


def test_a_search_is_stopped_and_bad_files_are_told(cells_dock, wait, slide_path, quick_detector, tmp_path):
    _, dock = cells_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    dock.controller.sources.find("slide")
    assert not dock.find_slide.isEnabled()
    dock.stop.click()
    wait(lambda: dock.is_settled)
    assert dock.find_slide.isEnabled()
    live = dock.controller.sources.live
    assert live.n_done < live.n_tiles
    assert dock.told == []
    before = dock.controller.content
    bad = tmp_path / "bad.geojson"
    bad.write_text("{")
    far = tmp_path / "far.csv"
    far.write_text(f"x,y\n{10 * SHAPE[1]},{10 * SHAPE[0]}\n")
    for number, path in enumerate((bad, far, tmp_path / "missing.zarr"), 1):
        dock.controller.sources.open(path)
        wait(lambda number=number: len(dock.told) == number)
    assert dock.controller.content is before
    dock.controller.measure_neighbours()
    assert "type or class" in dock.told[-1]


def test_deleting_the_layer_shows_the_map_again(opened, wait, model):
    other, dock = opened
    other.controller.use_model(model)
    wait(lambda: dock.state.map is not None and other.is_settled() and other.is_drawn() and dock.is_settled)
    overlay = other.session.overlays.layer_of("dominant")
    assert dock.state.instead
    assert not overlay.visible
    dock.viewer.layers.remove(dock.canvas.layer)
    wait(lambda: overlay.visible)
    assert not dock.visible.isChecked()
    assert dock.state.instead == ()
    dock.visible.click()
    assert dock.canvas.layer in dock.viewer.layers
    assert not overlay.visible
    dock.viewer.layers.clear()
    wait(lambda: dock.state.layer is None)
    assert dock.visible.isChecked()  # for the cells of the next slide


def test_another_slide_has_other_cells(opened, wait):
    other, dock = opened
    dock.viewer.layers.remove(dock.state.layer)
    wait(lambda: dock.state.layer is None)
    assert dock.controller.content is None
    assert dock.canvas.layer is None
    assert dock.table.rowCount() == 0
    assert "No slide yet" in dock.controller.tasks.message
    assert other.session.viewer is not None


def test_two_genes_and_a_lasso_both_ways(opened, wait, qtbot, made):
    from qtpy.QtCore import QPoint

    from napari_cpnn.regions import Region
    from napari_cpnn.ui.regions import new_layer
    from napari_cpnn.ui.regions.layer import add_regions

    _, dock = opened
    tab = dock.two_genes
    dock.tabs.setCurrentWidget(tab)
    for place, name in enumerate(("erbb2", "cd3e")):
        tab.choose_gene(place, name)
    wait(lambda: tab.chart.figure is not None and dock.is_settled)
    tab.choose_gene(0, "nogene")
    assert "nogene" in tab.note.text().lower()
    values = np.stack([made.expression("ERBB2"), made.expression("CD3E")], axis=1)
    np.testing.assert_array_equal(tab.chart.points(), values.astype(float))
    # A lasso drawn with the mouse around the right half of the chart.
    axes, ratio = tab.chart.figure.axes[0], tab.chart.figure.dpi / 100
    box, middle = axes.get_window_extent(), float(np.median(values[:, 0]))
    x0 = axes.transData.transform((middle, 0))[0] / ratio
    height = tab.chart.figure.get_figheight() * 100
    corners = [
        (x0, box.y0 / ratio),
        (box.x1 / ratio, box.y0 / ratio),
        (box.x1 / ratio, box.y1 / ratio),
        (x0, box.y1 / ratio),
    ]
    path = [QPoint(round(x), round(height - y)) for x, y in corners]
    qtbot.mousePress(tab.chart, Qt.MouseButton.LeftButton, pos=path[0])
    for place in path[1:]:
        move_mouse(tab.chart, place, Qt.MouseButton.LeftButton)
    qtbot.mouseRelease(tab.chart, Qt.MouseButton.LeftButton, pos=path[-1])
    wait(lambda: len(dock.controller.chosen) > 0 and dock.is_settled)
    assert (values[dock.controller.chosen, 0] > middle - 0.1).all()
    assert len(dock.controller.chosen) == pytest.approx(300, abs=40)
    assert "marked" in tab.note.text()
    alphas = set(np.unique(dock.controller.drawing.rgba[..., 3]).tolist())
    assert {60, 255} <= alphas  # the others are faint
    assert "marked cells" in dock.gallery.title.text()
    # Back: what lies in a region is marked in the chart.
    layer = new_layer(dock.state.layer)
    dock.viewer.add_layer(layer)
    add_regions(
        layer, dock.state.layer, [Region.from_vertices("r", [(150, 150), (150, 450), (350, 450), (350, 150)])], MPP_PAIR
    )
    tab.in_regions.click()
    inside = made.nuclei.query((150, 150, 350, 450))
    assert dock.controller.chosen.tolist() == inside.tolist()
    assert tab.chart.rows.tolist() == inside.tolist()
    tab.clear.click()
    wait(lambda: dock.is_settled)
    assert 60 not in np.unique(dock.controller.drawing.rgba[..., 3])


def test_regions_count_the_cells(opened, wait, made, tmp_path):
    from napari_cpnn.regions import Region
    from napari_cpnn.ui.regions.dock import Regions
    from napari_cpnn.ui.regions.layer import add_regions, new_layer

    _, dock = opened
    regions = Regions(dock.viewer)
    dock.viewer.window.add_dock_widget(regions, name="Regions")
    try:
        layer = new_layer(dock.state.layer)
        dock.viewer.add_layer(layer)
        square = Region.from_vertices("upper", [(150, 150), (150, 450), (350, 450), (350, 150)])
        add_regions(layer, dock.state.layer, [square], MPP_PAIR)
        wait(lambda: bool(regions.controller.cells) and regions.is_settled)
        inside = made.nuclei.query((150, 150, 350, 450))
        found = regions.controller.cells["upper"]
        assert found.n == len(inside)
        assert found.counts["Epithelial"] == (made.dominant()[inside] == 0).sum()
        assert found.per_mm2 == pytest.approx(found.n / 0.06)  # of the outline: nothing is mapped
        assert regions.table.item(0, 4).text() == f"{found.per_mm2:,.0f}"
        assert not regions.table.isColumnHidden(4)
        assert regions.composition.chart.figure is not None
        regions.controller.write_table(tmp_path / "regions.csv")
        wait((tmp_path / "regions.csv").exists)
        assert "cells_per_mm2" in (tmp_path / "regions.csv").read_text()
        dock.controller.set_content(None)
        wait(lambda: regions.table.isColumnHidden(4))
    finally:
        regions.shut_down()
        regions.background.close(wait=True)
