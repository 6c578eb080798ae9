"""Measured spots and outlines of regions that a viewer shows, for figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points

from napari_cpnn.export import Marks, Spots
from napari_cpnn.ui.layers import (
    BINS_KEY,
    OVERLAY_KEY,
    SPOTS_KEY,
    has_table,
    holds_bins,
    holds_regions,
    world_per_um,
    world_to_um,
)
from napari_cpnn.ui.regions import regions_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.geometry import Mpp


def marks_on_screen(viewer: ViewerModel, slide_layer: Layer, mpp: Mpp) -> Marks:
    """Return the spots and outlines of the visible layers, from the lowest to the topmost, in slide micrometres."""
    spots: list[Spots] = []
    outlines: list[tuple[str, Any]] = []
    for proxy in viewer.layers:
        layer = getattr(proxy, "__wrapped__", proxy)
        if not layer.visible or OVERLAY_KEY in layer.metadata:
            continue
        if holds_bins(layer):
            spots.append(_bins_of(layer, slide_layer, mpp))
        elif isinstance(layer, Points) and (SPOTS_KEY in layer.metadata or has_table(layer)) and len(layer.data):
            spots.append(_spots_of(layer, slide_layer, mpp))
        elif holds_regions(layer):
            outlines += [(region.name, region.outline) for region in regions_of(layer, slide_layer, mpp)[1]]
    return Marks(tuple(spots), tuple(outlines))


def _spots_of(layer: Points, slide_layer: Layer, mpp: Mpp) -> Spots:
    shown = np.asarray(layer.shown, dtype=bool)
    data = np.asarray(layer.data, dtype=float)[shown][:, -2:]
    frame = np.array([layer.data_to_world((*(0.0,) * (layer.ndim - 2), *point))[-2:] for point in _FRAME])
    world = data @ (frame[1:] - frame[0]) + frame[0]
    size = np.asarray(layer.size, dtype=float)[shown] * float(np.abs(layer.scale[-1])) / world_per_um(slide_layer, mpp)
    colors = np.asarray(layer.face_color, dtype=np.float32)[shown].copy()
    colors[:, 3] *= layer.opacity
    name = str(layer.name).removeprefix("Spots: ")
    return Spots(world_to_um(slide_layer, mpp, world), size, colors, name)


def _bins_of(layer: Image, slide_layer: Layer, mpp: Mpp) -> Spots:
    from napari_cpnn.spots import Bins

    drawn: Bins = layer.metadata[BINS_KEY]
    first, down, right = world_to_um(slide_layer, mpp, np.array([layer.data_to_world(point)[-2:] for point in _FRAME]))
    affine = np.eye(3)
    affine[:2] = np.stack([down - first, right - first, first], axis=1)
    bins = Bins(drawn.shape, drawn.pixels, affine)
    colors = np.asarray(layer.data).reshape(-1, 4)[drawn.pixels].astype(np.float32) / np.float32(255)
    colors *= np.array([1, 1, 1, layer.opacity], np.float32)
    name = str(layer.name).removeprefix("Spots: ")
    return Spots(bins.centers_um(), np.full(len(colors), bins.side_um), colors, name, bins)


_FRAME = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
