from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.ui.layers.viewport import ViewportWatcher, pointer_um, read_viewport

MPP = (0.5, 0.5)
IMAGE = np.zeros((1000, 2000, 3), np.uint8)
OURS = {"scale": (0.5, 0.5), "translate": (0.25, 0.25), "units": ("um", "um")}


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    viewer = make_napari_viewer_proxy()
    viewer.canvas.size = (400, 800)
    return viewer


def add(viewer, **place):
    return viewer.add_image(IMAGE, rgb=True, contrast_limits=(0, 255), **place)


def look(viewer, center, zoom):
    viewer.scene.camera.center = center
    viewer.scene.camera.zoom = zoom


@pytest.mark.parametrize(
    ("place", "center", "zoom"),
    [
        (OURS, (100.0, 300.0), 2.0),
        ({}, (199.5, 599.5), 1.0),
        ({"translate": (50.0, -10.0)}, (249.5, 589.5), 1.0),
        ({"scale": (0.0005, 0.0005), "translate": (0.00025, 0.00025), "units": ("mm", "mm")}, (0.1, 0.3), 2000.0),
    ],
    ids=["micrometres", "pixels", "moved", "millimetres"],
)
def test_the_same_view_is_the_same_rectangle(viewer, place, center, zoom):
    layer = add(viewer, **place)
    look(viewer, center, zoom)
    viewport = read_viewport(viewer, layer, MPP)
    assert viewport.px_per_um == pytest.approx(2.0)
    rect = viewport.rect
    assert (rect.y0, rect.x0, rect.y1, rect.x1) == pytest.approx((0.0, 100.0, 200.0, 500.0))


def test_turned_layer_gives_the_rectangle_around_the_view(viewer):
    layer = add(viewer, rotate=90.0)
    look(viewer, layer.data_to_world((500.0, 1000.0)), 1.0)
    rect = read_viewport(viewer, layer, MPP).rect
    assert rect.center == pytest.approx((250.25, 500.25))
    assert (rect.height, rect.width) == pytest.approx((400.0, 200.0))  # 800 x 400 px on screen, a quarter turned


def test_no_viewport_in_3d_or_when_rows_and_columns_are_not_shown(viewer):
    layer = add(viewer)
    viewer.dims.ndisplay = 3
    assert read_viewport(viewer, layer, MPP) is None
    viewer.dims.ndisplay = 2
    assert read_viewport(viewer, layer, MPP) is not None
    viewer.dims.order = (1, 0)
    assert read_viewport(viewer, layer, MPP) is None


def test_stack_beside_the_slide_does_not_disturb(viewer):
    layer = add(viewer, **OURS)
    viewer.add_image(np.zeros((5, 20, 20)), contrast_limits=(0, 1), units=("um", "um", "um"))
    look(viewer, (0.0, 100.0, 300.0), 2.0)
    assert read_viewport(viewer, layer, MPP).rect.center == pytest.approx((100.0, 300.0))


def test_pointer_in_micrometres(viewer):
    layer = add(viewer)
    viewer.cursor.position = (9.5, 19.5)
    assert pointer_um(viewer, layer, MPP) == pytest.approx((5.0, 10.0))


def test_watcher_tells_once_for_many_changes(viewer, qtbot):
    add(viewer)
    told = []
    watcher = ViewportWatcher(viewer, lambda: told.append(True))
    for i in range(20):
        look(viewer, (i, i), 1.0 + i)
    assert watcher.pending
    assert not told
    qtbot.waitUntil(lambda: bool(told), timeout=120_000)
    qtbot.wait(250)
    assert len(told) == 1
    watcher.stop()
    look(viewer, (0, 0), 1.0)
    qtbot.wait(250)
    assert len(told) == 1
