"""Explore says when its tissue is unlike that of the training, on canvas and dock, with real mouse clicks."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tests.ui.conftest import tissue_image

from napari_cpnn.painting import WARNING_COLORS, unlike_patches
from napari_cpnn.ui.explore.hatching import _hatched

BANNER = "napari_cpnn_banner"


@pytest.fixture
def dock(explore, wait, slide_path, model):
    dock = explore(slide_path)
    dock.controller.use_model(model)
    wait(lambda: dock.state.map is not None)
    wait(dock.is_settled)
    return dock


def score(dock, scores):
    """Give the mapped patches out-of-domain scores, as a model with a domain does."""
    cmap = dock.state.map
    done = np.flatnonzero(cmap.tissue)
    weights, programs, _ = (
        part.reshape(cmap.grid.n_cells, -1)[done] for part in cmap.block((slice(None), slice(None)))
    )
    values = np.resize(np.asarray(scores, dtype=float), len(done))
    cmap.provenance["trained_on"] = "breast, 3 patients"
    cmap.fill(done, weights, programs, values)
    dock.finish_drawing()
    return cmap


def banner(dock):
    overlays = dock.session.viewer.canvas.overlays
    return overlays[BANNER] if BANNER in overlays and overlays[BANNER].visible else None


def hatching(dock):
    return next((layer for layer in dock.session.viewer.layers if layer.name == "Unlike the training tissue"), None)


def stained(grid):
    """Patches with tissue in them; those of bare glass beside it belong to the map, and nothing is drawn on them."""
    rows, cols = grid.shape
    light = tissue_image().min(axis=2)
    return light.reshape(rows, light.shape[0] // rows, cols, light.shape[1] // cols).min(axis=(1, 3)) < 240


def test_familiar_tissue_has_no_warning(dock):
    score(dock, [0.5])
    assert banner(dock) is None
    assert not dock.warning.isVisibleTo(dock)
    assert hatching(dock) is None
    assert not dock.types.model.faded


def test_foreign_tissue_is_said_on_canvas_and_dock(dock):
    cmap = score(dock, [0.99])
    expected = (
        "100 % of this tissue is unlike what this model was trained on (breast, 3 patients). Cell types and genes"
    )
    assert dock.warning.text().startswith(expected)
    assert dock.warning.isVisibleTo(dock)
    assert banner(dock).text.replace("\u00a0\u00a0", "").replace("\n", " ") == dock.warning.text()
    assert np.allclose(banner(dock).box_color[:3], [0xB3 / 255, 0x26 / 255, 0x1E / 255], atol=0.01)
    assert dock.types.model.faded
    assert dock.gene_note.font().strikeOut()
    layer = hatching(dock)
    assert layer.visible
    n = layer.data.shape[0] // cmap.grid.shape[0]
    blocks = layer.data.reshape(cmap.grid.shape[0], n, cmap.grid.shape[1], n)
    np.testing.assert_array_equal(blocks.any(axis=(1, 3)), cmap.tissue & stained(cmap.grid))
    corner = layer.data_to_world((-0.5, -0.5))
    overlay = dock.session.overlays.layer_of("dominant")
    assert np.allclose(corner, overlay.data_to_world((-0.5, -0.5)))
    assert layer.units == overlay.units


def test_some_foreign_tissue_is_amber_and_only_it_is_hatched(dock):
    cmap = score(dock, [0.99, 0.2, 0.2])
    assert dock.controller.domain_report().level == "caution"
    assert "33 % of this tissue" in dock.warning.text()
    assert WARNING_COLORS["caution"][1] in dock.warning.styleSheet()
    assert not dock.types.model.faded
    n = hatching(dock).data.shape[0] // cmap.grid.shape[0]
    blocks = hatching(dock).data.reshape(cmap.grid.shape[0], n, cmap.grid.shape[1], n)
    np.testing.assert_array_equal(blocks.any(axis=(1, 3)), unlike_patches(cmap) & stained(cmap.grid))


def test_the_banner_fits_its_canvas(dock):
    from napari_cpnn.ui.explore.banner import _LETTER_PX, _LINE_PX, Banner

    class Canvas:
        overlays: dict = {}  # noqa: RUF012

    score(dock, [0.99])
    for size, most in (((500, 900), 4), ((500, 420), 8), ((120, 420), 2)):
        Canvas.size = size
        Banner(SimpleNamespace(canvas=Canvas)).show(dock.controller.domain_report())
        lines = Canvas.overlays[BANNER].text.splitlines()
        Canvas.overlays.clear()
        assert len(lines) <= most, size
        assert len(lines) * _LINE_PX <= size[0] / 2
        assert max(map(len, lines)) * _LETTER_PX < size[1]
        assert "believed" in " ".join(lines)


def test_the_readout_stays_in_sight_below_the_warning(dock):
    score(dock, [0.99])
    assert not dock.area.isAncestorOf(dock.readout)
    assert dock.isAncestorOf(dock.readout)


def test_the_warning_goes_with_the_map_and_comes_back(dock):
    score(dock, [0.99])
    score(dock, [0.1])
    assert banner(dock) is None
    assert not dock.warning.isVisibleTo(dock)
    assert not dock.types.model.faded
    assert not dock.gene_note.font().strikeOut()
    assert not hatching(dock).data.any()
    score(dock, [0.99])
    assert banner(dock) is not None
    dock.controller.choose_layer(None)
    dock.finish_drawing()
    assert banner(dock) is None
    assert hatching(dock) is None


def test_unlike_tissue_can_be_hidden_or_shown_as_the_rest(dock):
    cmap = score(dock, [0.99, 0.2, 0.2])
    combo, drawn = dock.look.unlike, cmap.tissue & stained(cmap.grid)
    unlike = unlike_patches(cmap) & drawn
    overlay = dock.session.overlays.layer_of("dominant")
    assert combo.currentText() == "hatched"
    for text, visible in (("hidden", False), ("as the rest", True), ("hatched", True)):
        combo.setCurrentIndex(combo.findText(text))
        combo.activated.emit(combo.currentIndex())
        dock.finish_drawing()
        n = overlay.data.shape[0] // cmap.grid.shape[0]
        alpha = overlay.data[..., 3].reshape(cmap.grid.shape[0], n, cmap.grid.shape[1], n).max(axis=(1, 3))
        assert (alpha[unlike] > 0).all() == visible
        assert (alpha[drawn & ~unlike] > 0).all()
        assert hatching(dock).visible == (text == "hatched")
        told = []
        hatching(dock).events.visible.connect(told.append)
        for _ in range(3):  # as each tick does
            dock.session.overlays._hatch(at_once=True)
        hatching(dock).events.visible.disconnect(told.append)
        assert told == []


def test_closing_the_dock_takes_banner_and_hatching_along(dock):
    score(dock, [0.99])
    viewer = dock.session.viewer
    dock.session.close(viewer_lives=True)
    assert BANNER not in viewer.canvas.overlays
    assert not [layer for layer in viewer.layers if layer.name == "Unlike the training tissue"]


def test_a_removed_hatching_comes_back_with_the_next_change(dock):
    score(dock, [0.99])
    dock.session.viewer.layers.remove(hatching(dock))
    score(dock, [0.98])
    assert hatching(dock) is not None


def test_lines_go_on_from_patch_to_patch():
    picture = _hatched(np.ones((3, 3), bool), 8)
    across = np.add.outer(np.arange(24), np.arange(24)) % 4 == 0
    np.testing.assert_array_equal(picture, across)
