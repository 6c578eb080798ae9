"""What a map shows, and between which values its colours lie."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from map_world import GENES, TYPES, make_world
from napari_cpnn import painting
from napari_cpnn.painting import Look, Painter, Shown
from napari_cpnn.palette import type_colors


@pytest.fixture(scope="module")
def world():
    return make_world()


def painted(world, shown, look):
    painter = Painter(world.cmap.tissue)
    painting.catch_up(painter, world.cmap)
    limits = painting.paint(painter, world.cmap, shown, look, painting.auto_range(shown))
    low, high = limits
    rgba = painter.rgba.copy()
    rgba[..., :3] = (rgba[..., :3] - low) / (high - low)
    return rgba, limits


@pytest.mark.parametrize(
    ("shown", "title", "name", "unit"),
    [
        (Shown("type", ("CAFs",)), "Cell type: CAFs", "CAFs", "share of cell type"),
        (Shown("gene", ("ERBB2",)), "Gene: ERBB2", "ERBB2", "log1p CP10k"),
        (Shown("contribution", ("ERBB2", "CAFs")), "ERBB2 from CAFs", "ERBB2 from CAFs", "log1p CP10k"),
        (Shown("dominant"), "Dominant cell type", "", ""),
        (Shown("blend", ("CAFs", "B cells")), "Blend of cell types", "CAFs", ""),
    ],
)
def test_words(shown, title, name, unit):
    assert (shown.title, shown.name, shown.unit) == (title, name, unit)
    assert shown.has_range == bool(unit)


def test_ranges(world):
    gene, share = Shown("gene", (GENES[0],)), Shown("type", (TYPES[2],))
    values = world.expression(GENES[0])
    _, (low, high) = painted(world, gene, Look())
    assert values.min() <= low < np.median(values) < high <= values.max()
    assert painted(world, gene, Look(range_mode="full"))[1] == pytest.approx((0, values.max()), rel=1e-3)
    assert painted(world, share, Look(range_mode="full"))[1] == (0, 1)
    assert painted(world, share, Look())[1][0] == 0
    assert painted(world, share, Look(range_mode="manual", manual=(0.2, 0.4)))[1] == (0.2, 0.4)
    of_genes = Look(range_mode="manual", manual=(0.2, 0.4), manual_for=gene.unit)
    assert painted(world, gene, of_genes)[1] == (0.2, 0.4)
    assert painted(world, share, of_genes)[1] == painted(world, share, Look())[1]  # another unit: its own range
    assert painted(world, gene, Look(range_mode="manual", manual=(0.2, 0.4), manual_for="Gene: X"))[1] != (0.2, 0.4)
    low, high = painted(world, share, Look(range_mode="manual", manual=(0.2, 0.2)))[1]
    assert high > low == 0.2


def test_colours_of_a_gene_are_those_of_its_values(world):
    rgba, (low, high) = painted(world, Shown("gene", (GENES[3],)), Look("cividis"))
    where = np.clip(np.rint((world.expression(GENES[3]) - low) / (high - low) * 255), 0, 255).astype(int)
    assert np.abs(rgba[world.done][:, :3] - painting.color_table("cividis")[where, :3]).max() < 0.02


def test_colours_of_the_dominant_type_are_those_of_the_palette(world):
    rgba, _ = painted(world, Shown("dominant"), Look(unlike="shown"))
    colors = painting.hex_colors(list(type_colors(TYPES).values()))
    kinds = world.drawing[world.done].astype(int)
    assert np.allclose(rgba[world.done][:, :3], colors[kinds])


def test_an_empty_blend_is_nothing(world):
    rgba, _ = painted(world, Shown("blend"), Look())
    assert (rgba[world.done][:, 3] == 0).all()


def test_dominant_types_in_a_window_by_how_often_they_occur(world):
    window = (slice(0, 6), slice(0, 9))
    counted = Counter(int(kind) for kind in world.drawing[window].ravel() if kind in "0123")
    assert painting.dominant_types(world.cmap, window)[0] == TYPES[counted.most_common()[0][0]]
    assert set(painting.dominant_types(world.cmap, window)) == {TYPES[k] for k in counted}
    assert painting.dominant_types(world.cmap, np.zeros(world.drawing.shape, bool)) == []


@pytest.mark.parametrize(("value", "unit", "text"), [(0.456, "share of cell type", "46 %"), (1.234, "log1p", "1.23")])
def test_numbers_of_the_colour_bar(value, unit, text):
    assert painting.format_value(value, unit) == text


def test_what_is_opaque_hides_the_tissue():
    rgba = np.array([[0.2, 0.4, 0.6, 1.0], [0.2, 0.4, 0.6, 0.0]], np.float32)
    assert np.allclose(painting.on_tissue(rgba), [[0.2, 0.4, 0.6], painting.TISSUE])
    assert np.allclose(painting.on_tissue(rgba, 0.5, (1, 1, 1)), [[0.6, 0.7, 0.8], [1, 1, 1]])
