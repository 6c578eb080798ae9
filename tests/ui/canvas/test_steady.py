"""Boxes on the canvas look as napari's, and are compiled once."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components.overlays import TextOverlay
from napari.layers import Image
from vispy.visuals.shaders.program import ModularProgram

from napari_cpnn.ui.canvas import steady_text
from napari_cpnn.ui.explore.overlay import map_layer, style_bar


@pytest.fixture
def builds(monkeypatch):
    """Programs as they are built."""
    built, plain = [], ModularProgram._build
    monkeypatch.setattr(ModularProgram, "_build", lambda self: (built.append(self), plain(self)))
    return built


def plain_layer(shape):
    layer = Image(np.zeros((*shape, 4), np.float32), rgb=True, blending="translucent_no_depth", name="map")
    layer.contrast_limits = (0.0, 1.0)
    return layer


def story(viewer, text, layer, after=lambda _what: None):
    """A gene, another one with longer numbers, no legend, a type, and a wider canvas; returns the pictures."""
    pictures = []

    def show(what):
        pictures.append(viewer.screenshot(canvas_only=True, flash=False))
        after(what)

    viewer.add_layer(layer)
    style_bar(layer, "viridis")
    viewer.canvas.overlays["ours"] = text
    layer.colorbar.visible = True
    text.text, text.color, text.box_color = "ERBB2", "#000000", "#FFFFFF"
    text.visible = True
    show("first")
    text.text = "CD3E and more"
    layer.contrast_limits = (0.0, 0.123)
    show("changed")
    text.visible = layer.visible = False
    show("hidden")
    text.visible = layer.visible = True
    show("shown")
    text.text, text.color, text.box_color, text.position = "T-cells", "#FFFFFF", "#112233", "bottom_right"
    show("other")
    viewer.canvas.overlay_tiling.padding = 20, 20
    show("padded")
    return pictures


def test_they_look_as_those_of_napari_and_no_program_is_built_again(make_napari_viewer, builds):
    counts = {}

    def count(what):
        counts[what] = len(builds)
        builds.clear()

    def viewer():
        made = make_napari_viewer(show=True)
        made.window.resize(600, 450)
        return made

    settings = {"position": "top_left", "font_size": 9}
    theirs = story(viewer(), TextOverlay(box=True, **settings), plain_layer((30, 30)), count)
    of_napari, counts = counts, {}
    ours = story(viewer(), steady_text(**settings), map_layer((30, 30), "map"), count)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({picture.tobytes() for picture in ours}) == 5  # shown again, it is the same
    assert counts["first"] == of_napari["first"]
    assert all(of_napari[what] > 0 for what in ("changed", "shown", "other", "padded"))
    assert all(n == 0 for what, n in counts.items() if what != "first")
