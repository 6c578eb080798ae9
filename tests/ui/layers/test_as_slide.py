"""RGB pictures that napari shows in other ways than a slide: Explore takes them, or says why not."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from tests.ui.conftest import tissue_image

IMAGE = np.ascontiguousarray(tissue_image()[::2, ::2])


def three_channels(viewer, image, **keywords):
    return viewer.add_image(image, channel_axis=-1, colormap=["red", "green", "blue"], name=["R", "G", "B"], **keywords)


def rgba():
    alpha = np.zeros((*IMAGE.shape[:2], 1), dtype=np.uint8)
    alpha[128:640, 128:896] = 255
    return np.concatenate([np.where(alpha > 0, IMAGE, 0), alpha], axis=-1)


OVER_WHITE = np.where(rgba()[..., 3:] > 0, IMAGE, 255)

WAYS = {
    "channels": (lambda v: three_channels(v, IMAGE), IMAGE),
    "channels 0 to 1": (lambda v: three_channels(v, IMAGE / 255.0), IMAGE),
    "channels with a z of one": (lambda v: three_channels(v, IMAGE[None]), IMAGE),
    "0 to 1": (lambda v: v.add_image(IMAGE / 255.0, rgb=True), IMAGE),
    "0 to 255": (lambda v: v.add_image(IMAGE.astype(np.float32), rgb=True), IMAGE),
    "a z of one": (lambda v: v.add_image(IMAGE[None], rgb=True), IMAGE),
    "t and z of one, dask": (lambda v: v.add_image(da.from_array(IMAGE[None, None]), rgb=True), IMAGE),
    "a pyramid with z": (
        lambda v: v.add_image([IMAGE[None], IMAGE[None, ::2, ::2]], rgb=True, multiscale=True),
        IMAGE,
    ),
    "RGBA": (lambda v: v.add_image(rgba(), rgb=True), OVER_WHITE),
    "RGBA 0 to 1": (lambda v: v.add_image(rgba() / 255.0, rgb=True), OVER_WHITE),
}


#: Much as others; `make test-slow` opens them.
LIKE_OTHERS = ("channels with a z of one", "0 to 255", "a z of one", "RGBA")


@pytest.mark.parametrize(
    ("way", "before"),
    [
        *(pytest.param(way, False, marks=[pytest.mark.slow] if way in LIKE_OTHERS else []) for way in WAYS),
        ("channels", True),
        ("0 to 1", True),
    ],
)
def test_it_is_taken(explore, wait, way, before, model):
    """Before the dock is opened, or after."""
    add, expected = WAYS[way]
    dock = explore() if not before else None
    if dock is None:
        dock = explore()
        dock.shut_down()
        add(dock.viewer)
        dock = type(dock)(dock.viewer)
    else:
        add(dock.viewer)
    wait(lambda: dock.state.slide is not None)
    slide = dock.state.slide
    assert slide.shape == IMAGE.shape
    found = slide.read_region(200, 200, 300, 400)
    assert np.abs(found.astype(int) - expected[200:500, 200:600]).max() <= 1
    assert "pixel size" in dock.message.text() or "model" in dock.message.text()
    originals = [layer for layer in dock.viewer.layers if layer != dock.state.layer]
    assert not any(layer.visible for layer in originals)
    assert dock.state.layer.visible
    dock.session.set_mpp(0.5)
    bar = dock.viewer.canvas.overlays.scale_bar
    wait(lambda: bar.visible)
    for layer in dock.viewer.layers:  # they still lie over one another
        assert tuple(layer.scale[-2:]) == (0.5, 0.5)
        assert [str(unit) for unit in layer.units[-2:]] == ["micrometer", "micrometer"]
    dock.controller.use_model(model)
    wait(dock.is_settled)
    assert dock.state.map.tissue.any()
    # Taken away, it does not come back.
    dock.viewer.layers.remove(dock.state.layer)
    wait(lambda: dock.state.layer is None)
    dock.shut_down()


def test_the_plane_on_screen_of_a_stack_is_taken(explore, wait):
    stack = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    dock = explore()
    dock.shut_down()
    viewer = dock.viewer
    viewer.add_image(stack, rgb=True, name="stack", scale=(5.0, 0.5, 0.5), units=("um", "um", "um"))
    viewer.dims.set_current_step(0, 2)
    dock = type(dock)(viewer)
    wait(lambda: dock.state.slide is not None)
    assert dock.state.layer.name == "stack (plane 3 of 3)"
    assert (dock.state.slide.read_region(200, 200, 300, 400) == stack[2][200:500, 200:600]).all()
    assert dock.state.slide.mpp == (0.5, 0.5)
    dock.shut_down()


NOT_TAKEN = {
    "grey has no colours: Explore needs an RGB picture": lambda v: v.add_image(IMAGE[..., 0], name="grey"),
    "has values up to": lambda v: v.add_image(IMAGE * 100.0, rgb=True, name="odd"),
    "as fluorescence is": lambda v: three_channels(v, (255 - IMAGE) // 2),
    "give them the colour maps red, green and": lambda v: v.add_image(IMAGE, channel_axis=-1, colormap="gray"),
}


def test_or_it_says_why_not(explore, wait):
    dock = explore()
    for reason, add in NOT_TAKEN.items():
        add(dock.viewer)
        wait(lambda reason=reason: reason in dock.message.text())
        assert dock.message.text().count(". ") == 0
        assert dock.state.layer is None
        dock.viewer.layers.clear()
