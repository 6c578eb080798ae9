"""Scale, interval width and out-of-domain score in the Explore dock, with real keys and mouse clicks."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from qtpy.QtCore import Qt
from tests.ui.conftest import GENES, TYPES
from tests.ui.seen import legend_on_canvas

from napari_cpnn import painting
from napari_cpnn.models import Trust
from napari_cpnn.ui.compare.gene_table import GeneTable
from napari_cpnn.ui.viewer.state import Shown

KEY = Qt.Key


@pytest.fixture
def dock(explore, wait, slide_path, model):
    model = copy.deepcopy(model)
    trust = Trust(len(GENES) + len(TYPES))
    trust.scale_um.copy_(torch.tensor([320.0, -1.0, -2.0, 64.0, 320.0, 64.0, 320.0, -1.0]))
    trust.pcc.copy_(torch.tensor([0.5, 0.1, 0.1, 0.6, 0.7, 0.3, 0.3, 0.1]))
    trust.floor.fill_(0.1)
    trust.lower.fill_(-1.0)
    trust.upper.fill_(2.0)
    trust.most.fill_(50.0)
    model.trust = trust
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    wait(dock.is_settled)
    return dock


def typed(dock, qtbot, gene):
    dock.gene.clear()
    qtbot.keyClicks(dock.gene, gene)
    qtbot.keyClick(dock.gene, KEY.Key_Return)
    dock.finish_drawing()


def test_a_gene_is_shown_at_its_trusted_scale_single_patches_or_any_other(dock, qtbot):
    cmap, box = dock.state.map, dock.measure
    typed(dock, qtbot, "ERBB2")
    assert box.scale.currentText() == "auto: trusted"
    assert legend_on_canvas(dock.viewer) == ["ERBB2 · log1p CP10k", "averaged over 320 µm"]
    overlay = dock.session.overlays._overlays["gene"]
    painter, single = overlay.painter, cmap.expression("ERBB2")
    averages = painter.averaged(painter.shown(single), 2.5)
    expected = painting.auto_range(dock.state.shown).update(averages, 1, True)
    assert dock.state.limits == pytest.approx(expected, rel=1e-4)
    qtbot.keyClick(box.scale, KEY.Key_Down)
    dock.finish_drawing()
    assert dock.state.look.scale_um == 0
    assert legend_on_canvas(dock.viewer) == ["ERBB2 · log1p CP10k", "single patches"]
    one = painting.auto_range(dock.state.shown).update(painter.shown(single), 1, True)
    assert dock.state.limits == pytest.approx(one, rel=1e-4)
    qtbot.keyClick(box.scale, KEY.Key_Down)
    assert box.scale_um.isVisibleTo(box)
    box.scale_um.setValue(200)
    qtbot.keyClick(box.scale_um, KEY.Key_Return)
    dock.finish_drawing()
    assert legend_on_canvas(dock.viewer)[1] == "averaged over 200 µm"


def test_genes_without_a_trusted_scale_say_so(dock, qtbot):
    typed(dock, qtbot, "EPCAM")
    assert legend_on_canvas(dock.viewer) == ["EPCAM · log1p CP10k", "not to be trusted at any scale"]
    assert "not to be trusted at any scale" in dock.gene_note.text()
    typed(dock, qtbot, "COL1A1")  # not tested
    assert legend_on_canvas(dock.viewer) == ["COL1A1 · log1p CP10k"]


def test_a_type_has_its_note_and_scale(dock):
    dock.controller.show_type(TYPES[1])
    dock.finish_drawing()
    assert dock.gene_note.text() == f"{TYPES[1]}: held-out PCC 0.30 · to be trusted from 320 µm on"
    assert legend_on_canvas(dock.viewer)[1] == "averaged over 320 µm"


def test_interval_width_and_score_are_chosen_beside_the_value(dock, qtbot, wait):
    cmap, box = dock.state.map, dock.measure
    typed(dock, qtbot, "ERBB2")
    qtbot.keyClick(box.measure, KEY.Key_Down)
    dock.finish_drawing()
    assert dock.state.shown == Shown("gene", ("ERBB2",), "interval")
    assert legend_on_canvas(dock.viewer) == ["ERBB2, interval width · log1p CP10k"]
    assert not box.scale.isEnabled()
    width = painting.values_of(cmap, dock.state.shown)[cmap.tissue]
    assert dock.state.limits[1] == pytest.approx(np.percentile(width, 99), rel=0.05)
    typed(dock, qtbot, "CD3E")  # the interval of another gene
    assert dock.state.shown == Shown("gene", ("CD3E",), "interval")
    dock.controller.show_dominant()
    assert dock.state.shown == Shown("dominant")
    # The model has no domain, and dominant types have no interval: neither can be chosen.
    qtbot.keyClick(box.measure, KEY.Key_Down)
    assert dock.state.shown == Shown("dominant")
    assert box.measure.currentText() == "value"


def test_the_out_of_domain_score_is_a_map(dock, qtbot):
    cmap = dock.state.map
    dock.state.model.domain = torch.nn.Identity()  # what the choice asks for; the scores are of the map
    done = np.flatnonzero(cmap.tissue)
    everything = cmap.block((slice(None), slice(None)))
    weights, programs, _ = (part.reshape(cmap.grid.n_cells, -1)[done] for part in everything)
    cmap.fill(done, weights, programs, np.linspace(0.1, 0.9, len(done)))
    typed(dock, qtbot, "ERBB2")
    qtbot.keyClick(dock.measure.measure, KEY.Key_End)
    dock.finish_drawing()
    assert dock.state.shown.measure == "domain"
    assert legend_on_canvas(dock.viewer) == ["Out-of-domain score · above 0.95: unlike"]
    assert dock.state.limits == (0.0, 1.0)
    layer = dock.session.overlays.layer_of("domain")
    assert layer.visible
    assert not dock.session.overlays.layer_of("gene").visible
    qtbot.keyClick(dock.measure.measure, KEY.Key_Home)
    assert dock.state.shown == Shown("gene", ("ERBB2",))
    assert not layer.visible


def test_genes_can_be_listed_by_trust(dock, qtbot):
    def listed():
        names = dock.gene._names.stringList()
        assert all(" = " in name for name in names[len(GENES) :])  # synonyms come after the genes
        return names[: len(GENES)]

    assert listed() == sorted(GENES)
    qtbot.mouseClick(dock.by_trust, Qt.MouseButton.LeftButton)
    assert listed() == ["CD3E", "MS4A1", "ERBB2", "EPCAM", "COL1A1"]
    qtbot.mouseClick(dock.by_trust, Qt.MouseButton.LeftButton)
    assert listed() == sorted(GENES)


def test_no_background_is_coloured(dock, qtbot):
    cmap = dock.state.map
    typed(dock, qtbot, "ERBB2")
    dock.state.choose_look(range_mode="manual", manual=(-50.0, -40.0))  # every value has the last, full colour
    dock.finish_drawing()
    layer, tissue = dock.session.overlays.layer_of("gene"), cmap.tissue_mask
    n = painting.pixels_per_patch(cmap.grid)
    grid = painting.finer(cmap.grid, n)
    row, col = (np.arange(size) + 0.5 for size in grid.shape)
    at = np.ix_(*((k * grid.stride_um / um).astype(int).clip(0, size - 1)
                  for k, um, size in zip((row, col), tissue.um_per_px, tissue.mask.shape, strict=True)))  # fmt: skip
    on_tissue = tissue.drawn[at]
    assert (layer.data[..., 3][~on_tissue] <= 0).all()
    assert (layer.data[..., 3][on_tissue & np.kron(cmap.tissue, np.ones((n, n), bool))] > 0.9).all()


def test_the_table_of_genes_is_sorted_by_trust(qtbot):
    scores = pd.DataFrame(
        {"pcc": [0.1, 0.2, 0.3, 0.4, 0.5], "trusted_um": [np.nan, np.inf, 400.0, 200.0, 400.0]}, index=list("ABCDE")
    )
    table = GeneTable()
    qtbot.addWidget(table)
    table.set_scores(scores)
    rows = table.model
    column = [rows.headerData(i, Qt.Orientation.Horizontal) for i in range(rows.columnCount())].index("From µm")
    table.view.sortByColumn(column, Qt.SortOrder.AscendingOrder)
    assert [rows.gene_at(i) for i in range(5)] == list("DECBA")  # of equal scales, the better correlated gene first
    assert [rows.index(i, column).data() for i in range(5)] == ["200", "400", "400", "none", "–"]
    table.view.sortByColumn(column, Qt.SortOrder.DescendingOrder)
    assert [rows.gene_at(i) for i in range(5)] == list("BECDA")
