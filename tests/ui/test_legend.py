from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.painting import PALE
from napari_cpnn.ui.explore.legend import MAX_TYPES, CanvasLegend, ink_on
from napari_cpnn.ui.viewer.state import ExploreState, Shown, TypeRow

ROWS = [TypeRow("Epithelial", "#E69F00", 0.6), TypeRow("CAFs", "#0072B2", 0.39), TypeRow("Rare", "#5A000F", 0.001)]


class State(ExploreState):
    map = object()  # something is mapped


@pytest.fixture
def legend(make_napari_viewer):
    state = State()
    legend = CanvasLegend(make_napari_viewer(), state)
    yield legend, state
    legend.stop(viewer_lives=False)


def texts(legend):
    overlays = legend._viewer.canvas.overlays
    ours = [overlays[key] for key in overlays if key.startswith("napari_cpnn")]
    return [overlay.text for overlay in ours if overlay.visible and overlay.position == "top_left"]


def top(legend):
    """Label of the top of the colour bar, or None."""
    overlays = legend._viewer.canvas.overlays
    found = [o.text for o in (overlays[key] for key in overlays) if o.visible and o.position == "top_right"]
    return found[0] if found else None


def test_the_label_of_the_colour_bar_has_its_box_above_the_layers(legend):
    """Overlays are drawn by their order, a box one before its text; layers have the orders 0, 1, ..."""
    legend, state = legend
    state.set_shown(Shown("type", ("CAFs",)))
    state.set_limits((0.0, 0.96))
    write(legend, ROWS)
    overlays = legend._viewer.canvas.overlays
    label = next(overlays[key] for key in overlays if overlays[key].position == "top_right" and overlays[key].visible)
    assert label.text == "CAFs: 96 %"
    assert label.box
    assert np.allclose(label.box_color, 1)
    assert 1000 < label.order < type(label)().order  # above all layers, and before the colour bar in its corner


def test_a_legend_that_is_asked_for_all_the_time_is_written(legend, qtbot):
    legend, state = legend
    state.set_shown(Shown("dominant"))

    def is_written():
        legend.update(ROWS)
        return legend.is_complete

    qtbot.waitUntil(is_written, timeout=120_000)


def test_no_letters_are_drawn_while_a_picture_is_awaited(make_napari_viewer, qtbot):
    state, awaited = State(), [True]
    turns = []
    legend = CanvasLegend(make_napari_viewer(), state, lambda: turns.append(True) or awaited[0])
    legend.warm_up()
    state.set_shown(Shown("dominant"))
    legend.update(ROWS)
    qtbot.waitUntil(lambda: len(turns) > 2, timeout=120_000)
    assert not [key for key in legend._viewer.canvas.overlays if key.startswith("napari_cpnn")]
    awaited[0] = False
    qtbot.waitUntil(lambda: legend.is_complete, timeout=120_000)
    assert texts(legend) == ["Epithelial", "CAFs", "Rare", PALE]
    legend.stop(viewer_lives=False)


def write(legend, rows):
    legend.update(rows)
    legend.finish()


def test_dominant_types_are_named_with_their_colours(legend):
    legend, state = legend
    state.set_shown(Shown("dominant"))
    write(legend, ROWS)
    assert texts(legend) == ["Epithelial", "CAFs", "Rare", PALE]
    colors = [legend._viewer.canvas.overlays[f"napari_cpnn_{i}"].box_color for i in range(3)]
    assert np.allclose(colors[1][:3], (0, 0x72 / 255, 0xB2 / 255))
    write(legend, ROWS[1:2])
    assert texts(legend) == ["CAFs", PALE]
    state.set_shown(Shown("blend", ("CAFs",)))
    write(legend, ROWS[1:2])
    assert texts(legend) == ["CAFs"]  # nothing is pale in a blend


def test_no_name_is_there_twice_while_the_order_changes(legend):
    legend, state = legend
    state.set_shown(Shown("dominant"))
    write(legend, ROWS)
    legend.update([ROWS[2], ROWS[0], ROWS[1]])
    steps = 0
    while not legend.is_complete:
        legend._step()
        now = texts(legend)
        assert len(set(now)) == len(now)
        steps += 1
    assert texts(legend) == ["Rare", "Epithelial", "CAFs", PALE]
    assert steps > 1  # one at a time, as before


@pytest.mark.parametrize(
    ("shown", "title", "limit"),
    [
        (Shown("type", ("CAFs",)), "CAFs · share of cell type, %", "CAFs: 46 %"),
        (Shown("gene", ("ERBB2",)), "ERBB2 · log1p CP10k", "ERBB2: 0.46"),
    ],
)
def test_the_top_of_the_colour_bar_is_labelled_in_its_unit(legend, shown, title, limit):
    legend, state = legend
    state.set_shown(shown)
    state.set_limits((0.0, 0.46))
    write(legend, ROWS)
    assert texts(legend) == [title]
    assert top(legend) == limit
    state.instead = (("tissue like this", "#FFFFFF"),)  # has a colour bar of its own
    write(legend, ROWS)
    assert top(legend) is None
    state.instead = ()
    state.set_shown(Shown("dominant"))
    write(legend, ROWS)
    assert top(legend) is None


def test_gene_has_a_title_with_its_unit(legend):
    legend, state = legend
    state.set_shown(Shown("gene", ("ERBB2",)))
    write(legend, ROWS)
    assert texts(legend) == ["ERBB2 · log1p CP10k"]
    state.set_look(legend=False)
    write(legend, ROWS)
    assert texts(legend) == []


def test_many_types_do_not_cover_the_slide(legend):
    legend, state = legend
    state.set_shown(Shown("dominant"))
    write(legend, [TypeRow(f"T{i}", "#E69F00", 0.02) for i in range(49)])
    assert len(texts(legend)) == MAX_TYPES + 1  # and what pale means
    legend.stop(viewer_lives=True)
    assert texts(legend) == []


def test_warming_up_writes_one_text_at_a_time_and_leaves_nothing_to_see(legend, qtbot):
    legend, state = legend
    legend.warm_up()
    for n in (1, 2, 3):
        legend._step()
        assert len(texts(legend)) == n
        assert legend._viewer.canvas.overlays["napari_cpnn_0"].color[3] == 0
    state.set_shown(Shown("dominant"))
    legend.update(ROWS)
    legend._step()
    assert texts(legend)[0] == "Ept"  # letters that are new come a few at a time, unseen
    assert legend._viewer.canvas.overlays["napari_cpnn_0"].color[3] == 0
    qtbot.waitUntil(lambda: not legend._timer.isActive(), timeout=120_000)
    assert texts(legend) == ["Epithelial", "CAFs", "Rare", PALE]
    assert legend._viewer.canvas.overlays["napari_cpnn_0"].color[3] == 1


@pytest.mark.parametrize(("color", "ink"), [("#F0E442", "#000000"), ("#5A000F", "#FFFFFF"), ("#FFFFFF", "#000000")])
def test_text_is_readable(color, ink):
    assert ink_on(color) == ink


def test_warming_up_is_not_seen(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.full((64, 64, 3), 240, dtype=np.uint8), rgb=True)
    viewer.scene.camera.zoom *= 3  # the picture fills the canvas
    qtbot.wait(300)
    before = viewer.screenshot(flash=False)
    legend = CanvasLegend(viewer, ExploreState())
    legend.warm_up()
    qtbot.waitUntil(lambda: legend._n_warmed >= 3, timeout=120_000)
    qtbot.wait(100)
    during = viewer.screenshot(flash=False)
    legend.stop(viewer_lives=True)
    assert np.abs(during.astype(int) - before).max() <= 1


@pytest.mark.parametrize("after", [Shown("signature", ("mine", "ERBB2")), Shown("blend", ("CAFs",)), None])
def test_what_is_no_longer_shown_is_not_said_for_a_moment(legend, after):
    """New texts are drawn one at a time, but old ones go at once, however long the window is busy."""
    legend, state = legend
    state.set_shown(Shown("dominant"))
    write(legend, ROWS)
    assert PALE in texts(legend)
    state.set_shown(after)
    legend.update(ROWS[1:2])
    assert texts(legend) == (["CAFs"] if after is not None and after.kind == "blend" else [])
    legend.finish()
    assert PALE not in texts(legend)


def test_another_quantity_is_drawn_before_it_is_named_and_none_is_named_wrongly(legend):
    legend, state = legend
    state.set_shown(Shown("gene", ("ERBB2",)))
    state.set_limits((0.0, 0.46))
    write(legend, [])
    assert (texts(legend), top(legend)) == (["ERBB2 · log1p CP10k"], "ERBB2: 0.46")
    state.set_shown(Shown("gene", ("CD3E",)))
    legend.hide()
    assert (texts(legend), top(legend)) == ([], None)
    write(legend, [])
    assert (texts(legend), top(legend)) == (["CD3E · log1p CP10k"], "CD3E: 0.46")


def test_without_a_map_nothing_is_said(legend):
    legend, state = legend
    state.set_shown(Shown("dominant"))
    write(legend, ROWS)
    state.map = None
    legend.update(ROWS)
    assert texts(legend) == []
    assert legend.is_complete
