"""The dock in a real napari, on a small slide with a quick network."""

from __future__ import annotations

import copy
import dataclasses
import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox
from tests.ui.conftest import MPP, SHAPE, TYPES, tissue_image, write_slide
from tests.ui.seen import texts_on_canvas

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.mapping import DONE
from napari_cpnn.painting import finer, pixels_per_patch
from napari_cpnn.slides import TissueMask
from napari_cpnn.ui.explore.cell_type_list import CellTypeList
from napari_cpnn.ui.explore.dock import Explore
from napari_cpnn.ui.viewer.state import Shown, TypeRow, state_of


def overlay(dock, kind):
    return dock.session.overlays.layer_of(kind)


def alpha_of(layer, cmap):
    """Largest alpha of the pixels of each patch."""
    (rows, cols), n = cmap.grid.shape, layer.data.shape[0] // cmap.grid.shape[0]
    return layer.data[..., 3].reshape(rows, n, cols, n).max(axis=(1, 3)).clip(0)


def drawn(cmap):
    """Patches in which there is tissue to draw on; the mask holds glass around it, too."""
    mask = cmap.tissue_mask
    return cmap.tissue & (TissueMask(mask.drawn, mask.um_per_px).coverage(cmap.grid) > 0.2)


def mapped(dock, wait):
    wait(dock.is_settled)
    dock.session.overlays.paint_now()
    return dock.state.map


def test_empty_dock_says_what_to_do(explore):
    dock = explore()
    assert "No slide yet" in dock.message.text()
    assert not dock.gene.isEnabled()
    assert dock.slide.currentText() == "no slide is open"


def test_maps_appear_and_follow_the_view(explore, wait, slide_path, model_path):
    dock = explore(slide_path)
    viewer = dock.session.viewer
    wait(lambda: dock.state.slide is not None)
    assert "No model yet" in dock.message.text()
    assert dock.slide.currentText() == f"section · {MPP} µm/px · {SHAPE[1]} x {SHAPE[0]} px"
    wait(lambda: viewer.canvas.overlays.scale_bar.visible)
    # A corner first ...
    viewer.scene.camera.center, viewer.scene.camera.zoom = (250.0, 250.0), 4.0
    dock.open_model(model_path)
    wait(lambda: dock.state.map is not None)
    cmap = mapped(dock, wait)
    first = int((cmap.state == DONE).sum())
    assert 0 < first < cmap.tissue.sum()
    layer = overlay(dock, "dominant")
    wait(lambda: dock.session.overlays.is_painted)
    assert layer in viewer.layers
    assert layer.data.dtype == np.float32
    assert (alpha_of(layer, cmap)[(cmap.state == DONE) & drawn(cmap)] > 0).all()
    assert (alpha_of(layer, cmap)[~cmap.tissue] == 0).all()
    assert np.allclose(alpha_of(layer, cmap)[cmap.donors() < 0], 0)
    # ... then all of it.
    viewer.reset_view()
    assert dock.session.watcher.pending
    mapped(dock, wait)
    assert (cmap.state == DONE).sum() == cmap.tissue.sum()
    assert np.allclose(alpha_of(layer, cmap)[drawn(cmap)], 1.0)
    dock._update()
    total = int(cmap.tissue.sum())
    assert dock.progress.text() == f"{total} of {total} patches · CPU float32"
    assert viewer.layers.selection.active == dock.state.layer


def test_overlay_lies_on_the_grid(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    layer = overlay(dock, "dominant")
    grid = dock.state.map.grid
    grid = finer(grid, pixels_per_patch(grid))  # pixels of the layer
    assert np.allclose(layer.data_to_world((0, 0)), grid.centers_um([(0, 0)])[0])
    assert np.allclose(layer.data_to_world((3, 5)), grid.centers_um([(3, 5)])[0])
    assert layer.units == dock.state.layer.units
    dock.state.layer.translate = (100.0, 50.0)  # the user moves the slide
    assert np.allclose(layer.data_to_world((3, 5)), grid.centers_um([(3, 5)])[0] + (99.75, 49.75))


def test_a_gene_is_typed_and_shown(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    cmap = mapped(dock, wait)
    wait(dock.is_drawn)
    n_layers = len(dock.session.viewer.layers)
    dock.gene.setText("erbb2")
    dock.gene.returnPressed.emit()
    layer = overlay(dock, "gene")
    assert overlay(dock, "dominant").visible  # until the layer that is new can take its place
    wait(lambda: layer in dock.session.viewer.layers and layer.visible)
    assert not overlay(dock, "dominant").visible
    assert layer.name == "Gene: ERBB2 (log1p CP10k)"
    assert dock.gene_note.text() == "held-out PCC 0.41 on C4"
    values = cmap.expression("ERBB2")[cmap.tissue]
    low, high = dock.state.limits
    assert np.percentile(values, 1) <= low < high <= values.max() + 0.1
    assert tuple(layer.contrast_limits) == pytest.approx((low, high))
    wait(lambda: layer.colorbar.visible)
    dock.gene.setText("CD3E")
    dock.gene.returnPressed.emit()
    assert layer.name == "Gene: CD3E (log1p CP10k)"
    assert len(dock.session.viewer.layers) == n_layers + 1  # one layer for all genes
    dock.gene.setText("NOTAGENE")
    dock.gene.returnPressed.emit()
    assert "does not predict NOTAGENE" in dock.gene_note.text()
    assert dock.state.shown == Shown("gene", ("CD3E",))
    # The gene that is on screen already: what was said of the other goes.
    dock.gene.setText("CD3E")
    dock.gene.returnPressed.emit()
    assert "NOTAGENE" not in dock.gene_note.text()


def test_completion_matches_anywhere(explore, model, slide_path):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    completer = dock.gene.completer()
    completer.setCompletionPrefix("rbb")
    assert completer.currentCompletion() == "ERBB2"


def test_types_by_click_blend_by_check(explore, wait, qtbot, slide_path, model):
    from qtpy.QtCore import Qt

    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    cmap = mapped(dock, wait)
    dock._update()
    view = dock.types.view
    index = view.model().index(1, 0)
    name = index.data()
    view.clicked.emit(index)
    assert dock.state.shown == Shown("type", (name,))
    assert dock.one.isChecked()
    layer = overlay(dock, "type")
    dock.state.set_look(smooth=False)
    alpha = alpha_of(layer, cmap)
    shares = cmap.weight(name)
    order = np.argsort(shares[drawn(cmap)])
    assert (np.diff(alpha[drawn(cmap)][order]) >= -1e-6).all()  # the larger the share, the more opaque
    view.model().setData(index, Qt.CheckState.Checked.value, Qt.ItemDataRole.CheckStateRole)
    assert dock.state.shown == Shown("blend", (name,))
    assert dock.blend.isChecked()
    assert np.allclose(alpha_of(overlay(dock, "blend"), cmap)[drawn(cmap)], shares[drawn(cmap)], atol=1e-3)
    dock.dominant.click()
    assert dock.state.shown.kind == "dominant"
    dock.types.search.setText("imm")
    assert view.model().rowCount() == 1


def test_a_click_on_a_check_box_shows_a_blend_and_a_click_on_a_name_one_type(explore, wait, qtbot, slide_path, model):
    from qtpy.QtCore import QPoint, Qt

    dock = explore(slide_path, show=True)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    mapped(dock, wait)
    dock._update()
    view, names = dock.types.view, [row.name for row in dock.types.model.rows]

    def click(row: int, dx: int) -> None:
        rect = view.visualRect(view.model().index(row, 0))
        at = QPoint(rect.left() + dx, rect.center().y())
        qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=at)

    for row in (0, 1):
        click(row, 8)
    assert dock.state.shown == Shown("blend", tuple(names[:2]))
    click(2, 80)
    assert dock.state.shown == Shown("type", (names[2],))
    click(1, 8)
    assert dock.state.shown == Shown("blend", (names[0],))


def test_list_shows_shares_of_the_view(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    cmap = mapped(dock, wait)
    dock._update()
    model_ = dock.types.model
    shares = [float(model_.index(i, 1).data().rstrip(" %").replace("<", "")) for i in range(len(TYPES))]
    assert shares == sorted(shares, reverse=True)
    top = model_.index(0, 0).data()
    assert top == cmap.cell_types[int(np.nanargmax(cmap.mean_weights()))]


def test_look(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    mapped(dock, wait)
    dock.controller.show_gene("ERBB2")
    layer, look = overlay(dock, "gene"), dock.look
    wait(lambda: layer.visible)
    assert layer.interpolation2d == "linear"
    look.smooth.setChecked(False)
    assert layer.interpolation2d == "nearest"
    look.opacity.setValue(30)
    assert layer.opacity == pytest.approx(0.3)
    layer.opacity = 0.8  # napari's own slider
    assert look.opacity.value() == 80
    before = layer.data.copy()
    look.colormap.setCurrentText("magma")
    look.colormap.textActivated.emit("magma")
    assert not np.allclose(before, layer.data)
    layer.contrast_limits = (0.5, 2.0)  # napari's own slider fixes the range
    assert dock.state.look.range_mode == "manual"
    assert dock.state.limits == (0.5, 2.0)
    assert (look.low.value(), look.high.value()) == (0.5, 2.0)
    dock.controller.show_gene("CD3E")
    assert tuple(layer.contrast_limits) == (0.5, 2.0)


def test_pause_and_go_on(explore, wait, qtbot, slide_path, model):
    dock = explore(slide_path)
    dock.live.setChecked(False)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    qtbot.wait(300)
    assert dock.state.map.revision == 0
    assert "paused" in dock.message.text()
    dock.live.setChecked(True)
    mapped(dock, wait)
    assert dock.state.map.revision > 0


def test_drop_in_layer_in_pixels(explore, wait, model):
    """A plain image that another reader opened: no path, no units; the dock asks for the pixel size."""
    dock = explore()
    viewer = dock.session.viewer
    viewer.add_points([[5.0, 5.0]], name="marks")
    layer = viewer.add_image(tissue_image(), rgb=True, name="theirs", contrast_limits=(0, 255))
    wait(lambda: dock.state.slide is not None)
    dock.controller.use_model(model)
    assert "pixel size" in dock.message.text()
    assert not dock.mpp_row.isHidden()
    dock.mpp.setValue(MPP)
    dock.mpp_set.click()
    wait(lambda: dock.state.map is not None)
    assert dock.mpp_row.isHidden()
    cmap = mapped(dock, wait)
    assert tuple(layer.scale) == (1.0, 1.0)  # their layer stays where it is, below their marks
    cell = tuple(np.argwhere(cmap.state == DONE)[0])
    expected_px, n = cmap.grid.centers_um([cell])[0] / MPP - 0.5, pixels_per_patch(cmap.grid)
    assert np.allclose(overlay(dock, "dominant").data_to_world(n * (np.array(cell) + 0.5) - 0.5), expected_px)


def test_our_layer_without_pixel_size_goes_to_micrometres(explore, wait, tmp_path, model):
    dock = explore(write_slide(tmp_path / "bare.tif", tissue_image(), mpp=None))
    wait(lambda: dock.state.slide is not None)
    dock.mpp.setValue(0.25)
    dock.mpp_set.click()
    assert tuple(dock.state.layer.scale) == (0.25, 0.25)
    assert [str(u) for u in dock.state.layer.units] == ["micrometer", "micrometer"]
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)


def mapper_threads():
    return [t for t in threading.enumerate() if t.name.startswith("napari-cpnn") and "loop" in t.name]


@pytest.mark.parametrize("way", ["alone", "with all that is selected", "by clearing the list"])
def test_removing_the_slide_stops_mapping_and_takes_the_maps_away(explore, wait, slide_path, model, way):
    dock = explore(slide_path)
    viewer = dock.session.viewer
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    mapped(dock, wait)
    assert mapper_threads()
    if way == "alone":
        viewer.layers.remove(dock.state.layer)
    elif way == "by clearing the list":
        viewer.layers.clear()
    else:
        viewer.layers.select_all()
        viewer.layers.remove_selected()
    wait(lambda: not mapper_threads())
    assert len(viewer.layers) == 0
    assert "No slide yet" in dock.message.text()
    dock.session.legend.finish()
    assert not texts_on_canvas(viewer)


def test_removing_an_overlay_only_hides_it(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    mapped(dock, wait)
    wait(dock.is_drawn)
    dock.session.viewer.layers.remove(overlay(dock, "dominant"))
    assert overlay(dock, "dominant") is None
    dock.controller.show_type(TYPES[0])
    dock.controller.show_dominant()
    wait(lambda: overlay(dock, "dominant").visible)


def test_closing_the_dock_stops_everything(explore, wait, slide_path, model):
    dock = explore(slide_path)
    viewer = dock.session.viewer
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    viewer.window.remove_dock_widget(dock)
    wait(lambda: not mapper_threads())
    assert [layer.name for layer in viewer.layers] == ["section"]
    assert state_of(viewer).mapper is None


def test_second_slide_can_be_chosen(explore, wait, slide_path, tmp_path, model):
    other = write_slide(tmp_path / "other.tif", tissue_image()[:1400])
    dock = explore(slide_path, other)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    names = [dock.slide.itemText(i).split(" · ")[0] for i in range(dock.slide.count())]
    assert sorted(names) == ["other", "section"]
    wanted = names.index("section")
    dock.slide.setCurrentIndex(wanted)
    dock.slide.activated.emit(wanted)
    wait(lambda: dock.state.map is not None)
    assert dock.state.slide.shape[:2] == SHAPE
    mapped(dock, wait)


def test_wrong_model_file_is_a_notification(explore, wait, slide_path, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("napari_cpnn.ui.frame.dock.warn", said.append)
    dock = explore(slide_path)
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"not a model")
    dock.open_model(wrong)
    wait(lambda: bool(said))
    assert "wrong.safetensors" in said[0]
    assert dock.message.text() == said[0]
    assert dock.live.isEnabled()
    assert "wrong" not in dock.model.currentText()


def test_slide_without_tissue_says_so(explore, wait, tmp_path, model, monkeypatch):
    said = []
    monkeypatch.setattr("napari_cpnn.ui.frame.dock.warn", said.append)
    glass = write_slide(tmp_path / "glass.tif", np.full((*SHAPE, 3), 245, np.uint8))
    dock = explore(glass)
    dock.controller.use_model(model)
    wait(lambda: bool(said))
    assert "tissue" in said[0]


def test_slide_deleted_while_open_marks_its_patches(explore, wait, slide_path, model):
    finest = copy.deepcopy(model)  # reads level 0, of which finding the tissue has cached nothing
    finest.spec = dataclasses.replace(model.spec, patch=PatchSpec(64, MPP))
    dock = explore(slide_path)
    dock.live.setChecked(False)
    dock.controller.use_model(finest)
    wait(lambda: dock.state.map is not None)
    with slide_path.open("r+b") as file:  # truncated under our feet, as on a network share
        file.truncate(2000)
    dock.live.setChecked(True)
    mapped(dock, wait)
    dock._update()
    assert "unreadable" in dock.progress.text()
    assert "section" in dock.message.text()


def test_known_models_are_offered(explore, wait, slide_path, model_path):
    dock = explore(slide_path)
    dock.open_model(model_path)
    wait(lambda: dock.state.model is not None)
    dock.shut_down()
    again = Explore(dock.session.viewer)
    items = [again.model.itemText(i) for i in range(again.model.count())]
    assert model_path.stem in items
    again.shut_down()
    again.deleteLater()


def test_dock_fits_a_small_screen(explore, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    assert dock.minimumSizeHint().height() < 600
    assert dock.minimumWidth() <= 420


def test_long_list_uses_the_height_and_shows_the_selected_type(qtbot):
    types = CellTypeList()
    qtbot.addWidget(types)
    types.resize(360, 300)
    types.show()
    names = [f"Macrophage lipid-associated {i}" for i in range(49)]
    types.set_rows([TypeRow(name, "#E69F00", 0.02) for name in names])
    types.select(names[40])
    assert types.selected() == names[40]
    place = types.view.visualRect(types.view.model().index(40, 0))
    assert 0 <= place.top() < types.view.viewport().height()
    assert types.maximumHeight() > 49 * 20
    types.set_rows([TypeRow(name, "#E69F00", 0.02) for name in names[:3]])
    assert types.maximumHeight() < 200


def test_card_of_the_model_is_whole_and_plain(explore, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    assert dock.model.currentText() == "SqueezeNet + CPNN · 3 types"
    dock._show_card()
    box = dock.findChild(QMessageBox)
    for text in ("SqueezeNet", "C2 (176 spots)", "research only"):
        assert text in box.text()
    box.close()


def test_every_control_explains_itself_and_can_be_reached_by_keyboard(explore, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    controls = [dock.slide, dock.model, dock.mpp, dock.mpp_set, dock.info, dock.live, dock.whole, dock.types.search]
    controls += [dock.one, dock.dominant, dock.blend, dock.gene]
    look = dock.look
    controls += [look.colormap, look.range, look.low, look.high, look.opacity, look.smooth, look.legend]
    for control in controls:
        assert control.toolTip(), control
        assert control.focusPolicy() & Qt.FocusPolicy.TabFocus


def test_two_viewers_share_nothing(explore, slide_path):
    first, second = explore(slide_path), explore()
    assert first.state is not second.state
    assert second.state.layer is None


def test_the_list_of_models_says_that_one_is_being_loaded(explore, wait, slide_path, model_path, tmp_path, monkeypatch):
    from napari_cpnn import models

    dock, go, load = explore(slide_path), threading.Event(), models.load_model
    monkeypatch.setattr("napari_cpnn.models.load_model", lambda path: (go.wait(30), load(path))[1])
    assert dock.model.currentText() == "choose a model"
    dock.open_model(model_path)
    assert dock.model.currentText() == "loading quick ..."
    go.set()
    wait(lambda: dock.state.model is not None)
    assert dock.model.currentText().startswith("quick")
    go.clear()
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no model")
    dock.told = []
    monkeypatch.setattr("napari_cpnn.ui.frame.dock.warn", dock.told.append)
    dock.open_model(other)
    assert dock.model.currentText() == "loading other ..."
    go.set()
    wait(lambda: bool(dock.told))
    assert dock.model.currentText().startswith("quick")  # the one that maps goes on
