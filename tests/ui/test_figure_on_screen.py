"""A figure shows what the screen shows: the same colours in the same places."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from napari_cpnn.export.figure import Scene
from napari_cpnn.geometry import Rect
from napari_cpnn.settings import FigureSettings

VIEW = Rect(100.0, 150.0, 600.0, 850.0)


@pytest.fixture
def dock(explore, wait, slide_path, model_path):
    dock = explore(slide_path, show=True)
    dock.open_model(model_path)
    wait(lambda: dock.state.mapper is not None)
    wait(dock.is_settled)
    dock.state.set_look(legend=False)
    return dock


def settings_of(state, **more) -> FigureSettings:
    look, (low, high) = state.look, state.limits
    return FigureSettings(colormap=look.colormap, low=low, high=high, opacity=look.opacity, smooth=look.smooth, **more)


def test_each_cell_and_each_pixel_have_the_colour_of_the_screen(dock, qtbot):
    """In one viewer, since opening it takes longest."""
    controller = dock.controller
    for kind, show in {
        "type": lambda: controller.show_type("Stroma"),
        "gene": lambda: controller.show_gene("ERBB2"),
        "dominant": controller.show_dominant,
        "blend": lambda: controller.show_blend(["Epithelial", "Immune"]),
    }.items():
        show()
        check_cells(dock, kind)
    for smooth in (True, False):
        check_canvas(dock, qtbot, smooth)


def check_cells(dock, kind):
    dock.session.overlays.paint_now()
    layer = dock.session.overlays.layer_of(kind)
    low, high = layer.contrast_limits
    dock.state.set_look(smooth=False)
    n = layer.data.shape[0] // dock.state.map.grid.shape[0]
    assert n > 1
    on_screen = np.asarray(layer.data).copy()
    on_screen[..., :3] = (on_screen[..., :3] - low) / (high - low)  # what napari makes of it
    state = dock.state
    scene = Scene(state.map, state.slide, None)
    grid = state.map.grid
    shape = tuple(n * size for size in grid.shape)
    scene.rect = Rect(0.0, 0.0, grid.shape[0] * grid.stride_um, grid.shape[1] * grid.stride_um)
    tissue = scene.tissue(shape)
    picture = scene.panel(state.shown, tissue, settings_of(state).replace(smooth=False)).picture
    alpha = on_screen[..., 3:] * state.look.opacity
    expected = tissue * (1 - alpha) + 255 * on_screen[..., :3] * alpha
    assert np.abs(picture - expected).max() <= 1
    assert (alpha > 0.2).any()


def check_canvas(dock, qtbot, smooth):
    """Pixel by pixel, tissue and map: the canvas is drawn by the graphics card, the figure by us."""
    viewer = dock.viewer
    dock.state.set_look(smooth=smooth)
    dock.controller.show_gene("EPCAM")
    viewer.canvas.overlays.scale_bar.visible = False
    viewer.scene.camera.center = VIEW.center
    viewer.scene.camera.zoom = 1.0
    qtbot.wait(300)
    dock.finish_drawing()
    layer = dock.session.overlays.layer_of("gene")
    layer.colorbar.visible = False
    qtbot.wait(200)
    shot = viewer.screenshot(flash=False)[..., :3].astype(float)
    height, width = shot.shape[:2]
    y, x = VIEW.center
    scene = Scene(dock.state.map, dock.state.slide, None)
    scene.rect = Rect(y - height / 2, x - width / 2, y + height / 2, x + width / 2)
    picture = scene.panel(dock.state.shown, scene.tissue((height, width)), settings_of(dock.state)).picture
    inside = np.zeros((height, width), bool)
    inside[int(height / 2 - 150) : int(height / 2 + 150), int(width / 2 - 200) : int(width / 2 + 200)] = True
    # The canvas shows single pixels of a level of the slide, the figure their mean: compare what is coarser.
    far = np.abs(uniform_filter(shot - picture, (9, 9, 1)))[inside]
    assert far.mean() < 2
    assert np.quantile(far, 0.99) < 8
