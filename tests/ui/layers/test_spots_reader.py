"""Spots that are dropped onto napari, and those that napari-spatialdata shows: from layer to table and back."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from napari.components import ViewerModel
from napari.layers import Image, Points, Shapes
from tests.spots.test_libraries import two
from tests.ui.conftest import GENES, MPP, tissue_image, write_slide

from napari_cpnn import read_spots
from napari_cpnn.errors import SpotsError
from napari_cpnn.geometry import spatial_to_um
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.layers.reader import read_slides
from napari_cpnn.ui.layers.slide_layers import is_slide_layer, slide_of_layer, um_to_world, world_to_um
from napari_cpnn.ui.layers.spot_tables import has_table, is_ours, spots_of_layer
from napari_cpnn.ui.layers.spots_reader import get_spots_reader, read_spot_layers, source_of

STEP = 100 / MPP  # px between the spots of Visium


def write_run(folder: Path, shift: tuple[float, float] = (400.0, 350.0)) -> tuple[np.ndarray, list[str]]:
    """A Space Ranger folder with 40 spots in a hexagonal array; returns their pixels (x, y) and barcodes."""
    rows, cols = np.divmod(np.arange(40), 8)
    array = np.stack([2 * cols + rows % 2, rows], axis=1)
    xy = array * [STEP / 2, STEP * np.sqrt(0.75)] + shift
    names = [f"AC{i:02d}-1" for i in range(40)]
    (folder / "spatial").mkdir(parents=True)
    table = pd.DataFrame({"barcode": names, "in_tissue": 1, "array_row": array[:, 1], "array_col": array[:, 0],
                          "pxl_row_in_fullres": xy[:, 1], "pxl_col_in_fullres": xy[:, 0]})  # fmt: skip
    table.to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    factors = {"spot_diameter_fullres": 55 / MPP, "tissue_hires_scalef": 0.1}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    counts = sp.csc_matrix(np.random.default_rng(0).poisson(5, (len(GENES), 40)).astype(np.int32) + 1)
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(names, dtype="S18")
        group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
        group["shape"] = np.array(counts.shape, dtype=np.int32)
        features = group.create_group("features")
        features["id"] = features["name"] = np.array(GENES, dtype="S20")
        features["feature_type"] = np.array(["Gene Expression"] * len(GENES), dtype="S20")
    return xy, names


def add(viewer: ViewerModel, path: Path) -> list:
    layers = []
    for data, keywords, kind in get_spots_reader(str(path))(str(path)):
        layers.append({"points": Points, "image": Image}[kind](data, **keywords))
        viewer.add_layer(layers[-1])
    return layers


def test_a_dropped_run_brings_its_slide_and_the_spots_lie_on_it(tmp_path: Path) -> None:
    xy, _ = write_run(tmp_path / "Breast" / "outs")
    write_slide(tmp_path / "Breast" / "section.tif", tissue_image(), mpp=None)
    viewer = ViewerModel()
    slide, spots = add(viewer, tmp_path / "Breast")
    assert (slide.name, spots.name) == ("section", "Breast")
    np.testing.assert_allclose(slide.scale, MPP, rtol=1e-3)  # of the pitch: the file says nothing
    np.testing.assert_allclose(np.array([slide.world_to_data(p) for p in spots.data]) + 0.5, xy[:, ::-1], atol=1e-6)
    assert spots.size[0] == pytest.approx(55, rel=1e-3)
    assert spots.units == slide.units
    assert has_table(spots)
    assert is_ours(spots)
    assert source_of(spots) == tmp_path / "Breast" / "outs"
    assert spots_of_layer(spots, slide, (MPP, MPP)).n_obs == 40


def test_beside_a_slide_that_is_open_only_spots_are_added(tmp_path: Path, make_napari_viewer_proxy) -> None:
    xy, _ = write_run(tmp_path / "outs")
    path = write_slide(tmp_path / "section.tif", tissue_image())
    viewer = make_napari_viewer_proxy()
    for data, keywords, _ in read_slides(str(path)):
        slide = viewer.add_image(data, **keywords)
    slide.translate = (1000.0, -500.0)  # the user has moved it
    (spots,) = viewer.open(str(tmp_path / "outs"), plugin="napari-cpnn")
    np.testing.assert_allclose(np.array([slide.world_to_data(p) for p in spots.data]) + 0.5, xy[:, ::-1], atol=1e-6)


def test_without_a_slide_the_pitch_says_the_size(tmp_path: Path) -> None:
    xy, _ = write_run(tmp_path / "outs")
    (spots,) = add(ViewerModel(), tmp_path / "outs")
    np.testing.assert_allclose(spots.data, spatial_to_um(xy, (MPP, MPP)), rtol=2e-3)
    assert spots.size[0] == pytest.approx(55, rel=1e-2)


def test_a_dropped_spatialdata_folder_brings_its_image(tmp_path: Path, make_napari_viewer_proxy) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

    xy, names = write_run(tmp_path / "outs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        obs = pd.DataFrame({"region": pd.Categorical(["spots"] * 40), "spot_id": np.arange(40)}, index=names)
        table = AnnData(np.full((40, 2), 3.0, np.float32), obs=obs, var=pd.DataFrame(index=["ERBB2", "EPCAM"]))
        spatialdata.SpatialData(
            images={"he": Image2DModel.parse(tissue_image().transpose(2, 0, 1), dims=("c", "y", "x"))},
            shapes={"spots": ShapesModel.parse(xy, geometry=0, radius=55.0)},
            tables={"table": TableModel.parse(table, region="spots", region_key="region", instance_key="spot_id")},
        ).write(tmp_path / "s.zarr")
    viewer = make_napari_viewer_proxy()
    slide, spots = viewer.open(str(tmp_path / "s.zarr"), plugin="napari-cpnn")
    np.testing.assert_allclose(slide.scale, MPP, rtol=1e-3)
    np.testing.assert_allclose(np.array([slide.world_to_data(p) for p in spots.data]) + 0.5, xy[:, ::-1], atol=1e-6)
    opened = slide_of_layer(slide)
    np.testing.assert_array_equal(opened.read_region(300, 300, 5, 5), tissue_image()[300:305, 300:305])


def test_anything_else_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    start = time.perf_counter()
    for path in (tmp_path, tmp_path / "images", tmp_path / "no.h5ad"):
        assert get_spots_reader(str(path)) is None
    assert get_spots_reader([]) is None
    assert time.perf_counter() - start < 0.1


def test_many_points_go_through_a_turned_layer_at_once() -> None:
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    layer = Image(np.zeros((9, 9, 3), np.uint8), rgb=True, scale=(0.5, 0.4), translate=(7, 9), rotate=turn)
    um = np.random.default_rng(0).uniform(0, 99, (50, 2))
    each = np.array([um_to_world(layer, (0.5, 0.4), point[None])[0] for point in um])
    np.testing.assert_allclose(um_to_world(layer, (0.5, 0.4), um), each)
    np.testing.assert_allclose(world_to_um(layer, (0.5, 0.4), each), um)


# -- napari-spatialdata ------------------------------------------------------------------------------------


def annotated(xy: np.ndarray, shape: str, shuffle: bool = True) -> tuple[Points | Shapes, AnnData]:
    """A layer with the metadata that napari-spatialdata gives circles and polygons; its table has other rows too.

    The element is in a coordinate system of half the pixels, and the layer's affine takes it to the image.
    """
    rng = np.random.default_rng(1)
    n = len(xy)
    order = rng.permutation(n) if shuffle else np.arange(n)
    ids = np.array([f"id{i}" for i in range(n)])
    obs = pd.DataFrame({"region": ["spots"] * n + ["others"] * 3, "spot_id": [*ids[order], "id0", "id1", "x"]})
    obs.index = [f"b{i}" for i in range(n + 3)]
    counts = np.concatenate([np.tile(order[:, None] + 1, (1, 2)), np.full((3, 2), 9)])
    table = AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=["ERBB2", "EPCAM"]))
    half = xy[:, ::-1] / 2
    metadata = {
        "sdata": object(), "adata": table, "region_key": "region", "instance_key": "spot_id", "table_names": ["table"],
        "name": "spots", "_active_in_cs": {"global"}, "_current_cs": "global", "_n_indices": n, "indices": list(ids),
    }  # fmt: skip
    affine = np.diag([2.0, 2.0, 1.0])
    if shape == "circles":
        return Points(half, size=20.0, name="spots", affine=affine, metadata=metadata), table
    square = np.array([(-5, -5), (-5, 5), (5, 5), (5, -5), (-5, -5)])  # closed, as shapely gives it
    polygons = [center + square for center in half]
    return Shapes(polygons, shape_type="polygon", name="spots", affine=affine, metadata=metadata), table


@pytest.mark.parametrize("shape", ["circles", "polygons"])
def test_shapes_of_napari_spatialdata_are_matched_by_their_key(shape: str) -> None:
    xy = np.random.default_rng(0).uniform(100, 900, (30, 2))
    layer, table = annotated(xy, shape)
    assert has_table(layer)
    assert not is_ours(layer)
    # Its images are RGB layers in pixels, of which the user says the size.
    slide = Image(np.zeros((1000, 1000, 3), dtype=np.uint8), rgb=True, metadata={"sdata": object(), "name": "image"})
    spots = spots_of_layer(layer, slide, (0.5, 0.4))
    assert spots.n_obs == 30
    wanted = [int(name.removeprefix("id")) for name in spots.obs["spot_id"]]
    np.testing.assert_allclose(spots.obsm["spatial"], xy[wanted] + 0.5, atol=1e-4)  # napari counts from pixel centres
    np.testing.assert_array_equal(spots.layers["counts"].toarray()[:, 0], np.array(wanted) + 1)
    (library,) = spots.uns["spatial"].values()
    assert library["scalefactors"]["spot_diameter_fullres"] == pytest.approx(40 if shape == "circles" else 20, rel=1e-3)
    without = spots_of_layer(layer, None, None)
    np.testing.assert_allclose(without.obsm["spatial"], xy[wanted], atol=1e-4)
    assert "spatial" not in table.obsm  # the user's own table stays as it is


def test_a_layer_of_two_sections_is_refused_with_their_names() -> None:
    at = np.stack(np.meshgrid(np.arange(6), np.arange(6)), axis=-1).reshape(-1, 2) * 100.0
    xy = np.concatenate([at, at + np.array([37.0, 22.0])])
    layer, table = annotated(xy, "circles")
    table.obs["stage"] = ["early" if int(name.strip("idx") or 99) < 36 else "late" for name in table.obs["spot_id"]]
    with pytest.raises(SpotsError, match=r"layer 'spots' holds the spots of 2 libraries \(early, late\)"):
        spots_of_layer(layer, None, None)
    layer.metadata["adata"] = table[table.obs["stage"] == "late"].copy()
    assert spots_of_layer(layer, None, None).n_obs == 36


def test_tables_that_cannot_be_matched_are_a_sentence() -> None:
    layer, table = annotated(np.random.default_rng(0).uniform(0, 9, (30, 2)), "circles")
    layer.metadata["indices"] = [f"other{i}" for i in range(30)]
    with pytest.raises(SpotsError, match="cannot be matched"):
        spots_of_layer(layer, None, None)
    layer.metadata["indices"] = [f"id{i}" for i in range(30)]
    table.X = table.X * 0.5
    with pytest.raises(SpotsError, match="The table of layer 'spots' holds no raw counts"):
        spots_of_layer(layer, None, None)


def test_an_image_of_napari_spatialdata_is_a_slide() -> None:
    xarray = pytest.importorskip("xarray")
    import dask.array as da

    levels = [
        xarray.DataArray(da.full((size, size, 3), 200, dtype=np.uint8), dims=("y", "x", "c")) for size in (64, 32)
    ]
    layer = Image(
        levels, rgb=True, multiscale=True, contrast_limits=(0, 255), metadata={"sdata": object(), "name": "he"}
    )
    assert is_slide_layer(layer)
    slide = slide_of_layer(layer, (0.5, 0.5))
    assert slide.level_shapes == [(64, 64), (32, 32)]
    assert slide.read_region(0, 0, 4, 4).max() == 200


# -- drawing -----------------------------------------------------------------------------------------------


def test_a_borrowed_layer_is_painted_moved_and_given_back(tmp_path: Path) -> None:
    xy, _ = write_run(tmp_path / "outs")
    viewer = ViewerModel()
    path = write_slide(tmp_path / "elsewhere.tif", tissue_image())
    ((data, keywords, _),) = read_slides(str(path))
    slide = viewer.add_image(data, **keywords)
    (layer,) = [item for item in add(viewer, tmp_path / "outs") if isinstance(item, Points)]
    name = layer.name
    spots = SpotsLayer(viewer)
    spots.borrow(layer)
    um = spatial_to_um(xy + 10, (MPP, MPP))
    spots.place(slide, (MPP, MPP), um, 55.0)
    assert spots.layer is layer
    np.testing.assert_allclose(layer.data, um, atol=1e-3)
    colors = np.random.default_rng(0).uniform(0, 1, (40, 4)).astype(np.float32)
    spots.paint(colors, "Spots: ERBB2 measured")
    np.testing.assert_allclose(layer.face_color, colors, atol=1e-6)
    assert layer.name == f"{name}: ERBB2 measured"
    spots.close()
    assert layer in viewer.layers
    assert layer.name == name


def test_points_that_the_user_selects_are_told_and_those_of_the_chart_stand_out() -> None:
    viewer = ViewerModel()
    slide = viewer.add_image(np.zeros((99, 99, 3), dtype=np.uint8), rgb=True)
    spots = SpotsLayer(viewer)
    spots.place(slide, (1.0, 1.0), np.random.default_rng(0).uniform(0, 99, (10, 2)), 5.0)
    told: list[list[int]] = []
    spots.chosen.connect(lambda rows: told.append(rows.tolist()))
    spots.layer.selected_data = {2, 5}
    assert told[-1] == [2, 5]
    assert set(np.flatnonzero(spots.layer.border_color[:, 0] > 0.9)) == {2, 5}
    told.clear()
    spots.mark(np.array([1, 7]))
    assert set(np.flatnonzero(spots.layer.border_color[:, 0] > 0.9)) == {1, 7}
    assert set(spots.layer.selected_data) == set()
    assert told == []
    spots.close()
    assert len(viewer.layers) == 1


def test_a_real_folder_is_read(shared_data: Path) -> None:
    picture, layer = add(ViewerModel(), shared_data / "visium-human-breast-10x-subset")
    table = read_spots(shared_data / "visium-human-breast-10x-subset")
    assert len(layer.data) == table.n_obs == 338
    nearest = np.sort(np.linalg.norm(layer.data[:, None] - layer.data[None], axis=2), axis=1)[:, 1]
    assert np.median(nearest) == pytest.approx(100, rel=0.02)  # um: the pitch of Visium
    # There is no slide, so the small picture shows the tissue; its pixels under the spots are those of Space Ranger.
    assert not is_slide_layer(picture)
    (library,) = table.uns["spatial"].values()
    on_picture = table.obsm["spatial"][:, ::-1] * library["scalefactors"]["tissue_hires_scalef"]
    index = np.array([picture.world_to_data(point) for point in layer.data])
    np.testing.assert_allclose(index + 0.5, on_picture, atol=0.05)
    assert picture.data[tuple(np.rint(index).astype(int).T)].mean() < picture.data.mean() - 20  # tissue is darker


def test_a_layer_for_each_library_of_a_table(tmp_path: Path) -> None:
    two().write_h5ad(tmp_path / "two.h5ad")
    layers = read_spot_layers(str(tmp_path / "two.h5ad"))
    assert [keywords["name"] for _, keywords, _ in layers] == ["two, A", "two, B"]
    assert [len(data) for data, _, _ in layers] == [30, 30]
