"""The whole story of single cells: spots and nuclei -> model -> cells in the dock -> gallery -> regions -> squidpy."""

from __future__ import annotations

import dataclasses
import warnings

import anndata as ad
import numpy as np
import pytest
from tests.ui.conftest import write_slide

import napari_cpnn as nc
from cell_world import TYPES, cell_world, quick_cells
from napari_cpnn.cells import cells_in_regions
from napari_cpnn.nuclei import Searched
from napari_cpnn.regions import Region
from napari_cpnn.ui.cells.colored import CellShown
from napari_cpnn.ui.cells.dock import CellsDock

__all__ = ["cell_world", "quick_cells"]


@pytest.fixture(scope="module")
def model_of_cells(cell_world, quick_cells, tmp_path_factory):
    samples = [cell_world.sample(1, rows=6, cols=7), cell_world.sample(2, rows=6, cols=7)]
    path = tmp_path_factory.mktemp("model") / "cells.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nc.errors.CpnnWarning)  # one spot of each has no nucleus
        pairs, nuclei = [(one.slide, one.spots) for one in samples], [one.nuclei for one in samples]
        nc.train_cells(pairs, cell_world.prototypes, quick_cells.replace(epochs=25), nuclei, out=path)
    return path


def test_from_spots_to_neighbours(explore, wait, cell_world, model_of_cells, tmp_path, monkeypatch):
    unseen = cell_world.sample(3, rows=6, cols=7)
    slide = write_slide(tmp_path / "unseen.tif", np.asarray(unseen.slide.levels[0]))
    other = explore(slide)
    dock = CellsDock(other.session.viewer)
    told = []
    monkeypatch.setattr("napari_cpnn.ui.frame.dock.warn", told.append)
    other.session.viewer.window.add_dock_widget(dock, name="Cells")
    try:
        wait(lambda: dock.state.slide is not None)
        # Searched in all but the lower right corner, where the file has nuclei nevertheless.
        quarters = tuple(n * 0.5 / 2 for n in unseen.slide.shape[:2])
        searched = Searched(np.array([[2, 2], [2, 1]], dtype=np.uint8), quarters)
        found_here = dataclasses.replace(unseen.nuclei, searched=searched)
        dock.controller.sources.open(found_here.save(tmp_path / "nuclei.zarr"))
        wait(lambda: dock.controller.content is not None and dock.is_settled)
        per_mm2 = dock.controller.rows[0].per_mm2
        assert per_mm2 == pytest.approx(len(unseen.nuclei) / (3 * np.prod(quarters) / 1e6))
        assert dock.controller.shown == CellShown("plain")
        dock.use_model(model_of_cells)
        wait(dock.predict.isEnabled)
        dock.predict.click()
        wait(lambda: dock.controller.content.cells is not None and dock.is_settled)
        cells = dock.controller.content.cells
        assert dock.controller.shown == CellShown("type")
        wait(lambda: dock.is_settled)
        assert dock.controller.rows[0].per_mm2 == per_mm2  # of the same searched tissue
        assert "; 75 % of the tissue is searched" in dock.source.text()
        found = cells.dominant()
        recalls = [(found[unseen.types == c] == c).mean() for c in range(len(TYPES))]
        assert np.mean(recalls) > 0.8
        # Gallery: the most certain of a type are of it.
        dock._row_chosen("lymphocytes")
        wait(lambda: dock.controller.crops is not None and dock.is_settled)
        assert (unseen.types[dock.controller.crops.numbers[:10]] == TYPES.index("lymphocytes")).mean() >= 0.9
        # Regions count cells of the types that are there.
        region = Region.from_vertices("left", [(0, 0), (0, 175), (300, 175), (300, 0)])
        codes, names = dock.controller.content.codes("type")
        (inside,) = cells_in_regions(cells.nuclei, [region], codes, names)
        truth = unseen.types[unseen.nuclei.centers_um[:, 1] < 175]
        assert inside.n == len(truth)
        for code, name in enumerate(TYPES):
            assert inside.counts[name] / inside.n == pytest.approx((truth == code).mean(), abs=0.15)
        # squidpy on the export agrees with the dock about who is next to whom.
        dock.controller.measure_neighbours()
        dock.export_as(str(tmp_path / "cells.h5ad"))
        wait(lambda: (tmp_path / "cells.h5ad").exists() and dock.is_settled)
        assert told == []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            squidpy = pytest.importorskip("squidpy")
            table = ad.read_h5ad(tmp_path / "cells.h5ad")
            squidpy.gr.spatial_neighbors(table, coord_type="generic", radius=30 / 0.5)
            squidpy.gr.nhood_enrichment(table, "type", n_perms=50, show_progress_bar=False, seed=0)
        present = [names.index(name) for name in table.obs["type"].cat.categories]
        ours = dock.controller.neighbours.observed[np.ix_(present, present)]
        np.testing.assert_array_equal(table.uns["type_nhood_enrichment"]["count"], ours)
    finally:
        dock.shut_down()
        dock.background.close(wait=True)
