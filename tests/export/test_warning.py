"""Tissue unlike that of the training: the warning stands where a reader of each export looks first."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree as ET

import anndata
import numpy as np
import pytest
import zarr

import napari_cpnn as nc
from map_world import GENES, World
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.settings import ExportSettings

SVG = "{http://www.w3.org/2000/svg}"
FOREIGN = (
    "100 % of this tissue is unlike what this model was trained on (breast, 3 patients). "
    "Cell types and genes shown here are not to be believed."
)


def scored(world: World, scores) -> CompositionMap:
    """The map of a world, with other out-of-domain scores of its computed patches."""
    cmap = world.cmap
    made = CompositionMap(cmap.grid, cmap.decoder, cmap.tissue, {**cmap.provenance, "trained_on": "breast, 3 patients"})
    done = np.flatnonzero(world.done)
    made.fill(done, world.weights[world.done], world.programs[world.done], np.resize(scores, len(done)))
    return made


@pytest.fixture
def foreign(world: World) -> CompositionMap:
    return scored(world, [0.99])


def svg_texts(path) -> list[tuple[float, float, str]]:
    """Position from the top, size in px, and text of each line of a figure, from the top."""
    found = []
    for node in ET.parse(path).iter(f"{SVG}text"):
        size = float(node.get("style").split("px")[0].split()[-1])
        found.append((float(node.get("y")), size, "".join(node.itertext()).strip()))
    return sorted(found)


@pytest.mark.parametrize(
    ("scores", "band", "words"),
    [([0.99], "b3261e", "not to be believed."), ([0.99, 0.5, 0.5], "f2b705", "Do not rely")],
)
def test_a_figure_begins_with_it_in_a_band_of_the_canvas_colours(world, tmp_path, scores, band, words):
    nc.to_figure(scored(world, scores), tmp_path / "f.svg", [GENES[0], GENES[1]])
    lines = svg_texts(tmp_path / "f.svg")
    title = next(i for i, (_, _, text) in enumerate(lines) if text.startswith("section 1"))
    assert words in " ".join(text for _, _, text in lines[:title])
    assert lines[0][1] == lines[title][1] == max(size for _, size, _ in lines)
    assert "unlike what this model" not in " ".join(text for _, _, text in lines[title:])
    (drawn,) = [node for node in ET.parse(tmp_path / "f.svg").iter(f"{SVG}g") if node.get("id") == "warning"]
    (path,) = drawn.iter(f"{SVG}path")
    assert f"#{band}" in path.get("style")
    corners = [float(n) for n in path.get("d").replace("M", " ").replace("L", " ").replace("z", " ").split()]
    assert min(corners[1::2]) == pytest.approx(0, abs=0.5)
    assert lines[title - 1][0] < max(corners[1::2]) < lines[title][0]


def test_a_figure_of_familiar_tissue_has_no_band(world, tmp_path):
    nc.to_figure(scored(world, [0.5]), tmp_path / "f.svg", GENES[0])
    assert 'id="warning"' not in (tmp_path / "f.svg").read_text()
    assert svg_texts(tmp_path / "f.svg")[0][2].startswith("section 1")


def test_each_line_of_a_csv_begins_with_it(foreign, world, tmp_path):
    nc.to_csv(foreign, tmp_path / "map.csv", [GENES[0]])
    with (tmp_path / "map.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:3] == ["warning", "row", "col"]
    assert {line["warning"] for line in lines} == {FOREIGN}
    nc.to_csv(scored(world, [0.5]), tmp_path / "familiar.csv")
    assert (tmp_path / "familiar.csv").read_text().startswith("row,col,")


@pytest.mark.parametrize("units", ["regions", "patches"])
def test_geojson_begins_with_it_and_names_its_objects(foreign, world, tmp_path, units):
    settings = ExportSettings(units=units)
    nc.to_geojson(foreign, tmp_path / "map.geojson", settings=settings)
    assert (tmp_path / "map.geojson").read_text().startswith('{"type": "FeatureCollection", "warning": "100 %')
    read = json.loads((tmp_path / "map.geojson").read_text())
    assert read["warning"] == FOREIGN
    names = {feature["properties"]["name"] for feature in read["features"]}
    assert names == {"not to be believed: tissue unlike the training"}
    nc.to_geojson(scored(world, [0.5]), tmp_path / "familiar.geojson", settings=settings)
    read = json.loads((tmp_path / "familiar.geojson").read_text())
    assert "warning" not in read
    assert not any("name" in feature["properties"] for feature in read["features"])


def test_a_table_has_it_beside_its_columns(foreign, world, tmp_path):
    nc.to_h5ad(foreign, tmp_path / "map.h5ad", [GENES[0]])
    table = anndata.read_h5ad(tmp_path / "map.h5ad")
    assert table.uns["warning"] == FOREIGN
    assert table.uns["napari_cpnn"]["warning"] == FOREIGN
    assert next(iter(nc.to_anndata(foreign, [GENES[0]]).uns)) == "warning"
    assert "warning" not in nc.to_anndata(scored(world, [0.5]), [GENES[0]]).uns


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_has_it_among_its_attributes(foreign, world, tmp_path, version):
    settings = ExportSettings(ome_zarr_version=version)
    nc.to_ome_zarr(foreign, tmp_path / "map.ome.zarr", settings=settings)
    assert zarr.open_group(str(tmp_path / "map.ome.zarr"), mode="r").attrs["warning"] == FOREIGN
    nc.to_ome_zarr(scored(world, [0.5]), tmp_path / "familiar.ome.zarr", settings=settings)
    assert "warning" not in zarr.open_group(str(tmp_path / "familiar.ome.zarr"), mode="r").attrs
