"""Large pictures that napari's own reader opened become pyramids of the same pixels in the same place."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from tests.ui.conftest import SETTINGS, tissue_image

from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.layers import path_of
from napari_cpnn.ui.layers.large_pictures import LARGEST_TEXTURE

SIDE = LARGEST_TEXTURE + 104


@pytest.fixture
def picture(tmp_path):
    """A picture that is wider than a texture should be, without a pixel size."""
    image = np.tile(tissue_image()[:600], (1, 3, 1))[:, :SIDE]
    Image.fromarray(image).save(tmp_path / "section.png", compress_level=1)
    return tmp_path / "section.png"


def pixels_of(layer):
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


def drop(viewer, path):
    """Drop a file on the window."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(
        QPointF(50, 50), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    getattr(viewer, "__wrapped__", viewer).window._qt_viewer.dropEvent(event)


@pytest.mark.parametrize("opened", [lambda v, p: v.open(str(p)), drop], ids=["open", "drop"])
def test_a_picture_that_is_opened_becomes_a_pyramid_and_is_explored(explore, wait, picture, opened):
    dock = explore(show=True)
    viewer = dock.viewer
    opened(viewer, picture)
    wait(lambda: dock.state.slide is not None)
    (layer,) = viewer.layers
    assert layer == dock.state.layer
    assert layer.name == "section"
    assert layer.multiscale
    assert max(layer.data[-1].shape) <= LARGEST_TEXTURE
    assert (pixels_of(layer) == np.asarray(Image.open(picture))).all()
    assert path_of(layer) == picture
    assert viewer.layers.selection.active == layer
    assert dock.mpp_row.isVisible()  # it is asked for, as of every slide without one


def test_a_picture_that_is_there_already_keeps_its_place(make_napari_viewer_proxy, wait, picture):
    viewer = make_napari_viewer_proxy()
    explored = viewer.add_image(tissue_image(), rgb=True, name="explored")
    (before,) = viewer.open(str(picture))
    above = viewer.add_points([[1.0, 1.0]], name="above")
    before.visible, before.opacity, before.scale, before.translate = False, 0.5, (2.0, 3.0), (7.0, 5.0)
    viewer.layers.selection.active = explored
    dock = Explore(viewer, SETTINGS)
    wait(lambda: before not in viewer.layers)
    assert [layer.name for layer in viewer.layers] == ["explored", "section", "above"]
    assert viewer.layers["above"] == above
    after = viewer.layers["section"]
    assert after.multiscale
    assert not after.visible
    assert after.opacity == 0.5
    assert tuple(after.scale) == (2.0, 3.0)
    assert tuple(after.translate) == (7.0, 5.0)
    assert viewer.layers.selection.active == explored
    wait(lambda: dock.state.slide is not None)
    assert dock.state.layer == explored
    dock.shut_down()


def test_small_pictures_and_those_without_a_file_stay(explore, wait, tmp_path):
    dock = explore()
    viewer = dock.viewer
    script = viewer.add_image(np.zeros((2, SIDE, 3), np.uint8), rgb=True, name="of a script")
    Image.fromarray(tissue_image()).save(tmp_path / "small.png", compress_level=1)
    (small,) = viewer.open(str(tmp_path / "small.png"))
    wait(lambda: dock.state.slide is not None)
    assert script in viewer.layers
    assert small in viewer.layers


def test_a_picture_that_cannot_become_a_pyramid_is_explored_as_it_is(explore, wait, picture, monkeypatch):
    said = []
    monkeypatch.setattr("napari_cpnn.ui.layers.large_pictures.warn", said.append)

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("napari_cpnn.ui.layers.large_pictures.Slide.from_arrays", fail)
    dock = explore()
    (layer,) = dock.viewer.open(str(picture))
    wait(lambda: dock.state.slide is not None)
    assert dock.state.layer == layer
    assert said[0].startswith("section stays one large picture: ")
    assert "memory" in said[0]
