"""Colours of cells, their mean per patch, and the picture of a view: against counts and loops, without napari."""

from __future__ import annotations

import numpy as np
import pytest

import napari_cpnn as nc
from cell_maps import make_cells
from map_world import TYPES
from napari_cpnn.errors import CpnnError
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import Viewport
from napari_cpnn.painting import color_table
from napari_cpnn.palette import type_colors
from napari_cpnn.ui.cells.colored import CellContent, CellShown, color_cells
from napari_cpnn.ui.cells.counts import count_rows
from napari_cpnn.ui.cells.gallery import highest, read_crops
from napari_cpnn.ui.cells.in_view import MOST_CELLS, draw_view

GRID = Grid((7, 7), 30.0)


@pytest.fixture(scope="module")
def content() -> CellContent:
    cells = make_cells(400)
    return CellContent(cells.nuclei, cells)


def rgb(color: str) -> list[int]:
    return list(bytes.fromhex(color[1:]))


def in_patch(content: CellContent, row: int, col: int) -> np.ndarray:
    low = 30.0 * np.array([row, col])
    centers = content.nuclei.centers_um
    return np.flatnonzero(((centers >= low) & (centers < low + 30)).all(axis=1))


def test_what_cells_can_be_coloured_by(content):
    assert content.kinds == ["type", "gene", "signature", "share", "class", "area", "plain"]
    assert CellContent(nc.Nuclei([[1.0, 2.0]])).kinds == ["plain"]
    assert CellContent(content.nuclei).kinds == ["class", "area", "plain"]


@pytest.mark.parametrize(("kind", "names"), [("type", TYPES), ("class", ("tumour", "immune/T"))])
def test_categories_have_the_colours_of_their_names(content, kind, names):
    colored = color_cells(content, CellShown(kind), "viridis", GRID)
    codes, known = content.codes(kind)
    assert known == names
    colors = type_colors(names)
    for number in range(0, 400, 13):
        expected = rgb(colors[names[codes[number]]]) if codes[number] >= 0 else [150, 150, 150]
        assert colored.colors[number, :3].tolist() == expected
    assert colored.limits is None
    for row, col in ((0, 0), (3, 2), (5, 6)):
        here = codes[in_patch(content, row, col)]
        counts = np.bincount(here[here >= 0], minlength=len(names))
        if (counts == counts.max()).sum() == 1 and counts.max():
            painted = np.rint(255 * colored.mean[row, col, :3]).astype(int).tolist()
            assert painted == rgb(colors[names[int(counts.argmax())]])


def test_values_have_the_colour_map_between_their_ends(content):
    colored = color_cells(content, CellShown("gene", "GENE3"), "magma", GRID)
    values = content.cells.expression("GENE3")
    low, high = colored.limits
    assert np.nanmin(values) <= low < high <= np.nanmax(values)
    table = color_table("magma")
    for number in range(0, 390, 17):
        step = int(np.clip(np.rint(255 * (values[number] - low) / (high - low)), 0, 255))
        np.testing.assert_allclose(colored.colors[number, :3], 255 * table[step, :3], atol=0.6)
    assert colored.colors[399].tolist() == [150, 150, 150, 255]  # not predicted
    assert (colored.colors[:, 3] == 255).all()
    row, col = 2, 4
    mean = np.nanmean(values[in_patch(content, row, col)])
    step = int(np.clip(np.rint(255 * (mean - low) / (high - low)), 0, 255))
    np.testing.assert_allclose(colored.mean[row, col, :3], table[step, :3], atol=0.01)


def test_density_per_patch(content):
    colored = color_cells(content, CellShown("plain"), "viridis", GRID)
    counts = np.array([[len(in_patch(content, row, col)) for col in range(7)] for row in range(7)])
    assert colored.n_within(Rect(0, 0, 210, 210)) == counts.sum()
    assert colored.n_within(Rect(30, 60, 90, 90)) == counts[1:3, 2].sum()
    assert ((colored.mean[..., 3] > 0) <= (counts > 0)).all()
    assert colored.mean_limits[1] == pytest.approx(np.quantile(counts[counts > 0], 0.99) / 0.03**2, rel=1e-5)


def test_a_view_has_outlines_where_they_can_be_seen(content):
    colored = color_cells(content, CellShown("type"), "viridis", GRID)
    drawing = draw_view(colored, Viewport(Rect(50, 50, 150, 150), 4.0, None))
    assert drawing.style == "outlines"
    assert drawing.rgba.shape == (640, 640, 4)  # a quarter more on each side, in steps of 64
    center, number = None, None
    for number in colored.content.nuclei.query((60, 60, 140, 140)).tolist():
        vertices = content.nuclei.outlines[number]
        y, x = np.floor((vertices.mean(axis=0) * 0 + vertices[0] - 25.0) * 4).astype(int)
        near = drawing.rgba[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].reshape(-1, 4)
        center = center or (near == colored.colors[number]).all(axis=1).any()
    assert center
    dots = draw_view(colored, Viewport(Rect(0, 0, 210, 210), 1.0, None))
    assert dots.style == "dots"
    assert dots.n_cells == len(content.nuclei.query(dots.rect)) == 400


def test_another_view_is_drawn_only_where_it_must_be(content):
    colored = color_cells(content, CellShown("type"), "viridis", GRID)
    view = Viewport(Rect(50, 50, 150, 150), 4.0, None)
    drawing = draw_view(colored, view)
    assert drawing.serves(view, 1.0)
    assert drawing.serves(Viewport(Rect(60, 40, 160, 140), 4.0, None), 1.0)
    assert not drawing.serves(Viewport(Rect(90, 50, 190, 150), 4.0, None), 1.0)
    assert not drawing.serves(Viewport(Rect(70, 70, 120, 120), 8.0, None), 1.0)
    assert not drawing.serves(view, 2.0)


def test_too_many_cells_are_shown_as_means():
    rng = np.random.default_rng(0)
    many = CellContent(nc.Nuclei(rng.uniform(0, 2000, (30_000, 2))))
    colored = color_cells(many, CellShown("plain"), "viridis", Grid((40, 40), 50.0))
    far = draw_view(colored, Viewport(Rect(0, 0, 2000, 2000), 0.5, None))
    assert far.style == "mean"
    assert far.rgba.size == 0
    assert far.n_cells == 30_000
    near = draw_view(colored, Viewport(Rect(0, 0, 1000, 1000), 1.0, None))
    assert near.style == "dots"
    assert near.n_cells < MOST_CELLS


def test_counts_by_type(content):
    class Half:
        area_um2 = 0.5 * 210**2

    view = Rect(0, 0, 100, 210)
    rows = count_rows(content, "type", Half(), view)
    codes = content.codes("type")[0]
    assert (rows[0].name, rows[0].n, rows[0].share) == ("All cells", 400, 1.0)
    assert rows[0].per_mm2 == pytest.approx(400 / (0.5 * 0.21**2))
    assert rows[0].in_view == (content.nuclei.centers_um[:, 0] < 100).sum()
    assert [row.n for row in rows[1:-1]] == sorted((row.n for row in rows[1:-1]), reverse=True)
    for row in rows[1:-1]:
        mine = codes == TYPES.index(row.name)
        assert row.n == mine.sum()
        assert row.in_view == (mine & (content.nuclei.centers_um[:, 0] < 100)).sum()
        assert row.color == type_colors(TYPES)[row.name]
    assert (rows[-1].name, rows[-1].n) == ("without", 3)
    assert np.isnan(count_rows(content, "plain", None, None)[0].per_mm2)


def test_the_highest_of_a_gene_a_type_and_a_class(content):
    title, numbers, values = highest(content, CellShown("gene", "GENE1"), n=10)
    expression = content.cells.expression("GENE1")
    assert title == "Highest GENE1"
    np.testing.assert_array_equal(values, np.sort(expression[:397])[::-1][:10])
    assert expression[numbers].tolist() == values.tolist()
    _, numbers, _ = highest(content, CellShown("type"), "CAFs", n=5)
    assert (content.cells.weight("CAFs")[numbers] >= np.sort(content.cells.weight("CAFs")[:397])[-5]).all()
    _, numbers, values = highest(content, CellShown("class"), "tumour", n=7)
    assert (content.nuclei.classes[numbers] == 0).all()
    assert np.isnan(values).all()
    with pytest.raises(CpnnError, match="NOGENE"):
        highest(content, CellShown("gene", "NOGENE"))


def test_crops_show_their_cells(content):
    pixels = np.zeros((440, 550, 3), np.uint8)
    y, x = np.mgrid[:440, :550]
    pixels[..., 0], pixels[..., 1] = y * 255 // 440, x * 255 // 550
    slide = nc.Slide.from_arrays([pixels], (0.5, 0.4), name="ramp")
    crops = read_crops(slide, content, CellShown("area"), n=20)
    assert crops.pictures.shape == (20, 80, 80, 3)
    for picture, number in zip(crops.pictures, crops.numbers, strict=True):
        cy, cx = content.nuclei.centers_um[number] / [0.5, 0.4]
        if 50 < cy < 390 and 60 < cx < 490:
            expected = (cy * 255 / 440, cx * 255 / 550)
            np.testing.assert_allclose(picture[36:44, 36:44, :2].mean(axis=(0, 1)), expected, atol=2)
