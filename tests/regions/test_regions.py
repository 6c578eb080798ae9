from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon

from fakes import ColorModel
from napari_cpnn.errors import GenesError, RegionsError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap
from napari_cpnn.models import OPEN, Trust
from napari_cpnn.regions import (
    Region,
    compare_regions,
    explain_gene,
    summarise_regions,
    write_regions,
)
from napari_cpnn.regions.summary import tissue_mm2
from napari_cpnn.settings import RegionSettings

STRIDE = 100.0


@pytest.fixture
def cmap() -> CompositionMap:
    """40 x 50 cells of 100 um, the share of the first type grows from left to right; the last rows are not done."""
    grid = Grid((40, 50), STRIDE)
    made = CompositionMap(grid, ColorModel().decoder())
    rng = np.random.default_rng(0)
    first = np.tile(np.linspace(0.1, 0.8, 50), 40) + rng.uniform(-0.05, 0.05, 2000)
    weights = np.stack([first, (1 - first) * 0.75, (1 - first) * 0.25], axis=1)
    cells = np.arange(36 * 50)
    made.fill(cells, weights[cells], rng.normal(size=(len(cells), 1)), rng.random(len(cells)))
    return made


def square(y0: float, x0: float, y1: float, x1: float, name: str = "A") -> Region:
    return Region.from_vertices(name, [[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


def quantity(table, kind: str, name: str = "", column: str = "value") -> float:
    (value,) = table.loc[(table["kind"] == kind) & (table["name"] == name), column]
    return float(value)


def test_areas_inside_cells_add_up() -> None:
    ring = Polygon([(130, 250), (1730, 420), (1500, 1900), (300, 1600)], [[(600, 700), (900, 700), (700, 1000)]])
    cells, areas = Region("ring", ring).cells(Grid((40, 50), STRIDE))
    assert areas.sum() == pytest.approx(ring.area)
    assert areas.max() <= STRIDE**2 + 1e-6
    # The second way: points on a fine raster.
    y, x = np.mgrid[0:2000:4, 0:2000:4] + 2.0
    inside = shapely.contains_xy(ring, x.ravel(), y.ravel())
    counted = np.zeros((40, 50))
    np.add.at(counted, (y.ravel()[inside].astype(int) // 100, x.ravel()[inside].astype(int) // 100), 16.0)
    dense = np.zeros((40, 50))
    dense[tuple(cells.T)] = areas
    np.testing.assert_allclose(dense, counted, atol=450)


def test_means_are_over_the_area_inside(cmap: CompositionMap) -> None:
    table = summarise_regions(cmap, [square(1050, 1050, 1250, 1200)], ["ERBB2", "CD3E"])
    assert quantity(table, "area") == pytest.approx(0.03)
    assert quantity(table, "patches") == 6
    weights = cmap.weights[10:13, 10:12, 0].astype(float)
    parts = np.outer([0.5, 1, 0.5], [0.5, 1])  # rows and columns that are cut in half count half
    assert quantity(table, "share", "Pink") == pytest.approx((parts * weights).sum() / parts.sum(), abs=1e-6)
    genes = cmap.expression("CD3E")[10:13, 10:12]
    assert quantity(table, "expression", "CD3E") == pytest.approx((parts * genes).sum() / parts.sum(), abs=1e-5)
    unlike = cmap.out_of_domain[10:13, 10:12] > 0.95
    assert quantity(table, "unlike") == pytest.approx((parts * unlike).sum() / parts.sum())
    assert np.isnan(quantity(table, "share", "Pink", "low"))  # one block says nothing of others
    shares = table[table["kind"] == "share"]["value"]
    assert shares.sum() == pytest.approx(1, abs=1e-3)


def test_only_what_is_computed_counts(cmap: CompositionMap) -> None:
    table = summarise_regions(cmap, [square(3000, 0, 4000, 5000)])
    assert quantity(table, "area") == pytest.approx(5.0)
    assert quantity(table, "mapped") == pytest.approx(3.0)
    with pytest.raises(RegionsError, match="Nothing is mapped in region 'A' yet"):
        summarise_regions(cmap, [square(3700, 0, 4000, 5000)])
    with pytest.raises(RegionsError, match="There is no tissue in region 'A'"):
        summarise_regions(cmap, [square(-500, -500, -100, -100)])


def test_background_is_no_tissue_that_is_left_to_map() -> None:
    tissue = np.zeros((10, 10), dtype=bool)
    tissue[:, :5] = True
    made = CompositionMap(Grid((10, 10), STRIDE), ColorModel().decoder(), tissue)
    cells = np.flatnonzero(tissue)[::2]
    made.fill(cells, np.full((len(cells), 3), 1 / 3), np.zeros((len(cells), 1)))
    region = square(0, 0, 1000, 1000)
    table = summarise_regions(made, [region])
    assert [quantity(table, kind) for kind in ("area", "tissue", "mapped")] == pytest.approx([1.0, 0.5, 0.25])
    assert tissue_mm2(made, region) == pytest.approx(0.5)
    with pytest.raises(RegionsError, match="There is no tissue"):
        summarise_regions(made, [square(0, 500, 1000, 1000)])


def test_intervals_cover_the_truth_when_tissue_comes_in_blocks() -> None:
    """Blocks of 500 um with a level each: the bootstrap knows, one over single patches would not."""
    rng = np.random.default_rng(1)
    settings = RegionSettings(bootstraps=300)
    covered, n = 0, 60
    for _ in range(n):
        grid = Grid((20, 50), STRIDE)
        made = CompositionMap(grid, ColorModel().decoder())
        level = np.repeat(np.repeat(rng.beta(2, 2, (4, 10)), 5, axis=0), 5, axis=1).ravel()
        made.fill(np.arange(1000), np.stack([level, 1 - level, 0 * level], axis=1), np.zeros((1000, 1)))
        table = summarise_regions(made, [square(0, 0, 2000, 5000)], settings=settings)
        low, high = (quantity(table, "share", "Pink", column) for column in ("low", "high"))
        covered += low <= 0.5 <= high
    assert 0.85 <= covered / n <= 1.0


def test_a_difference_of_regions(cmap: CompositionMap) -> None:
    left, right = square(0, 0, 3500, 1500, "left"), square(0, 3500, 3500, 5000, "right")
    table = compare_regions(cmap, left, right, ["ERBB2"])
    means = [quantity(summarise_regions(cmap, [r]), "share", "Pink") for r in (left, right)]
    assert quantity(table, "share", "Pink", "difference") == pytest.approx(means[0] - means[1])
    assert quantity(table, "share", "Pink", "high") < -0.3
    same = compare_regions(cmap, left, left)
    assert quantity(same, "share", "Pink", "low") < 0 < quantity(same, "share", "Pink", "high")
    assert compare_regions(cmap, left, right).equals(compare_regions(cmap, left, right))


@pytest.mark.parametrize("where", ["cell", "region"])
def test_the_parts_of_a_gene_sum_to_its_prediction(cmap: CompositionMap, where: str) -> None:
    place = (5, 7) if where == "cell" else square(1000, 1000, 1500, 1700)
    table = explain_gene(cmap, "ERBB2", place)
    expected = cmap.expression("ERBB2")[5, 7] if where == "cell" else cmap.expression("ERBB2")[10:15, 10:17].mean()
    assert table["value"].sum() == pytest.approx(expected, abs=1e-4)
    assert table.attrs["expression"] == pytest.approx(expected, abs=1e-4)
    brought = cmap.contribution("ERBB2", "Purple")
    expected = brought[5, 7] if where == "cell" else brought[10:15, 10:17].mean()
    assert table.loc["Purple", "value"] == pytest.approx(expected, abs=1e-4)
    assert list(table.index[-2:]) == ["programs (no cell type)", "shift (the same everywhere)"]
    assert table["value"].iloc[-1] == pytest.approx(cmap.decoder.beta[0])
    assert table["value"].iloc[:3].is_monotonic_decreasing


def test_what_cannot_be_explained(cmap: CompositionMap) -> None:
    with pytest.raises(RegionsError, match="not mapped yet"):
        explain_gene(CompositionMap(cmap.grid, cmap.decoder), "ERBB2", (39, 0))
    with pytest.raises(GenesError):
        explain_gene(cmap, "NOGENE", (5, 7))
    with pytest.raises(GenesError):
        summarise_regions(cmap, [square(0, 0, 900, 900)], ["NOGENE"])


def test_holes_and_parts_fit_in_one_path() -> None:
    rng = np.random.default_rng(0)
    for inside in (False, True):
        discs = shapely.buffer(shapely.points(rng.uniform(0, 1000, (25, 2))), rng.uniform(20, 120, 25))
        outline = shapely.union_all(discs)
        outline = shapely.box(-50, -50, 1050, 1050) - outline if inside else outline
        path = Region("A", outline).vertices_um()
        again = Region.from_vertices("A", path).outline
        assert again.symmetric_difference(outline).area < 1e-3
        # The second way: the rule of even and odd, as it is drawn, on a raster.
        y, x = np.mgrid[-40:1040:9.7, -40:1040:9.7].reshape(2, -1)
        y0, x0, y1, x1 = *path.T, *np.roll(path, -1, axis=0).T
        with np.errstate(divide="ignore", invalid="ignore"):
            at = x0 + (y[:, None] - y0) / (y1 - y0) * (x1 - x0)
        crossed = ((y0 > y[:, None]) != (y1 > y[:, None])) & (x[:, None] < at)
        assert (shapely.contains_xy(outline, x, y) == crossed.sum(axis=1) % 2).mean() > 0.999
    plain = square(0, 0, 10, 20)
    assert plain.vertices_um().tolist() == [[0, 0], [0, 20], [10, 20], [10, 0]]


def test_a_region_as_large_as_a_slide_fits_in_memory() -> None:
    grid = Grid((400, 400), STRIDE)
    made = CompositionMap(grid, ColorModel().decoder())
    made.fill(np.arange(grid.n_cells), np.full((grid.n_cells, 3), 1 / 3), np.zeros((grid.n_cells, 1)))
    tracemalloc.start()
    summarise_regions(made, [square(0, 0, 40_000, 40_000)], settings=RegionSettings(bootstraps=20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6  # 6400 blocks x 160,000 cells would be 8 GB


def test_bad_outlines_and_places(cmap: CompositionMap, tmp_path: Path) -> None:
    for vertices in ([[0, 0], [1, 1]], [[0, 0], [np.nan, 1], [1, 1]], [[0, 0], [1, 1], [2, 2]]):
        with pytest.raises(RegionsError):
            Region.from_vertices("thin", vertices)
    with pytest.raises(RegionsError, match="There are no regions"):
        summarise_regions(cmap, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(RegionsError, match="could not be written"):
        write_regions([square(0, 0, 1, 1)], tmp_path / "file" / "a.geojson", (1.0, 1.0))


def test_a_region_is_measured_in_several_threads_at_once(cmap: CompositionMap) -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    for _ in range(5):
        region = Region.from_vertices("A", np.stack([2000 + 1500 * np.sin(angle), 2500 + 1500 * np.cos(angle)], axis=1))
        with ThreadPoolExecutor(4) as pool:
            areas = list(pool.map(lambda _: region.cells(cmap.grid)[1].sum(), range(40)))  # noqa: B023 -- asked here
        assert np.ptp(areas) == 0
        assert areas[0] == pytest.approx(region.area_mm2 * 1e6)


def test_the_typical_patch_interval_is_the_mean_of_its_ends(cmap: CompositionMap) -> None:
    n = len(cmap.genes) + len(cmap.cell_types)
    trust = Trust(n)
    trust.floor.fill_(0.25)
    trust.lower.fill_(-1.0)
    trust.upper.fill_(2.0)
    trust.most.fill_(50.0)
    trust.most[cmap.genes.index("CD3E")] = OPEN  # not measured at enough spots
    made = CompositionMap(cmap.grid, cmap.decoder, cmap.tissue, cmap.provenance, trust)
    made.restore(cmap.block((slice(None), slice(None))), cmap.state)
    region = square(1050, 1050, 1250, 1200)
    table = summarise_regions(made, [region], ["ERBB2", "CD3E"])
    parts = np.outer([0.5, 1, 0.5], [0.5, 1])
    weights = cmap.weights[10:13, 10:12, 0].astype(float)
    low = (parts * np.maximum(weights - 0.25, 0)).sum() / parts.sum()
    assert quantity(table, "share", "Pink", "patch_low") == pytest.approx(low, abs=1e-6)
    value = quantity(table, "expression", "ERBB2")
    assert quantity(table, "expression", "ERBB2", "patch_high") == pytest.approx(value + 0.5, abs=1e-5)
    assert np.isnan(quantity(table, "expression", "CD3E", "patch_low"))
    assert table.loc[table["kind"].isin(["area", "unlike", "mapped"]), "patch_high"].isna().all()
    assert summarise_regions(cmap, [region])["patch_high"].isna().all()  # a map without a calibration
