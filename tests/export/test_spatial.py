"""SpatialData of a map: written, read again, and in its place in both coordinate systems."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import napari_cpnn as nc
from map_world import GENES, STRIDE
from napari_cpnn.errors import CpnnWarning, ExportError, GenesError
from napari_cpnn.settings import ExportSettings
from napari_cpnn.slides import Slide


@pytest.fixture(autouse=True)
def spatialdata():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("spatialdata")


@pytest.fixture(params=["memory", "disk"])
def sdata(request, tilted, tmp_path):
    path = tmp_path / "map.zarr" if request.param == "disk" else None
    settings = ExportSettings(reference_px=1200, block_mb=0.0001)
    return nc.to_spatialdata(tilted.cmap, path, None, tilted.slide, settings)


def test_elements_and_the_table_that_annotates_them(sdata, tilted, spatialdata):
    assert set(sdata.images) == {"section_1_image"}
    assert set(sdata.shapes) == {"section_1_patches"}
    table = sdata["table"]
    assert table.uns["spatialdata_attrs"] == {
        "region": "section_1_patches", "region_key": "region", "instance_key": "patch_id"
    }  # fmt: skip
    squares, joined = spatialdata.join_spatialelement_table(
        sdata=sdata, spatial_element_names="section_1_patches", table_name="table", how="inner"
    )
    assert len(squares["section_1_patches"]) == joined.n_obs == tilted.done.sum()
    values = spatialdata.get_values("GENE3", sdata=sdata, element_name="section_1_patches", table_name="table")
    np.testing.assert_allclose(values["GENE3"], tilted.expression("GENE3"), rtol=1e-5, atol=1e-6)
    assert list(table.var_names) == list(GENES)
    assert "T|NK cells" in table.obsm["cell_type_weights"]


def test_places_in_pixels_and_in_micrometres(sdata, tilted, spatialdata):
    row, col = np.nonzero(tilted.done)
    for system, unit in (("section_1", tilted.mpp), ("section_1_um", (1.0, 1.0))):
        extent = spatialdata.get_extent(sdata["section_1_patches"], coordinate_system=system)
        expected = (48 + np.array([col.min(), col.max() + 1]) * STRIDE) / unit[1]
        np.testing.assert_allclose(extent["x"], expected)
        expected = (32 + np.array([row.min(), row.max() + 1]) * STRIDE) / unit[0]
        np.testing.assert_allclose(extent["y"], expected)
        picture = spatialdata.get_extent(sdata["section_1_image"], coordinate_system=system)
        per_px = np.array(tilted.mpp) / unit
        np.testing.assert_allclose(picture["y"], (0, tilted.slide.shape[0] * per_px[0]), rtol=1e-6)
        np.testing.assert_allclose(picture["x"], (0, tilted.slide.shape[1] * per_px[1]), rtol=1e-6)
    centers = spatialdata.get_centroids(sdata["section_1_patches"], coordinate_system="section_1").compute()
    np.testing.assert_allclose(centers[["x", "y"]], sdata["table"].obsm["spatial"])


def test_the_picture_is_small_and_shows_the_tissue(tilted, tmp_path):
    settings = ExportSettings(reference_px=200)
    image = nc.to_spatialdata(tilted.cmap, None, ["GENE0"], tilted.slide, settings)["section_1_image"]
    assert image.shape == (3, *tilted.slide.thumbnail(200).shape[:2])
    assert list(image.coords["c"].values) == ["r", "g", "b"]


def test_without_a_slide_there_is_no_picture(world):
    sdata = nc.to_spatialdata(world.cmap)
    assert not sdata.images
    assert len(sdata.shapes["section_1_patches"]) == world.done.sum()


def test_what_goes_wrong(empty, world, tmp_path):
    with pytest.raises(ExportError, match="No patch of the map has been computed"):
        nc.to_spatialdata(empty)
    with pytest.raises(GenesError, match="does not have NOPE"):
        nc.to_spatialdata(world.cmap, tmp_path / "a.zarr", ["NOPE"])
    with pytest.raises(ExportError, match="more than memory_mb"):
        nc.to_spatialdata(world.cmap, settings=ExportSettings(memory_mb=1e-4))
    assert not (tmp_path / "a.zarr").exists()


def test_our_own_warnings_are_heard(world):
    other = Slide.from_arrays([np.zeros((400, 600, 3), np.uint8)], 0.5, name="other")
    with pytest.warns(CpnnWarning, match="not from other"):
        nc.to_spatialdata(world.cmap, None, ["GENE0"], other)


def test_without_the_library_it_says_what_to_install(world, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(ExportError, match=r"pip install 'napari-cpnn\[spatialdata\]'"):
        nc.to_spatialdata(world.cmap)


def test_a_table_too_large_for_memory_is_written_but_not_read_back(world, tmp_path, spatialdata):
    import dask.array

    small = ExportSettings(memory_mb=1e-4, block_mb=1e-4)
    sdata = nc.to_spatialdata(world.cmap, tmp_path / "a.zarr", None, world.slide, small)
    assert isinstance(sdata["table"].X, dask.array.Array)
    read = spatialdata.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(sdata["table"].X.compute(), read["table"].X)
    np.testing.assert_allclose(read["table"].X[:, 4], world.expression("GENE4"), rtol=1e-5, atol=1e-6)
