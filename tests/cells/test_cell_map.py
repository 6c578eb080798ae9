"""A map of cells: what it says of each, per patch, and on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import napari_cpnn as nc
from cell_maps import make_cells
from map_world import GENES, TYPES
from napari_cpnn.cells import CellMap, CellsOfPatches
from napari_cpnn.errors import CellMapError, GenesError, PixelSizeError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import DONE


def test_expression_shares_and_types_of_cells():
    cells = make_cells(50)
    d, w, z = cells.decoder, cells.weights[:47].astype(float), cells.programs[:47].astype(float)
    g = GENES.index("GENE4")
    expected = d.alpha[g] * (w @ d.prototypes[:, g]) + z @ d.programs[:, g] + d.beta[g]
    np.testing.assert_allclose(cells.expression("GENE4")[:47], expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(cells.expression("GENE4")[47:]).all()
    assert cells.known.tolist() == [True] * 47 + [False] * 3
    np.testing.assert_array_equal(cells.weight(TYPES[1])[:47], cells.weights[:47, 1].astype(np.float32))
    assert cells.dominant()[:47].tolist() == [int(np.argmax(row)) for row in w]
    assert cells.dominant()[47:].tolist() == [-1, -1, -1]
    assert sum(cells.type_counts().values()) == 47
    assert list(cells.type_counts()) == list(TYPES)


def test_what_it_does_not_know():
    cells = make_cells(5)
    with pytest.raises(GenesError, match="NOGENE"):
        cells.expression("NOGENE")
    with pytest.raises(CellMapError, match=r"cell type Nobody; it has B cells"):
        cells.weight("Nobody")
    with pytest.raises(CellMapError, match=r"weights of 5 cells have the shape \(4, 4\)"):
        replace(cells, weights=cells.weights[:4])
    with pytest.raises(PixelSizeError, match="give the slide"):
        _ = replace(cells, provenance={}).mpp


def test_a_model_without_cell_types():
    cells = make_cells(20, types=(), unknown=2)
    assert cells.known.sum() == 18
    assert (cells.dominant() == -1).all()
    assert cells.type_counts() == {}
    assert np.isfinite(cells.expression("GENE0")).sum() == 18


def test_means_per_patch_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    centers = rng.uniform(-20, 130, (500, 2))
    values = rng.normal(size=(500, 3)).astype(np.float32)
    values[::7] = np.nan
    grid = Grid((4, 6), 16.0, (8.0, 16.0))
    binned = CellsOfPatches.of(centers, grid)
    means = binned.means(values)
    for row in range(4):
        for col in range(6):
            low = np.array([8.0 + 16 * row, 16.0 + 16 * col])
            inside = ((centers >= low) & (centers < low + 16)).all(axis=1)
            assert binned.counts[row, col] == inside.sum()
            known = inside & np.isfinite(values).all(axis=1)
            expected = values[known].mean(axis=0) if known.any() else np.full(3, np.nan)
            np.testing.assert_allclose(means[row, col], expected, rtol=1e-5)
    assert binned.means(values[:, 0]).shape == (4, 6)


def test_the_mean_map_is_the_mean_of_the_cells(monkeypatch):
    monkeypatch.setattr("napari_cpnn.cells.binning._ROWS", 64)
    cells = make_cells(400)
    grid = Grid((7, 7), 30.0)
    cmap = cells.mean_map(grid)
    means = CellsOfPatches.of(cells.nuclei.centers_um, grid).means(cells.expression("GENE2"))
    np.testing.assert_allclose(cmap.expression("GENE2"), means, atol=0.02)
    assert ((cmap.state == DONE) == np.isfinite(means)).all()
    assert cmap.provenance["model"] == "made"
    assert np.isfinite(cmap.out_of_domain[cmap.state == DONE]).all()


def test_no_cells_at_all(tmp_path):
    cells = make_cells(3).subset([])
    assert len(CellMap.load(cells.save(tmp_path / "none.zarr"))) == 0
    assert (cells.mean_map(Grid((2, 2), 10.0)).state != DONE).all()
    assert cells.dominant().shape == (0,)


def test_on_disk(tmp_path):
    cells = make_cells(200)
    path = cells.save(tmp_path / "cells.zarr")
    again = CellMap.load(path)
    np.testing.assert_array_equal(again.weights, cells.weights)
    np.testing.assert_array_equal(again.programs, cells.programs)
    np.testing.assert_array_equal(again.out_of_domain, cells.out_of_domain)
    np.testing.assert_array_equal(again.nuclei.outlines.vertices_um, cells.nuclei.outlines.vertices_um)
    np.testing.assert_array_equal(again.expression("GENE3"), cells.expression("GENE3"))
    assert again.nuclei.class_names == cells.nuclei.class_names
    assert again.provenance == {**cells.provenance, "mpp": list(cells.mpp)}
    with pytest.raises(CellMapError, match="exists already"):
        cells.save(path)
    cells.subset([1]).save(path, overwrite=True)
    assert len(CellMap.load(path)) == 1
    nc.Nuclei([[1.0, 2.0]]).save(tmp_path / "nuclei.zarr")
    with pytest.raises(CellMapError, match="does not hold cells"):
        CellMap.load(tmp_path / "nuclei.zarr")
    with pytest.raises(CellMapError, match=r"There are no cells at"):
        CellMap.load(tmp_path / "nothing.zarr")


@pytest.mark.parametrize(
    ("part", "change"),
    [("weights", "bytes"), ("prototypes", "bytes"), ("zarr.json", "scale"), ("alpha", "gone")],
)
def test_damage_on_disk_is_one_sentence(tmp_path, part, change):
    path = make_cells(40).save(tmp_path / "cells.zarr")
    if change == "bytes":
        chunk = next(p for p in (path / part).rglob("*") if p.is_file() and p.name != "zarr.json")
        chunk.write_bytes(chunk.read_bytes()[:-9])
    elif change == "gone":
        for chunk in [p for p in (path / part).rglob("*") if p.is_file() and p.name != "zarr.json"]:
            chunk.unlink()
    else:
        card = json.loads((path / "zarr.json").read_text())
        card["attributes"]["napari_cpnn_cells"]["scale"] = "other"
        (path / "zarr.json").write_text(json.dumps(card))
    with pytest.raises(CellMapError) as caught:
        CellMap.load(path)
    assert len(str(caught.value)) < 400


def test_a_provenance_that_json_cannot_hold(tmp_path):
    cells = replace(make_cells(4), provenance={"mpp": (0.5, 0.5), "odd": object()})
    with pytest.raises(CellMapError, match="provenance"):
        cells.save(tmp_path / "cells.zarr")
    assert not (tmp_path / "cells.zarr").exists()


def test_a_subset_keeps_what_belongs_to_each():
    cells = make_cells(30)
    part = cells.subset(np.arange(30) % 3 == 1)
    np.testing.assert_array_equal(part.weights, cells.weights[1::3])
    np.testing.assert_array_equal(part.nuclei.centers_um, cells.nuclei.centers_um[1::3])
    np.testing.assert_array_equal(part.out_of_domain, cells.out_of_domain[1::3])
