"""The Prototypes dock in a real napari, over real single cells of a breast cancer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QFileDialog, QLabel

import napari_cpnn as nc
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.ui.frame.guide import GuidePage
from napari_cpnn.ui.prototypes.dock import PrototypesDock
from napari_cpnn.ui.prototypes.options import WORDS


@pytest.fixture
def open_dock(make_napari_viewer_proxy, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    docks = []

    def open_it() -> PrototypesDock:
        viewer = make_napari_viewer_proxy()
        dock = PrototypesDock(viewer)
        dock.told = []
        monkeypatch.setattr("napari_cpnn.ui.frame.dock.warn", dock.told.append)
        viewer.window.add_dock_widget(dock, name="Prototypes")
        docks.append(dock)
        return dock

    yield open_it
    for dock in docks:
        dock.shut_down()


@pytest.fixture(scope="module")
def breast(shared_data) -> Path:
    """1,564 cells, 29,733 genes."""
    return shared_data / "derived" / "wu2021_CID4465_counts.h5ad"


def drop(dock, *paths):
    dropped = QMimeData()
    dropped.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    action, button, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    dock.dropEvent(QDropEvent(QPointF(5, 5), action, dropped, button, none))


def rows(table) -> list[list[str]]:
    columns = [j for j in range(table.columnCount()) if not table.isColumnHidden(j)]
    return [[table.item(i, j).text() for j in columns] for i in range(table.rowCount())]


def plain(label) -> str:
    """Without the places at which a long name may wrap."""
    return label.text().replace("\u200b", "")


def choose(combo, name):
    combo.setCurrentIndex(next(i for i in range(combo.count()) if combo.itemData(i) == name))
    combo.activated.emit(combo.currentIndex())


def answer(monkeypatch, path):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_args: (str(path), ""))


def test_from_cells_to_markers_to_a_file_for_fine_tuning(open_dock, breast, wait, tmp_path, monkeypatch):
    dock = open_dock()
    controller = dock.controller
    assert "Choose single cells" in dock.message.text()
    assert not dock.run.isEnabled()
    assert dock.result.isHidden()
    drop(dock, breast)
    wait(lambda: controller.reference is not None)
    assert plain(dock.source_text) == "wu2021_CID4465_counts.h5ad: 1,564 cells, 29,733 genes"
    assert dock.columns.cell_type.currentData() == "celltype_major"
    assert dock.columns.cell_type.currentText().startswith("celltype_major (9): CAFs 379, PVL 317")
    assert ["B-cells", "33"] in rows(dock.preview)
    choose(dock.columns.cell_type, "celltype_minor")
    assert ["NK cells", "⚠ 2"] in rows(dock.preview)
    choose(dock.columns.cell_type, "celltype_major")
    choose(dock.columns.batch, "Sample")
    assert dock.settings.form.editors["min_cells"].text() == "none"
    assert dock.use_hint.isHidden()
    assert controller.change("min_cells", 200)
    assert dock.hint.text() == "1,564 cells are few: with 200 cells that must have a gene, many genes are left out."
    assert dock.use_hint.text() == "Use 5"
    dock.use_hint.click()
    assert dock.use_hint.isHidden()
    assert dock.settings.form.editors["min_cells"].text() == "5"
    dock.undo.click()
    assert controller.settings.min_cells is None  # both changes of the setting at once
    assert dock.use_hint.isHidden()

    dock.run.click()
    assert dock.cancel.isEnabled()
    assert not dock.run.isEnabled()
    assert not dock.bar.isHidden()
    wait(lambda: controller.result is not None)
    expected = nc.estimate_prototypes(nc.read_cells(breast), "celltype_major", "Sample", controller.settings)
    assert not dock.result.isHidden()
    assert dock.preview.isHidden()
    assert dock.bar.isHidden()
    assert dock.summary.text().startswith("9 cell types, 12,297 genes, 1,564 cells; negative binomial regression, ")
    assert "4,583 genes in fewer than 5 of these cells" in dock.notes.text()
    assert [line[:2] for line in rows(dock.types)][:2] == [["B-cells", "33"], ["CAFs", "379"]]
    # Markers of a type that is clicked, and the values of a gene.
    dock.types.selectRow(8)
    assert dock.of_type.text() == "Markers of T-cells"
    best = expected.markers(3).query("cell_type == 'T-cells'")["gene"]
    assert [line[0] for line in rows(dock.markers)][:3] == list(best)
    dock.markers.selectRow(0)
    assert dock.gene.text() == best.iloc[0]
    dock.gene.setText("col1a1")
    dock.gene.returnPressed.emit()
    assert dock.gene.text() == "COL1A1"
    dock.types.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    level = 1e4 * expected.to_frame()["COL1A1"]
    assert [line[0] for line in rows(dock.types)] == list(level.sort_values(ascending=False).index)
    assert rows(dock.types)[0] == ["CAFs", "379", f"{level['CAFs']:.0f}"]
    dock.gene.setText("nothing")
    dock.gene.returnPressed.emit()
    assert "no gene nothing" in dock.gene_note.text()

    dock.tabs.setCurrentIndex(1)
    heat = dock.heat_map.heat_model
    assert heat.rowCount() == 9 * 3 + 1
    assert heat.headerData(0, Qt.Orientation.Vertical) == "COL1A1"
    dock.n_shown.setValue(2)
    assert heat.rowCount() == 9 * 2 + 1
    row = [heat.headerData(i, Qt.Orientation.Vertical) for i in range(heat.rowCount())].index("LYZ")
    dock.heat_map.clicked.emit(heat.index(row, 4))
    assert (controller.selected, controller.gene) == ("Myeloid", "LYZ")
    value = 1e4 * expected.to_frame().loc["Myeloid", "LYZ"]
    row = [heat.headerData(i, Qt.Orientation.Vertical) for i in range(heat.rowCount())].index("LYZ")
    tip = heat.data(heat.index(row, 4), Qt.ItemDataRole.ToolTipRole)
    assert tip == f"LYZ in Myeloid: {value:.0f} counts per 10,000"

    # Saved on the way to the Fine-tune dock, which is opened.
    opened, wanted = [], []
    monkeypatch.setattr(dock, "open_fine_tune", lambda: opened.append("Fine-tune"))
    dock.state.reference_wanted.connect(wanted.append)
    answer(monkeypatch, tmp_path / "p.h5ad")
    dock.fine_tune.click()
    wait(lambda: len(wanted) == 1)
    assert wanted == [tmp_path / "p.h5ad"]
    assert opened == ["Fine-tune"]
    saved = nc.Prototypes.load(tmp_path / "p.h5ad")
    np.testing.assert_array_equal(saved.profiles, expected.profiles)
    assert saved.provenance == expected.provenance
    assert plain(dock.summary).endswith("p.h5ad.")
    answer(monkeypatch, tmp_path / "m.csv")
    dock.save_markers.click()
    answer(monkeypatch, tmp_path / "f.svg")
    dock.save_figure.click()
    wait(lambda: (tmp_path / "f.svg").is_file() and (tmp_path / "m.csv").is_file())
    assert len(pd.read_csv(tmp_path / "m.csv")) == len(controller.result.markers)
    assert dock.told == []


def test_cancel_and_bad_files_leave_a_dock_that_works(open_dock, breast, wait, tmp_path):
    dock = open_dock()
    controller = dock.controller
    controller.open(breast)
    wait(lambda: controller.reference is not None)
    choose(dock.columns.cell_type, "celltype_minor")
    for name, value in {"method": "nb", "min_cells": 5, "device": "cpu"}.items():
        assert controller.change(name, value)
    dock.run.click()
    wait(lambda: controller.progress()[1] > 0.3)  # in the regression
    dock._show_progress()
    assert "Negative binomial regression" in dock.run_text.text()
    assert dock.bar.value() > 300
    dock.cancel.click()
    assert dock.run.isEnabled()
    assert dock.bar.isHidden()
    assert dock.result.isHidden()
    dock.background._pool.shutdown(wait=True)  # ends at once: nothing goes on behind the dock
    assert controller.result is None
    again = open_dock()
    (tmp_path / "bad.h5ad").write_bytes(b"no")
    drop(again, tmp_path / "bad.h5ad")
    wait(lambda: len(again.told) == 1)
    assert plain(again.message) == again.told[0]
    assert "cannot be read" in again.told[0]
    field = again.settings.form.editors["min_cells"]
    field.setText("few")
    field.setModified(True)
    field.editingFinished.emit()
    assert again.message.text() == "Cells that must have a gene cannot be few."
    assert field.text() == "none"
    drop(again, breast)
    wait(lambda: again.controller.reference is not None)
    assert again.controller.change("min_cells", 200)
    again.run.click()
    wait(lambda: again.controller.result is not None)
    assert "Most genes are left out" in again.notes.text()
    again.undo.click()
    assert again.result.isHidden()


@pytest.mark.slow  # the controller's test measures the names
def test_thirty_types_fit_and_no_name_is_cut(open_dock, wait, tmp_path, qtbot):
    rng = np.random.default_rng(0)
    names = tuple(f"Endothelial LYVE{i}" for i in range(30))
    profiles = rng.dirichlet(np.full(400, 0.2), 30)
    protos = nc.Prototypes(profiles, names, tuple(f"GENE{i}" for i in range(400)), np.arange(30) + 5)
    protos.save(tmp_path / "p.h5ad")
    dock = open_dock()
    dock.resize(380, 700)
    dock.controller.open(tmp_path / "p.h5ad")
    wait(lambda: dock.controller.result is not None)
    dock.tabs.setCurrentIndex(1)
    dock.n_shown.setValue(5)
    view = dock.heat_map
    assert view.heat_model.rowCount() == 150
    longest = max(view.names.fontMetrics().horizontalAdvance(name) for name in names)
    assert view.names.sizeHint().height() >= min(longest, 120)
    qtbot.waitUntil(lambda: view.viewport().width() > 100, timeout=120_000)
    assert view.names.defaultSectionSize() >= 8
    assert dock.notes.isHidden()
    assert rows(dock.types)[0][1:] == ["5", "–"]
    # What is painted: the shade of each cell in sight, and names beside and above them.
    picture = view.grab().toImage()
    heat = view.heat_model
    for row, column in ((1, 0), (1, 5), (7, 2)):
        at = view.viewport().mapTo(view, view.visualRect(heat.index(row, column)).center())
        assert picture.pixelColor(at).name() == heat.color(heat.index(row, column)).name()
    assert heat.color(heat.index(1, 0)).name() == "#fde725"  # a marker of the first type
    for head in (view.names, view.verticalHeader()):
        colors = {head.grab().toImage().pixelColor(x, y).name() for x in range(0, 60, 2) for y in range(0, 60, 2)}
        assert len(colors) > 3
    dock.controller.select_type(names[10])
    assert view.names.selected == names[10]
    first = view.rowAt(1)
    assert heat.heat.marked[first] == dock.controller.selected
    dock.controller.show_gene(next(gene for gene in protos.genes if gene not in heat.heat.genes))
    assert heat.rowCount() == 151  # a row on top, in sight
    assert view.rowAt(1) == 0
    # A click on a marker chooses what lies under the pointer, and no row moves there.
    chosen, at = heat.heat.genes[3], view.visualRect(heat.index(3, 2)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=at)
    assert (dock.controller.gene, dock.controller.selected) == (chosen, names[2])
    assert heat.heat.genes[view.rowAt(at.y())] == chosen
    dock.controller.show_gene("")  # the row on top goes when it is no longer wanted
    assert heat.rowCount() == 150


def test_help_opens_its_page(open_dock):
    dock = open_dock()
    dock.help.click()
    page = dock.findChild(GuidePage)
    assert page is not None
    assert "marker" in page.toPlainText()


def test_closing_ends_an_estimate(open_dock, breast, wait):
    dock = open_dock()
    dock.controller.open(breast)
    wait(lambda: dock.controller.reference is not None)
    dock.controller.change("method", "nb")
    dock.run.click()
    dock.shut_down()
    assert dock.controller._stop.is_set()
    dock.background._pool.shutdown(wait=True)


def test_every_setting_has_plain_words_and_changes_are_marked(open_dock, qtbot):
    named = [*WORDS.short, *(name for _, words in WORDS.groups for name in words)]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(PrototypeSettings))
    box = open_dock().settings
    dock = box.window().findChild(PrototypesDock)
    labels = [label.text() for label in box.findChildren(QLabel)]
    assert not [text for text in labels if text in named or "_" in text]
    qtbot.mouseClick(box.more, Qt.MouseButton.LeftButton)
    fold = next(one for one in box.folds if one.title == "Cells and types")
    qtbot.mouseClick(fold.heading, Qt.MouseButton.LeftButton)
    field = box.editors["max_mito"]
    assert "(option max_mito)" in field.toolTip()
    field.clear()
    qtbot.keyClicks(field, "0.2")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert dock.controller.settings.max_mito == 0.2
    assert fold.heading.text() == "Cells and types  • 1 changed"
    assert box.more.text() == "More ... (1 changed)"
    qtbot.mouseClick(box.defaults, Qt.MouseButton.LeftButton)
    assert dock.controller.settings == PrototypeSettings()
    assert not box.defaults.isEnabled()
    dock.state.history.undo()
    assert dock.controller.settings.max_mito == 0.2
