"""Polygons for QuPath, against areas and places that are counted on the drawing."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pytest

import napari_cpnn as nc
from map_world import STRIDE, TYPES, make_decoder
from napari_cpnn.errors import ExportError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings

CELL = STRIDE**2


def features(path):
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def shoelace(ring) -> float:
    """Signed area of a closed ring, by Gauss's formula."""
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def regions_by_flooding(drawing) -> list[set]:
    """Connected cells of one kind, over sides, by a walk over the drawing."""
    left = {tuple(p) for p in np.argwhere(np.isin(drawing, list("0123")))}
    regions = []
    while left:
        todo, region = [next(iter(left))], set()
        while todo:
            r, c = todo.pop()
            if (r, c) not in left or (region and drawing[r, c] != drawing[next(iter(region))]):
                continue
            left.discard((r, c))
            region.add((r, c))
            todo += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        regions.append(region)
    return regions


def test_a_polygon_per_region_with_its_area_and_holes(tilted, tmp_path):
    found = features(nc.to_geojson(tilted.cmap, tmp_path / "map.geojson"))
    true = regions_by_flooding(tilted.drawing)
    assert len(found) == len(true)
    px_per_cell = STRIDE / 0.5 * STRIDE / 0.4
    areas = []
    for feature in found:
        outer, *holes = feature["geometry"]["coordinates"]
        assert outer[0] == outer[-1]
        assert shoelace(outer) > 0
        assert all(shoelace(hole) < 0 and hole[0] == hole[-1] for hole in holes)
        area = shoelace(outer) + sum(map(shoelace, holes))
        cells = feature["properties"]["measurements"]["Patches"]
        assert area == pytest.approx(cells * px_per_cell)
        assert feature["properties"]["measurements"]["Area um^2"] == pytest.approx(area * 0.5 * 0.4)
        areas.append(cells)
    assert sorted(areas) == sorted(len(region) for region in true)
    # The ring of B cells around two of T/NK cells, and the ring of CAFs around one cell of background.
    assert sum(len(f["geometry"]["coordinates"]) == 2 for f in found) == 2


def test_polygons_are_valid_and_cover_the_centres_of_their_cells(tilted, tmp_path):
    shapely = pytest.importorskip("shapely")
    path = nc.to_geojson(tilted.cmap, tmp_path / "map.geojson")
    table = nc.to_anndata(tilted.cmap, ["GENE0"])
    polygons = [shapely.from_geojson(json.dumps(f["geometry"])) for f in features(path)]
    assert all(p.is_valid and p.geom_type == "Polygon" for p in polygons)
    names = np.array([f["properties"]["classification"]["name"] for f in features(path)])
    inside = np.array([shapely.contains_xy(p, *table.obsm["spatial"].T) for p in polygons])
    np.testing.assert_array_equal(inside.sum(axis=0), 1)
    dominant = [name.replace("|", "/") for name in table.obs["dominant_type"]]
    np.testing.assert_array_equal(names[inside.argmax(axis=0)], dominant)
    assert shapely.union_all(polygons).area == pytest.approx(sum(p.area for p in polygons))  # nothing overlaps


def test_geopandas_reads_it(world, tmp_path):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.read_file(nc.to_geojson(world.cmap, tmp_path / "map.geojson"))
    assert frame.geometry.is_valid.all()
    # Level-0 pixels of 0.5 um; geopandas takes GeoJSON for degrees.
    assert frame.set_crs(None, allow_override=True).area.sum() * 0.25 == pytest.approx(world.done.sum() * CELL)


def test_what_qupath_reads(world, tmp_path):
    found = features(nc.to_geojson(world.cmap, tmp_path / "map.geojson", ["GENE4"]))
    for feature in found:
        assert set(feature) == {"type", "id", "geometry", "properties"}
        uuid.UUID(feature["id"])
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        kind = properties["classification"]["name"]
        color = properties["classification"]["color"]
        assert "#{:02X}{:02X}{:02X}".format(*color) == type_colors(TYPES)[kind]
        assert all(type(v) is float for v in properties["measurements"].values())
    assert len({f["id"] for f in found}) == len(found)
    again = features(nc.to_geojson(world.cmap, tmp_path / "again.geojson"))
    assert [f["id"] for f in again] == [f["id"] for f in found]  # the same map, the same objects


def test_measurements_are_means_over_the_region(world, tmp_path):
    found = features(nc.to_geojson(world.cmap, tmp_path / "map.geojson", ["GENE4", "GENE0"]))
    (epithelial,) = [f["properties"] for f in found if f["properties"]["measurements"]["Patches"] == 6]
    here = np.zeros_like(world.done)
    here[1:4, 11:14] = world.drawing[1:4, 11:14] == "2"
    assert here.sum() == 6
    measured = epithelial["measurements"]
    for k, name in enumerate(TYPES):
        assert measured[f"Share: {name}"] == pytest.approx(world.weights[here][:, k].astype(float).mean(), abs=1e-5)
    expected = world.cmap.expression("GENE4")[here].mean()
    assert measured["GENE4 (log1p CP10k)"] == pytest.approx(expected, rel=1e-4)
    assert measured["Out of domain"] == pytest.approx(world.cmap.out_of_domain[here].astype(float).mean(), abs=1e-5)


def test_a_polygon_per_patch(world, tmp_path):
    found = features(nc.to_geojson(world.cmap, tmp_path / "m.geojson", [], None, ExportSettings(units="patches")))
    assert len(found) == world.done.sum()
    row, col = np.argwhere(world.done)[7]
    feature = found[7]
    assert feature["properties"]["objectType"] == "detection"
    x, y = np.array(feature["geometry"]["coordinates"][0]).T
    assert (x.min(), x.max(), y.min(), y.max()) == tuple(np.array([col, col + 1, row, row + 1]) * STRIDE / 0.5)
    assert "Out of domain" not in found[0]["properties"]["measurements"]  # unknown there, and NaN is no JSON


def test_small_regions_can_be_left_out(world, tmp_path):
    sizes = [len(region) for region in regions_by_flooding(world.drawing)]
    found = features(nc.to_geojson(world.cmap, tmp_path / "m.geojson", settings=ExportSettings(min_region_patches=4)))
    assert len(found) == sum(size >= 4 for size in sizes) < len(sizes)
    with pytest.raises(
        ExportError, match=f"No region has 99 patches of one dominant type; the largest has {max(sizes)}"
    ):
        nc.to_geojson(world.cmap, tmp_path / "n.geojson", settings=ExportSettings(min_region_patches=99))


def test_corners_are_only_where_the_outline_turns(world, tmp_path):
    found = features(nc.to_geojson(world.cmap, tmp_path / "m.geojson"))
    for feature in found:
        for ring in feature["geometry"]["coordinates"]:
            step = np.diff(np.array([*ring, ring[1]]), axis=0)
            assert ((step[:-1, 0] == 0) != (step[1:, 0] == 0)).all()


def test_a_model_without_cell_types_has_cells_but_no_regions(tmp_path):
    cmap = CompositionMap(Grid((2, 3), 10.0), make_decoder(()), provenance={"mpp": (1.0, 1.0)})
    cmap.fill(np.arange(6), np.zeros((6, 0)), np.ones((6, 2)))
    with pytest.raises(ExportError, match="no cell types to define regions; export with units 'patches'"):
        nc.to_geojson(cmap, tmp_path / "m.geojson")
    found = features(nc.to_geojson(cmap, tmp_path / "m.geojson", ["GENE1"], settings=ExportSettings(units="patches")))
    assert len(found) == 6
    assert "classification" not in found[0]["properties"]
