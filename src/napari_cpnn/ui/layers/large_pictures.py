"""Large pictures that another reader opened as a single image: they become pyramids, as slides are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from napari_cpnn.slides import Slide
from napari_cpnn.texts import shown
from napari_cpnn.ui.frame import QtBackground, plain, warn
from napari_cpnn.ui.layers.slide_layers import (
    FILE_KEY,
    LARGEST_TEXTURE,
    PATH_KEY,
    is_slide_layer,
    level_arrays,
    path_of,
)

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer


class LargePictures:
    """Replaces large pictures of a viewer, which napari draws as one texture, by a pyramid of the same pixels.

    napari opens JPEG, PNG and untiled TIFF with its own reader. Ours cannot claim them: with two readers for a kind of
    file, napari asks which to use for each, however small it is. A picture that was not opened from a file belongs to
    the script or plugin that added it, and stays as it is.

    Parameters
    ----------
    viewer
        The napari viewer.
    changed
        Called after a picture was replaced, or cannot be.
    """

    def __init__(self, viewer: Viewer, changed: Callable[[], object]) -> None:
        self._viewer = ref(viewer)
        self._changed = changed
        self._waiting: dict[Layer, QtBackground] = {}

    def take(self, layer: Layer) -> bool:
        """Begin to replace a layer if it is a large picture of a file, and return whether it is one."""
        if not _is_large(layer) or path_of(layer) is None:
            return False
        background = QtBackground()
        self._waiting[layer] = background

        def failed(error: Exception) -> None:
            self._waiting.pop(layer, None)
            warn(f"{plain(shown(layer.name, 40))} stays one large picture: {error}")
            self._changed()

        background(lambda: _levels_of(layer), lambda levels: self._replace(layer, levels), failed)
        background.close()
        return True

    def holds(self, layer: Layer) -> bool:
        """Return whether a layer is about to be replaced."""
        return layer in self._waiting

    @property
    def text(self) -> str:
        """What is being done, in a few words; empty if nothing is."""
        names = [plain(shown(layer.name, 40)) for layer in self._waiting]
        return f"Making smaller copies of {', '.join(names)} ..." if names else ""

    def forget(self, layer: Layer) -> None:
        """Leave a layer that was removed."""
        self._waiting.pop(layer, None)

    def _replace(self, layer: Layer, levels: list[Any]) -> None:
        from napari.layers import Image

        viewer = self._viewer()
        if self._waiting.pop(layer, None) is None or viewer is None or layer not in viewer.layers:
            return
        _, keywords, _ = layer.as_layer_data_tuple()
        name, path = layer.name, path_of(layer)
        keywords["metadata"] = {**layer.metadata, FILE_KEY: str(path)}
        pyramid = Image(levels, **{**keywords, "multiscale": True, "cache": False})
        selected = {pyramid if one == layer else one for one in viewer.layers.selection}
        viewer.layers.insert(viewer.layers.index(layer) + 1, pyramid)  # first: napari fits the view to an only layer
        viewer.layers.remove(layer)
        pyramid.name = name
        viewer.layers.selection = selected
        self._changed()


def _is_large(layer: Layer) -> bool:
    if not is_slide_layer(layer) or layer.multiscale or PATH_KEY in layer.metadata:
        return False
    return bool(max(level_arrays(layer)[0].shape[:2]) > LARGEST_TEXTURE)


def _levels_of(layer: Layer) -> list[Any]:
    """Return the pyramid of a single image; its small levels are computed now, which takes a second."""
    levels = Slide.from_arrays(level_arrays(layer), None, name=layer.name, path=path_of(layer)).levels
    np.asarray(levels[-1])
    return levels
