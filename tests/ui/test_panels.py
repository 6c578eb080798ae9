"""Panels side by side, in a real napari with mouse and keys: linked, comparable in colour, and gone again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QImage, QWheelEvent
from qtpy.QtWidgets import QApplication, QFileDialog
from scipy.ndimage import map_coordinates
from tests.ui.conftest import GENES, MPP, SETTINGS, SHAPE, TYPES, tissue_image, write_slide
from tests.ui.mouse import move_mouse

from napari_cpnn import painting
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import DONE
from napari_cpnn.painting import Shown
from napari_cpnn.palette import type_colors
from napari_cpnn.ui.panels.dock import Panels
from napari_cpnn.ui.panels.panel import MAIN, MOST_PANELS, PanelSpec, Source


def spots_table() -> AnnData:
    """A regular table of spots on the tissue with known counts."""
    y, x = np.meshgrid(np.arange(320, 1240, 150.0), np.arange(320, 1740, 150.0), indexing="ij")
    counts = np.random.default_rng(1).poisson(20, (y.size, len(GENES))).astype(np.float32)
    table = AnnData(counts, var=pd.DataFrame(index=list(GENES)))
    table.layers["counts"] = counts
    table.obsm["spatial"] = np.column_stack([x.ravel(), y.ravel()])
    table.uns["spatial"] = {"s": {"scalefactors": {"spot_diameter_fullres": 100.0}, "images": {}}}
    return table


@pytest.fixture
def panels(explore, wait, qtbot, slide_path, model_path):
    dock = explore(slide_path, show=True)
    dock.open_model(model_path)
    wait(lambda: dock.state.mapper is not None)
    wait(dock.is_settled)
    found = Panels(dock.viewer, SETTINGS)
    dock.viewer.window.add_dock_widget(found, name="Panels")
    yield found
    found.shut_down()


@pytest.fixture
def second_model(model, tmp_path):
    """A model that says the contrary of the first."""
    from copy import deepcopy

    import torch

    from napari_cpnn.models import save_model

    other = deepcopy(model)
    with torch.no_grad():
        other.head.composition[-1].weight *= -1
    save_model(other, tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


def gene(name: str, kind: str = "map", source: Source = MAIN) -> PanelSpec:
    return PanelSpec(kind, Shown("gene", (name,)), source)


def snapshot(viewer):
    layers = [(id(layer), layer.name, layer.visible, layer.opacity) for layer in viewer.layers]
    return layers, {layer.name for layer in viewer.layers.selection}, viewer.layers.selection.active.name


def press(qtbot, panels, name):
    qtbot.mouseClick(panels.presets[name], Qt.MouseButton.LeftButton)


def drag(canvas, number, by, modifiers=Qt.KeyboardModifier.NoModifier):
    from qtpy.QtCore import QEvent
    from qtpy.QtGui import QMouseEvent

    start = canvas.rect_of(number).center()
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    for kind, at, button, held in (
        (QEvent.Type.MouseButtonPress, start, left, left),
        (QEvent.Type.MouseMove, start + by, none, left),
        (QEvent.Type.MouseButtonRelease, start + by, left, none),
    ):
        QApplication.sendEvent(canvas, QMouseEvent(kind, at, canvas.mapToGlobal(at), button, held, modifiers))


def test_leaving_panels_restores_the_single_view(panels, qtbot, wait):
    viewer = panels.viewer
    before = snapshot(viewer)
    canvas = panels.canvas
    assert not canvas.isVisible()
    press(qtbot, panels, "H&E | overlay")
    assert panels.are_shown
    assert canvas.isVisible()
    assert [panels.list.item(k).text() for k in range(2)] == ["H&E", "Dominant cell type"]
    assert snapshot(viewer) == before  # panels are no layers
    wait(lambda: panels.is_settled)
    drag(canvas, 1, QPointF(40, 10))
    qtbot.mouseClick(panels.side_by_side, Qt.MouseButton.LeftButton)
    assert not canvas.isVisible()
    assert snapshot(viewer) == before
    qtbot.mouseClick(panels.side_by_side, Qt.MouseButton.LeftButton)
    assert canvas.isVisible()
    assert len(panels.controller.panels) == 2
    qtbot.mouseClick(panels.clear, Qt.MouseButton.LeftButton)
    assert not canvas.isVisible()
    assert snapshot(viewer) == before
    panels.state.history.undo()
    assert len(panels.controller.panels) == 2
    panels.shut_down()  # closing the dock with panels on screen
    assert snapshot(viewer) == before
    assert canvas.parentWidget() is None


def test_a_drag_and_the_wheel_move_all_panels_and_the_map_follows(panels, qtbot, wait):
    panels.controller.set_panels([gene("ERBB2"), gene("EPCAM"), PanelSpec("tissue")])
    canvas = panels.canvas
    wait(lambda: canvas.px_per_um > 0)
    center, zoom = canvas._center, canvas.px_per_um
    drag(canvas, 2, QPointF(30, -20))
    assert canvas._center == pytest.approx((center[0] + 20 / zoom, center[1] - 30 / zoom), abs=0.5)
    at = canvas.rect_of(0).center() + QPointF(25, 15)
    before = canvas.um_at(at, 0)
    canvas.wheelEvent(
        QWheelEvent(
            at, canvas.mapToGlobal(at), QPoint(), QPoint(0, 240), Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
        )
    )  # fmt: skip
    assert canvas.px_per_um == pytest.approx(zoom * 1.2**2, rel=1e-3)
    assert canvas.um_at(at, 0) == pytest.approx(before, abs=1.0)  # the place under the pointer stays
    assert canvas.um_at(canvas.rect_of(1).center() + QPointF(25, 15), 1) == pytest.approx(before, abs=1.0)
    found = panels.link.read()  # the camera of the single view is there, too
    assert found is not None
    assert found[0] == pytest.approx(canvas._center, abs=0.5)
    view = panels.controller.view
    assert view.width == pytest.approx(canvas.rect_of(0).width() / canvas.px_per_um, rel=1e-6)
    panels.viewer.reset_view()  # the other way round
    assert canvas.px_per_um == pytest.approx(panels.link.read()[1] * canvas._share, rel=1e-3)
    height, width = (n * MPP * canvas.px_per_um for n in SHAPE)  # the whole slide, as large as fits
    rect = canvas.rect_of(0)
    assert 0.85 < max(height / rect.height(), width / rect.width()) <= 1


def test_what_is_drawn_is_the_slide_and_the_map_of_each_panel(panels, qtbot, wait):
    """Pixels of the screen against the tissue and the painter, at a place in the middle of a patch."""
    panels.state.set_look(smooth=False, opacity=1.0, scale_um=0.0)
    panels.controller.set_panels([PanelSpec("tissue"), PanelSpec("map", Shown("dominant"))])
    wait(lambda: panels.is_settled)
    canvas, cmap = panels.canvas, panels.state.map
    qtbot.keyClick(canvas, Qt.Key.Key_Plus)
    wait(lambda: panels.is_settled)
    shot = canvas.grab().toImage()
    from napari_cpnn.palette import type_colors

    cells = np.argwhere(cmap.tissue)
    row, col = cells[np.abs(cmap.grid.centers_um(cells) - canvas._center).sum(axis=1).argmin()]
    um = cmap.grid.centers_um([(row, col)])[0]
    expected = type_colors(cmap.cell_types)[cmap.cell_types[cmap.dominant()[row, col]]]
    at = canvas.rect_of(1).center() + QPointF(*((um - canvas._center) * canvas.px_per_um)[::-1])
    assert shot.pixelColor(at.toPoint()).name().upper() == expected
    at = canvas.rect_of(0).center() + QPointF(*((um - canvas._center) * canvas.px_per_um)[::-1])
    pixel = np.array(shot.pixelColor(at.toPoint()).getRgb()[:3])
    y, x = (um / MPP).astype(int)
    tissue = tissue_image()[y - 8 : y + 8, x - 8 : x + 8].reshape(-1, 3)
    assert np.abs(pixel - tissue.mean(axis=0)).max() < 35
    at = canvas.rect_of(1).center() + QPointF(*((um - canvas._center) * canvas.px_per_um)[::-1])
    for key in (Qt.Key.Key_H, Qt.Key.Key_Space):  # held: tissue alone
        qtbot.keyPress(canvas, key)
        peeked = np.array(canvas.grab().toImage().pixelColor(at.toPoint()).getRgb()[:3])
        assert np.abs(peeked - tissue.mean(axis=0)).max() < 35
        qtbot.keyRelease(canvas, key)
        assert canvas.grab().toImage().pixelColor(at.toPoint()).name().upper() == expected
    panels.state.set_look(fade_from=canvas.px_per_um * 10 / 32)  # five doublings: 0.15 of the opacity is left
    faded = np.array(canvas.grab().toImage().pixelColor(at.toPoint()).getRgb()[:3])
    color = np.array([int(expected[k : k + 2], 16) for k in (1, 3, 5)])
    assert faded == pytest.approx(0.15 * color + 0.85 * peeked, abs=6)


def test_same_gene_and_cell_types_share_a_range_and_two_genes_do_not(panels, wait):
    panels.state.measured = spots_table()
    types = [PanelSpec("map", Shown("type", (name,))) for name in TYPES[:2]]
    panels.controller.set_panels([gene("ERBB2", "spots"), gene("ERBB2"), gene("EPCAM"), *types])
    wait(lambda: panels.is_settled and all(panels.controller.limits))
    measured, predicted, other, first, second = panels.controller.limits
    assert measured == predicted
    assert first == second
    assert other != predicted
    values = np.log1p(1e4 * spots_table().X[:, 0] / spots_table().X.sum(axis=1))
    assert measured[1] >= np.quantile(values, 0.98) - 1e-4
    assert panels.controller.painted[0].numbers == pytest.approx(values, rel=1e-4)
    assert panels.controller.scale_note == "Same colour range: ERBB2, cell types."
    bars = [painted.key.limits for painted in panels.controller.painted]
    assert bars == panels.controller.limits
    # A range that is fixed for genes says nothing of shares.
    panels.state.choose_look(range_mode="manual", manual=(-2.0, 9.0), manual_for=Shown("gene", ("ERBB2",)).unit)
    wait(lambda: panels.is_settled and panels.controller.limits[0] == (-2.0, 9.0))
    assert panels.controller.limits == [(-2.0, 9.0)] * 3 + [first] * 2
    assert panels.controller.scale_note == "Same colour range: ERBB2, cell types."


def test_adding_and_removing_by_hand_up_to_nine(panels, qtbot, wait):
    panels.add_box.gene.setText("erbb2")
    qtbot.mouseClick(panels.add_box.add, Qt.MouseButton.LeftButton)
    assert [spec.title for spec in panels.controller.panels] == ["ERBB2 predicted"]
    qtbot.mouseClick(panels.add_box.add, Qt.MouseButton.LeftButton)
    assert "such a panel already" in panels.message.text()
    panels.add_box.gene.setText("NOGENE")
    qtbot.mouseClick(panels.add_box.add, Qt.MouseButton.LeftButton)
    assert panels.message.text() == "The model does not predict NOGENE."
    panels.add_box.kind.setCurrentText("gene measured")
    panels.add_box.gene.setText("ERBB2")
    qtbot.mouseClick(panels.add_box.add, Qt.MouseButton.LeftButton)
    assert "No measured spots are open" in panels.message.text()
    specs = [gene(name) for name in GENES] + [PanelSpec("map", Shown("type", (t,))) for t in TYPES]
    panels.controller.set_panels([*specs, PanelSpec("tissue")])
    assert len(panels.controller.panels) == MOST_PANELS
    panels.add_box.kind.setCurrentText("dominant type")
    qtbot.mouseClick(panels.add_box.add, Qt.MouseButton.LeftButton)
    assert "the most that can be told apart" in panels.message.text()
    assert len(panels.controller.panels) == MOST_PANELS
    qtbot.mouseClick(panels.canvas.buttons[0], Qt.MouseButton.LeftButton)
    assert panels.controller.panels[0].title == "EPCAM predicted"
    assert len(panels.controller.panels) == MOST_PANELS - 1
    panels.list.setCurrentRow(7)
    qtbot.mouseClick(panels.remove, Qt.MouseButton.LeftButton)
    assert PanelSpec("tissue") not in panels.controller.panels


@pytest.mark.slow  # closing the viewer stops all maps below
def test_a_second_model_maps_too_and_stops_with_its_panel(panels, qtbot, wait, second_model):
    panels.controller.set_panels([gene("ERBB2"), gene("ERBB2", source=Source(model=second_model))])
    wait(lambda: panels.is_settled)
    mapper = panels.controller.sources.further()[0]
    assert mapper is not panels.state.mapper
    first, second = (panels.controller.sources.map(spec.source) for spec in panels.controller.panels)
    assert not np.array_equal(first.expression("ERBB2"), second.expression("ERBB2"), equal_nan=True)
    panels._update()
    assert panels.list.item(1).text() == "ERBB2 predicted · other"
    assert "2 maps share the CPU, so each takes about 2 times as long" in panels.notes.text()
    explore = panels.state.docks["Explore"]
    qtbot.mouseClick(explore.live, Qt.MouseButton.LeftButton)
    wait(lambda: not mapper.progress().running)
    qtbot.mouseClick(explore.live, Qt.MouseButton.LeftButton)
    wait(lambda: mapper.progress().running)
    panels.controller.remove(1)
    assert panels.controller.sources.further() == []
    wait(lambda: mapper._stopped)
    assert panels.state.mapper is not None
    assert not panels.state.mapper._stopped


def test_a_model_that_is_no_model_is_said_in_its_panel(panels, wait, tmp_path):
    path = tmp_path / "no.safetensors"
    path.write_bytes(b"nothing")
    panels.controller.set_panels([gene("ERBB2"), gene("ERBB2", source=Source(model=path))])
    wait(lambda: len(panels.controller.painted) == 2 and "no.safetensors" in panels.controller.painted[1].note)
    wait(lambda: panels.controller.painted[0].rgba is not None)  # the other one goes on


def test_two_slides_keep_their_pixel_sizes_and_are_said_to_be_unregistered(panels, qtbot, wait, tmp_path):
    from napari_cpnn.slides import open_slide
    from napari_cpnn.ui.layers import slide_layer

    path = write_slide(tmp_path / "second.tif", tissue_image()[::2, ::2], 2 * MPP)
    data, keywords, _ = slide_layer(open_slide(path))
    first = panels.state.layer
    layer = panels.viewer.add_image(data, **keywords)
    wait(lambda: panels.state.layer == layer and panels.state.slide is not None)  # what is opened is explored
    panels.state.want_slide(first)
    wait(lambda: panels.state.layer == first and panels.state.mapper is not None)
    panels.add_box.slide.setCurrentIndex(1)
    press(qtbot, panels, "Two slides")
    wait(lambda: panels.is_settled)
    canvas, controller = panels.canvas, panels.controller
    assert [panels.list.item(k).text() for k in range(2)] == [
        "Dominant cell type · section", "Dominant cell type · second"
    ]  # fmt: skip
    assert "not registered" in controller.note(1)
    assert "not registered" not in controller.note(0)
    here, there = (controller.view_of(spec.source) for spec in controller.panels)
    assert there.width == pytest.approx(here.width)  # the same um, of half as many pixels
    assert controller.slide_of(1).mpp == pytest.approx((2 * MPP, 2 * MPP))
    assert np.abs(np.subtract(there.center, here.center)).max() < 2  # one image, at two pixel sizes
    drag(canvas, 1, QPointF(50, 0), Qt.KeyboardModifier.ShiftModifier)  # moves the second slide alone
    assert controller.view_of(controller.panels[0].source) == here
    assert controller.view_of(controller.panels[1].source).x0 == pytest.approx(there.x0 - 50 / canvas.px_per_um)
    assert "placed by hand" in controller.note(1)
    mapper = controller.sources.further()[0]
    panels.viewer.layers.remove(layer)
    assert len(controller.panels) == 1
    wait(lambda: mapper._stopped)


def test_the_pointer_reads_all_panels(panels, qtbot, wait):
    panels.state.set_look(scale_um=0.0)
    panels.controller.set_panels([gene("ERBB2"), PanelSpec("map", Shown("dominant"))])
    wait(lambda: panels.is_settled)
    canvas, cmap = panels.canvas, panels.state.map
    cells = np.argwhere(cmap.tissue)
    row, col = cells[np.abs(cmap.grid.centers_um(cells) - canvas._center).sum(axis=1).argmin()]
    um = cmap.grid.centers_um([(row, col)])[0]
    at = canvas.rect_of(0).center() + QPointF(*((um - canvas._center) * canvas.px_per_um)[::-1])
    move_mouse(canvas, at.toPoint())
    wait(lambda: "ERBB2" in panels.readout.text())
    value = cmap.expression("ERBB2")[row, col]
    first, second = panels.readout.text().split("\n")
    assert first == f"ERBB2 predicted: {value:.2f}"
    assert second.startswith(f"Dominant cell type: {cmap.cell_types[cmap.dominant()[row, col]]} ")


def test_two_clicks_show_a_panel_alone(panels, qtbot, wait):
    panels.controller.set_panels([PanelSpec("tissue"), gene("EPCAM")])
    at = panels.canvas.rect_of(1).center().toPoint()
    qtbot.mouseDClick(panels.canvas, Qt.MouseButton.LeftButton, pos=at)
    assert not panels.are_shown
    assert panels.state.shown == Shown("gene", ("EPCAM",))


def test_export_writes_all_panels_as_one_figure(panels, qtbot, wait, tmp_path, monkeypatch):
    panels.state.measured = spots_table()
    panels.controller.set_panels([PanelSpec("tissue"), gene("ERBB2", "spots"), gene("ERBB2")])
    wait(lambda: panels.is_settled)
    path = tmp_path / "panels.svg"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_a, **_k: (str(path), ""))
    qtbot.mouseClick(panels.export, Qt.MouseButton.LeftButton)
    wait(lambda: panels.message.text() == f"Written: {path}.")
    text = path.read_text(encoding="utf-8")
    for title in ("H&amp;E", "ERBB2 measured", "ERBB2 predicted", "log1p CP10k"):
        assert title in text
    assert 'id="spots"' in text
    assert text.count('id="scale bar"') == 3


def test_a_new_slide_drops_panels_of_other_slides_and_keeps_those_of_explore(panels, wait, tmp_path):
    from napari_cpnn.slides import open_slide
    from napari_cpnn.ui.layers import slide_layer

    first = panels.state.layer
    path = write_slide(tmp_path / "second.tif", tissue_image()[::2, ::2], 2 * MPP)
    data, keywords, _ = slide_layer(open_slide(path))
    second = panels.viewer.add_image(data, **keywords)
    wait(lambda: panels.state.layer == second and panels.state.mapper is not None)
    other = Source(slide=panels.controller.sources.register(first))
    panels.controller.set_panels([PanelSpec("tissue"), gene("ERBB2"), gene("ERBB2", source=other)])
    wait(lambda: panels.is_settled)
    mapper = panels.controller.sources.further()[0]
    panels.state.want_slide(first)
    wait(lambda: panels.state.layer == first)
    assert panels.controller.panels == (PanelSpec("tissue"), gene("ERBB2"))
    wait(lambda: mapper._stopped)
    wait(lambda: panels.state.mapper is not None and panels.is_settled)
    assert panels.controller.painted[1].rgba is not None
    panels.viewer.layers.clear()  # no slide at all
    wait(lambda: panels.state.slide is None)
    assert len(panels.controller.panels) == 2
    wait(lambda: "opened" in panels.controller.painted[0].note)
    assert not panels.canvas.grab().isNull()


def test_closing_the_viewer_with_panels_up_stops_all_maps(panels, wait, second_model):
    panels.controller.set_panels([gene("ERBB2"), gene("ERBB2", source=Source(model=second_model))])
    wait(lambda: panels.is_settled)
    mappers = [panels.state.mapper, *panels.controller.sources.further()]
    assert len(mappers) == 2
    assert panels.canvas.isVisible()
    panels.viewer.close()
    wait(lambda: panels.has_ended)
    wait(lambda: all(mapper._stopped for mapper in mappers))
    assert panels.controller.panels == ()


@pytest.mark.slow  # the next test has the names
def test_a_model_before_and_after_fine_tuning_by_their_names(panels, qtbot, wait, model, tmp_path):
    from napari_cpnn.models import save_model

    files = [tmp_path / run / "model.safetensors" for run in ("run-1", "run-2")]
    for path in files:
        path.parent.mkdir()
        save_model(model, path)
    explore = panels.state.docks["Explore"]
    press(qtbot, panels, "Before | after")
    assert "No former model is known" in panels.message.text()
    for path in files:
        explore.open_model(path)
        wait(lambda path=path: explore.controller.model_path == path and panels.state.mapper is not None)
    panels.state.choose_shown(Shown("gene", ("ERBB2",)))
    press(qtbot, panels, "Before | after")
    assert panels.controller.panels == (gene("ERBB2", source=Source(model=files[0])), gene("ERBB2"))
    wait(lambda: panels.is_settled)
    assert panels.controller.titles() == ["ERBB2 predicted · run-1", "ERBB2 predicted · run-2"]
    explore.open_model(files[0])  # the other way round: no panel is dropped, the names follow
    wait(lambda: explore.controller.model_path == files[0] and panels.state.mapper is not None)
    press(qtbot, panels, "Before | after")
    assert panels.controller.titles() == ["ERBB2 predicted · run-2", "ERBB2 predicted · run-1"]


def test_a_fine_tuned_model_names_the_one_it_started_from(model, tmp_path, monkeypatch):
    from copy import deepcopy

    from napari_cpnn.models import save_model
    from napari_cpnn.ui.panels.former_model import started_from
    from napari_cpnn.ui.viewer import recent_models

    start, tuned = tmp_path / "start.safetensors", tmp_path / "tuned.safetensors"
    save_model(model, start)
    assert started_from(start) is None  # its weights are "none"
    later = deepcopy(model)
    later.provenance = {**model.provenance, "settings": {**model.provenance["settings"], "weights": start.name}}
    save_model(later, tuned)
    monkeypatch.setattr(recent_models, "known_models", lambda: [tuned, start])
    assert started_from(tuned) == start
    twin = tmp_path / "elsewhere" / "start.safetensors"
    monkeypatch.setattr(recent_models, "known_models", lambda: [tuned, start, twin])
    assert started_from(tuned) is None  # one name, two files


@pytest.mark.slow  # test_signatures has them in Explore
def test_a_signature_as_in_explore(panels, qtbot, wait, tmp_path):
    from napari_cpnn.mapping import mean_z

    explore = panels.state.docks["Explore"]
    explore.signatures.add_list("ERBB2, EPCAM, NOGENE", "luminal")
    wait(lambda: panels.state.shown.kind == "signature")
    panels.state.choose_shown(Shown("dominant"))
    panels.add_box.kind.setCurrentText("signature")
    assert panels.add_box.signature.currentText() == "luminal"
    qtbot.mouseClick(panels.add_box.add, Qt.MouseButton.LeftButton)
    shown = Shown("signature", ("luminal", "ERBB2", "EPCAM"))
    assert panels.controller.panels == (PanelSpec("map", shown),), panels.message.text()
    wait(lambda: panels.is_settled and panels.controller.painted[0].rgba is not None)
    assert panels.controller.titles() == ["Signature: luminal"]
    painted, cmap = panels.controller.painted[0], panels.state.map
    assert painted.key.unit == "mean z-score"
    np.testing.assert_array_equal(painted.numbers, mean_z(cmap, ["ERBB2", "EPCAM"]))
    assert PanelSpec("map", shown).scale_group != PanelSpec("map", Shown("signature", ("other", "CD3E"))).scale_group


@pytest.mark.slow  # test_type_tree has them in Explore
def test_major_types_where_explore_has_them(panels, qtbot, wait, model_path):
    explore = panels.state.docks["Explore"]
    explore.controller.hierarchy = {"Epithelial": "Tumour", "Stroma": "Rest", "Immune": "Rest"}
    before = panels.state.model
    explore.open_model(model_path)
    wait(lambda: panels.state.model is not before and panels.state.mapper is not None)
    wait(explore.is_settled)
    press(qtbot, panels, "Top 4 types")
    assert sorted(panels.controller.titles()) == ["Rest", "Tumour"]
    dominant = PanelSpec("map", Shown("dominant", level="major"))
    panels.controller.set_panels([*panels.controller.panels, dominant])
    wait(lambda: panels.is_settled and panels.controller.painted[2].key is not None)
    assert not any(painted.note.startswith("This model") for painted in panels.controller.painted)
    assert set(panels.controller.painted[2].key.names) <= {"Tumour", "Rest"}
    from napari_cpnn.ui.panels.readout import readout

    cmap = panels.state.map
    row, col = np.argwhere(cmap.tissue)[3]
    um = tuple(cmap.grid.centers_um([(row, col)])[0])
    expected = cmap.types_at("major")[cmap.dominant("major")[row, col]]
    assert readout(panels.controller, um)[2].startswith(f"Dominant cell type: {expected} ")


def test_regions_are_outlined_on_the_panels(panels, qtbot, wait):
    panels.controller.set_panels([PanelSpec("tissue"), gene("ERBB2")])
    wait(lambda: panels.is_settled)
    square = np.array([[200.0, 300.0], [200.0, 500.0], [450.0, 500.0], [450.0, 300.0]])
    shapes = panels.viewer.add_shapes(
        [square], shape_type="polygon", units=("um", "um"), features={"name": ["tumour"]}
    )  # fmt: skip
    wait(lambda: len(panels.outlines.outlines) == 1)
    canvas = panels.canvas

    def edge(number):
        at = canvas.rect_of(number).center() + QPointF(
            *((np.array([325.25, 300.25]) - canvas._center) * canvas.px_per_um)[::-1]
        )
        shot = canvas.grab().toImage()
        return min(sum(shot.pixelColor(int(at.x()) + dx, int(at.y())).getRgb()[:3]) for dx in (-1, 0, 1))

    assert edge(0) < 120  # black
    assert edge(1) < 120
    qtbot.keyPress(canvas, Qt.Key.Key_H)
    assert edge(0) > 200
    qtbot.keyRelease(canvas, Qt.Key.Key_H)
    shapes.data = [square + 100.0]
    wait(lambda: panels.outlines.outlines[0].rect.y0 == pytest.approx(300.25, abs=0.3))
    assert edge(0) > 200
    shapes.visible = False
    wait(lambda: panels.outlines.outlines == ())


def test_long_titles_are_broken_into_lines_and_keep_their_ends(qtbot):
    from qtpy.QtGui import QFont, QFontMetricsF

    from napari_cpnn.ui.panels.furniture import wrapped

    metrics = QFontMetricsF(QFont())
    room = metrics.horizontalAdvance("Dominant cell type ·")
    title = "Dominant cell type · run-2 · section-B"
    assert wrapped(title, metrics, room, 3) == ["Dominant cell type", "run-2 · section-B"]
    assert wrapped(title, metrics, 2.5 * room, 3) == [title]
    assert wrapped("", metrics, room, 3) == []
    lines = wrapped(title + " and a long name after it", metrics, room, 2)
    assert len(lines) == 2
    assert "…" in lines[1]
    assert lines[1].endswith("after it")
    assert all(metrics.horizontalAdvance(line) <= room for line in lines)


@pytest.mark.slow  # the keys are tested on the canvas
def test_keys_of_the_single_view_act_on_panels_too(panels, qtbot, wait):
    panels.controller.set_panels([gene("ERBB2")])
    wait(lambda: panels.is_settled)
    canvas, state = panels.canvas, panels.state
    opacity = state.look.opacity
    qtbot.keyClicks(canvas, ",")
    assert state.look.opacity == pytest.approx(opacity - 0.1)
    qtbot.keyClicks(canvas, "..")
    assert state.look.opacity == pytest.approx(opacity + 0.1)
    shown = canvas.grab().toImage()
    qtbot.keyClicks(canvas, "k")
    assert not state.look.legend
    assert canvas.grab().toImage() != shown  # without its colour bar
    explore = state.docks["Explore"]
    qtbot.keyClicks(canvas, "u")
    assert not explore.live.isChecked()


def test_a_figure_of_what_is_on_screen_has_the_spots_and_the_regions(panels, explore, qtbot, wait, tmp_path):
    """Right places and colours, as the canvas has them; hidden layers are left out."""
    from napari_cpnn.ui.export import marks_on_screen
    from napari_cpnn.ui.layers import SPOTS_KEY

    viewer, state = panels.viewer, panels.state
    slide_layer = state.layer
    points = viewer.add_points(
        np.array([[300.0, 400.0], [500.0, 600.0]]), size=100.0, face_color=["red", "blue"], units=("um", "um"),
        metadata={SPOTS_KEY: True}, name="Spots: ERBB2 measured",
    )  # fmt: skip
    square = np.array([[200.0, 300.0], [200.0, 500.0], [450.0, 500.0], [450.0, 300.0]])
    shapes = viewer.add_shapes([square], shape_type="polygon", units=("um", "um"), features={"name": ["tumour"]})
    marks = marks_on_screen(viewer, slide_layer, state.slide.mpp)
    assert marks.spots[0].centers_um == pytest.approx(np.array([[300.25, 400.25], [500.25, 600.25]]), abs=0.3)
    assert marks.spots[0].diameters_um == pytest.approx([100.0, 100.0])
    assert marks.spots[0].name == "ERBB2 measured"
    assert marks.outlines[0][0] == "tumour"
    assert marks.outlines[0][1].area == pytest.approx(250 * 200, rel=1e-6)
    dialog_path = tmp_path / "figure.png"
    from napari_cpnn.ui.export.dialog import ExportDialog

    dialog = ExportDialog(viewer, panels.background)
    qtbot.addWidget(dialog)
    dialog.path.setText(str(dialog_path))
    dialog.dpi.setCurrentIndex(0)
    qtbot.mouseClick(dialog.start, Qt.MouseButton.LeftButton)
    wait(lambda: dialog.controller.written is not None or not dialog.controller.running)
    assert dialog.controller.written == dialog_path, dialog.controller.message
    picture = np.asarray(Image.open(dialog_path).convert("RGB")).astype(int)
    red = (picture[..., 0] > 230) & (picture[..., 1] < 30) & (picture[..., 2] < 30)
    blue = (picture[..., 2] > 230) & (picture[..., 0] < 30) & (picture[..., 1] < 30)
    assert red.sum() > 50
    assert blue.sum() > 50
    points.visible = shapes.visible = False
    assert marks_on_screen(viewer, slide_layer, state.slide.mpp).spots == ()
    assert marks_on_screen(viewer, slide_layer, state.slide.mpp).outlines == ()
    dialog.end()


def test_the_legend_of_dominant_types_follows_the_view(panels, qtbot, wait):
    """It names the types in view, also when only the view has moved."""
    controller = panels.controller
    controller.set_panels([PanelSpec("map", Shown("dominant"))])
    wait(lambda: controller.is_settled and controller.painted[0].key is not None)
    cmap = panels.state.map
    painted = []
    controller.painted_changed.connect(lambda: painted.append(controller.view))
    view = controller.view
    half = Rect(view.y0, view.x0, view.y1, view.x0 + (view.x1 - view.x0) / 2)
    controller.set_view(half, controller.px_per_um)
    assert not controller.is_settled
    panels.viewer.scene.camera.zoom *= 1.0  # the dock goes on by itself
    wait(lambda: bool(painted) and controller.is_settled)
    at = controller.view
    expected = painting.dominant_types(cmap, cmap.grid.window(at), "minor")
    assert list(controller.painted[0].key.names) == list(expected)[:8]


@pytest.mark.slow  # export of panels is tested above
def test_it_is_said_that_figures_show_washes(panels, qtbot, wait):
    panels.controller.set_panels([gene("CD3E")])
    assert panels.controller.style_note == ""
    panels.state.choose_look(style="contours")
    assert panels.controller.style_note == ""  # a figure has them, too
    panels.state.choose_look(style="patches")
    wait(lambda: "Drawn as outlines of patches; a figure shows maps as a wash." in panels.notes.text())
    panels.state.choose_look(style="wash")
    wait(lambda: "wash" not in panels.notes.text())


def picture(panels):
    """What is on screen, ``(rows, cols, 3)``."""
    image = panels.canvas.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    data = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
    return data.reshape(image.height(), image.bytesPerLine())[:, : 3 * image.width()].reshape(-1, image.width(), 3)


@pytest.mark.slow  # test_session_cells draws panels, too
def test_panels_are_drawn_as_explore_draws(panels, qtbot, wait):
    controller, state = panels.controller, panels.state
    state.choose_look(fade=False, smooth=False, unlike="shown")
    controller.set_panels([gene("ERBB2"), PanelSpec("map", Shown("dominant")), PanelSpec("map", Shown("blend", TYPES))])
    wait(lambda: panels.is_settled)
    wash = picture(panels)
    assert all(painted.lines is None for painted in controller.painted)

    state.choose_look(style="contours")
    wait(lambda: controller.is_settled and controller.painted[0].lines is not None)
    contours, borders, blend = (painted.lines for painted in controller.painted)
    levels = painting.contour_levels(controller.limits[0])
    assert levels
    assert controller.painted[0].note.endswith(f"contours at {', '.join(f'{level:g}' for level in levels)}")
    field, grid = painting.field_of(state.map, Shown("gene", ("ERBB2",)), state.look.scale_um), state.map.grid
    at = (contours.starts_um - np.asarray(grid.origin_um)) / grid.stride_um - 0.5
    on_lines = map_coordinates(field.astype(float), at.T, order=1)  # a second way from the lines to their values
    on_lines = on_lines[np.isfinite(on_lines)]  # at the edge of the map there is no neighbour
    assert len(on_lines) > 0.8 * len(at) > 8
    assert np.abs(on_lines[:, None] - np.asarray(levels)).min(axis=1).max() < 1e-4
    named = {tuple(rgb) for rgb in np.rint(255 * borders.colors[:, :3]).astype(int).tolist()}
    palette = {tuple(bytes.fromhex(color[1:])) for color in type_colors(TYPES).values()}
    assert named <= palette
    assert blend is None or not blend.margin  # a blend has no borders: outlines of patches, once they are large
    lined = picture(panels)
    rect = panels.canvas.rect_of(0).toRect()
    inside = np.s_[rect.top() + 60 : rect.bottom() - 60, rect.left() + 20 : rect.right() - 20]
    panels.canvas.peeking = True
    panels.canvas.update()
    tissue = picture(panels)
    panels.canvas.peeking = False
    changed = [(np.abs(one[inside].astype(int) - tissue[inside]).max(axis=-1) > 12).mean() for one in (wash, lined)]
    assert changed[1] > 0.001
    assert changed[1] < changed[0] / 2  # the tissue between the lines is as it is

    state.choose_look(style="patches")
    wait(lambda: controller.is_settled and controller.painted[0].lines is not None)
    n = int((state.map.state == DONE).sum())
    assert 0 < len(controller.painted[0].lines.starts_um) <= 4 * n
    state.choose_look(style="wash")
    wait(lambda: controller.is_settled and controller.painted[0].lines is None)
    assert (picture(panels) != wash).any(axis=-1).mean() < 0.005  # but for the edges of patches
