"""The export dialog in a real viewer."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt

from napari_cpnn.ui.export.button import ExportButton
from napari_cpnn.ui.export.controller import KINDS
from napari_cpnn.ui.export.names_edit import NamesEdit

BY_KEY = {kind.key: i for i, kind in enumerate(KINDS)}


@pytest.fixture
def dock(explore, wait, slide_path, model_path):
    dock = explore(slide_path, show=True)
    dock.open_model(model_path)
    wait(lambda: dock.state.mapper is not None)
    wait(dock.is_settled)
    return dock


@pytest.fixture
def dialog(dock, qtbot):
    button = ExportButton(dock.viewer, dock.background)
    qtbot.addWidget(button)
    button.click()
    yield button.dialog
    button.end()


def said(dialog) -> str:
    """The message without the places where a long path may be broken."""
    return dialog.message.text().replace("\u200b", "")


def test_a_figure_of_the_view_and_a_table_of_a_region(dock, dialog, wait, tmp_path):
    assert dialog.isVisible()
    dialog.path.setText(str(tmp_path / "fig.svg"))
    dialog.area.setCurrentText("the present view")
    dialog.figure_width.setCurrentIndex(1)
    dialog.start.click()
    wait(lambda: not dialog.controller.running)
    assert said(dialog).startswith(f"Written: {tmp_path / 'fig.svg'} (1 panel")
    text = (tmp_path / "fig.svg").read_text()
    assert "research use only" in text
    assert float(re.search(r'width="([\d.]+)pt"', text).group(1)) == pytest.approx(88 / 25.4 * 72, abs=1)
    assert dialog.folder.isVisible()
    # A region that is drawn on any layer of shapes can be chosen by its name.
    square = np.array([[200.0, 200.0], [200.0, 500.0], [500.0, 500.0], [500.0, 200.0]])
    layer = dock.viewer.add_shapes([square], shape_type="polygon", features={"name": ["Tumour"]})
    layer.units = dock.state.layer.units
    dialog.refresh()
    dialog.kind.setCurrentIndex(BY_KEY["csv"])
    assert dialog.path.text() == str(tmp_path / "fig.csv")
    dialog.area.setCurrentText("region Tumour")
    dialog.start.click()
    wait(lambda: not dialog.controller.running)
    table = pd.read_csv(tmp_path / "fig.csv")
    assert len(table) > 0
    assert table.x_um.between(200, 500).all()
    assert table.y_um.between(200, 500).all()


def test_mistakes_are_said_and_files_are_asked_about(dialog, wait, tmp_path, monkeypatch):
    dialog.kind.setCurrentIndex(BY_KEY["csv"])
    dialog.path.setText(str(tmp_path / "no" / "a.csv"))
    dialog.start.click()
    wait(lambda: not dialog.controller.running)
    assert "does not exist" in said(dialog)
    (tmp_path / "a.csv").write_text("mine")
    dialog.path.setText(str(tmp_path / "a.csv"))
    monkeypatch.setattr(dialog, "_may_replace", lambda _path: False)
    dialog.start.click()
    assert (tmp_path / "a.csv").read_text() == "mine"
    monkeypatch.setattr(dialog, "_may_replace", lambda _path: True)
    dialog.start.click()
    wait(lambda: not dialog.controller.running)
    assert said(dialog).startswith("Written:")
    assert (tmp_path / "a.csv").read_text() != "mine"


def test_without_a_map_it_says_so_and_asks_for_what_each_kind_needs(explore, qtbot):
    dock = explore(show=True)
    button = ExportButton(dock.viewer, dock.background)
    qtbot.addWidget(button)
    button.click()
    dialog = button.dialog
    assert "no map yet" in said(dialog)
    assert not dialog.start.isEnabled()
    dialog.kind.setCurrentIndex(BY_KEY["figure"])
    assert not dialog.names.isVisible()
    assert dialog.dpi.isVisible()
    dialog.genes.setCurrentIndex(dialog.genes.findData("some"))
    assert dialog.names.isVisible()
    dialog.kind.setCurrentIndex(BY_KEY["csv"])
    assert not dialog.dpi.isVisible()
    assert dialog.genes.currentData() == "some"  # what makes sense for both stays
    dialog.kind.setCurrentIndex(BY_KEY["map"])
    assert not dialog.genes.isEnabled()
    button.end()


def test_genes_are_chosen_by_a_score_or_a_file_and_the_amount_is_said(dock, dialog, wait, qtbot, tmp_path):
    dialog.kind.setCurrentIndex(BY_KEY["anndata"])
    dialog.genes.setCurrentIndex(dialog.genes.findData("all"))
    assert dialog.amount.text().startswith("5 genes, ")
    assert "about" in dialog.amount.text()
    dialog.genes.setCurrentIndex(dialog.genes.findData("above"))
    assert dialog.least_pcc.isVisible()
    assert not dialog.names.isVisible()
    assert dialog.amount.text().startswith("1 of 5 genes, ")  # ERBB2, 0.41
    dialog.least_pcc.setFocus()
    dialog.least_pcc.selectAll()
    qtbot.keyClicks(dialog.least_pcc, "0.5\r")
    wait(lambda: dialog.amount.text() == "No gene has a held-out PCC of 0.5 or more; the best has 0.41.")
    dialog.genes.setCurrentIndex(dialog.genes.findData("some"))
    assert not dialog.least_pcc.isVisible()
    assert dialog.names_file.isVisible()
    (tmp_path / "genes.txt").write_text("erbb2\nCD3E\n")
    dialog.take_names_of(str(tmp_path / "genes.txt"))
    wait(lambda: dialog.amount.text().startswith("2 genes, "))
    dialog.path.setText(str(tmp_path / "a.h5ad"))
    dialog.start.click()
    wait(lambda: not dialog.controller.running)
    assert said(dialog).startswith(f"Written: {tmp_path / 'a.h5ad'} (2 genes")
    assert [export.names for export in dock.state.exports] == [("ERBB2", "CD3E")]


def test_ten_thousand_names_are_quick(qtbot):
    edit = NamesEdit()
    qtbot.addWidget(edit)
    edit.set_names([f"GENE{i}" for i in range(10_000)])
    edit.show()
    qtbot.keyClicks(edit, "ERBB2, gene999")
    completer = edit.completer()
    completer.setCompletionPrefix("gene999")
    assert completer.completionCount() == 11
    assert completer.setCurrentRow(0)
    assert completer.currentCompletion() == "ERBB2, GENE999, "
    qtbot.keyClick(edit, Qt.Key.Key_Escape)


@pytest.mark.slow  # test_export_controller cancels, too
def test_a_viewer_that_goes_ends_what_is_being_written(dialog, wait, tmp_path):
    """Without touching widgets, which may be gone already."""
    button = dialog.parent()
    dialog.kind.setCurrentIndex(BY_KEY["csv"])
    dialog.path.setText(str(tmp_path / "a.csv"))
    dialog.start.click()
    button.end(viewer_lives=False)
    button._background.close(wait=True)
    assert not list(tmp_path.glob(".*"))
