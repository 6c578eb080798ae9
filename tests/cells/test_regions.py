"""Cells of regions, against a loop over all."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from cell_maps import make_cells
from map_world import TYPES
from napari_cpnn.cells import cells_in_regions, cells_table
from napari_cpnn.errors import CellMapError
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
    assert table["kind"].tolist() == ["cells", "cells_per_mm2"] + ["cell_share"] * len(found[0].shares)
    assert table.loc[table["kind"] == "cells", "value"].item() == found[0].n
