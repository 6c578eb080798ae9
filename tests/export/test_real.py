"""From a slide and a model to squidpy, on the packaged sample and on a real section."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest

import napari_cpnn as nc
from fakes import GENES, ColorModel
from napari_cpnn.export.figure import Scene
from napari_cpnn.painting import Shown
from napari_cpnn.samples import her2st_section, sample_folder
from napari_cpnn.settings import MappingSettings
from napari_cpnn.spots import open_sample


@pytest.fixture
def squidpy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("squidpy")


def under_the_cells(table):
    """The picture's saturation under the centre of each cell: tissue is coloured, glass is not."""
    (entry,) = table.uns["spatial"].values()
    x, y = np.floor(table.obsm["spatial"] * entry["scalefactors"]["tissue_hires_scalef"]).astype(int).T
    pixels = entry["images"]["hires"][y, x].astype(float)
    return (pixels.max(axis=1) - pixels.min(axis=1)) / pixels.max(axis=1)


def test_the_packaged_sample(squidpy, tmp_path):
    folder = sample_folder()
    with nc.open_slide(folder / "slide.tiff") as slide:
        model = nc.load_model(folder / "model.safetensors")
        settings = MappingSettings(device="cpu", cache=False)
        cmap = nc.predict_map(slide, model, region=(2000, 1000, 2560, 1560), settings=settings)
        path = nc.to_h5ad(cmap, tmp_path / "sample.h5ad", slide=slide)
    table = ad.read_h5ad(path)
    assert table.n_obs == (cmap.state == 2).sum() > 20
    assert table.n_vars == len(model.genes)
    assert np.median(under_the_cells(table)) > 0.1
    squidpy.gr.spatial_neighbors(table, coord_type="grid", n_neighs=4)
    squidpy.gr.nhood_enrichment(table, cluster_key="dominant_type", seed=0, show_progress_bar=False, n_perms=20)
    found = squidpy.gr.spatial_autocorr(
        table, mode="moran", genes=["ERBB2"], corr_method=None, copy=True, show_progress_bar=False
    )
    place = np.argwhere(cmap.state == 2)
    near = (np.abs(place[:, None] - place[None]).sum(axis=-1) == 1).astype(float)
    near /= np.maximum(near.sum(axis=1, keepdims=True), 1)
    z = cmap.expression("ERBB2")[cmap.state == 2].astype(float)
    z -= z.mean()
    assert found.loc["ERBB2", "I"] == pytest.approx(len(z) / near.sum() * (z @ near @ z) / (z @ z), rel=1e-3)


@pytest.mark.slow  # test_spatial lays generated ones
def test_a_real_section_lies_under_its_spots(shared_data, squidpy, tmp_path):
    """Pixels that are not square, and a pixel size that only the spots tell: all in the same level-0 pixels."""
    slide, counts, positions = her2st_section(shared_data, "C4")
    slide, spots = open_sample(slide, counts, positions=positions)
    with slide:
        settings = MappingSettings(device="cpu", cache=False, stride_um=224.0)
        cmap = nc.predict_map(slide, ColorModel().eval(), settings=settings)
        table = nc.to_anndata(cmap, slide=slide)
        sdata = nc.to_spatialdata(cmap, tmp_path / "c4.zarr", slide=slide)
        scene = Scene(cmap, slide, None)
        tissue = scene.tissue((round(scene.rect.height / 8), round(scene.rect.width / 8)))
        shown = scene.panel(Shown("gene", (GENES[0],)), tissue, nc.FigureSettings(value_range="full", low=-9.0)).picture
    assert list(table.var_names) == list(GENES)
    assert np.mean(under_the_cells(table) > 0.1) > 0.9
    steps = spots.obsm["spatial"][:, None] - table.obsm["spatial"][None]
    inside = (np.abs(steps) <= 224.0 / np.array(slide.mpp[::-1]) / 2).all(axis=-1).sum(axis=1)
    assert inside.max() == 1  # no two cells overlap
    assert inside.mean() > 0.85  # spots at the rim have less tissue than a patch needs
    # In the figure, what is coloured is the tissue, and under the spots.
    colored = (shown != tissue).any(axis=-1)
    um = spots.obsm["spatial"][:, ::-1] * slide.mpp - (scene.rect.y0, scene.rect.x0)
    row, col = np.floor(um / 8).astype(int).T
    assert colored[row, col].mean() > 0.85
    saturation = (tissue.max(axis=-1).astype(float) - tissue.min(axis=-1)) / tissue.max(axis=-1)
    assert np.mean(saturation[colored] > 0.1) > 0.8
    assert 0 < colored.mean() < 0.7
    squares = sdata["5714_HE_BT_D2_patches"]
    side = squares.geometry.iloc[0].bounds
    assert side[2] - side[0] == pytest.approx(224.0 / slide.mpp[1])
    assert side[3] - side[1] == pytest.approx(224.0 / slide.mpp[0])
    squidpy.gr.spatial_neighbors(table, coord_type="grid", n_neighs=4)
    place = table.obs[["array_row", "array_col"]].to_numpy()
    near = np.abs(place[:, None] - place[None]).sum(axis=-1) == 1
    np.testing.assert_array_equal(table.obsp["spatial_connectivities"].toarray() > 0, near)
