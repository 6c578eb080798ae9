"""Maps of a model on the count scale: live map, file, levels, regions, explanation, painter and exports."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import zarr

import napari_cpnn as nc
from fakes import ColorModel, settings
from map_world import GENES, TYPES, make_world, trust_of
from napari_cpnn.errors import MappingError
from napari_cpnn.export import to_anndata, to_csv, to_geojson
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping import CompositionMap, LiveMapper, Viewport, predict_map
from napari_cpnn.mapping.map_layout import sealed
from napari_cpnn.painting import AutoRange, Look, Painter, Shown, catch_up, paint, unit_of, values_of
from napari_cpnn.regions import Region, compare_regions, explain_gene, summarise_regions
from napari_cpnn.settings import RegionSettings

REGION = Region.from_vertices("all", [(0, 0), (0, 300), (300, 300), (300, 0)])


@pytest.fixture(scope="module")
def world():
    """The map of the known world with a decoder on the count scale; its programs are positive, as a free mixture."""
    made = make_world()
    old = made.cmap
    decoder = replace(old.decoder, programs=np.abs(old.decoder.programs), scale="count")
    programs = np.abs(made.programs)
    cmap = CompositionMap(old.grid, decoder, old.tissue, old.provenance, trust_of([32.0, 64.0]))
    block = old.block((slice(None), slice(None)))
    cmap.restore(block._replace(programs=np.abs(block.programs)), old.state)
    return replace(made, cmap=cmap, programs=programs)


def numerators(world) -> tuple[np.ndarray, np.ndarray]:
    """Counts of all genes of the done patches, and their sums, in double precision."""
    d = world.cmap.decoder
    w, z = world.weights[world.done].astype(float), world.programs[world.done].astype(float)
    n = (w @ d.prototypes.astype(float)) * d.alpha + z @ d.programs.astype(float) + d.beta
    return n, n.sum(axis=1)


def test_a_map_of_a_gene_is_the_formula_written_out(world):
    n, total = numerators(world)
    for g, gene in enumerate(GENES):
        got = world.cmap.expression(gene)
        np.testing.assert_allclose(got[world.done], np.log1p(1e4 * n[:, g] / total), rtol=1e-4)
        assert np.isfinite(got).sum() >= world.done.sum()
    d = world.cmap.decoder
    part = world.cmap.contribution("GENE3", "CAFs")
    w = world.weights[world.done, TYPES.index("CAFs")].astype(float)
    np.testing.assert_allclose(part[world.done], 1e4 * w * d.alpha[3] * d.prototypes[3, 3] / total, rtol=1e-4)


def test_the_other_level_has_the_same_expression(world):
    cmap = CompositionMap(world.cmap.grid, world.cmap.decoder, world.cmap.tissue, world.cmap.provenance)
    cmap.restore(world.cmap.block((slice(None), slice(None))), world.cmap.state)
    cmap.hierarchy = {name: "immune" if "cells" in name else "other" for name in TYPES}
    majors = cmap.at_level("major")
    for gene in GENES[:3]:
        np.testing.assert_allclose(
            majors.expression(gene)[world.done], cmap.expression(gene)[world.done], rtol=2e-3, atol=2e-3
        )
    both = cmap.contribution("GENE2", "B cells") + cmap.contribution("GENE2", "T/NK cells")
    np.testing.assert_allclose(cmap.contribution("GENE2", "immune", "major"), both, rtol=1e-5)


def test_its_file_keeps_the_scale(world, tmp_path):
    path = tmp_path / "map.zarr"
    world.cmap.save(path)
    again = CompositionMap.load(path)
    assert again.decoder.scale == "count"
    np.testing.assert_array_equal(again.expression("GENE5"), world.cmap.expression("GENE5"))
    facts = json.loads((path / "zarr.json").read_text())["attributes"]["napari_cpnn"]
    assert facts["format"] == 2  # an older program says that it must be updated, and shows nothing wrong
    make_world().cmap.save(tmp_path / "log.zarr")
    facts = json.loads((tmp_path / "log.zarr" / "zarr.json").read_text())["attributes"]["napari_cpnn"]
    assert facts["format"] == 1
    assert "scale" not in facts


def test_a_file_with_another_scale_is_refused(world, tmp_path):
    path = tmp_path / "map.zarr"
    world.cmap.save(path)
    group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    facts = dict(group.attrs["napari_cpnn"])
    del facts["digest"]
    group.attrs["napari_cpnn"] = sealed({**facts, "scale": "square"})
    with pytest.raises(MappingError, match="on a scale that is not known"):
        CompositionMap.load(path)


def test_parts_of_a_patch_and_of_a_region_sum_exactly(world):
    n, total = numerators(world)
    table = explain_gene(world.cmap, "GENE4", REGION)
    assert table.attrs["unit"] == "CP10k"
    np.testing.assert_allclose(table["value"].sum(), table.attrs["expression"], rtol=1e-6)
    np.testing.assert_allclose(table.attrs["expression"], 1e4 * n[:, 4].mean() / total.mean(), rtol=1e-3)
    row, col = np.argwhere(world.done)[10]
    one = explain_gene(world.cmap, "GENE4", (int(row), int(col)))
    np.testing.assert_allclose(np.log1p(one["value"].sum()), world.cmap.expression("GENE4")[row, col], rtol=1e-4)
    np.testing.assert_allclose(one.loc["CAFs", "value"], world.cmap.contribution("GENE4", "CAFs")[row, col], rtol=1e-4)


def test_a_region_is_one_sample(world):
    n, total = numerators(world)
    table = summarise_regions(world.cmap, [REGION], genes=["GENE1", "GENE6"]).set_index("name")
    for g in (1, 6):
        row = table.loc[f"GENE{g}"]
        np.testing.assert_allclose(row["value"], np.log1p(1e4 * n[:, g].mean() / total.mean()), rtol=1e-3)
    assert table.loc["GENE1", "patch_low"] < table.loc["GENE1", "value"] < table.loc["GENE1", "patch_high"]
    assert np.isclose(
        np.log1p(explain_gene(world.cmap, "GENE1", REGION).attrs["expression"]), table.loc["GENE1", "value"]
    )
    drawn = summarise_regions(
        world.cmap, [REGION], genes=["GENE1"], settings=RegionSettings(block_um=32.0, bootstraps=200)
    ).set_index("name")
    assert drawn.loc["GENE1", "low"] < drawn.loc["GENE1", "value"] < drawn.loc["GENE1", "high"]
    half = Region.from_vertices("half", [(0, 0), (0, 300), (80, 300), (80, 0)])
    compared = compare_regions(world.cmap, REGION, half, genes=["GENE1"]).set_index("name")
    assert np.isclose(compared.loc["GENE1", "first"], table.loc["GENE1", "value"])


def test_signature_is_the_mean_z_score_of_expression(world):
    # Not calibrated: every gene counts.
    cmap = CompositionMap(world.cmap.grid, world.cmap.decoder, world.cmap.tissue, world.cmap.provenance)
    cmap.restore(world.cmap.block((slice(None), slice(None))), world.cmap.state)
    values = np.asarray(nc.signature(cmap, ["GENE1", "GENE2"], "two").values)
    maps = np.stack([cmap.expression(gene)[world.done] for gene in ("GENE1", "GENE2")], axis=1).astype(float)
    np.testing.assert_allclose(values[world.done], ((maps - maps.mean(0)) / maps.std(0)).mean(1), rtol=1e-3, atol=1e-4)


def test_it_is_painted_with_the_right_unit(world):
    gene, part = Shown("gene", ("GENE1",)), Shown("contribution", ("GENE1", "CAFs"))
    assert unit_of(gene, world.cmap) == "log1p CP10k"
    assert unit_of(part, world.cmap) == "CP10k"
    assert unit_of(part, make_world().cmap) == "log1p CP10k"
    np.testing.assert_array_equal(values_of(world.cmap, part), world.cmap.contribution("GENE1", "CAFs"))
    width = values_of(world.cmap, Shown("gene", ("GENE1",), "interval"))
    low, high = world.cmap.trust.interval(1, world.cmap.expression("GENE1"))
    np.testing.assert_allclose(width[world.done], (high - low)[world.done], rtol=1e-5)
    painter = Painter(world.cmap.tissue)
    catch_up(painter, world.cmap)
    low, high = paint(painter, world.cmap, gene, Look(), AutoRange(from_zero=False, least=0.1))
    shown = world.cmap.expression("GENE1")[world.done]
    assert shown.min() <= low < high <= shown.max()


def test_exports_hold_the_expression_and_how_it_follows(world, tmp_path):
    table = to_anndata(world.cmap, genes=["GENE1", "GENE6"])
    by_row = {name: i for i, name in enumerate(table.obs_names)}
    row, col = np.argwhere(world.done)[7]
    i = by_row[f"r{row}c{col}"]
    np.testing.assert_allclose(table.X[i, 0], world.cmap.expression("GENE1")[row, col], rtol=1e-4)
    assert table.uns["napari_cpnn"]["scale"] == "count"
    w, z = table.obsm["cell_type_weights"].to_numpy(), table.obsm["programs"]
    n = w @ table.varm["cell_type_expression"].to_numpy().T + z @ table.varm["program_loadings"].T
    n = n + table.var["shift"].to_numpy()
    np.testing.assert_allclose(table.X, np.log1p(1e4 * n / table.obs["total"].to_numpy()[:, None]), rtol=1e-4)
    path = to_csv(world.cmap, tmp_path / "map.csv", genes=["GENE1"])
    values = pd.read_csv(path)["GENE1"]
    np.testing.assert_allclose(np.sort(values), np.sort(table.X[:, 0]), atol=1e-3)
    regions = json.loads(to_geojson(world.cmap, tmp_path / "map.geojson", genes=["GENE1"]).read_text())["features"]
    found = [f["properties"]["measurements"]["GENE1 (log1p CP10k)"] for f in regions]
    assert all(table.X[:, 0].min() <= value <= table.X[:, 0].max() for value in found)


class Counting(ColorModel):
    def decoder(self):
        plain = super().decoder()
        return replace(plain, programs=np.abs(plain.programs), scale="count")


def test_live_map_and_whole_slide_agree(slide):
    model = Counting()
    with LiveMapper(slide, model, settings()) as mapper:
        mapper.set_viewport(Viewport(Rect(0, 0, 24 * 32, 30 * 32), px_per_um=1.0))
        assert mapper.wait_until_mapped(30)
        live = mapper.map.expression("ERBB2")
        done = mapper.map.state == 2
    whole = predict_map(slide, model, settings=settings()).expression("ERBB2")
    assert np.nanmin(live[done]) > 0
    np.testing.assert_allclose(live[done], whole[done], atol=1e-3)
    d, w = model.decoder(), mapper.map.weights[done].astype(float)
    z = mapper.map.programs[done].astype(float)
    n = w @ (d.prototypes.astype(float) * d.alpha) + z @ d.programs.astype(float) + d.beta
    np.testing.assert_allclose(live[done], np.log1p(1e4 * n[:, 0] / n.sum(axis=1)), rtol=2e-3)
