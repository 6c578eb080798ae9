"""OME-Zarr of a map: read with zarr alone, and by the field's own reader and validator."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import napari_cpnn as nc
from map_world import STRIDE, TYPES, make_decoder
from napari_cpnn.geometry import Grid, LayerFrame
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings

VERSIONS = ["0.4", "0.5"]


def written(world, tmp_path, version="0.5", genes=("GENE3",)):
    return nc.to_ome_zarr(world.cmap, tmp_path / "map.ome.zarr", genes, ExportSettings(ome_zarr_version=version))


def metadata(path):
    attributes = dict(zarr.open_group(path, mode="r").attrs)
    return attributes.get("ome", attributes)


@pytest.mark.parametrize("version", VERSIONS)
def test_zarr_alone_reads_the_values(world, tmp_path, version):
    path = written(world, tmp_path, version)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    image = group["0"][...]
    assert image.shape == (len(TYPES) + 2, *world.drawing.shape)
    for k, name in enumerate(TYPES):
        np.testing.assert_array_equal(image[k], world.cmap.weight(name))
    np.testing.assert_array_equal(image[4], world.cmap.out_of_domain.astype(np.float32))
    np.testing.assert_allclose(image[5], world.cmap.expression("GENE3"), rtol=1e-5, atol=1e-6)
    assert np.isnan(image[:, ~world.done]).all()


@pytest.mark.parametrize("version", VERSIONS)
def test_names_colours_and_ranges(world, tmp_path, version):
    channels = metadata(written(world, tmp_path, version))["omero"]["channels"]
    assert [c["label"] for c in channels] == [*TYPES, "Out of domain", "GENE3"]
    assert [f"#{c['color']}" for c in channels[:4]] == list(type_colors(TYPES).values())
    assert sum(c["active"] for c in channels) == 3
    for channel in channels:
        window = channel["window"]
        assert window["min"] <= window["start"] < window["end"] <= window["max"]


@pytest.mark.parametrize("version", VERSIONS)
def test_it_lies_where_our_overlays_lie(world, tmp_path, version):
    (multiscale,) = metadata(written(world, tmp_path, version))["multiscales"]
    assert [a["name"] for a in multiscale["axes"]] == ["c", "y", "x"]
    assert {a.get("unit") for a in multiscale["axes"][1:]} == {"micrometer"}
    scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
    frame = LayerFrame.of_slide(world.mpp).grid_transform(world.cmap.grid)
    np.testing.assert_allclose((scale["scale"][1:], translation["translation"][1:]), frame)


def test_a_map_of_a_region_lies_in_its_place_also_without_the_translation(tilted, tmp_path):
    path = written(tilted, tmp_path)
    (multiscale,) = metadata(path)["multiscales"]
    scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
    assert translation["translation"] == [0.0, STRIDE / 2, STRIDE / 2]
    image = zarr.open_group(path, mode="r")["0"][...]
    assert image.shape[1:] == (10 + 2, 18 + 3)  # the region begins 32 and 48 um from the slide's corner
    np.testing.assert_array_equal(image[0, 2:, 3:], tilted.cmap.weight(TYPES[0]))
    known = np.argwhere(np.isfinite(image[0])) * np.array(scale["scale"][1:]) + translation["translation"][1:]
    np.testing.assert_allclose(known, tilted.cmap.grid.centers_um(np.argwhere(tilted.done)))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_validator_of_the_standard_accepts_it(world, tmp_path, version):
    models = pytest.importorskip("ome_zarr_models")
    image = models.open_ome_zarr(zarr.open_group(written(world, tmp_path, version), mode="r"))
    assert type(image).__name__ == "Image"
    assert image.ome_zarr_version == version


@pytest.mark.parametrize("version", VERSIONS)
def test_ome_zarr_py_reads_it(world, tmp_path, version):
    io = pytest.importorskip("ome_zarr.io")
    from ome_zarr.reader import Reader

    (node,) = Reader(io.parse_url(written(world, tmp_path, version)))()
    assert node.metadata["channel_names"] == [*TYPES, "Out of domain", "GENE3"]
    assert node.data[0].shape == (6, *world.drawing.shape)
    np.testing.assert_array_equal(np.asarray(node.data[0][0]), world.cmap.weight(TYPES[0]))


def test_where_it_comes_from(world, tmp_path):
    facts = zarr.open_group(written(world, tmp_path), mode="r").attrs["napari_cpnn_export"]
    assert facts["slide"] == "section 1"
    assert facts["stride_um"] == STRIDE


def test_a_plain_head_and_a_gene_called_like_a_cell_type(tmp_path):
    decoder = make_decoder(("CD4", "CAFs"), genes=("CD4", "ERBB2"))
    cmap = CompositionMap(Grid((2, 3), 10.0), decoder)
    cmap.fill(np.arange(6), np.tile([0.75, 0.25], (6, 1)), np.ones((6, 2)))
    image = zarr.open_group(nc.to_ome_zarr(cmap, tmp_path / "a.ome.zarr", ["CD4"]), mode="r")["0"][...]
    np.testing.assert_allclose(image[2], cmap.expression("CD4"), rtol=1e-5)
    np.testing.assert_array_equal(image[0], 0.75)
    plain = CompositionMap(Grid((2, 3), 10.0), make_decoder(()))
    plain.fill(np.arange(6), np.zeros((6, 0)), np.ones((6, 2)))
    path = nc.to_ome_zarr(plain, tmp_path / "b.ome.zarr", ["GENE0"])
    assert metadata(path)["omero"]["channels"][0]["active"]
    with pytest.raises(nc.CpnnError, match="has no cell types, so an image of its map needs genes"):
        nc.to_ome_zarr(plain, tmp_path / "c.ome.zarr")
