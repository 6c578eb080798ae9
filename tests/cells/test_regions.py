"""Cells of regions, against a loop over all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely

from cell_maps import make_cells
from map_world import TYPES
from napari_cpnn.cells import CellMap, cells_in_regions, cells_table
from napari_cpnn.errors import CellMapError
from napari_cpnn.nuclei import Searched
from napari_cpnn.regions import Region

REGIONS = [
    Region.from_vertices("triangle", [(10, 10), (10, 150), (120, 60)]),
    Region.from_vertices("square", [(50, 50), (50, 180), (180, 180), (180, 50)]),
    Region.from_vertices("glass", [(900, 900), (900, 950), (950, 950)]),
]


def test_counts_are_those_of_each_cell():
    cells = make_cells(300)
    codes = cells.dominant()
    found = cells_in_regions(cells.nuclei, REGIONS, codes, TYPES)
    for region, one in zip(REGIONS, found, strict=True):
        inside = [region.outline.contains(shapely.Point(x, y)) for y, x in cells.nuclei.centers_um.tolist()]
        assert one.n == sum(inside)
        for code, name in enumerate(TYPES):
            assert one.counts[name] == sum(i and codes[k] == code for k, i in enumerate(inside))
    assert found[0].n > 20
    assert found[2].n == 0
    assert found[1].per_mm2 == pytest.approx(found[1].n / 0.13**2)
    assert sum(found[1].shares.values()) == pytest.approx(1)
    assert list(found[1].shares.values()) == sorted(found[1].shares.values(), reverse=True)
    assert found[2].shares == {}


def test_density_is_of_the_tissue_where_it_is_known():
    cells = make_cells(100)
    (one,) = cells_in_regions(cells.nuclei, REGIONS[1:2], areas_mm2=[0.01])
    assert one.per_mm2 == one.n / 0.01
    (none,) = cells_in_regions(cells.nuclei, REGIONS[1:2], areas_mm2=[0.0])
    assert np.isnan(none.per_mm2)
    with pytest.raises(CellMapError, match="an area for each region"):
        cells_in_regions(cells.nuclei, REGIONS, areas_mm2=[0.01])


def test_rows_of_the_table():
    cells = make_cells(300)
    found = cells_in_regions(cells.nuclei, REGIONS[:1], cells.dominant(), TYPES)
    table = cells_table(REGIONS[:1], found)
    assert table["kind"].tolist() == ["cells", "cells_per_mm2", "cells_searched"] + ["cell_share"] * len(
        found[0].shares
    )
    assert table.loc[table["kind"] == "cells", "value"].item() == found[0].n


def test_where_nothing_was_searched_there_is_no_number():
    """Half of the slide is searched: cells are counted there, and tissue elsewhere is not taken for empty."""
    cells = make_cells(300)
    half = Searched(np.array([[2, 1], [2, 1]], dtype=np.uint8), (200.0, 100.0))  # left of x = 100 um
    left = cells.nuclei.centers_um[:, 1] < 100
    nuclei = replace(cells.nuclei.subset(left), searched=half)
    across, whole, none = (
        Region.from_vertices(name, [(50, x0), (50, x1), (150, x1), (150, x0)])
        for name, x0, x1 in (("across", 60, 160), ("whole", 10, 90), ("none", 110, 190))
    )
    found = cells_in_regions(nuclei, [across, whole, none], cells.dominant()[left], TYPES, [9.0, 9.0, 9.0])
    y, x = nuclei.centers_um.T
    inside = ((y > 50) & (y < 150) & (x > 60)).sum()
    assert found[0].n == inside
    assert found[0].per_mm2 == pytest.approx(inside / (0.1 * 0.04), rel=0.02)
    assert found[0].searched == pytest.approx(0.4, abs=0.01)
    assert found[0].note in ("39 % searched", "40 % searched")
    assert (found[1].searched, found[1].note) == (1.0, "")
    assert found[1].per_mm2 == pytest.approx(found[1].n / (0.1 * 0.08), rel=0.02)
    assert (found[2].n, found[2].searched, found[2].note) == (0, 0.0, "not searched for nuclei")
    table = cells_table([across, whole, none], found).set_index(["region", "kind"]).sort_index()
    assert np.isnan(table.loc[("none", "cells"), "value"]).all()
    assert np.isnan(table.loc[("none", "cells_per_mm2"), "value"]).all()
    assert table.loc[("none", "cells_searched"), "value"].item() == 0
    assert set(table.loc[("across", "cell_share"), "unit"]) == {f"share of cells, {found[0].note}"}
    assert set(table.loc[("whole", "cell_share"), "unit"]) == {"share of cells"}


def test_the_searched_area_stays_with_predictions(tmp_path):
    cells = make_cells(50)
    searched = Searched(np.array([[2, 1], [2, 0]], dtype=np.uint8), (200.0, 100.0))
    made = CellMap(
        replace(cells.nuclei, searched=searched), cells.decoder, cells.weights, cells.programs, cells.provenance
    )
    again = CellMap.load(made.save(tmp_path / "cells.zarr"))
    np.testing.assert_array_equal(again.nuclei.searched.state, searched.state)
    facts = again.to_anndata(genes=[]).uns["napari_cpnn"]
    assert facts["nuclei_searched_mm2"] == pytest.approx(0.04)
    assert facts["nuclei_searched_share_of_tissue"] == pytest.approx(2 / 3)
    assert "nuclei_searched_mm2" not in cells.to_anndata(genes=[]).uns["napari_cpnn"]
