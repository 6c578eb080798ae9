"""Outline of the places where a gene is high or low, in the Explore dock, with real keys, and in what is exported."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import re

import anndata
import numpy as np
import pytest
import torch
from napari.layers import Shapes
from qtpy.QtCore import Qt
from tests.ui.conftest import GENES, TYPES
from tests.ui.seen import legend_on_canvas

import napari_cpnn as nc
from napari_cpnn.mapping import UNKNOWN
from napari_cpnn.models import CPNN, PCC_GROUPS, Trust
from napari_cpnn.painting import Look
from napari_cpnn.ui.explore import outline_layer
from napari_cpnn.ui.explore.outline_layer import outline_lines, with_margin
from napari_cpnn.ui.export.button import ExportButton
from napari_cpnn.ui.export.controller import KINDS
from napari_cpnn.ui.viewer import Memory, keep, recall

KEY = Qt.Key
BY_KEY = {kind.key: i for i, kind in enumerate(KINDS)}


def calibrated(model: CPNN) -> CPNN:
    """ERBB2 is told at 10 % where high, at 20 % where low, too; CD3E where high; the other genes nowhere."""
    model = copy.deepcopy(model)
    trust = Trust(len(GENES) + len(TYPES))
    trust.scale_um.copy_(torch.tensor([64.0, -1.0, -2.0, 64.0, -1.0, 64.0, 64.0, -1.0]))
    trust.pcc.copy_(torch.tensor([0.5, 0.1, 0.1, PCC_GROUPS[-1], 0.1, 0.3, 0.3, 0.1]))
    trust.marked_um.copy_(torch.tensor([64.0, 128.0, 192.0, 256.0, 320.0, 384.0]))
    group = PCC_GROUPS.index(0.5)
    trust.false_share[0, 0, group:, :4] = 0.09
    trust.false_share[1, 0, group, :6] = 0.15
    model.trust = trust
    return model


@pytest.fixture
def dock(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(calibrated(model))
    wait(lambda: dock.state.map is not None)
    dock.controller.map_whole_slide(True)
    wait(dock.is_settled)
    return dock


@pytest.fixture
def type_gene(dock, qtbot, wait):
    def typed(gene):
        dock.gene.clear()
        qtbot.keyClicks(dock.gene, gene)
        qtbot.keyClick(dock.gene, KEY.Key_Return)
        known(dock, wait)

    return typed


def known(dock, wait):
    """Wait until it is known where the gene is high and low on the present map, which is on screen."""
    places = dock.session.places
    wait(lambda: bool(places.found) and places._revision == dock.state.map.revision and dock.is_drawn())


def layer(dock):
    return dock.session.overlays.outline.layer


def offered(box):
    return [box.itemText(i) for i in range(box.count()) if box.model().item(i).isEnabled()]


def edges_of(mask):
    """Edges of the patches of a mask, those between two of them left out: pairs of corners, in halves of a patch."""
    edges: set = set()
    for row, col in 2 * np.argwhere(mask):
        square = [(row - 1, col - 1), (row - 1, col + 1), (row + 1, col + 1), (row + 1, col - 1)]
        edges ^= {frozenset(pair) for pair in zip(square, [*square[1:], square[0]], strict=True)}
    return edges


def test_an_outline_has_the_edges_of_its_patches():
    mask = np.random.default_rng(0).random((7, 9)) < 0.5
    lines = outline_lines(mask, dashed=False)
    found = []
    for start, along in np.rint(2 * lines).astype(int):
        n = np.abs(along).sum() // 2
        corners = [tuple((start + i * along // n).tolist()) for i in range(n + 1)]
        found += [frozenset(pair) for pair in itertools.pairwise(corners)]
    assert len(set(found)) == len(found)
    assert set(found) == edges_of(mask)
    assert len(lines) < len(found)


@pytest.mark.parametrize(("n_cols", "dash"), [(8, 0.25), (80, 0.5), (300, 2.0)])
def test_dashes_are_as_long_as_the_gaps(n_cols, dash):
    mask = np.zeros((2, n_cols), dtype=bool)
    mask[0, :8] = True
    lines = outline_lines(mask, dashed=True)
    above = lines[(lines[:, 0, 0] == -0.5) & (lines[:, 1, 1] > 0)]
    above = above[np.argsort(above[:, 0, 1])]
    start, end = above[:, 0, 1], above[:, 0, 1] + above[:, 1, 1]
    gaps = start[1:] - end[:-1]
    np.testing.assert_allclose(gaps[gaps > 0], dash)
    assert (end - start).sum() == 4
    assert len(gaps[gaps > 0]) == 4 / dash - 1


def test_margins_lie_along_both_sides_of_a_line():
    line = np.array([[[1.0, 2.0], [0.0, 1.0]]])
    above, below, middle = with_margin(line, 0.2)
    np.testing.assert_allclose(middle, [[1.0, 1.9], [0.0, 1.2]])
    np.testing.assert_allclose(sorted([above[0, 0], below[0, 0]]), [0.8, 1.2])


def test_places_are_outlined_as_the_map_marks_them(dock, qtbot, wait, type_gene):
    box = dock.measure
    assert not box.outline.isEnabled()
    assert "Show a gene" in box.outline.toolTip()
    type_gene("ERBB2")
    assert offered(box.outline) == ["none", "high"]
    assert "Where ERBB2 is low cannot be told at a false discovery rate of 10%" in box.outline.toolTip()
    assert layer(dock) is None
    assert dock.state.map.marked == {}
    qtbot.keyClick(box.outline, KEY.Key_Down)
    cmap = dock.state.map
    high = cmap.places_high("ERBB2", dock.state.model)
    assert high.any()
    np.testing.assert_array_equal(cmap.marked["ERBB2 high"].mask, high)
    assert box.outline_note.text() == cmap.marked["ERBB2 high"].note
    assert box.outline_note.isVisibleTo(box)
    assert len(layer(dock).data) == 3 * len(outline_lines(high, dashed=False))
    assert layer(dock).visible
    assert layer(dock).name == "ERBB2 high, FDR 10 %"
    assert not isinstance(layer(dock), Shapes)
    dock.finish_drawing()
    assert legend_on_canvas(dock.viewer)[-1] == "outlined where high, FDR 10 %"
    # On the patches of the overlay, right above it, and the slide stays selected.
    gene = dock.session.overlays.layer_of("gene")
    n = gene.data.shape[0] // cmap.grid.shape[0]
    assert np.allclose(layer(dock).data_to_world((-0.5, 1.5)), gene.data_to_world((-0.5, 2 * n - 0.5)))
    assert layer(dock).units == gene.units
    assert dock.viewer.layers.selection.active == dock.state.layer
    assert dock.viewer.layers.index(layer(dock)) == dock.viewer.layers.index(gene) + 1
    # At 20 %, low can be chosen, too.
    qtbot.keyClick(box.fdr, KEY.Key_Down)
    known(dock, wait)
    assert offered(box.outline) == ["none", "high", "low (dashed)"]
    qtbot.keyClick(box.outline, KEY.Key_Down)
    assert set(cmap.marked) == {"ERBB2 low"}
    np.testing.assert_array_equal(cmap.marked["ERBB2 low"].mask, cmap.places_low("ERBB2", dock.state.model, 0.2))
    assert layer(dock).name == "ERBB2 low, FDR 20 %"
    qtbot.keyClick(box.outline, KEY.Key_Home)
    assert layer(dock) is None
    assert cmap.marked == {}
    assert not any("FDR" in other.name for other in dock.viewer.layers)
    assert not box.outline_note.isVisibleTo(box)


def test_the_outline_follows_genes_and_maps_and_goes_with_them(dock, qtbot, wait, type_gene):
    cmap, box = dock.state.map, dock.measure
    type_gene("ERBB2")
    qtbot.keyClick(box.outline, KEY.Key_Down)
    type_gene("CD3E")
    assert set(cmap.marked) == {"CD3E high"}
    assert layer(dock).name == "CD3E high, FDR 10 %"
    type_gene("EPCAM")  # not offered: the sentence says why, and nothing is outlined
    assert cmap.marked == {}
    assert not layer(dock).visible
    assert "Where EPCAM is high cannot be told" in box.outline_note.text()
    assert box.outline.isEnabled()
    dock.controller.show_type(TYPES[0])
    assert not layer(dock).visible
    assert not box.outline_note.isVisibleTo(box)
    type_gene("ERBB2")
    before = cmap.marked["ERBB2 high"].mask
    done = np.flatnonzero(cmap.tissue)
    everything = cmap.block((slice(None), slice(None)))
    weights, programs, scores = (part.reshape(cmap.grid.n_cells, -1)[done] for part in everything)
    cmap.fill(done, weights[::-1], programs[::-1], scores[::-1].ravel())
    known(dock, wait)
    after = cmap.marked["ERBB2 high"].mask
    assert (before != after).any()
    np.testing.assert_array_equal(after, cmap.places_high("ERBB2", dock.state.model))
    assert len(layer(dock).data) == 3 * len(outline_lines(after, dashed=False))
    dock.controller.use_model(dock.state.model)
    assert cmap.marked == {}
    assert not layer(dock).visible  # kept for the next map


def test_the_weights_are_hashed_once_and_nothing_waits_for_places(dock, wait, type_gene, monkeypatch):
    hashed = []
    fingerprint = CPNN.fingerprint.fget
    monkeypatch.setattr(CPNN, "fingerprint", property(lambda self: hashed.append(1) or fingerprint(self)))
    for gene in ("ERBB2", "CD3E", "EPCAM"):
        type_gene(gene)
    dock.state.map.revision += 1
    known(dock, wait)
    assert len(hashed) == 1


def test_it_is_said_why_nothing_can_be_outlined(dock, qtbot, wait, type_gene):
    type_gene("ERBB2")
    cmap, box = dock.state.map, dock.measure
    qtbot.keyClick(box.outline, KEY.Key_Down)
    # Less than nine tenths of the tissue.
    state = cmap.state.copy()
    cmap.state.ravel()[np.flatnonzero(cmap.tissue)[: cmap.tissue.sum() // 2]] = UNKNOWN
    cmap.revision += 1
    known(dock, wait)
    assert "of the tissue is mapped; map all of it" in box.outline_note.text()
    assert cmap.marked == {}
    qtbot.keyClick(box.outline, KEY.Key_Home)
    assert not box.outline.isEnabled()
    assert "of the tissue is mapped; map all of it" in box.outline.toolTip()
    # A map of another model.
    cmap.state[:] = state
    cmap.provenance["model_fingerprint"] = "other"
    cmap.revision += 1
    known(dock, wait)
    assert "The map was made by another model" in box.outline.toolTip()


def refill(cmap, scores, final=True):
    """Compute all patches again, with other scores."""
    done = np.flatnonzero(cmap.tissue)
    weights, programs, _ = (
        part.reshape(cmap.grid.n_cells, -1)[done] for part in cmap.block((slice(None), slice(None)))
    )
    cmap.fill(done, weights, programs, np.resize(scores, len(done)), final=final)


@pytest.mark.slow  # its siblings say why there is none
def test_foreign_tissue_has_no_outline_and_its_box_is_not_active(dock, qtbot, wait, type_gene):
    type_gene("ERBB2")
    cmap, box = dock.state.map, dock.measure
    qtbot.keyClick(box.outline, KEY.Key_Down)
    assert cmap.marked
    refill(cmap, [0.99])
    known(dock, wait)
    assert not box.outline.isEnabled()
    assert not box.fdr.isEnabled()
    assert "no place is marked where ERBB2 is high" in box.outline_note.text()
    assert cmap.marked == {}
    assert not layer(dock).visible
    refill(cmap, [0.5])
    known(dock, wait)
    assert box.outline.isEnabled()
    assert set(cmap.marked) == {"ERBB2 high"}


@pytest.mark.slow  # its siblings say why there is none
def test_preliminary_values_have_no_outline_yet(dock, qtbot, wait, type_gene):
    type_gene("ERBB2")
    cmap, box = dock.state.map, dock.measure
    qtbot.keyClick(box.outline, KEY.Key_Down)
    done = np.flatnonzero(cmap.tissue)
    some = done[: len(done) // 5]
    values = (part.reshape(cmap.grid.n_cells, -1)[some] for part in cmap.block((slice(None), slice(None))))
    weights, programs, scores = values
    cmap.fill(some, weights, programs, scores.ravel(), final=False)
    assert cmap.marked == {}
    known(dock, wait)
    assert re.match(r"(79|80) % of the tissue is mapped; map all of it", box.outline_note.text())
    assert not layer(dock).visible
    cmap.fill(some, weights, programs, scores.ravel())
    known(dock, wait)
    assert layer(dock).visible


def test_a_model_that_is_not_calibrated_has_no_outline(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    dock.controller.show_gene("ERBB2")
    known(dock, wait)
    assert not dock.measure.outline.isEnabled()
    assert not dock.measure.fdr.isEnabled()
    assert "calibrate it by a cross-validation" in dock.measure.outline.toolTip()


@pytest.mark.slow  # test_undo_and_memory does it for genes
def test_the_outline_is_undone_and_remembered(dock, qtbot, wait, type_gene, slide_path):
    type_gene("ERBB2")
    box = dock.measure
    qtbot.keyClick(box.fdr, KEY.Key_Down)
    known(dock, wait)
    qtbot.keyClick(box.outline, KEY.Key_Down)
    dock.controller.check()
    wait(lambda: recall(dock.state.slide).look is not None and recall(dock.state.slide).look.outline == "high")
    assert recall(dock.state.slide).look.fdr == 0.2
    dock.state.history.undo()
    assert (dock.state.look.outline, dock.state.look.fdr) == ("none", 0.2)
    assert box.outline.currentText() == "none"
    dock.state.history.undo()
    assert box.fdr.currentText() == "FDR 10 %"


def test_an_outline_of_another_version_is_forgotten_alone(slide_path):
    slide = nc.open_slide(slide_path)
    keep(slide, Memory(model="m", look=dataclasses.replace(Look(colormap="magma"), outline="both", fdr=0.07)))
    assert recall(slide) == Memory(model="m", look=Look(colormap="magma"))


def test_a_deleted_outline_is_off_everywhere(dock, qtbot, wait, type_gene):
    type_gene("ERBB2")
    qtbot.keyClick(dock.measure.outline, KEY.Key_Down)
    dock.viewer.layers.remove(layer(dock))
    wait(lambda: dock.measure.outline.currentText() == "none")
    assert dock.state.map.marked == {}


def test_the_outline_goes_with_its_overlay_and_stays_chosen_without_a_slide(dock, qtbot, wait, type_gene):
    type_gene("ERBB2")
    qtbot.keyClick(dock.measure.outline, KEY.Key_Down)
    dock.viewer.layers.remove(dock.session.overlays.layer_of("gene"))
    wait(lambda: not layer(dock).visible)
    type_gene("CD3E")
    assert layer(dock).visible
    cmap = dock.state.map
    dock.viewer.layers.clear()
    wait(lambda: dock.state.layer is None)
    qtbot.wait(150)
    assert layer(dock) is None
    assert cmap.marked == {}
    assert dock.state.look.outline == "high"


def test_closing_the_dock_takes_the_outline_away(dock, qtbot, type_gene):
    type_gene("ERBB2")
    qtbot.keyClick(dock.measure.outline, KEY.Key_Down)
    cmap, viewer = dock.state.map, dock.viewer
    assert cmap.marked
    dock.shut_down()
    assert cmap.marked == {}
    assert [other.name for other in viewer.layers] == ["section"]


@pytest.mark.slow  # the outline itself is tested above
def test_lines_are_of_one_width_at_each_zoom(dock, qtbot, wait, type_gene):
    type_gene("ERBB2")
    qtbot.keyClick(dock.measure.outline, KEY.Key_Down)
    outline = dock.session.overlays.outline
    for px_per_um in (0.05, 1.0):
        outline.set_zoom(px_per_um)
        width_px = layer(dock).edge_width * px_per_um * dock.state.map.grid.stride_um
        assert width_px == pytest.approx(outline_layer._LINE_PX)


def test_exports_have_what_is_outlined(dock, qtbot, wait, type_gene, tmp_path):
    type_gene("ERBB2")
    qtbot.keyClick(dock.measure.outline, KEY.Key_Down)
    mask = dock.state.map.marked["ERBB2 high"].mask
    button = ExportButton(dock.viewer, dock.background)
    qtbot.addWidget(button)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    dialog = button.dialog

    def export(kind, name):
        dialog.kind.setCurrentIndex(BY_KEY[kind])
        dialog.genes.setCurrentIndex(dialog.genes.findData("shown"))
        dialog.path.setText(str(tmp_path / name))
        qtbot.mouseClick(dialog.start, Qt.MouseButton.LeftButton)

    export("anndata", "map.h5ad")
    dock.controller.show_gene("EPCAM")  # while it is written
    wait(lambda: not dialog.controller.running)
    table = anndata.read_h5ad(tmp_path / "map.h5ad")
    assert list(table.var_names) == ["ERBB2"]
    assert table.obs["ERBB2 high"].sum() == mask.sum()
    type_gene("ERBB2")
    export("geojson", "map.geojson")
    wait(lambda: not dialog.controller.running)
    assert "ERBB2 high (share of patches)" in (tmp_path / "map.geojson").read_text()
    export("figure", "map.svg")
    wait(lambda: not dialog.controller.running)
    assert "Outlined" in (tmp_path / "map.svg").read_text()
    export("ome-zarr", "map.ome.zarr")
    wait(lambda: not dialog.controller.running)
    facts = json.loads((tmp_path / "map.ome.zarr" / "zarr.json").read_text())
    assert "ERBB2 high" in json.dumps(facts)
    qtbot.keyClick(dock.measure.outline, KEY.Key_Home)
    export("csv", "map.csv")
    wait(lambda: not dialog.controller.running)
    assert "ERBB2 high" not in (tmp_path / "map.csv").read_text()
    button.end()
