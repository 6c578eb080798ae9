"""Where nuclei were looked for, against a loop over pixels and against exact areas of outlines."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

import napari_cpnn as nc
from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Rect
from napari_cpnn.nuclei import LiveNuclei, Searched
from napari_cpnn.nuclei.tiles import Area
from napari_cpnn.slides import TissueMask

SIZE = (8.0, 10.0)


@pytest.fixture
def tissue() -> TissueMask:
    return TissueMask(np.random.default_rng(0).random((120, 90)) < 0.7, SIZE)


def test_tiles_that_were_looked_at_are_searched(tissue):
    tiles = np.array([(128.0, 384.0), (384.0, 128.0), (896.0, 640.0)])  # neither in order nor next to each other
    area = Area(Rect(0, 0, 950, 700), shapely.box(0, 0, 600, 960))
    found = Searched.of_tiles(tissue, area, tiles, 256.0)
    for row in range(120):
        for col in range(90):
            y, x = (row + 0.5) * SIZE[0], (col + 0.5) * SIZE[1]
            looked = any(abs(y - ty) < 128 and abs(x - tx) < 128 for ty, tx in tiles) and y <= 950 and x < 600
            assert found.state[row, col] == (0 if not tissue.mask[row, col] else 2 if looked else 1)
    assert found.area_mm2 == pytest.approx((found.state == 2).sum() * 80 / 1e6)
    assert found.share == pytest.approx((found.state == 2).sum() / tissue.mask.sum())
    none = Searched.of_tiles(tissue, area, np.empty((0, 2)), 256.0)
    assert none.area_mm2 == none.share == 0


def test_areas_in_an_outline_are_those_of_its_parts():
    state = np.array([[2, 1, 0], [2, 2, 1]], dtype=np.uint8)
    searched = Searched(state, (400.0, 300.0))
    for outline in (
        shapely.Polygon([(50, 100), (850, 30), (700, 780), (120, 600)]),
        shapely.Point(320, 410).buffer(25),  # smaller than a pixel
        shapely.box(-500, -500, 2000, 2000),  # beyond the slide
    ):
        parts = {1: 0.0, 2: 0.0, 0: 0.0}
        for row, col in np.ndindex(state.shape):
            pixel = shapely.box(col * 300, row * 400, (col + 1) * 300, (row + 1) * 400)
            parts[int(state[row, col])] += outline.intersection(pixel).area / 1e6
        found = searched.areas_in(outline)
        assert found == pytest.approx((parts[1] + parts[2], parts[2]), rel=0.02)
    assert searched.areas_in(shapely.box(5000, 5000, 6000, 6000)) == (0.0, 0.0)


def test_it_goes_with_nuclei_to_disk_and_back(tissue, tmp_path):
    searched = Searched.of_tiles(tissue, Area(Rect(0, 0, 960, 900)), np.array([(128.0, 128.0)]), 256.0)
    nuclei = nc.Nuclei([[10.0, 20.0], [30.0, 45.0]], searched=searched)
    path = nuclei.subset([1]).save(tmp_path / "nuclei.zarr")
    again = nc.Nuclei.load(path).searched
    np.testing.assert_array_equal(again.state, searched.state)
    assert again.um_per_px == SIZE
    with pytest.raises(ValueError, match="read-only"):
        again.state[0, 0] = 1
    assert nc.Nuclei.load(nc.Nuclei([[10.0, 20.0]]).save(tmp_path / "other.zarr")).searched is None
    part = searched.within_um((0, 0, 80, 2000))
    assert set(np.unique(part.state[:10])) == set(np.unique(searched.state[:10]))
    assert part.state[10:].max() == 1
    assert (part.state > 0).sum() == tissue.mask.sum()
    card = json.loads((path / "zarr.json").read_text())
    assert card["attributes"]["napari_cpnn_nuclei"]["searched_um_per_px"] == list(SIZE)


@pytest.mark.parametrize(
    ("state", "size"), [([[3]], (1, 1)), ([1, 2], (1, 1)), ([[1]], (0, 1)), ([[1]], (np.nan, 1)), ([[1]], (1,))]
)
def test_what_cannot_be_is_refused(state, size):
    with pytest.raises(NucleiError, match="What was searched"):
        Searched(np.array(state, dtype=np.uint8), size)


def test_a_search_says_where_it_was(painted):
    settings = nc.NucleiSettings(method="classical")
    live = LiveNuclei(painted.slide, settings, keep=False)
    assert live.nuclei().searched.share == 0
    live.find(live.missing()[:1])
    first = live.nuclei().searched
    assert 0 < first.share < 1
    live.find(live.missing())
    assert live.nuclei().searched.share == 1
    assert live.nuclei().searched.area_mm2 == pytest.approx(live.tissue.area_um2 / 1e6)
    part = nc.detect_nuclei(painted.slide, (0, 0, 200, 200), settings, progress=False).searched
    rows = part.state.shape[0]
    below = (np.arange(rows) + 0.5) * part.um_per_px[0] > 200
    assert part.share > 0
    assert part.state[below].max() == 1
