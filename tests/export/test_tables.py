"""AnnData of a map: every number against a second way to get it, and squidpy on top."""

from __future__ import annotations

import logging
import tracemalloc
import warnings

import anndata as ad
import numpy as np
import pytest

import napari_cpnn as nc
from map_world import GENES, STRIDE, TYPES, calibrated_map, make_decoder
from napari_cpnn.errors import CpnnWarning, ExportError, GenesError, PixelSizeError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings
from napari_cpnn.slides import Slide

NAMES = [name.replace("/", "|") for name in TYPES]


@pytest.fixture
def squidpy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        squidpy = pytest.importorskip("squidpy")
        logging.getLogger("spatialdata._logging").setLevel(logging.WARNING)
        yield squidpy


def test_one_row_per_computed_cell_in_its_place(tilted):
    table = nc.to_anndata(tilted.cmap, slide=tilted.slide)
    row, col = np.nonzero(tilted.done)
    assert table.shape == (len(row), len(GENES))
    np.testing.assert_array_equal(table.obs["array_row"], row)
    np.testing.assert_array_equal(table.obs["array_col"], col)
    expected = np.stack([(48 + (col + 0.5) * STRIDE) / 0.4, (32 + (row + 0.5) * STRIDE) / 0.5], axis=1)
    np.testing.assert_allclose(table.obsm["spatial"], expected)
    assert table.obs_names[0] == "r1c1"
    assert table.obs_names.is_unique


def test_expression_is_what_the_map_says_and_the_table_carries_its_own_decoder(world):
    table = nc.to_anndata(world.cmap)
    assert table.X.dtype == np.float32
    for g, gene in enumerate(GENES):
        np.testing.assert_allclose(table.X[:, g], world.expression(gene), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(table.X[:, g], world.cmap.expression(gene)[world.done], rtol=1e-5, atol=1e-6)
    again = table.obsm["cell_type_weights"].to_numpy() @ table.varm["cell_type_expression"].to_numpy().T
    again = again + table.obsm["programs"] @ table.varm["program_loadings"].T + table.var["shift"].to_numpy()
    np.testing.assert_allclose(table.X, again, rtol=1e-5, atol=1e-5)
    # The share of a gene that one cell type brings, as the map has it.
    brought = table.obsm["cell_type_weights"]["CAFs"] * table.varm["cell_type_expression"].loc["GENE3", "CAFs"]
    np.testing.assert_allclose(brought, world.cmap.contribution("GENE3", "CAFs")[world.done], rtol=1e-5)


def test_composition_dominant_type_and_colours(world):
    table = nc.to_anndata(world.cmap, ["GENE2"])
    weights = table.obsm["cell_type_weights"]
    assert list(weights.columns) == NAMES
    np.testing.assert_array_equal(weights.to_numpy(), world.weights[world.done].astype(np.float32))
    drawn = [NAMES[int(kind)] for kind in world.drawing[world.done]]
    assert list(table.obs["dominant_type"]) == drawn
    colors = dict(zip(table.obs["dominant_type"].cat.categories, table.uns["dominant_type_colors"], strict=True))
    assert colors == {name: type_colors(TYPES)[kind] for name, kind in zip(NAMES, TYPES, strict=True)}
    np.testing.assert_array_equal(table.obs["dominant_share"], weights.max(axis=1))
    assert np.isnan(table.obs["out_of_domain"].iloc[0])
    assert table.obs["out_of_domain"].iloc[1:].between(0, 1).all()


def test_only_types_that_occur_are_categories(world):
    world.cmap.fill(np.flatnonzero(world.drawing == "1"), np.tile([1.0, 0, 0, 0], (7, 1)), np.zeros((7, 2)))
    table = nc.to_anndata(world.cmap, ["GENE0"])
    assert list(table.obs["dominant_type"].cat.categories) == ["B cells", "Epithelial", "CAFs"]
    assert table.uns["dominant_type_colors"] == [type_colors(TYPES)[TYPES[k]] for k in (0, 2, 3)]


def test_the_picture_lies_under_the_cells(tilted):
    """Under each cell's centre, the picture shows tissue; in the middle of background, it does not."""
    table = nc.to_anndata(tilted.cmap, ["GENE0"], tilted.slide, ExportSettings(image_px=300))
    (entry,) = table.uns["spatial"].values()
    assert list(table.uns["spatial"]) == ["section 1"]
    for size in ("hires", "lowres"):
        picture, factor = entry["images"][size], entry["scalefactors"][f"tissue_{size}_scalef"]
        x, y = np.floor(table.obsm["spatial"] * factor).astype(int).T
        assert (picture[y, x, 1] < 100).all()
        assert picture[-1, -1, 1] > 200
        assert max(picture.shape) == 300
    side = entry["scalefactors"]["spot_diameter_fullres"]
    assert STRIDE / 0.5 < side < STRIDE / 0.4


def test_chosen_genes_come_in_their_order_each_once(world):
    table = nc.to_anndata(world.cmap, ["GENE5", "GENE1", "GENE5"])
    assert list(table.var_names) == ["GENE5", "GENE1"]
    np.testing.assert_allclose(table["r2c3", "GENE1"].X, world.cmap.expression("GENE1")[2, 3], rtol=1e-5)
    assert list(nc.to_anndata(world.cmap, "GENE1").var_names) == ["GENE1"]
    assert nc.to_anndata(world.cmap, []).n_vars == 0


def test_where_it_comes_from(world):
    facts = nc.to_anndata(world.cmap, ["GENE0"]).uns["napari_cpnn"]
    assert facts["slide"] == "section 1"
    assert facts["model_fingerprint"] == "abc"
    assert facts["mpp"] == [0.5, 0.5]
    assert "log1p" in facts["values"]
    assert "unknown" not in facts


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_file_holds_the_same(world, tmp_path, compression):
    settings = ExportSettings(block_mb=0.0001, compression=compression)  # two cells a block
    path = nc.to_h5ad(world.cmap, tmp_path / "map.h5ad", None, world.slide, settings)
    table, read = nc.to_anndata(world.cmap, None, world.slide), ad.read_h5ad(path)
    np.testing.assert_allclose(read.X, table.X, rtol=1e-6)
    np.testing.assert_array_equal(read.obsm["spatial"], table.obsm["spatial"])
    for frame in ("obs", "var"):
        assert getattr(read, frame).equals(getattr(table, frame))
    assert read.obsm["cell_type_weights"].equals(table.obsm["cell_type_weights"])
    assert list(read.uns["dominant_type_colors"]) == table.uns["dominant_type_colors"]
    entry = read.uns["spatial"]["section 1"]
    np.testing.assert_array_equal(entry["images"]["hires"], table.uns["spatial"]["section 1"]["images"]["hires"])
    assert read.uns["napari_cpnn"]["slide"] == "section 1"
    assert [p.name for p in tmp_path.glob("*") if p.name != "cache"] == ["map.h5ad"]
    backed = ad.read_h5ad(path, backed="r")
    np.testing.assert_allclose(np.asarray(backed[:, "GENE4"].X)[:, 0], table[:, "GENE4"].X[:, 0], rtol=1e-6)
    backed.file.close()


def test_a_large_table_is_not_held_in_memory(tmp_path):
    """200 x 200 cells x 3,000 genes are 480 MB as a table."""
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(3000)]
    grid = Grid((200, 200), 50.0)
    cmap = CompositionMap(grid, make_decoder(genes=genes), provenance={"mpp": [0.5, 0.5]})
    cmap.fill(np.arange(grid.n_cells), rng.dirichlet(np.ones(4), grid.n_cells), rng.normal(size=(grid.n_cells, 2)))
    with pytest.raises(ExportError, match=r"3,000 genes in 40,000 patches needs 458 MB, more than memory_mb \(400\)"):
        nc.to_anndata(cmap, settings=ExportSettings(memory_mb=400))
    tracemalloc.start()
    try:
        path = nc.to_h5ad(cmap, tmp_path / "large.h5ad", settings=ExportSettings(block_mb=4))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6  # blocks of as many threads as there are cores, and the small columns
    backed = ad.read_h5ad(path, backed="r")
    assert backed.shape == (40_000, 3000)
    row = np.asarray(backed.X[12_345])
    backed.file.close()
    expected = [cmap.expression(gene)[61, 145] for gene in genes[:5]]
    np.testing.assert_allclose(row[:5], expected, rtol=1e-5)
    path.unlink()


@pytest.mark.parametrize(("types", "n_programs"), [((), 3), (("A", "B"), 0)])
def test_models_without_cell_types_or_without_programs(types, n_programs, tmp_path):
    rng = np.random.default_rng(0)
    cmap = CompositionMap(Grid((3, 4), 10.0), make_decoder(types, n_programs=n_programs), provenance={"mpp": (1, 1)})
    weights = rng.dirichlet(np.ones(len(types)), 12) if types else np.zeros((12, 0))
    cmap.fill(np.arange(12), weights, rng.normal(size=(12, n_programs)))
    table = ad.read_h5ad(nc.to_h5ad(cmap, tmp_path / "m.h5ad"))
    np.testing.assert_allclose(table.X[:, 3], cmap.expression("GENE3").ravel(), rtol=1e-5, atol=1e-6)
    assert ("cell_type_weights" in table.obsm) == ("dominant_type" in table.obs) == bool(types)
    assert ("programs" in table.obsm) == bool(n_programs)


def test_what_is_known_is_exported_while_the_map_fills(world):
    before = nc.to_anndata(world.cmap, ["GENE0"])
    world.cmap.fill(np.flatnonzero(world.drawing == "?"), np.tile([0.7, 0.1, 0.1, 0.1], (4, 1)), np.zeros((4, 2)))
    after = nc.to_anndata(world.cmap, ["GENE0"])
    assert after.n_obs == before.n_obs + 4
    assert set(before.obs_names) < set(after.obs_names)


# -- squidpy ---------------------------------------------------------------------------------------------------


def test_squidpy_finds_the_four_neighbours(world, squidpy):
    table = nc.to_anndata(world.cmap, ["GENE0"])
    squidpy.gr.spatial_neighbors(table, coord_type="grid", n_neighs=4)
    place = table.obs[["array_row", "array_col"]].to_numpy()
    steps = np.abs(place[:, None] - place[None]).sum(axis=-1)
    np.testing.assert_array_equal(table.obsp["spatial_connectivities"].toarray() > 0, steps == 1)


def test_morans_i_by_squidpy_and_by_hand(world, squidpy):
    table = nc.to_anndata(world.cmap)
    squidpy.gr.spatial_neighbors(table, coord_type="grid", n_neighs=4)
    found = squidpy.gr.spatial_autocorr(
        table, mode="moran", genes=list(GENES), corr_method=None, copy=True, show_progress_bar=False
    )
    place = np.argwhere(world.done)
    near = (np.abs(place[:, None] - place[None]).sum(axis=-1) == 1).astype(float)
    near /= np.maximum(near.sum(axis=1, keepdims=True), 1)  # rows sum to 1, as in squidpy
    for gene in GENES:
        z = world.expression(gene) - world.expression(gene).mean()
        expected = len(z) / near.sum() * (z @ near @ z) / (z @ z)
        assert found.loc[gene, "I"] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_squidpy_draws_the_map_and_tests_neighbourhoods(world, squidpy, tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    path = nc.to_h5ad(world.cmap, tmp_path / "m.h5ad", slide=world.slide)
    table = ad.read_h5ad(path)
    squidpy.gr.spatial_neighbors(table, coord_type="grid", n_neighs=4)
    squidpy.gr.nhood_enrichment(table, cluster_key="dominant_type", seed=0, show_progress_bar=False, n_perms=50)
    score = table.uns["dominant_type_nhood_enrichment"]["zscore"]
    assert score.shape == (4, 4)
    assert np.nanmin(np.diag(score)) > 0  # each type is drawn in patches
    with mpl.rc_context({"figure.dpi": 60}):
        for image in ({"img_res_key": "hires"}, {"img_res_key": "lowres"}, {"img": False}):
            squidpy.pl.spatial_scatter(table, color=["dominant_type", "GENE1"], shape="square", **image)
            plt.close("all")
        alone = nc.to_anndata(world.cmap, ["GENE1"])  # without a slide
        squidpy.pl.spatial_scatter(alone, color="dominant_type", shape="square", img=False)
        plt.close("all")


# -- what goes wrong -------------------------------------------------------------------------------------------


def test_an_empty_map(empty):
    with pytest.raises(ExportError, match="No patch of the map has been computed yet"):
        nc.to_anndata(empty)


def test_unknown_genes(world):
    with pytest.raises(GenesError, match="The model of this map does not have NOPE, NIX"):
        nc.to_anndata(world.cmap, ["GENE1", "NOPE", "NIX"])


def test_no_pixel_size(world):
    del world.cmap.provenance["mpp"]
    with pytest.raises(PixelSizeError, match="give the slide as well"):
        nc.to_anndata(world.cmap)
    assert nc.to_anndata(world.cmap, slide=world.slide).obsm["spatial"][0, 0] == 1.5 * STRIDE / 0.5
    with pytest.raises(PixelSizeError, match="Neither the map nor section 1 has a pixel size"):
        nc.to_anndata(world.cmap, slide=world.slide.with_mpp(None))


def test_the_pixel_size_of_the_map_counts_for_its_own_slide(world):
    """It may have been given by hand, because the file states a wrong one, or none."""
    assert nc.to_anndata(world.cmap, slide=world.slide.with_mpp(2.0)).obsm["spatial"][0, 0] == 1.5 * STRIDE / 0.5
    assert nc.to_anndata(world.cmap, slide=world.slide.with_mpp(None)).obsm["spatial"][0, 0] == 1.5 * STRIDE / 0.5


def test_the_slide_of_another_map(world):
    pixels = np.zeros((100, 120, 3), np.uint8)
    with pytest.raises(ExportError, match=r"The map extends to 160 x 288 um \(y, x\), but small has only 50 x 60 um"):
        nc.to_anndata(world.cmap, slide=Slide.from_arrays([pixels], 0.5, name="small"))
    with pytest.raises(ExportError, match=r"coarse has pixels of 2 x 2 um, but the map was made on a slide with 0.5"):
        nc.to_anndata(world.cmap, slide=Slide.from_arrays([pixels], 2.0, name="coarse"))
    other = Slide.from_arrays([np.zeros((400, 600, 3), np.uint8)], 0.5, name="other")
    with pytest.warns(CpnnWarning, match="made from the slide section 1, not from other"):
        nc.to_anndata(world.cmap, slide=other)


def test_genes_of_a_table_can_be_sorted_by_trust(world):
    table = nc.to_anndata(calibrated_map(world, [400.0, -1.0, -2.0, 200.0]), [GENES[3], GENES[0], GENES[1], GENES[2]])
    assert table.var["trusted_um"].tolist()[:3] == [200.0, 400.0, np.inf]
    assert np.isnan(table.var["trusted_um"].iloc[3])
    assert "held_out_pcc" in table.var
    assert "trusted_um" not in nc.to_anndata(world.cmap).var
