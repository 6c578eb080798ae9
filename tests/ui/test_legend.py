from __future__ import annotations

import numpy as np
import pytest

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
    return [overlay.text for overlay in ours if overlay.visible]


def write(legend, rows):
    legend.update(rows)
    legend.finish()


def test_dominant_types_are_named_with_their_colours(legend):
    legend, state = legend
    state.set_shown(Shown("dominant"))
    write(legend, ROWS)
    assert texts(legend) == ["Epithelial", "CAFs", "Rare"]
    colors = [legend._viewer.canvas.overlays[f"napari_cpnn_{i}"].box_color for i in range(3)]
    assert np.allclose(colors[1][:3], (0, 0x72 / 255, 0xB2 / 255))
    write(legend, ROWS[1:2])
    assert texts(legend) == ["CAFs"]


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
    assert len(texts(legend)) == MAX_TYPES
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
    assert texts(legend)[0] == "Epithelial"
    qtbot.waitUntil(lambda: not legend._timer.isActive())
    assert texts(legend) == ["Epithelial", "CAFs", "Rare"]
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
    qtbot.waitUntil(lambda: legend._n_warmed >= 3)
    qtbot.wait(100)
    during = viewer.screenshot(flash=False)
    legend.stop(viewer_lives=True)
    assert np.abs(during.astype(int) - before).max() <= 1
