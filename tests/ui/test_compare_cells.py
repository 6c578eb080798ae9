"""Measured cells in the Compare dock: of a Xenium folder, beside the map and beside predicted cells."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog
from tests.spots.test_imaging import write_cosmx
from tests.spots.test_xenium import write_xenium
from tests.ui.conftest import GENES, MPP

from cell_maps import nuclei_at
from napari_cpnn.cells import CellMap
from napari_cpnn.evaluation import compare_cells, score
from napari_cpnn.ui.cells.colored import CellContent
from napari_cpnn.ui.compare.dock import Compare
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.layers.spot_tables import MOST_DRAWN, drawing_of, drawn_rows


@pytest.fixture
def compare_dock(beside_explore):
    return partial(beside_explore, Compare)


def test_measured_cells_beside_the_map_and_beside_predicted_cells(compare_dock, wait, slide_path, model, tmp_path):
    rng = np.random.default_rng(0)
    centers = rng.uniform((150, 150), (600, 860), (120, 2))
    # Pixels of the slide are those of the H&E picture; Xenium's are turned by half, and finer.
    alignment = np.array([[-MPP / 0.2125, 0.0, 9000.0], [0.0, -MPP / 0.2125, 7000.0], [0.0, 0.0, 1.0]])
    xy = (np.c_[centers[:, ::-1] / MPP, np.ones(120)] @ alignment.T)[:, :2] * 0.2125
    folder = write_xenium(tmp_path / "breast", xy, rng.poisson(3.0, (120, 5)) + 1, alignment, GENES)
    _, dock = compare_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    dock.spots.open(folder)
    wait(lambda: dock.controller.spots.fit is not None)
    assert dock.controller.spots.fit.problem == ""
    assert dock.spots.text.text().startswith("120 cells, 5 genes")
    dock.state.set_model(model)
    wait(lambda: dock.controller.comparison.scores is not None)
    layer = dock.spots_layer.layer
    np.testing.assert_allclose(layer.data[:, -2:], centers, atol=1e-3)  # where the cells are, in um
    assert layer.size[0] == pytest.approx(2 * np.sqrt(50 / np.pi), rel=1e-4)
    assert "over 120 cells" in dock.gene_text.text()
    assert "PCC of counts" in dock.gene_text.text()
    assert dock.range_text.text().startswith("cells: ")
    assert not dock.by_cells.isVisibleTo(dock)
    # Predicted cells near most of the measured ones.
    shares = rng.dirichlet(np.ones(3), 100)
    cells = CellMap(nuclei_at(centers[:100] + 1.0), model.decoder(), shares, rng.normal(size=(100, model.n_programs)))
    dock.state.set_cells(CellContent(cells.nuclei, cells))
    assert dock.by_cells.isVisibleTo(dock)
    before = dock.controller.comparison.scores
    dock.by_cells.click()
    wait(lambda: dock.controller.comparison.scores is not None and dock.controller.comparison.scores is not before)
    expected = compare_cells(cells, dock.state.slide, dock.controller.spots.table)
    found = dock.controller.comparison.scores
    np.testing.assert_allclose(found["pcc_counts"], score(expected, dock.controller.spots.table)["pcc_counts"])
    assert dock.gene_text.text().endswith("over 100 cells, predicted by the Cells dock")
    # Without predicted cells the model of the map predicts again.
    dock.state.set_cells(None)
    wait(lambda: dock.controller.comparison.scores is not None and not dock.controller.comparison.by_cells)
    assert not dock.by_cells.isVisibleTo(dock)
    assert "over 120 cells" in dock.gene_text.text()


def _many(n: int) -> AnnData:
    side = int(np.ceil(np.sqrt(n)))
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:n] * 10.0
    cells = AnnData(sp.csr_matrix((n, 3), dtype=np.int32), obsm={"spatial": places})
    cells.uns["napari_cpnn"] = {"of": "cells"}
    return cells


def test_of_very_many_cells_a_regular_part_is_drawn_and_the_rest_is_said():
    cells = _many(2 * MOST_DRAWN + 10)
    rows = drawn_rows(cells)
    assert len(rows) == pytest.approx(2 * MOST_DRAWN / 3, abs=5)
    assert len(drawn_rows(_many(MOST_DRAWN))) == MOST_DRAWN
    cells.uns["napari_cpnn"] = {}
    assert len(drawn_rows(cells)) == cells.n_obs  # bins have always been drawn
    cells.uns["napari_cpnn"] = {"of": "cells"}
    data, keywords, kind = drawing_of(cells, Path("outs"), "breast, cells", (None, (0.5, 0.5)))
    assert keywords["name"] == f"breast, cells, {len(rows):,} of {cells.n_obs:,}"
    np.testing.assert_allclose(data, cells.obsm["spatial"][rows, ::-1] * 0.5, atol=0.3)
    assert kind == "points"


def test_drawn_points_stand_for_their_own_rows():
    viewer, chosen = ViewerModel(), []
    slide_layer = viewer.add_image(np.zeros((500, 500, 3), np.uint8), rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    spots = SpotsLayer(viewer)
    spots.chosen.connect(chosen.append)
    places = np.random.default_rng(0).uniform(0, 200, (9, 2))
    rows = np.array([0, 3, 6])
    spots.place(slide_layer, (0.5, 0.5), places, 8.0, rows)
    np.testing.assert_allclose(spots.layer.data[:, -2:], places[rows] - 0.25)  # pixels have their centre at 0
    colors = np.c_[np.linspace(0, 1, 9), np.zeros((9, 2)), np.ones(9)].astype(np.float32)
    spots.paint(colors[rows], "Spots: x")
    np.testing.assert_allclose(spots.layer.face_color[:, 0], colors[rows, 0])
    spots.mark(np.array([3, 4]))
    assert spots.layer.border_width.round(2).tolist() == [0.1, 0.22, 0.1]
    spots.layer.selected_data = {2}
    assert chosen[-1].tolist() == [6]


def test_a_table_of_cosmx_is_opened_without_asking_for_positions(compare_dock, wait, slide_path, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = write_cosmx(tmp_path / "flat", rng.uniform(500, 2000, (30, 2)), rng.poisson(3.0, (30, 3)) + 1)
    asked = [str(folder / "S1_exprMat_file.csv.gz")]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (asked.pop(), ""))
    _, dock = compare_dock(slide_path)
    wait(lambda: dock.state.slide is not None)
    dock.spots._choose_file()
    wait(lambda: dock.controller.spots.fit is not None)
    assert dock.spots.text.text().startswith("30 cells, 3 genes")
    assert "the instrument's own picture" in dock.controller.spots.fit.problem  # of 0.12 um, unlike the slide
