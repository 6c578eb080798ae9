from __future__ import annotations

import pytest

from napari_cpnn.ui.explore_controller import TypeRow
from napari_cpnn.ui.legend import MAX_TYPES, CanvasLegend, ink_on
from napari_cpnn.ui.state import ExploreState, Shown

ROWS = [TypeRow("Epithelial", "#E69F00", 0.6), TypeRow("CAFs", "#0072B2", 0.39), TypeRow("Rare", "#5A000F", 0.001)]


class State(ExploreState):
    map = object()  # something is mapped


@pytest.fixture
def legend(make_napari_viewer):
    state = State()
    return CanvasLegend(make_napari_viewer(), state), state


def texts(legend):
    overlays = legend._viewer.canvas.overlays
    return [overlays[key].text for key in sorted(overlays) if key.startswith("napari_cpnn")]


def test_dominant_types_are_named_with_their_colours(legend):
    legend, state = legend
    state.set_shown(Shown("dominant"))
    legend.update(ROWS)
    assert texts(legend) == ["Epithelial", "CAFs"]  # what is hardly there is left out
    state.set_shown(Shown("blend", ("CAFs",)))
    legend.update(ROWS)
    assert texts(legend) == ["CAFs"]


def test_gene_has_a_title_with_its_unit(legend):
    legend, state = legend
    state.set_shown(Shown("gene", ("ERBB2",)))
    legend.update(ROWS)
    assert texts(legend) == ["ERBB2 · log1p CP10k"]
    state.set_look(legend=False)
    legend.update(ROWS)
    assert texts(legend) == []


def test_many_types_do_not_cover_the_slide(legend):
    legend, state = legend
    state.set_shown(Shown("dominant"))
    legend.update([TypeRow(f"T{i}", "#E69F00", 0.02) for i in range(49)])
    assert len(texts(legend)) == MAX_TYPES
    legend.clear()
    assert texts(legend) == []


@pytest.mark.parametrize(("color", "ink"), [("#F0E442", "#000000"), ("#5A000F", "#FFFFFF"), ("#FFFFFF", "#000000")])
def test_text_is_readable(color, ink):
    assert ink_on(color) == ink
