"""Places where a gene is high or low, in every export."""

from __future__ import annotations

import csv
import json

import anndata
import numpy as np
import pytest
import zarr

import napari_cpnn as nc
from map_world import GENES, STRIDE, World
from napari_cpnn.export.figure import Scene, as_shown
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import MarkedPlaces
from napari_cpnn.models import Selection
from napari_cpnn.settings import FigureSettings

GENE = GENES[0]


@pytest.fixture
def marked(world: World) -> World:
    mask = np.zeros(world.cmap.grid.shape, dtype=bool)
    mask[1:4, 1:3] = True
    places = MarkedPlaces(GENE, "high", 0.1, Selection(600.0, 300.0, 0.1, 0.083), mask)
    world.cmap.marked[places.name] = places
    return world


def expected(world: World) -> np.ndarray:
    """Marks of the computed patches, row by row."""
    row, col = np.nonzero(world.done)
    return (row >= 1) & (row < 4) & (col >= 1) & (col < 3)


def test_tables_have_a_column(marked, tmp_path):
    nc.to_h5ad(marked.cmap, tmp_path / "map.h5ad", [GENE])
    table = anndata.read_h5ad(tmp_path / "map.h5ad")
    np.testing.assert_array_equal(table.obs[f"{GENE} high"], expected(marked))
    assert table.obs[f"{GENE} high"].dtype == bool
    assert table.uns["napari_cpnn"]["marked_places"].startswith(f"{GENE} high: mean over 600 µm above the median")
    nc.to_csv(marked.cmap, tmp_path / "map.csv")
    with (tmp_path / "map.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line[f"{GENE} high"] for line in lines] == [str(int(m)) for m in expected(marked)]


def test_an_image_has_a_channel(marked, tmp_path):
    nc.to_ome_zarr(marked.cmap, tmp_path / "map.ome.zarr")
    group = zarr.open_group(str(tmp_path / "map.ome.zarr"), mode="r")
    names = [channel["label"] for channel in group.attrs["ome"]["omero"]["channels"]]
    plane = group["0"][names.index(f"{GENE} high")][-marked.drawing.shape[0] :, -marked.drawing.shape[1] :]
    np.testing.assert_array_equal(plane[marked.done] == 1, expected(marked))


def test_regions_have_the_share_of_marked_patches(marked, tmp_path):
    nc.to_geojson(marked.cmap, tmp_path / "map.geojson")
    features = json.loads((tmp_path / "map.geojson").read_text())["features"]
    shares = [f["properties"]["measurements"][f"{GENE} high (share of patches)"] for f in features]
    patches = [f["properties"]["measurements"]["Patches"] for f in features]
    assert sum(n * share for n, share in zip(patches, shares, strict=True)) == pytest.approx(expected(marked).sum())
    assert 0 in shares


def test_a_part_of_a_map_keeps_its_marks(marked):
    part = nc.part_of(marked.cmap, Rect(STRIDE, 2 * STRIDE, 3 * STRIDE, 5 * STRIDE))
    np.testing.assert_array_equal(part.marked[f"{GENE} high"].mask, [[True, False, False], [True, False, False]])


def test_figures_outline_the_places_on_the_panel_of_their_gene(marked, tmp_path):
    scene, settings = Scene(marked.cmap, None, None), FigureSettings()
    tissue = scene.tissue((100, 100))
    own, other = (scene.panel(as_shown(marked.cmap, name), tissue, settings) for name in GENES[:2])
    assert own.high.bounds == (STRIDE, STRIDE, 3 * STRIDE, 4 * STRIDE)
    assert own.high.area == 6 * STRIDE**2
    assert own.low is other.high is None
    notes = scene.notes(settings, [as_shown(marked.cmap, name) for name in GENES[:2]])
    assert notes.count("Outlined") == 1
    assert "measured on held-out sections: GENE0 high (mean over 600 µm, 10%)." in notes
    nc.to_figure(marked.cmap, tmp_path / "plain.png", [GENES[1]])
    nc.to_figure(marked.cmap, tmp_path / "marked.png", [GENE])


def test_an_empty_mask_is_drawn_and_noted(marked):
    marked.cmap.marked[f"{GENE} high"].mask[:] = False
    scene = Scene(marked.cmap, None, None)
    assert scene.panel(as_shown(marked.cmap, GENE), scene.tissue((50, 50)), FigureSettings()).high is None
