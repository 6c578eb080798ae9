"""Figures: what lies where, what is written beside it, and what is refused."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from shapely.geometry import Polygon

from map_world import GENES, STRIDE, TYPES, calibrated_map, empty_map, make_decoder
from napari_cpnn.errors import ExportError, GenesError, MappingError, PixelSizeError, SettingsError
from napari_cpnn.export import ExportCancelledError, export_map, part_of, reporting, to_figure
from napari_cpnn.export.figure import Scene, as_shown
from napari_cpnn.export.figure_page import Page
from napari_cpnn.export.part import extent_of
from napari_cpnn.geometry import Grid, Rect, length_text, scale_bar_um
from napari_cpnn.mapping import DONE, FAILED, CompositionMap
from napari_cpnn.painting import Shown, lay_over, tissue_picture
from napari_cpnn.palette import type_colors
from napari_cpnn.settings import ExportSettings, FigureSettings
from napari_cpnn.slides import Slide

QUICK = FigureSettings(dpi=80)
SVG = "{http://www.w3.org/2000/svg}"


def texts(path):
    return ["".join(node.itertext()).strip() for node in ET.parse(path).iter(f"{SVG}text")]


# -- pixels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smooth", [True, False])
def test_the_map_lies_where_a_second_way_of_sampling_puts_it(smooth):
    rng = np.random.default_rng(0)
    grid, rect = Grid((6, 5), 16.0, (32.0, 48.0)), Rect(20.0, 40.0, 140.0, 145.0)
    rgba = rng.random((6, 5, 4)).astype(np.float32)
    tissue = rng.integers(0, 255, (300, 210, 3), dtype=np.uint8)
    picture = tissue.copy()
    lay_over(picture, rgba, grid, rect, 0.7, smooth=smooth)
    y = rect.y0 + (np.arange(300) + 0.5) * 120 / 300
    x = rect.x0 + (np.arange(210) + 0.5) * 105 / 210
    row, col = np.meshgrid((y - 32) / 16 - 0.5, (x - 48) / 16 - 0.5, indexing="ij")
    inside = (row > -0.5) & (row < 5.5) & (col > -0.5) & (col < 4.5)
    places = np.array([row, col]) if smooth else np.floor(np.array([row, col]) + 0.5)
    channels = [map_coordinates(rgba[..., k], places, order=int(smooth), mode="nearest") for k in range(4)]
    alpha = 0.7 * channels[3] * inside
    expected = tissue * (1 - alpha[..., None]) + 255 * np.stack(channels[:3], axis=-1) * alpha[..., None]
    assert np.abs(picture - expected).max() <= 0.51
    assert not inside.all()


def pattern(shape=(240, 200)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([y % 256, x % 256, (y + x) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("mpp", "rect"),
    [
        ((0.5, 0.5), Rect(10.0, 5.0, 50.0, 55.0)),
        ((0.5, 0.4), Rect(10.0, 5.0, 50.0, 45.0)),
        ((0.5, 0.4), Rect(10.25, 5.2, 50.25, 45.2)),  # half a level-0 pixel further
        ((0.25, 0.25), Rect(5.1, 3.7, 22.3, 25.9)),
    ],
)
def test_tissue_lies_where_it_is_to_a_fraction_of_a_pixel(mpp, rect):
    """On a gradient of two grey values per pixel, half a pixel is one of them."""
    y, x = np.mgrid[:120, :120]
    image = np.stack([2 * y, 2 * x, 0 * x], axis=-1).astype(np.uint8)
    picture = tissue_picture(Slide.from_arrays([image], mpp), mpp, rect, (20, 25)).astype(float) / 2
    y = (rect.y0 + (np.arange(20) + 0.5) * rect.height / 20) / mpp[0] - 0.5
    x = (rect.x0 + (np.arange(25) + 0.5) * rect.width / 25) / mpp[1] - 0.5
    assert np.abs(picture[..., 0] - y[:, None]).max() <= 0.3
    assert np.abs(picture[..., 1] - x[None]).max() <= 0.3


def test_a_close_look_magnifies_and_the_glass_beyond_the_slide_is_white():
    image = pattern()
    slide = Slide.from_arrays([image], 0.5)
    picture = tissue_picture(slide, (0.5, 0.5), Rect(5.0, 90.0, 15.0, 110.0), (80, 160)).astype(float)
    y = (5 + (np.arange(80) + 0.5) / 8) / 0.5 - 0.5
    assert np.abs(picture[:, :70, 0] - y[:, None]).max() <= 1
    assert (picture[:, 90:] == 255).all()


class Watched:
    """A slide that writes down what is read of it."""

    def __init__(self, slide):
        self._slide, self.reads = slide, []

    def __getattr__(self, name):
        return getattr(self._slide, name)

    def read_shown(self, y, x, height, width, level):
        self.reads.append((height * width, level))
        return self._slide.read_shown(y, x, height, width, level)


def test_large_slides_are_read_from_the_level_that_fits_band_by_band(monkeypatch):
    from napari_cpnn.painting import composite

    image = pattern((1024, 1024))
    levels = [image, image[::2, ::2], image[::4, ::4], image[::8, ::8]]
    watched = Watched(Slide.from_arrays(levels, 0.5))
    monkeypatch.setattr(composite, "_BAND_PX", 4096)
    tissue_picture(watched, (0.5, 0.5), Rect(0.0, 0.0, 512.0, 512.0), (200, 200))
    assert {level for _, level in watched.reads} == {2}
    assert max(n for n, _ in watched.reads) < 3 * 4096
    watched.reads.clear()
    tissue_picture(watched, (0.5, 0.5), Rect(0.0, 0.0, 64.0, 64.0), (200, 200))
    assert {level for _, level in watched.reads} == {0}


@pytest.mark.parametrize("which", ["world", "tilted"])
def test_map_and_tissue_coincide(which, request):
    """The world's tissue is drawn cell by cell: at the centre of each cell lies what belongs to it, and only there."""
    world = request.getfixturevalue(which)
    rest = np.flatnonzero(np.isin(world.drawing, ["?", "x"]))
    world.cmap.fill(rest, np.eye(4)[np.zeros(len(rest), int)], np.zeros((len(rest), 2)))
    scene = Scene(world.cmap, world.slide, None)
    (y, x), (rows, cols) = world.cmap.grid.origin_um, world.drawing.shape
    scene.rect = Rect(y, x, y + rows * STRIDE, x + cols * STRIDE)
    page = Page(FigureSettings(dpi=200), scene.rect, 1)
    tissue = scene.tissue(page.shape_px)
    settings = FigureSettings(dpi=200, opacity=1.0, unlike="shown")
    picture = scene.panel(Shown("dominant"), tissue, settings).picture.astype(int)
    um = scene.rect.height / picture.shape[0]
    for (row, col), kind in np.ndenumerate(world.drawing):
        y, x = (int((v + 0.5) * STRIDE / um) for v in (row, col))
        cell = slice(y - 2, y + 3), slice(x - 2, x + 3)
        glass = kind == "."
        assert (np.abs(tissue[cell].astype(int) - 240) < 3).all() == glass
        if not glass:
            color = type_colors(TYPES)[TYPES[int(kind) if kind in "0123" else 0]]
            rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
            assert np.abs(picture[cell] - rgb).max() <= 1
        else:
            assert np.array_equal(picture[cell], tissue[cell])


# -- the page ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "length", "text"),
    [(6048, 1000, "1 mm"), (7000, 2000, "2 mm"), (500, 100, "100 µm"), (33, 5, "5 µm"), (40_000, 10_000, "10 mm")],
)
def test_scale_bars_are_round(width, length, text):
    assert scale_bar_um(width) == pytest.approx(length)
    assert length_text(scale_bar_um(width)) == text


def test_colours_of_the_legend_are_those_of_the_picture(world):
    """The tissue of the world has one colour, so that a type looks the same everywhere."""
    rest = np.flatnonzero(np.isin(world.drawing, ["?", "x"]))
    world.cmap.fill(rest, np.eye(4)[np.zeros(len(rest), int)], np.zeros((len(rest), 2)))
    scene = Scene(world.cmap, world.slide, None)
    panel = scene.panel(Shown("dominant"), scene.tissue((220, 300)), QUICK)
    drawn = {tuple(color) for color in panel.picture.reshape(-1, 3).tolist()}
    for color in np.rint(255 * panel.key.colors).astype(int):
        assert min(np.abs(np.array(other) - color).max() for other in drawn) <= 2


@pytest.mark.parametrize("names", [["dominant"], [GENES[0], GENES[1], "CAFs"], [f"{GENES[0]} from CAFs", "dominant"]])
def test_what_is_written_beside_the_map(world, tmp_path, names):
    path = to_figure(world.cmap, tmp_path / "a.svg", names, world.slide, QUICK)
    found = texts(path)
    width = Scene(world.cmap, world.slide, None).rect.width
    assert found.count(length_text(scale_bar_um(width))) == len(names)
    assert any("section 1" in text and "abc" in text for text in found)
    assert any("research use only" in text for text in found)
    n_genes = sum(name.startswith("GENE") for name in names)
    assert found.count("log1p CP10k") == n_genes
    assert found.count("share of cell type") == names.count("CAFs")
    if "dominant" in names:
        assert {*TYPES, "could not be read", "Dominant cell type"} <= set(found)
    for name in names:
        assert name == "dominant" or name in found


def test_the_scale_bar_is_as_long_as_it_says(world, tmp_path):
    path = to_figure(world.cmap, tmp_path / "a.svg", "dominant", world.slide, QUICK)
    root = ET.parse(path).getroot()
    bar = next(node for node in root.iter(f"{SVG}g") if node.get("id") == "scale bar")
    x = [float(v) for v in re.findall(r"[ML] ([\d.]+)", bar.find(f"{SVG}path").get("d"))]
    image = next(node for node in root.iter(f"{SVG}image"))
    scale = float(re.match(r"matrix\(([\d.]+)", image.get("transform")).group(1))
    width = Scene(world.cmap, world.slide, None).rect.width
    um_per_pt = width / (scale * float(image.get("width")))
    assert (max(x) - min(x)) * um_per_pt == pytest.approx(scale_bar_um(width), rel=0.01)


@pytest.mark.parametrize(("dpi", "width_mm"), [(100, 90), (72, 180), (150, 180)])
def test_nothing_is_clipped(dpi, width_mm):
    """Every text lies on the page, also long names in narrow panels."""
    from napari_cpnn.export.figure_page import Bar, Legend, Panel

    rect = Rect(0.0, 0.0, 300.0, 500.0)
    page = Page(FigureSettings(dpi=dpi, width_mm=width_mm, columns=3), rect, 4)
    picture = np.zeros((*page.shape_px, 3), dtype=np.uint8)
    names = tuple(f"A cell type with quite a long name, number {i}" for i in range(22))
    bar = Bar(np.zeros((256, 3), np.float32), (0.0, 0.00123), "share of cell type")
    panels = [Panel("A title that is far too long for its panel", picture, bar)] * 3
    panels.append(Panel("$not maths$", picture, Legend(names, np.zeros((22, 3), np.float32))))
    figure = page.draw(panels, "A title of the whole figure that goes on and on " * 4, "And its notes. " * 30)
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    drawn = list(figure.findobj(lambda a: hasattr(a, "get_text") and bool(a.get_text())))
    boxes = [t.get_window_extent(renderer) for t in drawn]
    assert len(boxes) > 30
    for box, text in zip(boxes, drawn, strict=True):
        assert box.x0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= height + 1, text
    legend = [t.get_window_extent(renderer) for t in drawn if t.get_text().endswith(tuple(f"{i}" for i in range(22)))]
    tall = sorted(box.y0 for box in legend[-22:])
    assert len(set(tall)) == 22  # one column, since they are long


def test_pictures_have_the_size_that_was_asked_for(world, tmp_path):
    path = to_figure(world.cmap, tmp_path / "a.png", [GENES[0], GENES[1]], world.slide, FigureSettings(dpi=150))
    with Image.open(path) as image:
        assert image.width == pytest.approx(180 / 25.4 * 150, abs=3)
        assert image.info["dpi"][0] == pytest.approx(150, abs=0.1)
    path = to_figure(world.cmap, tmp_path / "b.pdf", "dominant", world.slide, QUICK)
    assert path.read_bytes().startswith(b"%PDF")
    assert b"TrueType" in path.read_bytes() or b"CIDFontType2" in path.read_bytes()


def test_the_same_map_gives_the_same_file(world, tmp_path):
    files = [to_figure(world.cmap, tmp_path / f"{i}.svg", GENES[0], world.slide, QUICK).read_bytes() for i in (1, 2)]
    assert files[0] == files[1]


def test_the_range_can_be_fixed(world, tmp_path):
    settings = QUICK.replace(low=0.0, high=4.0)
    found = texts(to_figure(world.cmap, tmp_path / "a.svg", GENES[0], world.slide, settings))
    assert {"0", "1", "2", "3", "4"} <= set(found)


def test_a_map_without_its_slide_lies_on_white(world, tmp_path):
    scene = Scene(world.cmap, None, None)
    picture = scene.panel(Shown("gene", (GENES[0],)), scene.tissue((100, 180)), QUICK).picture
    assert (picture[:4, :4] == 255).all()
    assert (picture != 255).any()
    to_figure(world.cmap, tmp_path / "a.png", GENES[0], settings=QUICK)


def test_a_map_in_the_making_says_so(world):
    done = (world.cmap.state == DONE).sum() / world.cmap.tissue.sum()
    notes = Scene(world.cmap, world.slide, None).notes(QUICK, [Shown("dominant")])
    assert f"{np.floor(1000 * done) / 10:g} % of the tissue" in notes


def test_a_figure_shows_the_tissue_and_not_all_the_glass():
    tissue = np.zeros((100, 80), bool)
    tissue[20:60, 30:50] = True
    cmap = CompositionMap(Grid((100, 80), 10.0, (500.0, 0.0)), make_decoder(), tissue)
    assert extent_of(cmap, None, None) == Rect(684.0, 284.0, 1116.0, 516.0)
    tissue[:] = True
    slide = Slide.from_arrays([np.zeros((2990, 1590, 3), np.uint8)], 0.5)
    full = CompositionMap(Grid((100, 80), 10.0, (500.0, 0.0)), make_decoder(), tissue)
    assert extent_of(full, slide, (0.5, 0.5)) == Rect(500.0, 0.0, 1495.0, 795.0)


# -- a part ------------------------------------------------------------------------------------------------


def test_contours_are_where_the_field_has_their_value_and_the_tissue_stays_as_it_is(world, tmp_path):
    cmap, slide = world.cmap, world.slide
    settings = QUICK.replace(style="contours", scale_um=0.0, unlike="shown")
    scene = Scene(cmap, slide, None)
    tissue = scene.tissue((120, 100))
    panel = scene.panel(Shown("gene", (GENES[0],)), tissue, settings)
    assert np.array_equal(panel.picture, tissue)
    levels = [float(text) for text in panel.lines.note.removeprefix("contours at ").split(", ")]
    values = np.where(cmap.donors() >= 0, cmap.expression(GENES[0]).reshape(-1)[np.maximum(cmap.donors(), 0)], np.nan)
    at = (panel.lines.xy.reshape(-1, 2)[:, ::-1] - cmap.grid.origin_um) / cmap.grid.stride_um - 0.5
    low, high = np.floor(at + 1e-9).astype(int), np.ceil(at - 1e-9).astype(int)
    share = (at - low).max(axis=1)  # contours cross the lines between neighbouring centres
    found = values[tuple(low.T)] * (1 - share) + values[tuple(high.T)] * share
    assert len(found) > 0
    assert np.abs(found[:, None] - levels).min(axis=1).max() < 1e-3 * np.ptp(levels) + 1e-4
    panel = scene.panel(Shown("dominant"), tissue, settings)
    assert np.array_equal(panel.picture, tissue)
    assert len(panel.lines.xy) > 0
    path = to_figure(cmap, tmp_path / "lines.svg", GENES[0], slide, settings)
    assert any("contours at" in text for text in texts(path))
    with pytest.raises(SettingsError, match="'wash' or 'contours'"):
        QUICK.replace(style="outlines")


def test_a_region_is_outlined_and_the_map_ends_there(world, tmp_path):
    outline = Polygon([(10, 10), (70, 10), (70, 80), (10, 80)])
    scene = Scene(world.cmap, world.slide, outline)
    tissue = scene.tissue((200, 200))
    picture = scene.panel(Shown("dominant"), tissue, QUICK).picture
    y = scene.rect.y0 + (np.arange(200) + 0.5) * scene.rect.height / 200
    x = scene.rect.x0 + (np.arange(200) + 0.5) * scene.rect.width / 200
    outside = ~((y > 10) & (y < 80))[:, None] | ~((x > 10) & (x < 70))[None]
    assert np.array_equal(picture[outside], tissue[outside])
    assert not np.array_equal(picture, tissue)
    path = to_figure(world.cmap, tmp_path / "a.svg", "dominant", world.slide, QUICK, area=outline)
    assert TYPES[2] not in texts(path)  # it is elsewhere


def test_a_part_has_the_cells_whose_centres_lie_in_it(world):
    triangle = Polygon([(0, 0), (160, 0), (0, 160)])
    part = part_of(world.cmap, triangle)
    offset = np.round(np.array(part.grid.origin_um) / STRIDE).astype(int)
    rows, cols = np.nonzero(part.state == DONE)
    found = {(r + offset[0], c + offset[1]) for r, c in zip(rows, cols, strict=True)}
    centres = {(r, c): ((r + 0.5) * STRIDE, (c + 0.5) * STRIDE) for r, c in zip(*np.nonzero(world.done), strict=True)}
    assert found == {cell for cell, (y, x) in centres.items() if x + y < 160}
    row, col = next(iter(found))
    here = part.weights[row - offset[0], col - offset[1]]
    assert np.array_equal(here, world.weights[row, col])


def test_a_part_keeps_what_failed(world):
    part = part_of(world.cmap, Rect(90.0, 0.0, 120.0, 300.0))
    assert (part.state == FAILED).sum() == 1


def test_tables_of_a_part(world, tmp_path):
    import pandas as pd

    area = Rect(0.0, 0.0, 80.0, 80.0)
    whole = pd.read_csv(export_map(world.cmap, tmp_path / "all.csv", [GENES[0]]))
    part = pd.read_csv(export_map(world.cmap, tmp_path / "part.csv", [GENES[0]], area=area))
    expected = whole[(whole.x_um < 80) & (whole.y_um < 80)].reset_index(drop=True)
    assert 0 < len(part) < len(whole)
    pd.testing.assert_frame_equal(part.drop(columns=["row", "col"]), expected.drop(columns=["row", "col"]))


# -- what is refused ---------------------------------------------------------------------------------------


def test_nothing_mapped(world, tmp_path):
    with pytest.raises(ExportError, match="No patch of the map has been computed"):
        to_figure(empty_map(), tmp_path / "a.png")
    with pytest.raises(ExportError, match="No patch of this area"):
        to_figure(world.cmap, tmp_path / "a.png", area=Rect(0.0, 0.0, 10.0, 10.0))
    with pytest.raises(ExportError, match="No patch of this area"):
        part_of(world.cmap, Rect(0.0, 0.0, 10.0, 10.0))
    with pytest.raises(ExportError, match="y0 < y1"):
        to_figure(world.cmap, tmp_path / "a.png", area=Rect(10.0, 0.0, 10.0, 10.0))
    assert not list(tmp_path.iterdir())


def test_names_that_the_model_does_not_know(world, tmp_path):
    for name in ("NOPE", "NOPE from CAFs", f"{GENES[0]} from NOPE", Shown("blend", ("NOPE",))):
        with pytest.raises(GenesError, match="has no 'NOPE': it has 9 genes, such as GENE0"):
            to_figure(world.cmap, tmp_path / "a.png", [name])
    assert as_shown(world.cmap, "CAFs") == Shown("type", ("CAFs",))


def test_other_names_and_settings(world, tmp_path):
    with pytest.raises(ExportError, match=r"must be \.png, \.svg, \.pdf"):
        to_figure(world.cmap, tmp_path / "a.jpg")
    with pytest.raises(ExportError, match="Unknown colour map 'jet'"):
        to_figure(world.cmap, tmp_path / "a.png", settings=FigureSettings(colormap="jet"))
    with pytest.raises(ExportError, match="1 to 24 panels, not 0"):
        to_figure(world.cmap, tmp_path / "a.png", [])
    with pytest.raises(ExportError, match="1 to 24 panels, not 27"):
        to_figure(world.cmap, tmp_path / "a.png", GENES * 3)
    with pytest.raises(ExportError, match=r"folder .* does not exist"):
        to_figure(world.cmap, tmp_path / "none" / "a.png")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        to_figure(world.cmap, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine"
    to_figure(world.cmap, tmp_path / "a.png", settings=QUICK, overwrite=True)


def test_a_slide_of_unknown_pixel_size(world, tmp_path):
    world.cmap.provenance["mpp"] = None
    with pytest.raises(PixelSizeError, match="has a pixel size"):
        to_figure(world.cmap, tmp_path / "a.png", slide=world.slide.with_mpp(None))


@pytest.mark.parametrize("name", ["a.png", "a.csv", "a.geojson", "a.ome.zarr", "a.h5ad", "a.zarr"])
def test_an_export_tells_how_far_it_is_and_can_be_ended(world, tmp_path, name):
    shares = []
    with reporting(lambda _text, done: shares.append(done)):
        export_map(world.cmap, tmp_path / name, GENES[:2], world.slide, settings=ExportSettings(figure=QUICK))
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1

    def stop(_text, _done):
        raise ExportCancelledError("Enough.")

    with pytest.raises(ExportCancelledError, match="Enough"), reporting(stop):
        export_map(world.cmap, tmp_path / f"b{name}", GENES[:2], world.slide)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_tissue_unlike_the_training_is_hatched_hidden_or_shown(world, tmp_path):
    done = np.flatnonzero(world.cmap.state.ravel() == DONE)
    everything = world.cmap.block((slice(None), slice(None)))
    weights, programs, _ = (part.reshape(world.cmap.grid.n_cells, -1)[done] for part in everything)
    world.cmap.fill(done, weights, programs, np.full(len(done), 0.99))
    scene = Scene(world.cmap, world.slide, None)
    page = Page(FigureSettings(dpi=200), scene.rect, 1)
    tissue = scene.tissue(page.shape_px)
    pictures = {}
    for unlike in ("hatched", "hidden", "shown"):
        settings = FigureSettings(dpi=200, opacity=1.0, unlike=unlike)
        pictures[unlike] = scene.panel(Shown("dominant"), tissue, settings).picture
        assert scene.warned().text.startswith("100 % of this tissue is unlike")
    lines = (pictures["hatched"] == (70, 70, 70)).all(axis=2)
    colored = (pictures["shown"] != tissue).any(axis=2)
    assert 0.15 < lines[colored].mean() < 0.35
    # The types are greyed: their colours are nearer to one another than where they are shown as the rest.
    between = colored & ~lines
    spread = {name: picture[between].astype(float).std(axis=1).mean() for name, picture in pictures.items()}
    assert spread["hatched"] < 0.6 * spread["shown"]
    still = (pictures["hidden"] != tissue).any(axis=2)  # patches that could not be read
    np.testing.assert_array_equal(pictures["hidden"][still], pictures["shown"][still])
    assert still.sum() < 0.1 * colored.sum()
    with pytest.raises(SettingsError, match="'hatched', 'hidden' or 'shown', not 'gone'"):
        FigureSettings(unlike="gone")


def test_a_figure_names_its_model_and_the_scale_of_its_outlines_once(world):
    from napari_cpnn.mapping import MarkedPlaces
    from napari_cpnn.models import Selection

    cmap = calibrated_map(world, [-2.0])
    cmap.provenance |= {"model": "breast (0.1)", "model_fingerprint": "0123456789"}
    mask = np.zeros(cmap.grid.shape, dtype=bool)
    mask[1:4, 1:3] = True
    for side in ("high", "low"):
        places = MarkedPlaces(GENES[0], side, 0.1, Selection(860.0, 430.0, 0.1, 0.08), mask)
        cmap.marked[places.name] = places
    scene = Scene(cmap, None, None)
    assert scene.title() == "section 1 · model breast (0.1), 01234567"
    quantities = [as_shown(cmap, name) for name in (GENES[0], f"interval of {GENES[0]}")]
    tissue = scene.tissue((40, 40))
    titles = [scene.panel(one, tissue, FigureSettings(scale_um=0.0)).title for one in quantities]
    assert titles[0] == f"{GENES[0]}, single patches; outline: mean over 860 µm"
    notes = scene.notes(FigureSettings(), quantities)
    assert notes.count(f"{GENES[0]} high (mean") == notes.count(f"{GENES[0]} low (mean") == 1


def test_values_that_spread_more_than_measured_are_noted(world):
    cmap = calibrated_map(world, [4 * STRIDE])
    cmap.trust.slope[:2] = torch.tensor([0.25, 0.9])
    scene = Scene(cmap, None, None)
    quantities = [as_shown(cmap, name) for name in (GENES[0], GENES[1], GENES[2], f"interval of {GENES[0]}")]
    notes = scene.notes(FigureSettings(), quantities)
    assert notes.count("spread") == 1
    assert f"{GENES[0]}: values spread more than measured (slope 0.25); read the ranks." in notes


def test_panels_say_their_scale_and_show_intervals_and_scores(world, tmp_path):
    cmap = calibrated_map(world, [4 * STRIDE, -1.0])
    names = [GENES[0], GENES[1], f"interval of {GENES[0]}", f"interval of {TYPES[0]}", "out of domain"]
    text = to_figure(cmap, tmp_path / "a.svg", names, world.slide, QUICK).read_text()
    for title in (
        f"{GENES[0]}, averaged over {4 * STRIDE:.0f} µm",
        f"{GENES[1]}, not to be trusted at any scale",
        f"{GENES[0]}, interval width",
        f"{TYPES[0]}, interval width",
        "Out-of-domain score",
        "Averaged: mean of the patches in a disc",
        "Interval: where",
    ):
        assert title in text, title
    single = to_figure(cmap, tmp_path / "b.svg", GENES[0], world.slide, QUICK.replace(scale_um=0.0)).read_text()
    assert f"{GENES[0]}, single patches" in single
    with pytest.raises(MappingError, match="No interval is known"):
        to_figure(world.cmap, tmp_path / "c.svg", f"interval of {GENES[0]}", world.slide, QUICK)
    assert not (tmp_path / "c.svg").exists()
    with pytest.raises(SettingsError, match="averaged over 0 to 20,000 um"):
        QUICK.replace(scale_um=-1.0)
