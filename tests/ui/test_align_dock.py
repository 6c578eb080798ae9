"""The Align dock in a real napari: landmarks by real clicks, a first guess, saved, applied, and taken back."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from anndata import AnnData
from napari.layers import Layer
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from scipy import sparse
from tests.ui.conftest import MPP, write_slide
from tests.ui.mouse import move_mouse, place_on_canvas

from drawn_tissue import UM, picture, similarity, spots_on, turned_picture
from napari_cpnn import Slide
from napari_cpnn.registration import fit_landmarks, load_registration, save_registration, warp_of
from napari_cpnn.spots import find_spots, move_of, read_spots
from napari_cpnn.ui.align.dock import Align
from napari_cpnn.ui.compare.dock import Compare
from napari_cpnn.ui.compare.spots_controller import SpotsController
from napari_cpnn.ui.layers import TABLE_KEY, has_table, um_to_world
from napari_cpnn.ui.layers import layers_of as read_spots_layers
from napari_cpnn.ui.layers.reader import read_slides
from napari_cpnn.ui.sessions.script import Script
from napari_cpnn.ui.viewer import ExploreState, memory_in

#: Places on the tissue of the slide (um, y and x), where the spots really lie.
TRUE = np.stack(np.meshgrid(np.arange(150, 600, 60), np.arange(150, 850, 60), indexing="ij"), axis=-1).reshape(-1, 2)


@pytest.fixture
def align(beside_explore):
    """Opens both docks: ``align(slide_path)``."""
    return partial(beside_explore, Align)


def spots_file(path, positions_px):
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(3, (len(positions_px), 6)).astype(np.int32))
    spots = AnnData(counts, layers={"counts": counts.copy()})
    spots.obs_names = [f"s{i}" for i in range(len(positions_px))]
    spots.obsm["spatial"] = np.asarray(positions_px, dtype=float)
    spots.write_h5ad(path)
    return path


@pytest.fixture
def turned_spots(tmp_path):
    """Spots in pixels of another picture, of 2 um, turned by a quarter: (y, x) became (x, 2000 - y)."""
    there = np.c_[TRUE[:, 1], 2000 - TRUE[:, 0]] / 2
    return spots_file(tmp_path / "turned.h5ad", there[:, ::-1])


@pytest.fixture
def opened(align, wait, slide_path, turned_spots):
    _, dock = align(slide_path)
    wait(lambda: dock.state.slide is not None)
    dock.open(turned_spots)
    wait(lambda: dock.controller.moving is not None and dock.controller.is_settled)
    return dock


def window(dock):
    return getattr(dock.viewer, "__wrapped__", dock.viewer).window


def click_on_slide(dock, um, qtbot):
    """A real click on napari's canvas at a place of the slide, which the mouse is led to as by hand."""
    native = window(dock)._qt_viewer.canvas.native
    world = um_to_world(dock.state.layer, dock.state.slide.mpp, np.array([um]))[0]
    at = place_on_canvas(dock.viewer, world, qtbot)
    qtbot.mouseClick(native, Qt.MouseButton.LeftButton, pos=at)


def click_in_picture(dock, um, qtbot):
    """A click on the small picture, once it keeps its size: what the dock says above it takes one line or two."""
    seen = []

    def is_still() -> bool:
        seen.append((dock.picture.place_of(tuple(um)), dock.picture.viewport().size()))
        return len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

    qtbot.waitUntil(is_still, timeout=120_000)
    qtbot.mouseClick(dock.picture.viewport(), Qt.MouseButton.LeftButton, pos=seen[-1][0])


def shown(dock, wait):
    """A window that is large enough to see the whole slide."""
    window(dock)._qt_window.resize(1500, 900)
    window(dock)._qt_window.show()
    sizes = []

    def is_still() -> bool:
        """The canvas has been large for a while: a size that is still to change would move the places."""
        sizes.append(tuple(window(dock)._qt_viewer.canvas.size))
        return len(sizes) > 5 and min(sizes[-1]) > 300 and len(set(sizes[-5:])) == 1

    wait(is_still)
    dock.viewer.scene.camera.center, dock.viewer.scene.camera.zoom = (384.0, 512.0), 0.28


def test_an_empty_dock_says_what_to_do(align, wait, slide_path):
    _, dock = align()
    assert "No slide yet" in dock.message.text()
    assert not dock.explore.isHidden()
    assert not dock.first_guess.isEnabled()
    dock.controller.guess()
    assert "nothing to align yet" in dock.told[0]
    dock.open(slide_path.parent / "nothing.h5ad")
    wait(lambda: dock.controller.is_settled)
    assert "There is no file or folder" in dock.told[1]
    assert dock.page == "align"


def test_landmarks_are_set_by_clicks_and_lead_the_spots_to_their_places(opened, qtbot, wait, tmp_path):
    dock, controller = opened, opened.controller
    shown(dock, wait)
    places = controller.spots_um()
    scale = float(np.linalg.norm(places[0] - places[-1]) / np.linalg.norm(TRUE[0] - TRUE[-1]))
    assert dock.message.text().startswith("Click a place in the small picture and the same on the slide (2 more)")
    for i in (0, 11, 80, 95):
        click_in_picture(dock, places[i], qtbot)
        assert controller.open_side == "fixed"
        assert dock.message.text() == "Now click the same place on the slide."
        click_on_slide(dock, TRUE[i], qtbot)
        assert controller.open_side == ""
    assert len(controller.complete) == 4
    screen_um = 1.0 / dock.viewer.scene.camera.zoom + 1.0 / dock.picture.transform().m11() / scale  # one pixel of each
    found = controller.found
    assert found.kind == "similarity"
    assert found.rms_um < 2 * screen_um
    assert np.linalg.norm(controller.mapped_spots_um() - TRUE, axis=1).max() < 4 * screen_um
    assert abs(abs(found.turn_deg) - 90) < 2
    assert dock.table.rowCount() == 4
    assert [dock.table.item(0, column).text() for column in (0, 1)] == ["1", f"{found.residuals_um[0]:.0f}"]
    preview = dock.on_slide.preview
    np.testing.assert_allclose(preview.data, um_to_world(dock.state.layer, (MPP, MPP), controller.mapped_spots_um()))
    assert len(dock.on_slide.marks.data) == 4
    assert dock.viewer.layers.selection.active == dock.state.layer

    # A landmark is removed with Delete, comes back with undo, and the preview follows.
    dock.table.selectRow(1)
    dock.table.setFocus()
    qtbot.keyClick(dock.table, Qt.Key.Key_Delete)
    assert len(controller.pairs) == dock.table.rowCount() == len(dock.on_slide.marks.data) == 3
    dock.undo.click()
    assert controller.found.rms_um == pytest.approx(found.rms_um)
    assert dock.table.rowCount() == 4

    # Saved, and read into another dock: the landmarks are there again.
    controller.save(tmp_path / "a.json")
    assert load_registration(tmp_path / "a.json").matrix == pytest.approx(found.matrix)
    dock.clear.click()
    assert controller.found is None
    assert dock.on_slide.marks is None
    assert dock.on_slide.preview is None
    controller.read(tmp_path / "a.json")
    assert controller.found.matrix == pytest.approx(found.matrix)
    assert dock.table.rowCount() == 4


def test_applied_spots_are_those_of_compare_until_it_is_undone(opened, wait, qtbot):
    dock, controller = opened, opened.controller
    compare = Compare(dock.viewer)
    dock.viewer.window.add_dock_widget(compare, name="Compare")
    places = controller.spots_um()
    for i in (0, 11, 80):
        controller.click("moving", places[i])
        controller.click("fixed", TRUE[i])
    dock.apply.click()
    layer = next(layer for layer in dock.viewer.layers if has_table(layer))
    wait(lambda: compare.controller.spots.table is layer.metadata[TABLE_KEY])
    np.testing.assert_allclose(layer.metadata[TABLE_KEY].obsm["spatial"] * MPP, TRUE[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(layer.data, um_to_world(dock.state.layer, (MPP, MPP), TRUE), atol=1e-6)
    assert move_of(compare.controller.spots.table).name == "a registration (similarity)"
    wait(lambda: dock.state.memory.move is not None)  # remembered with the slide, as any other move
    assert not dock.set_marks.isChecked()
    controller.click("moving", places[95])
    controller.click("fixed", TRUE[95])
    dock.apply.click()  # once refined, in place of the first
    (again,) = (layer for layer in dock.viewer.layers if has_table(layer))
    assert again is not layer
    wait(lambda: compare.controller.spots.table is again.metadata[TABLE_KEY])
    dock.undo.click()
    assert [one for one in dock.viewer.layers if has_table(one)] == [layer]
    wait(lambda: compare.controller.spots.table is layer.metadata[TABLE_KEY])
    dock.undo.click()  # the fourth landmark
    dock.undo.click()
    dock.undo.click()
    assert layer not in dock.viewer.layers
    wait(lambda: compare.controller.spots.table is None)
    compare.shut_down()


def test_a_thin_plate_bends_and_says_that_it_cannot_be_moved_on(opened, wait, turned_spots):
    dock, controller = opened, opened.controller
    dock.kinds.setCurrentIndex(dock.kinds.findData("thin-plate"))
    dock.kinds.activated.emit(dock.kinds.currentIndex())
    places = controller.spots_um()
    bent = TRUE + np.c_[np.zeros(len(TRUE)), 20 * np.sin(TRUE[:, 0] / 200)]
    for i in (0, 11, 40, 80, 95):
        controller.click("moving", places[i])
        controller.click("fixed", bent[i])
    assert controller.found.kind == "thin-plate"
    assert controller.found.left_out_rms_um > 1
    dock.apply.click()
    table = next(layer for layer in dock.viewer.layers if has_table(layer)).metadata[TABLE_KEY]
    np.testing.assert_allclose(table.obsm["spatial"][[0, 40]] * MPP, bent[[0, 40]][:, ::-1], atol=1e-6)
    assert warp_of(table).kind == "thin-plate"
    compare = Compare(dock.viewer)
    wait(lambda: compare.controller.spots.table is table and compare.controller.spots.fit is not None)
    compare.controller.spots.fix_by("1 0 5 0 1 5")
    wait(lambda: any("take that back before you move them" in said for said in dock.told))
    np.testing.assert_array_equal(compare.controller.spots.table.obsm["spatial"], table.obsm["spatial"])

    # Remembered with the slide, as a session and its script have it; and taken back by reading the file again.
    memory = memory_in(json.loads(json.dumps(dataclasses.asdict(dock.state.memory))))
    assert memory.warp
    again = SpotsController(ExploreState(), lambda work, done, failed: done(work()), pytest.fail)
    again.state.set_slide(None, dock.state.slide, memory)
    bent_again = again.moved_as_before(read_spots(turned_spots), turned_spots)
    np.testing.assert_allclose(bent_again.obsm["spatial"], table.obsm["spatial"], atol=1e-6)
    known = {"spots": read_spots(turned_spots), "slide": dock.state.slide}
    script = Script.__new__(Script)
    script.imports = set()
    lines = script._bent(controller.found)
    exec("\n".join([*(f"from {module} import {name}" for module, name in script.imports), *lines]), known)
    np.testing.assert_allclose(known["spots"].obsm["spatial"], table.obsm["spatial"], atol=1e-3)
    back = next(a for a in compare.spots.fix_menu.actions() if a.text() == "Back to the positions in the file")
    back.trigger()
    wait(lambda: compare.controller.spots.table is not table and compare.controller.spots.fit is not None)
    np.testing.assert_allclose(
        compare.controller.spots.table.obsm["spatial"], read_spots(turned_spots).obsm["spatial"], atol=1e-9
    )
    assert dock.state.memory.warp == ""
    compare.shut_down()


def test_spots_of_a_layer_are_taken_and_hidden_while_they_are_aligned(opened, wait, turned_spots):
    dock, controller = opened, opened.controller
    (data, keywords, kind), *_ = read_spots_layers(find_spots(turned_spots)[0])
    layer = dock.viewer.add_layer(Layer.create(data, keywords, kind))
    dock.choices.activated.emit(dock.choices.findText(f"layer {layer.name}"))
    wait(lambda: controller.is_settled and controller.moving.name == layer.name)
    assert controller.files == (turned_spots,)
    places = controller.spots_um()
    for i in (0, 11, 80):
        controller.click("moving", places[i])
        controller.click("fixed", TRUE[i])
    dock.apply.click()
    aligned = next(one for one in dock.viewer.layers if one.name == f"{layer.name}, aligned")
    assert not layer.visible
    assert aligned.visible
    np.testing.assert_allclose(aligned.metadata[TABLE_KEY].obsm["spatial"] * MPP, TRUE[:, ::-1], atol=1e-6)
    dock.undo.click()
    assert layer.visible
    assert aligned not in dock.viewer.layers


def test_landmarks_that_say_nothing_are_a_sentence_and_no_registration(opened):
    dock, controller = opened, opened.controller
    controller.set_kind("affine")
    for at in (200, 300, 400):
        controller.click("moving", (at, at))
        controller.click("fixed", (at, at))
    assert "lie on a line" in dock.message.text()
    assert controller.found is None
    assert not dock.save.isEnabled()
    assert not dock.apply.isEnabled()
    controller.click("moving", (200, 400))
    controller.click("fixed", (200, 400))
    assert controller.found is not None
    assert dock.message.text() == ""


def test_the_small_picture_is_moved_and_zoomed_without_setting_landmarks(opened, qtbot, wait):
    dock, view = opened, opened.picture.viewport()
    shown(dock, wait)
    um = dock.controller.spots_um()[50]
    before = dock.picture.transform().m11()
    middle = QPointF(view.rect().center())
    wheel = QWheelEvent(
        middle, view.mapToGlobal(middle), QPoint(), QPoint(0, 240), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    dock.picture.wheelEvent(wheel)
    assert dock.picture.transform().m11() > 1.2 * before
    at = dock.picture.place_of(tuple(um))
    start = view.rect().center()
    qtbot.mousePress(view, Qt.MouseButton.LeftButton, pos=start)
    move_mouse(view, start + QPoint(30, 20), Qt.MouseButton.LeftButton)
    qtbot.mouseRelease(view, Qt.MouseButton.LeftButton, pos=start + QPoint(30, 20))
    assert not dock.controller.pairs
    assert dock.picture.place_of(tuple(um)) != at
    click_in_picture(dock, um, qtbot)
    assert np.linalg.norm(np.array(dock.controller.pairs[0].moving) - um) < 2 / dock.picture.transform().m11()
    dock.set_marks.setChecked(False)
    click_in_picture(dock, um + 10, qtbot)
    assert len(dock.controller.pairs) == 1


def test_another_slide_is_guessed_and_laid_over_this_one(align, wait, tmp_path):
    first = write_slide(tmp_path / "first.tif", picture(0), UM)
    other, truth = turned_picture(picture(0), similarity(-140, mirror=False), (UM, UM))
    _, dock = align(first)
    wait(lambda: dock.state.slide is not None)
    second = write_slide(tmp_path / "second.tif", np.asarray(other.levels[0]), UM)
    (data, keywords, _), *_ = read_slides(str(second))
    dock.viewer.add_image(data, **keywords)  # Explore shows the newest slide
    wait(lambda: dock.state.slide is not None and dock.state.slide.name == "second")
    row = dock.choices.findText("layer first")
    assert row > 0
    assert dock.choices.findText("layer second") < 0
    dock.choices.activated.emit(row)
    wait(lambda: dock.controller.moving is not None and dock.controller.is_settled)
    dock.first_guess.click()
    wait(lambda: dock.controller.is_settled)
    found = dock.controller.found
    assert found.trusted
    assert dock.text.text().startswith("turned +140.")
    assert dock.apply.isHidden()
    # The preview lies where the registration says: compare a place of its picture in the world.
    preview = dock.on_slide.preview
    size = np.array(picture(0).shape[:2]) * UM / np.array(preview.data.shape[:2])
    um = (np.array([200.0, 300.0]) + 0.5) * size
    expected = um_to_world(dock.state.layer, (UM, UM), found.map(um[None]))[0]
    np.testing.assert_allclose(preview.data_to_world((200, 300)), expected, atol=1e-6)
    there = found.map(um[None])[0]
    assert np.linalg.norm(truth[:, :2] @ there + truth[:, 2] - um) < 4 * UM


def test_a_guess_that_is_not_to_be_believed_says_so(align, wait, tmp_path):
    first = write_slide(tmp_path / "round.tif", picture(1, lambda _: 0.8), UM)
    _, dock = align(first)
    wait(lambda: dock.state.slide is not None)
    slide = Slide.from_arrays([picture(1, lambda _: 0.8)], UM)
    dock.open(spots_file(tmp_path / "round.h5ad", spots_on(slide)))
    wait(lambda: dock.controller.moving is not None and dock.controller.is_settled)
    dock.first_guess.click()
    wait(lambda: dock.controller.is_settled)
    assert "Not to be believed without a look: Turned or mirrored otherwise" in dock.text.text()
    dock.undo.click()
    assert dock.controller.found is None


def test_files_of_other_slides_are_refused(opened, tmp_path):
    other = fit_landmarks([(0, 0), (0, 100)], [(0, 0), (0, 100)], mpp=((1.0, 1.0), (0.9, 0.9)))
    opened.controller.read(save_registration(other, tmp_path / "other.json"))
    assert "but section has" in opened.told[0]
    (tmp_path / "bad.json").write_text("{}")
    opened.controller.read(tmp_path / "bad.json")
    assert "is not a registration" in opened.told[1]
    assert opened.controller.suggested_file.endswith("turned.registration.json")


def test_a_file_of_two_mirrored_landmarks_stays_mirrored(opened, tmp_path):
    """Two landmarks do not tell it, so what was chosen must come back with them; and pixels of another size, too."""
    controller = opened.controller
    mpps = ((0.5, 0.5), opened.state.slide.mpp)
    kept = fit_landmarks([(0, 0), (0, 100)], [(10, 20), (10, 220)], mirror=True, mpp=mpps)
    controller.read(save_registration(kept, tmp_path / "kept.json"))
    assert controller.found.mirrored
    spatial = controller.moving.spots.obsm["spatial"]
    places_px = controller.mapped_spots_um()[:, ::-1] / np.array(opened.state.slide.mpp)[::-1]
    np.testing.assert_allclose(places_px, kept.map_px(spatial), atol=1e-6)
    opened.undo.click()
    assert controller.pairs == ()


def test_what_was_read_or_guessed_comes_back_after_clear(opened, tmp_path):
    controller = opened.controller
    found = fit_landmarks([(0, 0), (0, 100)], [(10, 20), (10, 220)], mpp=((2.0, 2.0), opened.state.slide.mpp))
    none = np.empty((0, 2))
    guess = dataclasses.replace(found, moving=none, fixed=none, left_out_um=np.empty(0))
    controller.read(save_registration(guess, tmp_path / "guess.json"))
    assert controller.found is not None
    spatial = controller.moving.spots.obsm["spatial"]
    places_px = controller.mapped_spots_um()[:, ::-1] / np.array(opened.state.slide.mpp)[::-1]
    np.testing.assert_allclose(places_px, guess.map_px(spatial), atol=1e-6)
    opened.clear.click()
    assert controller.found is None
    opened.undo.click()
    np.testing.assert_allclose(controller.found.map_px(spatial), guess.map_px(spatial), atol=1e-6)


def test_a_guess_for_another_slide_is_dropped(opened, monkeypatch):
    """The slide is changed while the guess is under way; what comes then is of the former one."""
    controller, given = opened.controller, []
    monkeypatch.setattr(controller.tasks, "_background", lambda work, done, failed: given.append(done))
    controller.guess()
    assert not controller.is_settled
    controller.state.slide_changed.emit()
    given[0](fit_landmarks([(0, 0), (0, 100)], [(10, 20), (10, 220)]))
    assert controller.found is None
    assert controller.is_settled


def test_a_registration_is_not_written_over_the_spots(opened, turned_spots):
    controller, before = opened.controller, turned_spots.read_bytes()
    for at in ((0.0, 0.0), (0.0, 500.0)):
        controller.click("moving", at)
        controller.click("fixed", at)
    assert controller.found is not None
    controller.save(turned_spots)
    assert "is read by the same task" in opened.told[0]
    assert turned_spots.read_bytes() == before


def test_landmarks_that_lead_far_beyond_the_slide_are_refused(opened):
    """A click beside the slide, and pairs that are close together in one picture only."""
    controller = opened.controller
    controller.click("moving", (0.0, 0.0))
    controller.click("fixed", (1e9, 5.0))
    assert controller.open_side == "fixed"
    assert opened.message.text() == "That place is beside the slide; click where the slide is."
    controller.click("fixed", (100.0, 100.0))
    controller.click("moving", (0.0, 0.001))
    controller.click("fixed", (100.0, 700.0))
    assert controller.found is None
    assert "times as large as the slide; check the pairs" in opened.message.text()
    assert opened.on_slide.preview is None
    opened.undo.click()
    assert controller.open_side == "fixed"
