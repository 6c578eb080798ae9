"""Our layers over a slide layer: where they are, and which lies above which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_cpnn.ui.layers import OVERLAY_KEY, SPOTS_KEY, add_beside, grid_transform, holds_regions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.geometry import Grid, Mpp


def place(layers: Iterable[tuple[Layer | None, Grid | None]], slide_layer: Layer, mpp: Mpp) -> None:
    """Place layers with one pixel per patch of their grids over a slide layer.

    What is right already is not set again: napari reacts to it as to a change, which takes milliseconds each.
    """
    for layer, grid in layers:
        if layer is None or grid is None:
            continue
        if layer.units != slide_layer.units:
            layer.units = slide_layer.units
        for name, value in grid_transform(slide_layer, mpp, grid).items():
            if not np.array_equal(np.asarray(getattr(layer, name)), np.asarray(value)):
                setattr(layer, name, value)


def transform_events(layer: Layer) -> list[Any]:
    """Return the events of a layer that has moved."""
    events = layer.events
    return [events.scale, events.translate, events.rotate, events.shear, events.affine, events.units]


def add_below(viewer: ViewerModel, layer: Layer, above: Iterable[Layer | None]) -> None:
    """Add a layer below the lowest of some others, of spots and of regions; the selected layers stay selected."""
    layers = viewer.layers
    places = [layers.index(one) for one in above if one is not None and one in layers]
    add_beside(viewer, layer, min([*places, _below_marks(layers)]))


def place_above(viewer: ViewerModel, below: type[Layer]) -> int:
    """Return where a new layer is right above our others, those of a type."""
    others = [i for i, one in enumerate(viewer.layers) if OVERLAY_KEY in one.metadata and isinstance(one, below)]
    return max(others) + 1 if others else _below_marks(viewer.layers)


def _below_marks(layers: Any) -> int:
    """Return the place below spots, regions and their lines, as far as they are on top, where they stay."""
    at = len(layers)
    while at and _is_mark(layers[at - 1]):
        at -= 1
    return at


def _is_mark(layer: Layer) -> bool:
    is_line = OVERLAY_KEY in layer.metadata and not isinstance(layer, Image)
    return SPOTS_KEY in layer.metadata or is_line or holds_regions(layer)


def lift_above(viewer: ViewerModel, layer: Layer, slide_layer: Layer) -> None:
    """Move a layer right above a slide that lies over it, as one that was opened later does."""
    layers = viewer.layers
    if layer in layers and slide_layer in layers and layers.index(layer) < layers.index(slide_layer):
        layers.move(layers.index(layer), layers.index(slide_layer) + 1)


def keep_above(viewer: ViewerModel, layer: Layer | None, below: type[Layer]) -> None:
    """Move a layer right above our others, those of a type."""
    layers = viewer.layers
    others = [other for other in layers if OVERLAY_KEY in other.metadata and other != layer]
    ours = [layers.index(other) for other in others if isinstance(other, below)]
    if layer is not None and layer in layers and ours:
        at, wanted = layers.index(layer), max(ours) + 1
        if at != wanted:
            layers.move(at, wanted)
