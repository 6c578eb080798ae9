"""Overlays lie on the tissue to half a pixel of level 0, whatever the slide layer's place in the world."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from napari_cpnn.geometry import Grid
from napari_cpnn.ui.layers.slide_layers import grid_transform, mpp_of_layer, um_to_world, world_to_um

MPP = (0.5, 0.5)
GRID = Grid((7, 9), 56.0, (112.0, 0.0))
PLACES = {
    "ours, in micrometres": {"scale": (0.5, 0.5), "translate": (0.25, 0.25), "units": ("um", "um")},
    "in pixels": {},
    "in pixels, moved": {"translate": (300.0, -120.0)},
    "in millimetres": {"scale": (0.0005, 0.0005), "units": ("mm", "mm")},
    "turned": {"scale": (0.5, 0.5), "rotate": 30.0, "translate": (10.0, 20.0)},
    "sheared and stretched": {"scale": (0.5, 1.5), "shear": [0.3]},
    "registered": {"affine": np.array([[0.9, -0.2, 40.0], [0.1, 1.1, -7.0], [0.0, 0.0, 1.0]])},
}


def slide_layer(place: dict) -> Image:
    return Image(np.zeros((1024, 1024, 3), np.uint8), rgb=True, contrast_limits=(0, 255), **place)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_cells_lie_on_their_pixels(place):
    slide = slide_layer(place)
    overlay = Image(np.zeros((*GRID.shape, 4), np.float32), rgb=True, contrast_limits=(0, 1))
    for name, value in grid_transform(slide, MPP, GRID).items():
        setattr(overlay, name, value)
    for cell in [(0, 0), (3, 5), (6, 8)]:
        for corner in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            # Corner of the cell in the overlay's own pixels; napari's pixel centres are whole numbers.
            world = overlay.data_to_world(np.add(cell, corner) - 0.5)
            um = (np.add(cell, corner)) * GRID.stride_um + np.asarray(GRID.origin_um)
            on_slide = np.asarray(slide.world_to_data(world))
            assert np.allclose(on_slide, um / MPP - 0.5, atol=1e-6)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_world_and_micrometres_are_inverse(place):
    slide = slide_layer(place)
    um = np.array([[0.0, 0.0], [100.0, 30.0], [511.0, 250.5]])
    assert np.allclose(world_to_um(slide, MPP, um_to_world(slide, MPP, um)), um)


def test_first_pixel_of_our_layers_starts_at_zero():
    slide = slide_layer(PLACES["ours, in micrometres"])
    assert np.allclose(world_to_um(slide, MPP, np.array([[0.0, 0.0]])), 0.0)


def test_pixel_size_comes_from_a_layer_with_units_of_length():
    assert mpp_of_layer(slide_layer(PLACES["ours, in micrometres"])) == pytest.approx((0.5, 0.5))
    assert mpp_of_layer(slide_layer(PLACES["in millimetres"])) == pytest.approx((0.5, 0.5))
    assert mpp_of_layer(slide_layer(PLACES["in pixels"])) is None
    assert mpp_of_layer(slide_layer({"scale": (352.8, 352.8), "units": ("um", "um")})) is None


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([rows[0], rows[-1] + 1, cols[0], cols[-1] + 1])


@pytest.mark.parametrize("place", ["ours, in micrometres", "in pixels, moved"])
@pytest.mark.parametrize("multiscale", [True, False])
def test_cells_lie_on_the_tissue_on_screen(make_napari_viewer, qtbot, place, multiscale):
    """A dark square that is exactly one cell of the map, and the cell: the same place on the canvas."""
    image = np.full((512, 640, 3), 255, np.uint8)
    grid = Grid((4, 5), 64.0)
    cell = (1, 2)
    rows, cols = slice(128, 256), slice(256, 384)  # cell (1, 2) of 64 um at 0.5 um/px
    image[rows, cols] = 0
    viewer = make_napari_viewer(show=True)
    data = [image, image[::2, ::2]] if multiscale else image
    slide = viewer.add_image(data, rgb=True, multiscale=multiscale, contrast_limits=(0, 255), **PLACES[place])
    colors = np.zeros((*grid.shape, 4), np.float32)
    colors[cell] = (1, 0, 0, 1)
    transform = {**grid_transform(slide, MPP, grid), "units": slide.units}
    overlay = viewer.add_image(colors, rgb=True, multiscale=False, contrast_limits=(0, 1), **transform)
    viewer.window.resize(1000, 800)
    qtbot.wait(100)
    # Two and a half screen pixels per level-0 pixel, so that half a level-0 pixel can be seen.
    center = slide.data_to_world((191.5, 319.5))
    viewer.scene.camera.center = center
    viewer.scene.camera.zoom = 2.5 / slide.scale[0]
    overlay.visible = False
    qtbot.wait(100)
    tissue = box_of(viewer.screenshot(flash=False)[..., 0] < 128)
    overlay.visible = True
    qtbot.wait(100)
    shot = viewer.screenshot(flash=False).astype(int)
    painted = box_of((shot[..., 0] > 128) & (shot[..., 1] < 128))
    assert (tissue[1] - tissue[0]) == pytest.approx(128 * 2.5, abs=2)
    assert np.abs(painted - tissue).max() <= 1  # a screen pixel is 0.4 of a level-0 pixel
