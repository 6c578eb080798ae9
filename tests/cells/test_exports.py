"""Cells for other programs: every number against the map, read back by these programs."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import napari_cpnn as nc
from cell_maps import MPP, make_cells
from map_world import GENES, TYPES
from napari_cpnn.cells import CellMap, export_cells, region_of, spot_of
from napari_cpnn.errors import CellMapError, CpnnError, ExportError, GenesError
from napari_cpnn.palette import type_colors
from napari_cpnn.regions import Region
from napari_cpnn.settings import ExportSettings
from napari_cpnn.slides import Slide

NAMES = [name.replace("/", "|") for name in TYPES]


@pytest.fixture(scope="module")
def cells() -> CellMap:
    return make_cells(120)


@pytest.fixture(scope="module")
def spots() -> ad.AnnData:
    table = ad.AnnData(np.ones((3, 1)), obs=pd.DataFrame(index=["s0", "s1", "s2"]))
    table.obsm["spatial"] = np.array([[100.0, 100.0], [300.0, 100.0], [300.0, 300.0]])
    table.uns["spatial"] = {"x": {"images": {}, "scalefactors": {"spot_diameter_fullres": 120.0}}}
    return table


REGIONS = [
    Region.from_vertices("left", [(0, 0), (0, 60), (200, 60), (200, 0)]),
    Region.from_vertices("upper", [(0, 0), (0, 200), (80, 200), (80, 0)]),
]


def test_table_of_cells(cells, spots):
    table = cells.to_anndata(regions=REGIONS, spots=spots)
    assert table.shape == (117, len(GENES))  # three were not predicted
    y, x = cells.nuclei.centers_um[:117].astype(float).T
    np.testing.assert_allclose(table.obsm["spatial"], np.c_[x / MPP[1], y / MPP[0]])
    np.testing.assert_allclose(table.obs["area_um2"], cells.nuclei.areas_um2()[:117], rtol=1e-6)
    assert table.obs["class"].isna().sum() == (cells.nuclei.classes[:117] == -1).sum()
    assert set(table.obs["class"].cat.categories) == {"tumour", "immune|T"}
    assert table.obs["type"].tolist() == [NAMES[k] for k in cells.dominant()[:117]]
    for g in (0, 5):
        np.testing.assert_allclose(table.X[:, g], cells.expression(GENES[g])[:117], rtol=1e-5)
    np.testing.assert_allclose(table.obsm["cell_type_weights"].to_numpy(), cells.weights[:117].astype(np.float32))
    inside = np.where(x < 60, "left", np.where(y < 80, "upper", "none"))
    assert table.obs["region"].astype(object).fillna("none").tolist() == inside.tolist()
    px = table.obsm["spatial"]
    under = ["none"] * len(px)
    for number, place in enumerate(spots.obsm["spatial"]):
        for i in np.flatnonzero(np.linalg.norm(px - place, axis=1) <= 60):
            under[i] = f"s{number}"
    assert table.obs["spot"].astype(object).fillna("none").tolist() == under
    assert "none" in under
    assert table.uns["type_colors"] == [
        type_colors(TYPES)[TYPES[NAMES.index(c)]] for c in table.obs["type"].cat.categories
    ]
    diameter = table.uns["spatial"]["section 1"]["scalefactors"]["spot_diameter_fullres"]
    assert diameter == pytest.approx(
        2 * np.sqrt(cells.nuclei.areas_um2().mean() / np.pi) * np.mean(1 / np.array(MPP)), rel=0.02
    )


def test_squidpy_runs_on_it(cells, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        squidpy = pytest.importorskip("squidpy")
        table = ad.read_h5ad(export_cells(cells, tmp_path / "cells.h5ad", genes=["GENE1"]))
        squidpy.gr.spatial_neighbors(table, coord_type="generic", radius=30 / MPP[0])
        squidpy.gr.nhood_enrichment(table, "type", n_perms=20, show_progress_bar=False, seed=1)
    kinds = table.obs["type"].cat.categories
    assert table.uns["type_nhood_enrichment"]["zscore"].shape == (len(kinds), len(kinds))
    assert np.isfinite(table.uns["type_nhood_enrichment"]["zscore"]).all()


def test_h5ad_is_the_table(cells, tmp_path, spots):
    path = export_cells(
        cells, tmp_path / "c.h5ad", regions=REGIONS, spots=spots, settings=ExportSettings(block_mb=0.001)
    )
    read, table = ad.read_h5ad(path), cells.to_anndata(regions=REGIONS, spots=spots)
    np.testing.assert_allclose(read.X, table.X, rtol=1e-5)
    assert (
        read.obs["region"].astype(object).fillna("").tolist() == table.obs["region"].astype(object).fillna("").tolist()
    )
    with pytest.raises(ExportError, match="exists already"):
        export_cells(cells, path)


def test_detections_for_qupath(cells, tmp_path):
    path = export_cells(cells, tmp_path / "cells.geojson", genes=["GENE1"])
    features = json.loads(path.read_text())["features"]
    assert len(features) == 117
    colors = type_colors(TYPES)
    for number in (0, 50, 116):
        one = features[number]["properties"]
        name = TYPES[cells.dominant()[number]]
        assert one["objectType"] == "detection"
        assert one["classification"]["name"] == name
        assert "#{:02x}{:02x}{:02x}".format(*one["classification"]["color"]) == colors[name].lower()
        assert one["measurements"]["GENE1 (log1p CP10k)"] == pytest.approx(cells.expression("GENE1")[number], abs=1e-4)
        assert one["measurements"]["Share: B cells"] == pytest.approx(float(cells.weights[number, 0]), abs=1e-4)
        assert one["measurements"]["Area µm^2"] == pytest.approx(cells.nuclei.areas_um2()[number], abs=0.01)
    read = nc.read_nuclei(path, mpp=MPP)
    np.testing.assert_allclose(read.centers_um, cells.nuclei.centers_um[:117], atol=0.02)
    assert read.class_of(3) == TYPES[cells.dominant()[3]]


def test_rows_of_csv(cells, tmp_path):
    path = export_cells(
        cells, tmp_path / "cells.csv", ["GENE1"], regions=REGIONS, settings=ExportSettings(block_mb=0.001)
    )
    table = pd.read_csv(path)
    assert table["cell"].tolist() == list(range(117))
    np.testing.assert_allclose(table[["y_um", "x_um"]], cells.nuclei.centers_um[:117], atol=1e-3)
    np.testing.assert_allclose(table["GENE1"], cells.expression("GENE1")[:117], rtol=1e-5)
    np.testing.assert_allclose(table["share: T/NK cells"], cells.weights[:117, 1].astype(float), rtol=1e-6)
    assert table["type"].tolist() == [NAMES[k] for k in cells.dominant()[:117]]
    assert table["region"].isna().sum() == (region_of(cells.nuclei.centers_um[:117], REGIONS) == -1).sum()


@pytest.mark.parametrize("outlined", [True, False])
def test_spatialdata_has_shapes_and_table(cells, tmp_path, outlined):
    spatialdata = pytest.importorskip("spatialdata")
    given = cells if outlined else replace(cells, nuclei=nc.Nuclei(cells.nuclei.centers_um))
    slide = Slide.from_arrays([np.full((440, 550, 3), 240, np.uint8)], MPP, name="section 1")
    path = export_cells(given, tmp_path / "cells.zarr", ["GENE1"], slide, REGIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = spatialdata.read_zarr(path)
        shapes, table = data.shapes["section_1_cells"], data.tables["table"]
    assert len(shapes) == table.n_obs == 117
    centers = np.c_[shapes.geometry.centroid.y, shapes.geometry.centroid.x] * MPP
    np.testing.assert_allclose(centers, given.nuclei.centers_um[:117], atol=0.02)
    assert "section_1_image" in data.images
    assert table.uns["spatialdata_attrs"]["instance_key"] == "cell_id"
    assert set(table.obs["region"].cat.categories) == {"left", "upper"}


def test_what_cannot_be_exported(cells, tmp_path, spots):
    with pytest.raises(ExportError, match="no known file extension"):
        export_cells(cells, tmp_path / "cells.xlsx")
    with pytest.raises(GenesError, match="NOGENE"):
        export_cells(cells, tmp_path / "cells.csv", ["NOGENE"])
    with pytest.raises(CellMapError, match="nothing to export"):
        export_cells(cells.subset([118, 119]), tmp_path / "cells.csv")
    with pytest.raises(ExportError, match="memory_mb"):
        nc.cells.cells_to_anndata(cells, settings=ExportSettings(memory_mb=1e-4))
    del spots.uns["spatial"]
    with pytest.raises(CellMapError, match="no diameter"):
        spot_of(cells.nuclei.centers_um, spots, MPP)
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_export_leaves_nothing(cells, tmp_path):
    from napari_cpnn.export import ExportCancelledError, reporting

    def stop(_text: str, _done: float) -> None:
        raise ExportCancelledError("stopped")

    for ending in ("csv", "geojson", "h5ad"):
        with reporting(stop), pytest.raises(CpnnError, match="stopped"):
            export_cells(cells, tmp_path / f"cells.{ending}")
    assert list(tmp_path.iterdir()) == []
