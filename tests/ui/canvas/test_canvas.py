"""What lies on the canvas, in a real napari with real keys, wheel and mouse."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import shapely
import yaml
from app_model.types import KeyBinding
from napari.layers import Image, Labels, Points, Shapes, Vectors
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QKeyEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from tests.ui.mouse import move_mouse

from napari_cpnn.painting import Shown
from napari_cpnn.ui.canvas.fading import fading, magnification_text
from napari_cpnn.ui.canvas.keys import KEYS
from napari_cpnn.ui.canvas.lens_picture import LensPicture, circle
from napari_cpnn.ui.canvas.measuring import size_text
from napari_cpnn.ui.canvas.overview import canvas_of
from napari_cpnn.ui.canvas.stepping import neighbour
from napari_cpnn.ui.layers import LENS_KEY, is_slide_layer, read_viewport


@pytest.fixture
def mapped(explore, wait, slide_path, model):
    dock = explore(slide_path, show=True)  # hidden, the canvas finds nothing under the pointer
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None and dock.is_settled())
    dock.controller.show_gene("ERBB2")
    dock.finish_drawing()
    return dock


def canvas(dock):
    return canvas_of(dock.window())


def send_key(dock, key, *, down, text="", shift=False):
    kind = QEvent.Type.KeyPress if down else QEvent.Type.KeyRelease
    held = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
    QApplication.sendEvent(canvas(dock), QKeyEvent(kind, key, held, text))


def press(dock, key, text="", *, shift=False):
    send_key(dock, key, down=True, text=text, shift=shift)
    send_key(dock, key, down=False, text=text, shift=shift)


def move(dock, wait, x, y):
    """Move the pointer; vispy drops events in quick succession."""
    viewer = dock.session.viewer
    before = viewer.cursor.position

    def moved():
        move_mouse(canvas(dock), QPoint(x, y))
        return viewer.cursor.position != before

    wait(moved)


def zoom_to(dock, times):
    """Look at a magnification."""
    camera = dock.session.viewer.scene.camera
    view = read_viewport(dock.session.viewer, dock.state.layer, dock.state.slide.mpp)
    camera.zoom *= times / (10 * view.px_per_um)
    dock.session.read_view()


def overlay(dock, kind="gene"):
    return dock.session.overlays.layer_of(kind)


# -- keys ----------------------------------------------------------------------------------------------------


def test_no_key_is_one_of_napari():
    from napari.components import ViewerModel
    from napari.settings import get_settings

    taken = {KeyBinding.validate(key) for keys in get_settings().shortcuts.shortcuts.values() for key in keys}
    for provider in (ViewerModel, Image, Labels, Points, Shapes, Vectors):
        taken |= {key for cls in provider.__mro__ for key in getattr(cls, "class_keymap", {}) if key is not Ellipsis}
    ours = {KeyBinding.from_str(key.key.replace("Shift-", "Shift+")) for key in KEYS}
    assert len(ours) == len(KEYS)
    assert KeyBinding.from_str("V") in taken
    assert not ours & taken


def test_manifest_and_guide_list_all_keys():
    manifest = yaml.safe_load((files("napari_cpnn") / "napari.yaml").read_text())["contributions"]
    listed = {entry["command"]: entry["key"] for entry in manifest["keybindings"]}
    assert listed == {f"napari-cpnn.{key.command}": key.key.replace("-", "+") for key in KEYS}
    assert set(listed) <= {command["id"] for command in manifest["commands"]}
    guide = (Path(__file__).parents[3] / "docs" / "guide" / "explore.md").read_text()
    rows = set(re.findall(r"^\| `([^`]+)`", guide, re.MULTILINE))
    assert {key.key for key in KEYS} <= rows


def test_keys_act_on_the_canvas_whatever_is_selected(mapped):
    dock, state, viewer = mapped, mapped.state, mapped.session.viewer
    dock.state.choose_look(opacity=0.5)
    points = viewer.add_points([[100.0, 100.0]])
    shapes = viewer.add_shapes(ndim=2)
    for layer in (state.layer, overlay(dock), points, shapes):
        viewer.layers.selection.active = layer
        press(dock, Qt.Key.Key_Period, ".")
        assert state.look.opacity == pytest.approx(0.6)
        press(dock, Qt.Key.Key_Comma, ",")
        assert state.look.opacity == pytest.approx(0.5)
        legend, live, shown = state.look.legend, dock.controller.live, state.shown
        press(dock, Qt.Key.Key_K, "k")
        press(dock, Qt.Key.Key_U, "u")
        assert (state.look.legend, dock.controller.live) == (not legend, not live)
        assert dock.live.isChecked() == (not live)
        press(dock, Qt.Key.Key_K, "k")
        press(dock, Qt.Key.Key_U, "u")
        press(dock, Qt.Key.Key_N, "n")
        after = dock.gene.genes()[(dock.gene.genes().index(shown.name) + 1) % len(dock.gene.genes())]
        assert state.shown == Shown("gene", (after,))
        press(dock, Qt.Key.Key_N, "N", shift=True)
        assert state.shown == shown
    press(dock, Qt.Key.Key_W, "w")
    assert state.look.style == "contours"


def test_holding_h_shows_the_tissue_alone_and_releasing_it_everything_as_it_was(mapped):
    dock, viewer = mapped, mapped.session.viewer
    points = viewer.add_points([[100.0, 100.0]], opacity=0.7)
    layer, look = overlay(dock), dock.state.look
    before = {one.name: (one.opacity, one.visible) for one in viewer.layers}
    send_key(dock, Qt.Key.Key_H, down=True, text="h")
    assert layer.opacity == points.opacity == 0.0
    assert dock.state.layer.opacity == 1.0
    dock.finish_drawing()  # a map that goes on filling does not come back
    assert layer.opacity == 0.0
    send_key(dock, Qt.Key.Key_H, down=False, text="h")
    assert {one.name: (one.opacity, one.visible) for one in viewer.layers} == before
    assert dock.state.look == look
    send_key(dock, Qt.Key.Key_H, down=True, text="h")
    QApplication.instance().focusChanged.emit(None, None)  # released in another window
    assert layer.opacity == look.opacity


def test_keys_are_released_with_the_dock(mapped):
    viewer = mapped.session.viewer
    assert KeyBinding.from_str("H") in viewer.keymap
    mapped.tools.toggle_lens()
    minimap = mapped.tools.minimap
    assert minimap is not None
    mapped.shut_down()
    assert KeyBinding.from_str("H") not in viewer.keymap
    assert not minimap.isVisible()
    assert not [layer for layer in viewer.layers if LENS_KEY in layer.metadata]


def test_keys_of_the_user_stay(explore, make_napari_viewer_proxy, slide_path):
    from napari_cpnn.ui.canvas.keys import CanvasKeys

    viewer = make_napari_viewer_proxy()
    mine = viewer.bind_key("g", lambda _viewer: None) or viewer.keymap[KeyBinding.from_str("G")]
    keys = CanvasKeys(viewer, None)
    keys.stop()
    assert viewer.keymap[KeyBinding.from_str("G")] is mine


@pytest.mark.slow  # the keys do the same
def test_commands_of_the_palette_act_on_the_viewer(mapped):
    from napari_cpnn.ui.canvas import commands

    viewer, state = mapped.session.viewer, mapped.state
    commands.more_opaque(viewer)
    assert state.look.opacity == pytest.approx(0.75)
    commands.peek(viewer)
    assert overlay(mapped).opacity == 0.0
    commands.peek(viewer)
    assert overlay(mapped).opacity == pytest.approx(0.75)


# -- fading and lines ----------------------------------------------------------------------------------------


def test_the_wash_fades_to_cells_and_the_opacity_stays_the_users(mapped):
    dock, layer = mapped, overlay(mapped)
    dock.state.choose_look(opacity=0.8)
    zoom_to(dock, 5.0)
    assert layer.opacity == pytest.approx(0.8)
    zoom_to(dock, 20.0)
    assert layer.opacity == pytest.approx(0.8 * 0.6)
    assert dock.state.look.opacity == 0.8
    assert dock.look.opacity.value() == 80
    dock.look.fade.click()
    assert layer.opacity == pytest.approx(0.8)
    dock.look.fade.click()
    dock.look.fade_from.setValue(20.0)
    dock.look.fade_from.editingFinished.emit()
    assert layer.opacity == pytest.approx(0.8)


def test_the_opacity_of_napari_is_what_one_sees(mapped):
    dock, layer = mapped, overlay(mapped)
    zoom_to(dock, 20.0)
    layer.opacity = 0.3  # in napari's controls
    assert dock.state.look.opacity == pytest.approx(0.5)
    assert layer.opacity == pytest.approx(0.3)
    layer.opacity = 0.9  # more than fading leaves
    assert not dock.state.look.fade
    assert dock.state.look.opacity == layer.opacity == pytest.approx(0.9)


def test_lines_replace_the_wash(mapped, wait):
    dock, viewer = mapped, mapped.session.viewer
    layer, lines = overlay(dock), mapped.session.overlays.lines
    styles = dock.look.style_of_map
    styles.setCurrentIndex(styles.findData("contours"))
    styles.activated.emit(styles.currentIndex())
    assert layer.opacity == 0.0
    assert lines.layer in viewer.layers
    assert len(lines.layer.data) > 0
    low, high = dock.state.limits
    assert lines.levels
    assert all(low < level < high for level in lines.levels)
    assert viewer.layers.selection.active == dock.state.layer
    zoom_to(dock, 20.0)
    width = lines.layer.edge_width
    zoom_to(dock, 40.0)
    assert lines.layer.edge_width == pytest.approx(width / 2, rel=0.11)
    dock.state.choose_look(style="patches")
    shown = lines.layer.data[:, 0].round()
    assert {tuple(p) for p in shown} <= {tuple(map(float, p)) for p in np.argwhere(dock.state.map.donors() >= 0)}
    zoom_to(dock, 0.5)  # patches of 3 pixels
    assert not lines.layer.visible
    assert layer.opacity == pytest.approx(dock.state.look.opacity)
    dock.controller.show_type(dock.state.model.cell_types[0])
    dock.state.choose_look(style="contours", range_mode="manual", manual=(0.0, 1.0))
    dock.finish_drawing()
    texts = [one.text for name, one in viewer.canvas.overlays.items() if name.startswith("napari_cpnn_")]
    assert "contours at 20, 40, 60, 80 %" in texts  # as the colour bar
    dock.controller.show_dominant()
    dock.state.choose_look(style="contours")
    assert lines.layer.visible
    dock.state.choose_look(style="wash")
    assert not lines.layer.visible


def test_fading_is_a_share_for_any_zoom():
    shares = [fading(zoom, 10.0) for zoom in np.geomspace(1e-3, 1e3, 200)]
    assert max(shares) == 1.0
    assert min(shares) > 0
    assert np.all(np.diff(shares) <= 0)
    assert fading(0.0, 10.0) == 1.0
    assert magnification_text(4.0) == "40x (0.25 µm/px)"


def test_steps_go_around_and_follow_the_list():
    types, genes = ["T", "B"], ["X", "Y"]
    assert neighbour(Shown("type", ("B",)), types, genes, 1) == Shown("type", ("T",))
    assert neighbour(Shown("dominant"), types, genes, 1) == Shown("type", ("T",))
    assert neighbour(Shown("blend", ("T",)), types, genes, -1) == Shown("type", ("B",))
    assert neighbour(Shown("gene", ("X",)), types, genes, -1) == Shown("gene", ("Y",))
    assert neighbour(Shown("contribution", ("X", "T")), types, genes, 1) == Shown("contribution", ("X", "B"))
    assert neighbour(None, types, genes, 1) is None
    assert neighbour(Shown("dominant"), [], genes, 1) is None


# -- lens ----------------------------------------------------------------------------------------------------


def test_the_lens_follows_the_pointer_and_shows_the_tissue(mapped, wait):
    dock, viewer, lens = mapped, mapped.session.viewer, mapped.tools.lens_shown
    press(dock, Qt.Key.Key_G, "g")
    assert dock.tools.lens.isChecked()
    wait(lambda: lens.is_settled)
    wait(lambda: lens.layer is not None)
    assert not is_slide_layer(lens.layer)
    assert viewer.layers.selection.active == dock.state.layer
    middle = np.array([768.0, 900.0]) * 0.5
    viewer.scene.camera.center = tuple(middle)
    dock.session.read_view()
    wait(lambda: lens.is_settled)
    moved = []
    for x, y in ((200, 200), (260, 230)):
        move(dock, wait, x, y)
        at = np.asarray(viewer.cursor.position[-2:])
        pixels, n = lens.layer.data, 2 * lens.radius
        centre = np.asarray(lens.layer.data_to_world((n / 2 - 0.5, n / 2 - 0.5)))
        assert np.abs(centre - at).max() <= float(lens.layer.scale[0])
        assert pixels[0, 0, 3] == 0
        moved.append(centre)
        # H&E alone: the mean colour of the slide around the pointer.
        row, col = np.rint(at / 0.5).astype(int)
        image = np.asarray(dock.state.layer.data[0])
        assert (
            np.abs(
                pixels[n // 2 - 8 : n // 2 + 8, n // 2 - 8 : n // 2 + 8, :3].mean(axis=(0, 1))
                - image[row - 40 : row + 40, col - 40 : col + 40].mean(axis=(0, 1))
            ).max()
            < 15
        )
    assert not np.allclose(*moved)
    alone = lens.layer.data.copy()
    dock.tools.inside.setCurrentIndex(dock.tools.inside.findText("dominant type"))
    dock.tools.inside.activated.emit(dock.tools.inside.currentIndex())
    assert lens.shown == Shown("dominant")
    wait(lambda: lens.is_settled)
    assert np.abs(lens.layer.data.astype(int) - alone).mean() > 3
    dock.tools.inside.lineEdit().setText("NOSUCHGENE")
    dock.tools.inside.lineEdit().editingFinished.emit()
    assert "NOSUCHGENE" in dock.tools.note.text()
    assert lens.shown == Shown("dominant")
    dock.tools.inside.lineEdit().setText("erbb2")
    dock.tools.inside.lineEdit().editingFinished.emit()
    assert dock.tools.note.isHidden()
    assert lens.shown == Shown("gene", ("ERBB2",))
    press(dock, Qt.Key.Key_G, "g")
    assert lens.layer is None
    assert not [layer for layer in viewer.layers if LENS_KEY in layer.metadata]


@pytest.mark.slow  # the lens itself is tested above
def test_shift_and_the_wheel_change_the_lens_and_the_wheel_alone_does_not(mapped, wait):
    dock, camera, lens = mapped, mapped.session.viewer.scene.camera, mapped.tools.lens_shown
    dock.tools.lens.click()
    wait(lambda: lens.is_settled)
    radius = lens.radius

    def wheel(modifier):
        event = QWheelEvent(
            QPointF(200, 200), QPointF(canvas(dock).mapToGlobal(QPoint(200, 200))), QPoint(0, 0), QPoint(0, 120),
            Qt.MouseButton.NoButton, modifier, Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(canvas(dock), event)

    def drawn_zoom():
        """Return the zoom of the next picture: napari reads it from the canvas when it draws."""
        seen = []
        canvas(dock).frameSwapped.connect(lambda: seen.append(camera.zoom))
        canvas(dock).update()
        wait(lambda: bool(seen))
        return seen[-1]

    zoom = drawn_zoom()
    wheel(Qt.KeyboardModifier.ShiftModifier)
    assert lens.radius > radius
    assert lens.layer.data.shape == (2 * lens.radius, 2 * lens.radius, 4)
    assert drawn_zoom() == zoom
    radius = lens.radius
    wheel(Qt.KeyboardModifier.NoModifier)
    assert lens.radius == radius
    assert drawn_zoom() > 1.05 * zoom


def test_magnification_and_fading_are_in_pixels_of_the_screen(mapped, wait):
    dock, layer, lens = mapped, overlay(mapped), mapped.tools.lens_shown
    dock.state.choose_look(opacity=0.8)
    zoom_to(dock, 10.0)
    assert dock.tools.minimap.text == "10x (1 µm/px)"
    assert layer.opacity == pytest.approx(0.8)
    dock.tools.lens.click()
    wait(lambda: lens.is_settled)
    width, um = len(lens.layer.data), float(lens.layer.scale[0])
    dock.state.set_pixel_ratio(2.0)  # a high-resolution display
    assert dock.tools.minimap.text == "20x (0.5 µm/px)"
    assert layer.opacity == pytest.approx(0.8 * 0.6)
    wait(lambda: lens.is_settled)
    assert len(lens.layer.data) == pytest.approx(2 * width, abs=1)  # as large as before, but sharper
    assert float(lens.layer.scale[0]) == pytest.approx(um / 2, rel=0.01)


@pytest.mark.slow  # test_explore removes overlays, too
def test_removing_the_layer_of_the_lens_switches_it_off(mapped, wait):
    dock, lens = mapped, mapped.tools.lens_shown
    dock.tools.lens.click()
    wait(lambda: lens.layer is not None)
    dock.session.viewer.layers.remove(lens.layer)
    assert not lens.on
    assert not dock.tools.lens.isChecked()


def test_a_circle_is_cut_out_at_its_place():
    pixels = np.zeros((50, 60, 3), np.uint8)
    pixels[20, 30] = 200
    out = np.zeros((20, 20, 4), np.uint8)
    grid = LensPicture(pixels, (100.0, 200.0), 2.0).cut((100 + 2 * 20.5, 200 + 2 * 30.5), circle(20), out)
    at = np.argwhere(out[..., 0] == 200)[0]
    assert np.allclose(grid.centers_um([at]), (100 + 2 * 20.5, 200 + 2 * 30.5))
    assert circle(20).sum() / 255 == pytest.approx(np.pi * 9.5**2, rel=0.01)
    LensPicture(pixels, (100.0, 200.0), 2.0).cut((0.0, 0.0), circle(20), out)  # outside the picture
    assert out[..., 3].max() == 0


# -- overview ------------------------------------------------------------------------------------------------


def test_the_overview_shows_the_view_and_jumps(mapped, wait):
    dock, viewer = mapped, mapped.session.viewer
    viewer.reset_view()
    dock.session.read_view()
    minimap = dock.tools.minimap
    wait(lambda: minimap._pixmap is not None)
    assert not minimap.shows_picture  # all of the slide is in view
    zoom_to(dock, 20.0)
    assert minimap.text == "20x (0.5 µm/px)"
    assert minimap.shows_picture
    rect, box = minimap.view_rect(), minimap._picture_box()
    view = read_viewport(viewer, dock.state.layer, dock.state.slide.mpp).rect
    assert rect.width() / box.width() == pytest.approx(min(view.x1, 1024) / 1024 - max(view.x0, 0) / 1024, abs=0.02)
    minimap.show()
    at = QPoint(int(box.left() + 0.25 * box.width()), int(box.top() + 0.75 * box.height()))
    QTest.mouseClick(minimap, Qt.MouseButton.LeftButton, pos=at)
    assert np.allclose(viewer.scene.camera.center[-2:], (0.75 * 768, 0.25 * 1024), atol=8)
    dock.tools.overview.click()
    assert not minimap.shows_picture
    assert minimap.text


def test_there_is_no_magnification_without_a_pixel_size(explore, wait, tmp_path):
    from tests.ui.conftest import tissue_image, write_slide

    dock = explore(write_slide(tmp_path / "unknown.tif", tissue_image(), mpp=None))
    wait(lambda: dock.state.slide is not None)
    dock.session.read_view()
    assert dock.tools.minimap is None or not dock.tools.minimap.isVisibleTo(canvas(dock))
    assert not dock.tools.distance.isEnabled()
    dock.session.set_mpp(0.5)
    dock.session.read_view()
    assert dock.tools.distance.isEnabled()
    assert dock.tools.minimap.isVisibleTo(canvas(dock))


# -- measuring -----------------------------------------------------------------------------------------------


@pytest.mark.slow  # the next test compares areas with shapely
def test_distances_and_areas_follow_edits(mapped, wait):
    dock, viewer = mapped, mapped.session.viewer
    dock.tools.distance.click()
    measuring = dock.tools.measuring
    layer = measuring.layer
    assert viewer.layers.selection.active == layer
    assert str(layer.mode) == "add_line"
    layer.add([[100.0, 100.0], [130.0, 140.0]], shape_type="line")
    assert list(layer.features["size"]) == ["50 µm"]
    layer.data = [np.array([[100.0, 100.0], [160.0, 180.0]])]
    assert list(layer.features["size"]) == ["100 µm"]
    dock.tools.area.click()
    assert str(layer.mode) == "add_polygon"
    assert not dock.tools.distance.isChecked()
    layer.add([[100.0, 100.0], [100.0, 300.0], [300.0, 300.0], [300.0, 100.0]], shape_type="polygon")
    assert list(layer.features["size"]) == ["100 µm", "0.04 mm²"]
    dock.tools.area.click()
    assert str(layer.mode) == "pan_zoom"
    assert viewer.layers.selection.active == dock.state.layer
    dock.shut_down()
    assert layer in viewer.layers


@pytest.mark.parametrize("n", [3, 4, 9])
def test_areas_agree_with_shapely(n):
    points = shapely.convex_hull(shapely.multipoints(np.random.default_rng(n).uniform(0, 3000, (n, 2))))
    corners = shapely.get_coordinates(points)[:-1]
    assert size_text(corners, "polygon") == f"{points.area / 1e6:.3g} mm²"
    assert size_text(np.array([[0.0, 0], [0, 20], [10, 20], [10, 0]]), "polygon") == "200 µm²"
    circle_um = np.array([[0.0, 0], [0, 2000], [2000, 2000], [2000, 0]])
    assert size_text(circle_um, "ellipse") == "3.14 mm²"
    assert size_text(np.array([[0.0, 0], [0, 3], [4, 3]]), "path") == "7.0 µm"
