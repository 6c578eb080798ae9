"""Synonyms in the gene box and gene sets in the Explore dock, with real keys and mouse clicks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from tests.ui.conftest import GENES, TYPES

import napari_cpnn as nc
from napari_cpnn.models import Trust
from napari_cpnn.ui.export import controller as exports

KEY = Qt.Key


@pytest.fixture
def trusted(model):
    """The quick model with trusted scales."""
    model = copy.deepcopy(model)
    trust = Trust(len(GENES) + len(TYPES))
    trust.scale_um.copy_(torch.tensor([320.0, 200.0, -1.0, 64.0, -1.0, 64.0, 320.0, -1.0]))
    trust.pcc.copy_(torch.tensor([0.5, 0.3, 0.1, 0.6, 0.05, 0.3, 0.3, 0.1]))
    model.trust = trust
    return model


@pytest.fixture
def dock(explore, wait, slide_path, trusted):
    dock = explore(slide_path)
    dock.controller.use_model(trusted)
    wait(lambda: dock.state.map is not None)
    wait(dock.is_settled)
    return dock


def typed(dock, qtbot, gene):
    dock.gene.clear()
    qtbot.keyClicks(dock.gene, gene)
    qtbot.keyClick(dock.gene, KEY.Key_Return)


def paste(dock, text, wait):
    dock.signatures.add_list(text, "mine")
    wait(lambda: not dock.signatures._tasks.is_running("choose"))


def test_a_synonym_shows_its_gene(dock, qtbot):
    for name, gene in (("HER2", "ERBB2"), ("cd20", "MS4A1"), ("EpCAM", "EPCAM"), ("ENSG00000141736", "ERBB2")):
        typed(dock, qtbot, name)
        assert dock.state.shown.names == (gene,)
        assert dock.gene.text() == gene


def test_several_genes_are_asked_about_and_others_named(dock, qtbot):
    typed(dock, qtbot, "ERBB2")
    typed(dock, qtbot, "CD3")
    assert dock.state.shown.names == ("ERBB2",)
    assert dock.gene_note.text() == "CD3 stands for CD3D, CD3E, CD3G; of these, the model has only CD3E."
    typed(dock, qtbot, "PD-1")
    assert dock.gene_note.text() == "PD-1 is PDCD1, which the model does not have."
    typed(dock, qtbot, "nonsense")
    assert "The model does not predict nonsense" in dock.gene_note.text()


def test_the_list_of_the_box_offers_synonyms(dock, qtbot, wait):
    dock.gene.clear()
    dock.gene.setFocus()
    qtbot.keyClicks(dock.gene, "HER2")
    popup = dock.gene.completer()
    offered = [popup.completionModel().index(i, 0).data() for i in range(popup.completionCount())]
    assert "HER2 = ERBB2" in offered
    popup.activated[str].emit("HER2 = ERBB2")
    assert dock.state.shown.names == ("ERBB2",)
    dock.gene.setText("HER2 = ERBB2")  # as the completer does
    wait(lambda: dock.gene.text() == "ERBB2")


def test_a_gene_set_is_shown_with_what_was_used(dock, wait):
    paste(dock, "HER2\nEPCAM\nCOL1A1\nPD-L1\n", wait)
    shown = dock.state.shown
    assert (shown.kind, shown.names) == ("signature", ("mine", "ERBB2", "EPCAM"))
    assert dock.signature.sets.currentText() == "mine"
    assert dock.signature.note.text() == "2 of 4 genes · mean held-out PCC 0.40"
    dock.finish_drawing()
    overlay = dock.session.overlays._overlays["signature"]
    assert overlay.layer.visible
    assert overlay.layer.name == "Signature: mine"
    expected = nc.signature(dock.state.map, ["ERBB2", "EPCAM"]).values
    low, high = np.nanpercentile(expected, (2, 99))
    assert dock.state.limits == pytest.approx((low, high), rel=0.05)
    first = dock.session.legend._wanted[0][0]
    assert first == "mine · mean z-score"


def test_the_limit_is_settable_and_none_left_is_said(dock, qtbot, wait):
    paste(dock, "ERBB2, COL1A1, MS4A1", wait)
    assert dock.state.shown.names == ("mine", "ERBB2")
    dock.signature.limit.setFocus()
    qtbot.keyClick(dock.signature.limit, KEY.Key_End)  # all genes
    wait(lambda: dock.state.shown.names == ("mine", "ERBB2", "COL1A1", "MS4A1"))
    dock.signature.limit.setCurrentIndex(4)
    dock.signature.limit.activated.emit(4)
    wait(lambda: dock.state.shown.names == ("mine", "ERBB2"))
    paste(dock, "COL1A1, MS4A1", wait)
    wait(lambda: "No gene of mine can be used" in dock.signature.note.text())
    assert dock.state.shown.names == ("mine", "ERBB2")


def test_another_quantity_and_undo_move_the_choice(dock, qtbot, wait):
    paste(dock, "ERBB2, EPCAM", wait)
    typed(dock, qtbot, "CD3E")
    assert dock.signature.sets.currentIndex() == 0
    assert not dock.signature.note.isVisibleTo(dock)
    dock.state.history.undo()
    assert dock.state.shown.names == ("mine", "ERBB2", "EPCAM")
    wait(lambda: dock.signature.sets.currentText() == "mine")
    wait(lambda: dock.signature.note.text().startswith("2 of 2 genes"))


def test_files_and_markers_are_listed(dock, tmp_path, wait):
    wait(lambda: any(one.name.startswith("markers of") for one in dock.signatures.sets))
    (tmp_path / "a.gmt").write_text("A\tpaper\tERBB2\tEPCAM\nB\tpaper\tCD3E\n")
    dock.signatures.add_file(tmp_path / "a.gmt")
    wait(lambda: dock.state.shown.names == ("A", "ERBB2", "EPCAM"))
    assert dock.signature.sets.findData("B") > 0
    dock.signatures.add_file(tmp_path / "absent.gmt")
    wait(lambda: dock.signatures._tasks.problem is not None)
    assert dock.state.shown.names == ("A", "ERBB2", "EPCAM")
    dock.signatures.add_list(" \n")
    assert "The list has no gene" in dock.signature.note.text()


@pytest.mark.slow  # what was used is said above
def test_the_details_list_every_gene(dock, wait):
    from qtpy.QtWidgets import QMessageBox

    paste(dock, "HER2, COL1A1, <b>x</b>", wait)
    dock.signature.details.click()
    text = dock.signature.findChild(QMessageBox).text()
    for part in ("HER2 (ERBB2)", "used", "no trusted scale", "&lt;b&gt;x&lt;/b&gt;"):
        assert part in text


def test_what_is_on_screen_is_exported(dock, tmp_path, wait):
    import anndata

    paste(dock, "HER2, EPCAM", wait)
    kind = next(one for one in exports.KINDS if one.key == "anndata")
    request = exports.Request(kind, tmp_path / "a.h5ad", "shown")
    exports.ExportController(dock.state, dock.background)._job(request)()
    table = anndata.read_h5ad(tmp_path / "a.h5ad")
    row, col = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
    expected = nc.signature(dock.state.map, ["ERBB2", "EPCAM"], least_pcc=-1).values[row, col]
    np.testing.assert_allclose(table.obs["signature mine"], expected, atol=1e-5)


def test_a_synonym_of_the_gene_on_screen_gives_way_to_its_name(dock, qtbot):
    typed(dock, qtbot, "ERBB2")
    for name in ("her2", "ENSG00000141736", "erbb2"):
        qtbot.keyClick(dock.gene, KEY.Key_A, Qt.KeyboardModifier.ControlModifier)
        qtbot.keyClicks(dock.gene, name)
        assert dock.gene.text() == name
        qtbot.keyClick(dock.gene, KEY.Key_Return)
        assert dock.state.shown.names == ("ERBB2",)
        assert dock.gene.text() == "ERBB2"


@pytest.mark.slow  # several genes are asked about above
def test_what_is_no_gene_stays_to_be_corrected(dock, qtbot):
    typed(dock, qtbot, "ERBB2")
    typed(dock, qtbot, "ERBB22")
    assert dock.gene.text() == "ERBB22"


@pytest.mark.slow  # its siblings have synonyms, too
def test_the_key_for_the_next_gene_never_comes_to_a_synonym(dock, qtbot):
    typed(dock, qtbot, max(GENES))
    assert dock.gene.genes() == sorted(GENES)
    dock.tools.step(1)
    assert dock.state.shown.names == (min(GENES),)


def in_view(dock, fold):
    """Whether the end of a group is in the visible part of the dock, or its title at its top."""
    top = fold.mapTo(dock.area.viewport(), fold.rect().topLeft()).y()
    height = dock.area.viewport().height()
    return 0 <= top < height and (top + fold.height() <= height or top <= 8)


@pytest.fixture
def low(explore, wait, slide_path, trusted):
    """A dock on a low screen, all groups open, at its top."""
    dock = explore(slide_path, show=True)
    dock.area.setMaximumHeight(300)
    for fold in dock.folds:
        fold.set_open(True)
    dock.controller.use_model(trusted)
    wait(lambda: dock.state.map is not None)
    wait(dock.is_settled)
    bar = dock.area.verticalScrollBar()
    wait(lambda: bar.maximum() > 300)
    bar.setValue(0)
    return dock


def test_a_chosen_signature_scrolls_its_group_into_view(low, qtbot, wait):
    dock, fold = low, low.folds[3]
    assert fold.title == "Gene signatures"
    assert not in_view(dock, fold)
    dock.signatures.add_list("HER2\nEPCAM\n", "mine")
    wait(lambda: dock.state.shown.kind == "signature")
    wait(lambda: in_view(dock, fold))


@pytest.mark.slow  # a chosen signature scrolls above
def test_another_quantity_does_not_scroll(low, wait):
    dock, bar = low, low.area.verticalScrollBar()
    paste(dock, "HER2, EPCAM", wait)
    wait(lambda: in_view(dock, dock.folds[3]))
    bar.setValue(0)
    dock.controller.show_gene("CD3E")
    wait(lambda: dock.signatures.chosen is None)
    QApplication.processEvents()
    QApplication.processEvents()
    assert bar.value() == 0


@pytest.mark.slow  # a chosen signature scrolls above
def test_the_gallery_scrolls_into_view(low, wait):
    dock, fold = low, low.folds[4]
    assert fold.title == "Similar tissue"
    assert not in_view(dock, fold)
    dock.similar_box.on.click()
    dock.similar.pick((300.0, 300.0))
    wait(lambda: dock.similar.pictures is not None)
    wait(lambda: in_view(dock, fold))


@pytest.mark.parametrize("kind", ["nothing", "signature"])
def test_a_dock_closes_without_a_word_whatever_is_shown(dock, wait, qtbot, kind):
    if kind == "signature":
        paste(dock, "HER2, EPCAM", wait)
    else:
        dock.state.set_shown(None)
    with qtbot.captureExceptions() as raised:
        dock.signatures.changed.emit()  # as sets that are found late do
        dock.shut_down()
        QApplication.processEvents()
    assert raised == []
    assert dock.state.shown is None
