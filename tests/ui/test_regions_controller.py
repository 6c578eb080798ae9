"""What the Regions dock does, without Qt: measured, compared, explained, written, and said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from fakes import GENES, TYPES, ColorModel
from napari_cpnn.decimals import fixed
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import DONE, CompositionMap, MapProgress
from napari_cpnn.regions import Region, compare_regions, explain_gene, read_regions, summarise_regions, write_regions
from napari_cpnn.slides import Slide
from napari_cpnn.ui.frame.paper import Paper
from napari_cpnn.ui.regions import controller as module
from napari_cpnn.ui.regions.charts import comparison_chart, composition_chart, explained_parts, explanation_chart
from napari_cpnn.ui.regions.controller import RegionsController
from napari_cpnn.ui.regions.rows import Explanation, RegionMeter
from napari_cpnn.ui.viewer.state import ExploreState, Shown

STRIDE = 100.0


def square(y0, x0, y1, x1, name="A"):
    return Region.from_vertices(name, [[y0, x0], [y0, x1], [y1, x1], [y1, x0]])


class AtOnce:
    """Runs work where it is asked for; holds it back when told to."""

    def __init__(self):
        self.held = None
        self.n = 0

    def __call__(self, work, done, failed):
        if self.held is not None:
            self.held.append((work, done, failed))
            return
        self.n += 1
        try:
            result = work()
        except Exception as error:  # noqa: BLE001
            failed(error)
        else:
            done(result)

    def go(self):
        held, self.held = self.held, None
        for request in held:
            self(*request)


class FakeMapper:
    def __init__(self, cmap):
        self.map, self.areas = cmap, None
        self.now = MapProgress(3, 12, 0, 84.2, True, False, "")

    def progress(self):
        return self.now

    def map_areas(self, areas):
        self.areas = areas


def fill(cmap, rows):
    rng = np.random.default_rng(0)
    cells = np.arange(rows.start * 50, rows.stop * 50)
    cells = cells[cmap.tissue.ravel()[cells]]
    weights = rng.dirichlet(np.ones(3), len(cells))
    cmap.fill(cells, weights, rng.normal(size=(len(cells), 1)), rng.random(len(cells)))


@pytest.fixture
def cmap():
    """40 x 50 cells of 100 um; the last ten columns are background, the last ten rows are not mapped."""
    tissue = np.ones((40, 50), dtype=bool)
    tissue[:, 40:] = False
    made = CompositionMap(Grid((40, 50), STRIDE), ColorModel().decoder(), tissue)
    fill(made, range(30))
    return made


@pytest.fixture
def setup(monkeypatch, cmap):
    monkeypatch.setattr(module, "model_label", lambda _model: "quick model")
    state, background, told = ExploreState(), AtOnce(), []
    controller = RegionsController(state, background, told.append)

    def ready():
        slide = Slide.from_arrays([np.zeros((4000, 5000, 3), dtype=np.uint8)], (1.0, 1.0), name="section")
        state.set_slide(SimpleNamespace(name="section"), slide)
        state.set_model(ColorModel())
        state.set_mapper(FakeMapper(cmap))
        controller.check()

    yield controller, state, background, told, ready
    controller.close()


def test_it_says_what_to_do_next(setup, cmap):
    controller, state, _, _, ready = setup
    assert "No slide yet" in controller.message()
    state.set_slide(SimpleNamespace(name="section"), None)
    assert "No model yet" in controller.message()
    state.set_model(ColorModel())
    assert "not ready" in controller.message()
    ready()
    assert "No region yet" in controller.message()
    controller.set_regions([square(0, 0, 1000, 1000)])
    assert controller.message() == ""
    controller.set_regions([square(0, 0, 1000, 1000), square(2500, 0, 3500, 1000, "B")])
    assert controller.message().startswith("1 of 2 regions are not mapped in full")
    assert controller.needs_mapping()
    controller.map_regions()
    assert controller.message().endswith("Mapping: 3 of 12 patches.")
    state.mapper.now = MapProgress(3, 12, 0, 0, False, False, "")
    assert "press Live" in controller.message()
    state.mapper.now = MapProgress(12, 12, 2, 0, True, True, "")
    assert "2 patches are unreadable" in controller.message()
    assert state.mapper.areas == [Rect(0, 0, 1000, 1000), Rect(2500, 0, 3500, 1000)]
    fill(cmap, range(30, 40))
    controller.check()
    assert controller.message() == ""
    state.set_mapper(None)
    controller.check()
    assert [row.table for row in controller.rows] == [None, None]
    assert "not ready" in controller.message()


def test_rows_are_what_summarise_regions_says(setup, cmap):
    controller, state, _, _, ready = setup
    ready()
    regions = [square(0, 0, 1500, 1700), square(100, 3500, 2900, 4500, "rim"), square(0, 4200, 900, 4800, "glass")]
    controller.set_regions(regions)
    controller.set_genes(["CD3E"])
    state.set_shown(Shown("gene", ("ERBB2",)))  # the gene on screen is measured, too
    controller.check()
    first, rim, glass = controller.rows
    expected = summarise_regions(cmap, regions[:2], ["CD3E", "ERBB2"])
    pd.testing.assert_frame_equal(pd.concat([first.table, rim.table], ignore_index=True), expected)
    assert first.mapped == pytest.approx(1)
    assert rim.tissue_mm2 == pytest.approx(0.5 * 2.8)
    assert rim.value("share", "Pink") == expected.query("region == 'rim' and name == 'Pink'")["value"].item()
    assert (glass.table, glass.tissue_mm2) == (None, 0)
    assert np.isnan(glass.mapped)
    assert controller.message() == ""  # glass is never mapped


def test_only_what_is_new_is_measured(setup, cmap, monkeypatch):
    controller, _, _, _, ready = setup
    measured = []
    summarise = module.RegionMeter._row
    monkeypatch.setattr(RegionMeter, "_row", lambda self, c, r, g: measured.append(r.name) or summarise(self, c, r, g))
    ready()
    told = []
    controller.rows_changed.connect(lambda: told.append(1))
    controller.set_regions([square(0, 0, 900, 900), square(2500, 0, 3500, 900, "B")])
    assert measured == ["A", "B"]
    controller.set_regions([square(0, 0, 900, 900), square(2500, 0, 3500, 900, "B"), square(0, 0, 99, 99, "C")])
    assert measured == ["A", "B", "C"]
    n = len(told)
    controller.check()
    cmap.revision += 1  # patches elsewhere
    controller.check()
    assert len(measured) == 3
    assert len(told) == n
    fill(cmap, range(30, 40))
    controller.check()
    assert measured == ["A", "B", "C", "B"]


def test_edits_while_measuring_are_followed(setup):
    controller, _, background, _, ready = setup
    ready()
    background.held = []
    controller.set_regions([square(0, 0, 900, 900)])
    assert not controller.is_settled
    controller.set_regions([square(0, 0, 900, 800)])
    assert len(background.held) == 1  # one at a time
    background.go()
    assert controller.is_settled
    assert controller.rows[0].region.area_mm2 == pytest.approx(0.72)


def test_two_regions_are_compared(setup, cmap):
    controller, _, _, told, ready = setup
    ready()
    assert controller.pair is None
    regions = [square(0, 0, 2500, 1500, "left"), square(0, 2000, 2500, 3500, "right"), square(3100, 0, 3500, 500, "no")]
    controller.set_regions(regions)
    assert controller.pair == ("left", "right")
    pd.testing.assert_frame_equal(controller.comparison, compare_regions(cmap, *regions[:2]))
    controller.compare("right", "left")
    pd.testing.assert_frame_equal(controller.comparison, compare_regions(cmap, regions[1], regions[0]))
    controller.compare("right", "no")
    assert controller.comparison is None
    assert not told
    controller.set_regions(regions[:1])
    assert controller.pair is None
    assert controller.comparison is None


def test_a_gene_is_explained_at_a_click_and_in_a_region(setup, cmap):
    controller, state, _, _, ready = setup
    ready()
    region = square(0, 0, 1500, 1700)
    controller.set_regions([region])
    controller.explain((550.0, 720.0))
    assert controller.explanation is None  # no gene yet
    assert controller.show_gene("erbb2") == ""
    assert state.shown == Shown("gene", ("ERBB2",))
    explanation = controller.explanation
    pd.testing.assert_frame_equal(explanation.table, explain_gene(cmap, "ERBB2", (5, 7)))
    assert explanation.where == "x 720  y 550 µm"
    parts = explained_parts(explanation.table, n_types=1)
    assert [part.name for part in parts][1:] == [
        "2 other types",
        "programs (no cell type)",
        "shift (the same everywhere)",
    ]
    assert sum(part.value for part in parts) == pytest.approx(round(float(cmap.expression("ERBB2")[5, 7]), 2), abs=1e-6)
    controller.explain("A")
    pd.testing.assert_frame_equal(controller.explanation.table, explain_gene(cmap, "ERBB2", region))
    controller.show_contribution("Purple")
    assert state.shown == Shown("contribution", ("ERBB2", "Purple"))
    assert (state.shown.name, state.shown.title) == ("ERBB2 from Purple", "ERBB2 from Purple")
    assert state.shown.unit == "log1p CP10k"
    assert controller.gene == "ERBB2"
    controller.show_contribution("")
    assert state.shown == Shown("gene", ("ERBB2",))
    state.set_shown(Shown("dominant"))
    controller.check()
    assert controller.explanation.table is not None  # the last gene stays explained
    for place, said in (((50.0, 4500.0), "no tissue"), ((-5.0, 0.0), "no tissue"), ((3900.0, 50.0), "not mapped yet")):
        controller.explain(place)
        assert controller.explanation.table is None
        assert said in controller.explanation.problem
    controller.set_regions([])
    controller.explain("A")  # a region that has just been removed
    assert controller.explanation is None
    assert "does not predict NOGENE" in controller.show_gene("NOGENE")
    assert "does not predict NOGENE" in controller.add_gene("NOGENE")


def test_a_model_of_other_genes(setup):
    controller, state, _, told, ready = setup
    ready()
    controller.set_regions([square(0, 0, 900, 900)])
    controller.set_genes(["CD3E", "ERBB2"])
    other = ColorModel()
    other.genes = ("ERBB2",)
    state.set_model(other)
    controller.check()
    assert list(controller.rows[0].table.query("kind == 'expression'")["name"]) == ["ERBB2"]
    assert not told


def test_a_closed_dock_draws_no_regions(setup, tmp_path):
    controller, _, background, told, ready = setup
    ready()
    write_regions([square(0, 0, 900, 900)], tmp_path / "a.geojson", (1.0, 1.0))
    background.held = []
    controller.read(tmp_path / "a.geojson", lambda _regions: pytest.fail("the dock is closed"))
    controller.close()
    background.go()
    assert not told


def test_tables_and_outlines_are_written(setup, tmp_path):
    controller, _, _, told, ready = setup
    controller.read(tmp_path / "x.geojson", lambda _regions: pytest.fail("there is no slide"))
    controller.write(tmp_path / "x.geojson")
    controller.write_table(tmp_path / "x.csv")
    controller.write_comparison(tmp_path / "x.csv")
    assert [str(error).split(":")[0] for error in told] == [
        "Open a slide first",
        "There are no regions to write",
        "Nothing is measured yet",
        "Nothing is compared yet",
    ]
    told.clear()
    ready()
    controller.set_regions([square(0, 0, 900, 900), square(0, 1000, 900, 2900, "B")])
    controller.set_genes(["CD3E"])
    for _ in range(2):  # the dialog has asked about the file that is there
        controller.write_table(tmp_path / "table.csv")
    table = pd.read_csv(
        tmp_path / "table.csv",
        keep_default_na=False,
        na_values=dict.fromkeys(("low", "high", "patch_low", "patch_high"), ""),
    )
    measured = table[table["kind"] != "part"].drop(columns=["slide", "model"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(measured, pd.concat([row.table for row in controller.rows], ignore_index=True))
    for region in ("A", "B"):  # the parts of a gene sum to it
        part = table[(table["region"] == region) & (table["kind"] == "part")]
        assert len(part) == len(TYPES) + 2
        whole = table[(table["region"] == region) & (table["kind"] == "expression")]["value"].item()
        assert part["value"].sum() == pytest.approx(whole, abs=1e-4)
    assert set(table["slide"]) == {"section"}
    assert set(table["model"]) == {"quick model"}
    controller.write_comparison(tmp_path / "difference.csv")
    difference = pd.read_csv(tmp_path / "difference.csv")
    assert (difference["first_region"][0], difference["second_region"][0]) == ("A", "B")
    controller.write(tmp_path / "a.geojson")
    again = []
    controller.read(tmp_path / "a.geojson", again.extend)
    assert [region.outline.equals(r.outline) for region, r in zip(again, controller.regions, strict=True)] == [True] * 2
    assert [r.name for r in read_regions(tmp_path / "a.geojson", (1.0, 1.0))] == ["A", "B"]
    assert not told
    (tmp_path / "file").write_text("")
    controller.write_table(tmp_path / "file" / "table.csv")
    (tmp_path / "bad.geojson").write_text("no")
    controller.read(tmp_path / "bad.geojson", lambda _regions: pytest.fail("it is no GeoJSON"))
    assert "table.csv could not be written" in str(told[0])
    assert "is it a JSON file?" in str(told[1])


def test_tables_and_figures_of_foreign_regions_begin_with_the_warning(setup, tmp_path):
    controller, state, _, _, ready = setup
    ready()
    cmap = state.map
    left = np.arange(cmap.grid.n_cells).reshape(cmap.grid.shape)[:10, :10].ravel()
    values = cmap.block((slice(None), slice(None)))
    weights, programs = (part.reshape(cmap.grid.n_cells, -1)[left] for part in values[:2])
    cmap.fill(left, weights, programs, np.full(len(left), 0.99))
    controller.set_regions([square(0, 0, 900, 900), square(0, 1000, 900, 2900, "B")])
    assert [row.report.level for row in controller.rows] == ["foreign", "familiar"]
    controller.write_table(tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert table.columns[0] == "warning"
    assert table.loc[table["region"] == "A", "warning"].str.endswith("are not to be believed.").all()
    assert (table.loc[table["region"] == "B", "warning"] == "").all()
    controller.write_comparison(tmp_path / "difference.csv")
    assert pd.read_csv(tmp_path / "difference.csv")["warning"].str.contains("not to be believed").all()
    assert controller.report(["B"]).warning == ""
    paper = Paper(warning=controller.report(["A"]).warning)
    figure = composition_chart(controller.rows, {}, paper)
    band, first = figure.axes[0].patches[0], figure.axes[0].texts[0]
    assert to_hex(band.get_facecolor()) == "#b3261e"
    assert first.get_text().startswith("100 % of this tissue is unlike")
    assert figure.axes[0].texts[0].get_position()[1] < band.get_height()
    names = [text for text in figure.axes[0].texts if text.get_text() == "A"]
    assert names[0].get_position()[1] > band.get_height()


def test_a_small_region_of_a_foreign_slide_has_its_warning(setup):
    controller, state, _, _, ready = setup
    ready()
    cmap = state.map
    done = np.flatnonzero(cmap.state == DONE)
    values = cmap.block((slice(None), slice(None)))
    cmap.fill(done, *(part.reshape(cmap.grid.n_cells, -1)[done] for part in values[:2]), np.full(len(done), 0.99))
    controller.set_regions([square(0, 0, 100, 300)])
    assert controller.rows[0].value("patches") == 3
    assert controller.rows[0].report.level == "foreign"


@pytest.mark.parametrize("width", [300, 560])
def test_charts_say_the_numbers(cmap, width):
    regions = [square(0, 0, 2500, 1500, "left"), square(0, 2000, 2500, 3500, "right")]
    rows = RegionMeter(RegionsController(ExploreState(), None, None).settings).measure(cmap, regions, GENES[:2])
    colors = dict(zip(TYPES, ("#E69F00", "#56B4E9", "#009E73"), strict=True))
    paper = Paper(width_px=width, source="section · model")
    explanation = Explanation("x 1  y 2 µm", explain_gene(cmap, "ERBB2", (5, 7)))
    figures = [
        composition_chart(rows, colors, paper),
        comparison_chart(compare_regions(cmap, *regions, GENES[:2]), ("left", "right"), colors, paper),
        explanation_chart(explanation, colors, paper),
    ]
    texts = [[text.get_text() for text in figure.axes[0].texts] for figure in figures]
    share = 100 * rows[0].value("share", "Pink")
    assert any(text.startswith(f"{share:.0f} % (") for text in texts[0])
    assert f"ERBB2: {fixed(explanation.table.attrs['expression'], 2)} log1p CP10k" in texts[2]
    assert all("section · model" in text for text in texts)
    for figure, written in zip(figures, texts, strict=True):
        assert figure.axes[0].get_ylim()[0] == pytest.approx(figure.get_size_inches()[1] * 100)
        renderer = figure.canvas.get_renderer()
        for text in figure.axes[0].texts:
            box = text.get_window_extent(renderer)
            assert -1 <= box.x0 <= box.x1 <= width + 1, (text.get_text(), written)
