"""The Regions dock in a real napari: drawn, measured, compared, explained, written and read."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from tests.ui.conftest import MPP, TYPES

from napari_cpnn.mapping import DONE
from napari_cpnn.models import load_model
from napari_cpnn.regions import Region, explain_gene, read_regions, summarise_regions
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.ui.layers import holds_regions
from napari_cpnn.ui.regions.dock import Regions
from napari_cpnn.ui.regions.layer import add_regions, new_layer, regions_of
from napari_cpnn.ui.viewer import recent_models
from napari_cpnn.ui.viewer.state import Shown

SQUARE = np.array([[200.0, 200], [200, 500], [500, 500], [500, 200]])


@pytest.fixture
def regions(beside_explore):
    """Opens both docks: ``regions(slide_path)``."""
    return partial(beside_explore, Regions)


@pytest.fixture
def mapped(regions, wait, slide_path, model):
    other, dock = regions(slide_path)
    other.controller.use_model(model)
    wait(lambda: other.state.map is not None and other.is_settled())
    return other, dock


def settled(dock, wait):
    wait(lambda: dock.is_settled)
    dock._update()
    wait(lambda: dock.is_settled)


def test_empty_dock_says_what_to_do(regions, wait, slide_path):
    _, dock = regions()
    dock._update()
    assert "No slide yet" in dock.message.text()
    assert not dock.explore.isHidden()
    dock.draw.click()
    assert "Open a slide first" in dock.told[0]
    assert not dock.draw.isChecked()
    assert dock.layer is None


@pytest.mark.slow  # test_stories looks into regions, too
def test_the_story_on_the_sample(regions, wait, qtbot, tmp_path, monkeypatch):
    """Draw, map, read shares, explain, export and import: on the sample slide and model."""
    monkeypatch.setattr(recent_models, "sample_model", lambda: None)  # loaded here, not in a thread
    folder = sample_folder()
    model = load_model(folder / SAMPLE_FILES["model"])
    other, dock = regions(folder / SAMPLE_FILES["slide"])
    viewer, state = dock.viewer, dock.state
    viewer.scene.camera.center, viewer.scene.camera.zoom = (2400.0, 1450.0), 4.0  # little is in view
    other.controller.use_model(model)
    qtbot.waitUntil(lambda: state.map is not None, timeout=120_000)
    dock.draw.click()
    assert dock.layer.mode == "add_polygon"
    assert viewer.layers.selection.active == dock.layer
    polygon = np.array([[1500.0, 1200], [1450, 1750], [2000, 1800], [1950, 1250]])
    dock.layer.add(polygon, shape_type="polygon")
    dock.draw.click()
    assert dock.layer.mode == "pan_zoom"
    settled(dock, wait)
    assert [region.name for region in dock.controller.regions] == ["Region 1"]
    assert "not mapped in full" in dock.message.text()
    assert not dock.map.isHidden()
    dock.map.click()
    qtbot.waitUntil(lambda: not dock.controller.needs_mapping() and other.is_settled(), timeout=120_000)
    settled(dock, wait)
    assert dock.message.text() == ""
    expected = summarise_regions(state.map, [Region.from_vertices("Region 1", polygon)])
    pd.testing.assert_frame_equal(dock.controller.rows[0].table, expected)
    n_mapped = (state.map.state == DONE).sum()
    assert n_mapped < state.map.tissue.sum()  # the rest of the slide was left alone
    # A click on the slide explains the gene on screen.
    dock.tabs.setCurrentWidget(dock.explanation)
    dock.explanation.gene.setText("erbb2")
    dock.explanation.gene.returnPressed.emit()
    dock.controller.explain((1750.0, 1450.0))
    settled(dock, wait)
    cell = state.map.grid.cell_at(1750.0, 1450.0)
    pd.testing.assert_frame_equal(dock.controller.explanation.table, explain_gene(state.map, "ERBB2", cell))
    assert dock.controller.explanation.table["value"].sum() == pytest.approx(
        state.map.expression("ERBB2")[cell], abs=1e-4
    )
    dock.controller.explain("Region 1")
    settled(dock, wait)
    largest = dock.controller.explanation.table.index[0]
    assert dock.explanation.part.itemText(1) == f"ERBB2 from {largest}"
    dock.explanation.part.activated.emit(1)
    assert state.shown == Shown("contribution", ("ERBB2", largest))
    overlay = other.session.overlays.layer_of("contribution")
    assert overlay.name == f"ERBB2 from {largest} (log1p CP10k)"
    wait(lambda: overlay.visible)  # with the next ticks
    wait(lambda: overlay.colorbar.visible)
    assert viewer.layers.index(overlay) < viewer.layers.index(dock.layer)  # regions stay on top
    # Files.
    dock.controller.write_table(tmp_path / "regions.csv")
    dock.controller.write(tmp_path / "regions.geojson")
    for suffix in ("png", "svg"):
        dock.explanation.write_figure(tmp_path / f"figure.{suffix}")
    wait(lambda: all((tmp_path / n).exists() for n in ("regions.csv", "regions.geojson", "figure.png", "figure.svg")))
    table = pd.read_csv(tmp_path / "regions.csv")
    assert set(table["slide"]) == {"slide"}
    again = read_regions(tmp_path / "regions.geojson", state.slide.mpp)
    assert again[0].outline.symmetric_difference(dock.controller.regions[0].outline).area < 1e-3
    dock.import_regions(str(tmp_path / "regions.geojson"))
    wait(lambda: len(dock.controller.regions) == 2)
    assert [region.name for region in dock.controller.regions] == ["Region 1 1", "Region 1 2"]
    assert not dock.told


def test_shapes_of_all_kinds_in_layers_of_any_place(mapped, wait):
    _, dock = mapped
    layer, mpp = dock.state.layer, dock.state.slide.mpp
    shapes = new_layer(layer)
    shapes.add(SQUARE, shape_type="rectangle")
    shapes.add(SQUARE, shape_type="ellipse")
    shapes.add(np.vstack([SQUARE, SQUARE[:1]]), shape_type="path")
    shapes.add(SQUARE, shape_type="path")  # open
    shapes.add(SQUARE[:2], shape_type="line")
    places, found = regions_of(shapes, layer, mpp)
    assert places == [0, 1, 2]
    assert [r.area_mm2 for r in found] == pytest.approx([0.09, np.pi * 0.15**2, 0.09], rel=2e-3)
    # The same place on the slide through other frames.
    outline = found[0].outline
    moved = new_layer(layer)
    moved.scale, moved.translate, moved.rotate = (2.0, 3.0), (40.0, -7.0), 30
    add_regions(moved, layer, [found[0], found[1]], mpp)
    again = regions_of(moved, layer, mpp)[1]
    assert again[0].outline.symmetric_difference(outline).area < 1  # napari keeps float32
    assert again[1].name == "Region 2"
    layer.rotate = 15  # the slide is turned, the regions are not
    assert regions_of(moved, layer, mpp)[1][0].outline.symmetric_difference(outline).area > 1000
    assert regions_of(moved, layer, mpp)[1][0].area_mm2 == pytest.approx(0.09, rel=1e-6)


def test_the_table_follows_the_layer_and_back(mapped, wait, qtbot):
    _, dock = mapped
    dock.draw.click()
    shapes = dock.layer
    shapes.add(SQUARE, shape_type="polygon")
    shapes.add(SQUARE[:2], shape_type="line")
    shapes.add(SQUARE + 300, shape_type="polygon")
    settled(dock, wait)
    assert [dock.table.item(i, 0).text() for i in range(2)] == ["Region 1", "Region 3"]
    assert dock.table.item(0, 1).text() == "0.09"
    dock.table.item(1, 0).setText("Tumour")
    settled(dock, wait)
    assert list(shapes.features["name"]) == ["Region 1", "Region 2", "Tumour"]
    assert list(shapes.text.values) == ["Region 1", "Region 2", "Tumour"]
    assert dock.comparison.second.currentText() == "Tumour"
    data = shapes.data
    data[0] = SQUARE * 1.1
    shapes.data = data
    settled(dock, wait)
    assert dock.controller.regions[0].area_mm2 == pytest.approx(0.09 * 1.21)
    dock.table.select([1])
    assert shapes.selected_data == {2}
    chosen, layers = dock.chosen.layer, dock.viewer.layers  # outlined on the slide, right below the line of its own
    assert len(chosen.data) == 1
    np.testing.assert_allclose(np.sort(chosen.data[0], axis=0), np.sort(SQUARE + 300, axis=0), atol=1e-3)
    assert layers.index(chosen) < layers.index(shapes)
    camera, drawn = dock.viewer.scene.camera, []
    assert chosen.edge_width[0] * camera.zoom == pytest.approx(14, rel=0.11)
    chosen.events.set_data.connect(lambda _: drawn.append(chosen.edge_width[0]))
    camera.zoom *= 3  # as wide on the screen at every zoom
    assert drawn[-1] * camera.zoom == pytest.approx(14, rel=0.11)
    assert not holds_regions(chosen)
    dock.table.selectAll()
    assert dock.chosen.layer is chosen  # the same layer, in the same look
    assert len(chosen.data) == 2
    np.testing.assert_allclose(chosen.edge_width, 14 / camera.zoom, rtol=0.11)
    np.testing.assert_array_equal(chosen.edge_color, np.ones((2, 4)))
    np.testing.assert_array_equal(chosen.face_color[:, 3], 0)
    assert set(chosen.shape_type) == {"polygon"}
    dock.table.select([1])
    assert dock.chosen.layer is chosen
    assert len(chosen.data) == 1
    np.testing.assert_allclose(np.sort(chosen.data[0], axis=0), np.sort(SQUARE + 300, axis=0), atol=1e-3)
    assert layers.index(chosen) < layers.index(shapes)
    dock.table.clearSelection()
    assert dock.chosen.layer is None
    dock.table.select([0])  # a new layer comes in the next turn, of what is chosen then
    dock.table.select([1])
    wait(lambda: dock.chosen.layer is not None)
    np.testing.assert_allclose(np.sort(dock.chosen.layer.data[0], axis=0), np.sort(SQUARE + 300, axis=0), atol=1e-3)
    assert layers.index(dock.chosen.layer) < layers.index(shapes)
    for selected in ([], [1], []):
        dock.table.select(selected)
    for _ in range(5):
        QApplication.processEvents()
    assert dock.chosen.layer is None
    assert not [one for one in layers if one.name == "Chosen regions"]
    dock.table.select([1])
    qtbot.keyClick(dock.table, Qt.Key.Key_Delete)
    settled(dock, wait)
    assert [region.name for region in dock.controller.regions] == ["Region 1"]
    assert dock.comparison.note.text() == "Draw a second region to compare two."
    dock.viewer.layers.remove(shapes)
    settled(dock, wait)
    assert dock.layer is None
    assert dock.chosen.layer is None
    assert dock.table.rowCount() == 0
    assert "No region yet" in dock.message.text()


def test_a_click_explains_and_a_drag_does_not(mapped, wait):
    _, dock = mapped
    dock.controller.show_gene("ERBB2")
    dock.tabs.setCurrentWidget(dock.explanation)
    dock.viewer.cursor.position = (300.0, 400.0)

    def act(kind, moved):
        event = type("Event", (), {"button": 1, "type": "mouse_press", "pos": np.zeros(2)})()
        steps = dock._pressed(dock.viewer, event)
        for step, _ in enumerate(steps):
            event.type, event.pos = (kind, np.full(2, moved)) if step == 0 else ("mouse_release", event.pos)

    dock._explains = lambda: True  # nothing is visible in a test
    act("mouse_move", 30.0)
    assert dock.controller.place is None
    act("mouse_release", 0.0)
    assert dock.controller.place == pytest.approx((300.0, 400.0))
    settled(dock, wait)
    cell = dock.state.map.grid.cell_at(300.0, 400.0)
    assert dock.controller.explanation.table.attrs["expression"] == pytest.approx(
        float(dock.state.map.expression("ERBB2")[cell]), abs=1e-4
    )
    # A ring marks the place, of the same size at every zoom, while it is explained.
    marker, camera = dock.marker.layer, dock.viewer.scene.camera
    assert dock.viewer.layers[-1] == marker
    np.testing.assert_allclose(marker.data_to_world(marker.data[0]), (300.0, 400.0))
    size, camera.zoom = marker.size[0], 2 * camera.zoom
    assert marker.size[0] == pytest.approx(size / 2)
    dock.tabs.setCurrentWidget(dock.composition)
    assert marker not in dock.viewer.layers
    dock.tabs.setCurrentWidget(dock.explanation)
    assert dock.marker.layer in dock.viewer.layers
    dock.draw.click()
    dock.viewer.cursor.position = (310.0, 410.0)
    act("mouse_release", 0.0)  # a corner of a polygon is no question
    assert dock.controller.place == pytest.approx((300.0, 400.0))


@pytest.mark.slow  # regions/test_geojson reads them
def test_outlines_with_holes_are_imported(mapped, wait, tmp_path):
    _, dock = mapped
    ring = [[[400, 400], [1400, 400], [1400, 1400], [400, 1400], [400, 400]]]
    hole = [[[600, 600], [600, 900], [900, 900], [900, 600], [600, 600]]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": ring + hole}, "properties": {}}
    (tmp_path / "q.geojson").write_text(json.dumps(feature))
    dock.import_regions(str(tmp_path / "q.geojson"))
    wait(lambda: len(dock.controller.regions) == 1)
    assert dock.controller.regions[0].area_mm2 == pytest.approx((1000**2 - 300**2) * MPP**2 / 1e6)
    (tmp_path / "bad.geojson").write_text("{}")
    dock.import_regions(str(tmp_path / "bad.geojson"))
    wait(lambda: bool(dock.told))
    assert "is not a GeoJSON file of outlines" in dock.told[0]
    assert len(dock.controller.regions) == 1


def test_closing_the_dock_leaves_the_regions(mapped, wait):
    other, dock = mapped
    dock.draw.click()
    dock.layer.add(SQUARE, shape_type="polygon")
    shapes, viewer = dock.layer, dock.viewer
    settled(dock, wait)
    dock.shut_down()
    assert shapes in viewer.layers
    assert dock._pressed not in viewer.mouse_drag_callbacks
    shapes.add(SQUARE + 300, shape_type="polygon")
    other.controller.show_type(TYPES[0])
    assert len(dock.controller.regions) == 1
