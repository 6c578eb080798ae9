"""Major and minor types in the window: the tree, the level, and what follows it; the gene box; percent everywhere."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QFocusEvent
from qtpy.QtWidgets import QApplication, QLineEdit, QVBoxLayout, QWidget
from tests.ui.conftest import TYPES

from napari_cpnn.painting import Look, auto_range
from napari_cpnn.ui.explore.cell_type_list import CellTypeList
from napari_cpnn.ui.explore.overlays import Overlay
from napari_cpnn.ui.frame import GeneBox
from napari_cpnn.ui.viewer import Shown, TypeRow

HIERARCHY = {"Epithelial": "Epithelium", "Stroma": "Microenvironment", "Immune": "Microenvironment"}
ROWS = [
    TypeRow("T-cells", "#56B4E9", 0.6, (TypeRow("CD8", "#2080A0", 0.4), TypeRow("CD4", "#2060A0", 0.2))),
    TypeRow("CAFs", "#009E73", 0.4),
]


@pytest.fixture
def tree(qtbot):
    types = CellTypeList()
    qtbot.addWidget(types)
    types.set_rows(ROWS)
    types.chosen_rows = []
    types.chosen.connect(lambda name: types.chosen_rows.append((name, types.selected_level())))
    return types


def test_major_types_come_first_and_open_to_minor_types(tree, qtbot):
    view, model = tree.view, tree.view.model()
    top = model.index(0, 0)
    assert [model.index(i, 0).data() for i in range(model.rowCount())] == ["T-cells", "CAFs"]
    assert model.index(0, 1).data() == "60 %"
    assert not view.isExpanded(top)
    tree.select("T-cells")
    before = tree.maximumHeight()
    qtbot.keyClick(view, Qt.Key.Key_Right)
    assert view.isExpanded(top)
    assert tree.maximumHeight() > before
    assert [model.index(k, 0, top).data() for k in range(2)] == ["CD8", "CD4"]
    qtbot.keyClick(view, Qt.Key.Key_Down)
    assert tree.chosen_rows == [("CD8", "minor")]
    view.clicked.emit(model.index(1, 1))
    assert tree.chosen_rows[-1] == ("CAFs", "major")
    tree.set_rows([TypeRow("T-cells", "#56B4E9", 0.5, ROWS[0].parts), ROWS[1]])
    assert view.isExpanded(model.index(0, 0))  # new shares close nothing
    assert tree.selected() == "CAFs"


def test_a_list_is_told_of_changes_only(tree, qtbot):
    tree.set_rows(copy.deepcopy(ROWS))
    with qtbot.assertNotEmitted(tree.model.dataChanged):
        tree.set_rows(copy.deepcopy(ROWS))
    with qtbot.waitSignal(tree.model.dataChanged):
        tree.set_faded(True)
    with qtbot.waitSignal(tree.model.dataChanged):
        tree.set_rows([ROWS[0], TypeRow("CAFs", "#009E73", 0.3)])


def test_search_finds_a_minor_type(tree, qtbot):
    qtbot.keyClicks(tree.search, "cd4")
    model = tree.view.model()
    assert model.rowCount() == 1
    assert model.rowCount(model.index(0, 0)) == 1
    qtbot.keyClick(tree.search, Qt.Key.Key_Return)
    assert tree.chosen_rows == [("CD4", "minor")]


def test_checked_types_have_the_level_of_all(tree):
    tree.check(["T-cells", "CAFs"])
    assert (tree.checked(), tree.checked_level()) == (["T-cells", "CAFs"], "major")
    tree.check(["CAFs", "CD4"])
    assert (tree.checked(), tree.checked_level()) == (["CD4", "CAFs"], "minor")
    n = len({name for row in tree.model.rows for name in (row.name, *(part.name for part in row.parts))})
    assert tree.n_checked.text() == f"2 of {n} checked"
    tree.check([])
    assert tree.n_checked.isHidden()


@pytest.fixture
def dock(explore, wait, slide_path, model):
    dock = explore(slide_path)
    other = copy.copy(model)
    other.provenance = dict(model.provenance)
    other.set_hierarchy(HIERARCHY)
    dock.controller.use_model(other)
    wait(lambda: dock.state.map is not None)
    dock.session.read_view()
    wait(dock.is_settled)
    dock.finish_drawing()
    return dock


def test_major_types_are_shown_first_and_all_follows_the_level(dock, qtbot):
    state, cmap = dock.state, dock.state.map
    assert state.shown == Shown("dominant", level="major")
    assert not dock.level.isHidden()
    rows = {row.name: row for row in dock.controller.type_rows()}
    assert set(rows) == {"Epithelium", "Microenvironment"}
    parts = rows["Microenvironment"].parts
    assert rows["Microenvironment"].share == pytest.approx(sum(part.share for part in parts))
    assert rows["Microenvironment"].share == pytest.approx(1 - rows["Epithelium"].share, abs=1e-3)
    assert {row.name for row in dock.controller.legend_rows()} <= set(rows)
    dock.level.setCurrentIndex(1)
    dock.level.activated.emit(1)
    assert state.shown == Shown("dominant", level="minor")
    assert {row.name for row in dock.controller.legend_rows()} <= set(TYPES)
    dock.controller.show_type("Microenvironment", "major")
    dock.session.overlays.paint_now()
    shown = dock.session.overlays.layer_of("type").data[..., 3].max()
    assert shown > 0
    assert cmap.weight("Microenvironment", "major")[cmap.tissue] == pytest.approx(
        cmap.weight("Stroma")[cmap.tissue] + cmap.weight("Immune")[cmap.tissue], abs=1e-6
    )


def test_a_flat_model_has_no_level_to_choose(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    assert dock.level.isHidden()
    assert dock.state.shown == Shown("dominant")
    assert not dock.types.view.rootIsDecorated()


def test_shares_are_in_percent_on_the_canvas_and_in_the_dock(dock):
    dock.controller.show_type("Stroma")
    dock.finish_drawing()
    layer = dock.session.overlays.layer_of("type")
    low, high = dock.state.limits
    assert high <= 1
    assert tuple(layer.contrast_limits) == pytest.approx((100 * low, 100 * high))
    assert layer.name.endswith("(%)")
    rgb = layer.data[..., :3][layer.data[..., 3] > 0] / layer.contrast_limits[1]
    assert rgb.min() > -1e-4
    assert rgb.max() < 1 + 1e-4
    layer.contrast_limits = (10.0, 50.0)  # napari's own slider
    assert dock.state.look.manual == pytest.approx((0.1, 0.5))
    assert (dock.look.low.value(), dock.look.high.value()) == pytest.approx((10, 50))
    assert dock.look.low.suffix() == " %"
    dock.look.high.setValue(40)
    dock.look.high.editingFinished.emit()
    assert dock.state.look.manual == pytest.approx((0.1, 0.4))


def test_what_is_typed_and_what_is_shown_never_disagree(dock, qtbot):
    dock.show()
    dock.controller.show_gene("ERBB2")
    assert dock.gene.text() == "ERBB2"
    dock.controller.show_type("Stroma")
    assert dock.gene.text() == ""
    dock.controller.show_gene("EPCAM")
    dock.gene.selectAll()
    qtbot.keyClicks(dock.gene, "zzz")
    assert dock.gene.text() == "zzz"
    reasons = (Qt.FocusReason.PopupFocusReason, Qt.FocusReason.TabFocusReason)
    leave = [QFocusEvent(QEvent.Type.FocusOut, reason) for reason in reasons]
    QApplication.sendEvent(dock.gene, leave[0])  # to the list of names
    assert dock.gene.text() == "zzz"
    QApplication.sendEvent(dock.gene, leave[1])
    assert dock.gene.text() == "EPCAM"
    dock.controller.show_dominant()
    assert dock.gene.text() == ""


def test_leaving_the_box_with_its_list_open_shows_the_gene_of_the_map(qtbot):
    window, box, other = QWidget(), GeneBox(), QLineEdit()
    layout = QVBoxLayout(window)
    layout.addWidget(box)
    layout.addWidget(other)
    qtbot.addWidget(window)
    box.set_genes(["ERBB2", "EPCAM"])
    box.show_gene("EPCAM")
    with qtbot.waitActive(window):
        window.show()
        window.activateWindow()
    box.setFocus()
    box.selectAll()
    qtbot.keyClicks(box, "her2")  # a synonym on offer
    popup = box.completer().popup()
    qtbot.waitUntil(popup.isVisible, timeout=120_000)
    qtbot.keyClick(popup, Qt.Key.Key_Tab)
    qtbot.waitUntil(other.hasFocus, timeout=120_000)
    assert box.text() == "EPCAM"


#: Each way a map can be drawn.
STYLES = [
    Shown("dominant"), Shown("dominant", level="major"), Shown("blend", ("Stroma", "Immune")),
    Shown("type", ("Stroma",)), Shown("gene", ("ERBB2",)),
    Shown("contribution", ("ERBB2", "Stroma")),
]  # fmt: skip


def test_no_style_bleeds_past_the_tissue_on_the_canvas_or_in_a_figure(dock):
    from napari_cpnn.export.figure import Scene
    from napari_cpnn.settings import FigureSettings

    cmap, slide = dock.state.map, dock.state.slide
    mask = cmap.tissue_mask
    scene = Scene(cmap, slide, None)
    scene.rect = scene.rect.grown(40.0)
    picture = scene.tissue((160, 240))

    def off_tissue(shape, rect):
        """Places (rows, cols) off the tissue, by a loop over the mask in um."""
        y = rect[0] + (np.arange(shape[0]) + 0.5) * (rect[2] - rect[0]) / shape[0]
        x = rect[1] + (np.arange(shape[1]) + 0.5) * (rect[3] - rect[1]) / shape[1]
        row, col = (y / mask.um_per_px[0]).astype(int), (x / mask.um_per_px[1]).astype(int)
        inside = (row[:, None] >= 0) & (row[:, None] < mask.mask.shape[0]) & (col >= 0) & (col < mask.mask.shape[1])
        found = mask.mask[row.clip(0, mask.mask.shape[0] - 1)[:, None], col.clip(0, mask.mask.shape[1] - 1)]
        return ~(found & inside)

    for shown in STYLES:
        for smooth in (True, False):
            look = Look(smooth=smooth, unlike="shown", range_mode="manual", manual=(-5.0, -4.0))  # all at full strength
            overlay = Overlay(shown, cmap, slide)
            overlay.paint(look, at_rest=True)
            alpha = overlay.layer.data[..., 3]
            o, g = cmap.grid.origin_um, cmap.grid
            extent = (o[0], o[1], o[0] + g.shape[0] * g.stride_um, o[1] + g.shape[1] * g.stride_um)
            assert (alpha[off_tissue(alpha.shape, extent)] <= 0).all(), (shown, smooth)
            assert (alpha > 0.1).any(), (shown, smooth)
            settings = FigureSettings(smooth=smooth, unlike="shown")
            drawn = scene.panel(shown, picture, settings).picture
            rect = (scene.rect.y0, scene.rect.x0, scene.rect.y1, scene.rect.x1)
            outside = off_tissue(picture.shape[:2], rect)
            assert (drawn[outside] == picture[outside]).all(), (shown, smooth)
            assert (drawn != picture).any(), (shown, smooth)
    assert auto_range(STYLES[3]).limits[0] == 0
