"""Regions that can be read on any tissue, and one meaning of a click at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from napari.layers import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from tests.ui.mouse import move_mouse

from napari_cpnn.ui.canvas.halo import LINE_PX
from napari_cpnn.ui.canvas.overview import canvas_of
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.frame import Paper
from napari_cpnn.ui.layers import MEASURE_KEY, SPOTS_KEY, add_beside, um_to_world
from napari_cpnn.ui.regions.charts import comparison_chart, difference_words, share_words, value_words
from napari_cpnn.ui.regions.dock import Regions
from napari_cpnn.ui.regions.layer import line_width

SQUARE = np.array([[200.0, 200], [200, 500], [500, 500], [500, 200]])


@pytest.fixture
def both(explore, wait, slide_path, model):
    """Explore with a map, and Regions."""
    other = explore(slide_path, show=True)
    other.controller.use_model(model)
    wait(lambda: other.state.map is not None and other.is_settled())
    dock = Regions(other.session.viewer)
    other.session.viewer.window.add_dock_widget(dock, name="Regions")
    yield other, dock
    dock.shut_down()
    dock.background.close(wait=True)


def click(dock, x, y):
    canvas = canvas_of(dock.window())
    move_mouse(canvas, QPoint(x, y))
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(x, y))
    QApplication.processEvents()


def test_regions_have_a_halo_above_maps_and_spots(both, wait):
    _, dock = both
    viewer = dock.viewer
    dock.draw.click()
    layer = dock.layer
    layer.add(SQUARE, shape_type="polygon")
    wait(lambda: dock._halo.layer is not None)
    halo = dock._halo
    spots = viewer.add_points([[300.0, 300.0]], metadata={SPOTS_KEY: True})
    order = list(viewer.layers)
    wait(lambda: viewer.layers.index(halo.layer) == viewer.layers.index(layer) - 1)
    order = list(viewer.layers)
    assert order.index(spots) < order.index(halo.layer) < order.index(layer)
    # As wide on the screen at every zoom.
    for zoom in (0.5, 4.0):
        viewer.scene.camera.zoom = zoom
        halo.update()
        assert layer.edge_width[0] * zoom == pytest.approx(LINE_PX)
        assert halo.layer.edge_width * zoom > LINE_PX
    # A plate lies behind the name: horizontal lines around the middle.
    wait(lambda: layer.features["name"].iloc[0] == "Region 1")
    halo.update()
    plates = halo.layer.data[len(halo.layer.data) - 3 :]
    assert np.allclose(plates[:, 0, 0].mean(), 350, atol=10)
    assert np.all(plates[:, 0, 1] < 350)
    # It follows the region.
    layer.data = [SQUARE + 100]
    halo.update()
    edges = halo.layer.data[:12]
    assert edges[:, 0].min() > 290
    # Without the dock the outlines are as wide as at first, which is visible on the whole slide.
    assert layer.edge_width[0] < 0.9 * line_width(dock.state.layer)
    dock.choose_layer(None)
    assert layer.edge_width[0] == pytest.approx(line_width(dock.state.layer))
    dock.choose_layer(layer)
    halo = dock._halo
    wait(lambda: halo.layer is not None)
    viewer.layers.remove(layer)
    wait(lambda: halo.layer is None and not [one for one in viewer.layers if "halo" in one.name])


@pytest.mark.slow  # the halo itself is tested above
def test_a_width_that_the_user_chose_stays(both, wait):
    _, dock = both
    dock.draw.click()
    dock.layer.add(SQUARE, shape_type="polygon")
    wait(lambda: dock._halo.layer is not None)
    dock.layer.edge_width = 33.0
    dock.viewer.scene.camera.zoom = 7.0
    dock._halo.update()
    assert dock.layer.edge_width == [33.0]


def test_a_click_that_explains_draws_nothing(both, wait):
    other, dock = both
    other.controller.show_gene("ERBB2")
    dock.show()
    dock.draw.click()
    layer = dock.layer
    assert dock.draw.isChecked()
    assert "draws" in dock.click.text()
    dock.tabs.setCurrentWidget(dock.explanation)
    assert not dock.draw.isChecked()
    assert str(layer.mode) == "pan_zoom"
    assert "explains" in dock.click.text()
    dock.viewer.reset_view()
    QApplication.processEvents()
    canvas = canvas_of(dock.window())
    click(dock, canvas.width() // 2, canvas.height() // 2)
    assert len(layer.data) == 0
    assert dock.controller.place is not None
    # Draw, pressed again, means drawing, and says so.
    dock.draw.click()
    assert "draws" in dock.click.text()
    place = dock.controller.place
    click(dock, canvas.width() // 2 + 20, canvas.height() // 2)
    assert dock.controller.place == place
    layer.mode = "pan_zoom"
    # Measuring ends drawing, and drawing measuring.
    dock.draw.click()
    other.tools.distance.click()
    assert not dock.draw.isChecked()
    assert str(layer.mode) == "pan_zoom"
    dock.draw.click()
    assert not other.tools.distance.isChecked()
    assert str(other.tools.measuring.layer.mode) == "pan_zoom"


def polygon(dock, halo, wait):
    """Click around some tissue, as slowly as a user: the halo is drawn before the second corner."""
    dock.viewer.reset_view()
    QApplication.processEvents()
    canvas = canvas_of(dock.window())
    x, y = canvas.width() // 2, canvas.height() // 2
    for number, (dx, dy) in enumerate(((-60, -40), (60, -40), (60, 40), (-60, 40))):
        click(dock, x + dx, y + dy)
        move_mouse(canvas, QPoint(x + dx + 5, y + dy + 5))
        if not number:
            wait(lambda: halo().layer is not None)
            QApplication.processEvents()
    last = QPoint(x - 60, y + 40)
    QTest.mouseDClick(canvas, Qt.MouseButton.LeftButton, pos=last)
    QApplication.processEvents()


def test_the_first_region_is_drawn_with_the_mouse_while_maps_and_halo_are_added(both, wait):
    other, dock = both
    dock.draw.click()
    zoom = dock.viewer.scene.camera.zoom
    other.controller.show_gene("ERBB2")  # a layer that is added meanwhile
    polygon(dock, lambda: dock._halo, wait)
    wait(lambda: len(dock.controller.regions) == 1)
    assert dock.draw.isChecked()  # the next one can be drawn at once
    assert dock.viewer.scene.camera.zoom == pytest.approx(zoom, rel=0.3)  # no click has zoomed
    dock.draw.click()
    # An area is measured likewise.
    other.tools.area.click()
    polygon(dock, lambda: other.tools.measuring._halo, wait)
    assert len(other.tools.measuring.layer.data) == 1
    assert other.tools.measuring.tool == "area"


@pytest.mark.slow  # the modes are tested above
def test_measurements_are_no_regions(both, wait):
    other, dock = both
    other.tools.area.click()
    measured = other.tools.measuring.layer
    measured.add(SQUARE, shape_type="polygon")
    assert MEASURE_KEY in measured.metadata
    assert dock.layer is None
    assert dock.layers.findText(measured.name) < 0
    assert other.export is not None


def test_differences_show_no_signed_zero():
    assert difference_words(-0.3, -0.4, -0.2, 0) == "0 (0 to 0)"
    assert difference_words(-12.0, -16.0, -8.0, 0) == "−12 (−16 to −8)"
    assert share_words(-0.001) == "0 %"
    assert value_words(-0.001, -0.004, 0.1) == "0.00 (0.00 to 0.10)"
    rows = [
        ("share", "T", -0.003, -0.004, -0.002),
        ("share", "B", -0.0001, -0.0002, -0.0001),
        ("share", "C", 0.12, 0.08, 0.16),
        ("expression", "G", -0.0001, -0.0002, -0.00005),
    ]
    table = pd.DataFrame(rows, columns=["kind", "name", "difference", "low", "high"])
    figure = comparison_chart(table, ("a", "b"), {}, Paper(width_px=420))
    texts = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}
    assert not [text for text in texts if "−0 " in text or "-0" in text or "−0.00" in text]
    assert texts["−0.3 (−0.4 to −0.2)"] == "bold"  # a small difference is shown as one
    assert texts["0 (0 to 0)"] == "normal"
    assert texts["+12 (+8 to +16)"] == "bold"


@pytest.mark.parametrize("width", [345, 420])
def test_numbers_of_differences_stand_clear_of_their_intervals(width):
    """Else an interval runs into the sign of the number: +1.39 would read -1.39."""
    rows = [("expression", "ERBB2", 1.39, 0.30, 2.22), ("share", "CAFs", 0.395, 0.094, 0.616)]
    table = pd.DataFrame(rows, columns=["kind", "name", "difference", "low", "high"])
    figure = comparison_chart(table, ("Region 1", "Region 2"), {}, Paper(width_px=width))
    figure.canvas.draw()
    axes, renderer = figure.axes[0], figure.canvas.get_renderer()
    numbers = [text for text in axes.texts if " to " in text.get_text()]
    assert len(numbers) == 2
    # Of the lines, those that lie beside the names and numbers: the intervals.
    ends = max(axes.transData.transform(line.get_xydata())[:, 0].max() for line in axes.lines)
    assert min(text.get_window_extent(renderer).x0 for text in numbers) > ends + 3


def test_each_layer_is_added_where_it_stays_and_drawn_once(both, wait):
    """From below: slide, maps, lines of the map, spots, chosen outline, halo, regions; nothing is moved afterwards."""
    other, dock = both
    viewer, slide, moved = dock.viewer, dock.state.layer, []
    viewer.layers.events.moved.connect(moved.append)
    spots = SpotsLayer(viewer)
    places = np.array([[150.0, 150.0], [200.0, 300.0]])
    spots.place(slide, dock.state.slide.mpp, places, 55.0)
    dock.draw.click()
    dock.layer.add(SQUARE, shape_type="polygon")
    wait(lambda: dock.chosen.layer is not None and dock._halo.layer is not None and dock.is_settled)
    other.controller.show_gene("ERBB2")
    wait(other.is_settled)
    dock.state.choose_look(style="contours")
    gene = other.session.overlays.layer_of("gene")
    wait(lambda: other.session.overlays.lines.layer is not None and gene in viewer.layers)
    lines = other.session.overlays.lines.layer
    marks = [spots.layer, dock.chosen.layer, dock._halo.layer, dock.layer]
    order = list(viewer.layers)
    assert order[0] == slide
    assert order[-4:] == marks
    assert order.index(gene) < order.index(lines) < order.index(spots.layer)
    assert moved == []
    assert viewer.layers.selection.active == dock.layer

    # A picture that comes above the spots, as the lens does, is below them afterwards, and the regions stay above.
    lens = add_beside(viewer, Image(np.zeros((8, 8)), name="lens"), order.index(dock.chosen.layer))
    assert viewer.layers.index(lens) == viewer.layers.index(spots.layer) - 1
    assert list(viewer.layers)[-4:] == marks
    spots.place(slide, dock.state.slide.mpp, places, 55.0)
    assert list(viewer.layers)[-4:] == marks

    # Spots and halo that are as they were are not given to napari again; others are.
    told = []
    for layer in marks[::2]:
        for name in ("data", "set_data", "scale", "affine", "units"):
            getattr(layer.events, name).connect(lambda event: told.append((event.source, event.type)))
    spots.place(slide, dock.state.slide.mpp, places, 55.0)
    dock._halo.update()
    assert told == []
    spots.layer.affine = np.diag([2.0, 2.0, 1.0])  # by the user, or a registration
    spots.layer.scale = (3.0, 1.0)
    spots.place(slide, dock.state.slide.mpp, places + 10, 55.0)
    np.testing.assert_array_equal(np.asarray(spots.layer.affine), np.eye(3))
    np.testing.assert_array_equal(spots.layer.scale, (1.0, 1.0))
    np.testing.assert_allclose(
        [spots.layer.data_to_world(at) for at in spots.layer.data],
        um_to_world(slide, dock.state.slide.mpp, places + 10),
    )
    spots.close()
