"""Regions in a Shapes layer of napari, with their names in ``features["name"]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Shapes

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import RegionsError
from napari_cpnn.geometry import Mpp
from napari_cpnn.regions import Region, with_own_names
from napari_cpnn.ui.layers import um_to_world, world_to_um

if TYPE_CHECKING:
    from napari.layers import Layer

NAME = "name"
"""Column of ``layer.features`` with the names of the regions."""

_ELLIPSE_POINTS = 72
_FRAME = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])


def new_layer(
    slide_layer: Layer, regions: Sequence[Region] = (), mpp: Mpp = (1.0, 1.0), title: str = "Regions"
) -> Shapes:
    """Create a layer with some regions over a slide layer, in world units."""
    to_world = _affine(um_to_world(slide_layer, mpp, _FRAME))
    layer = Shapes(
        [_transformed(region.vertices_um(), to_world) for region in regions] or None,
        shape_type="polygon",
        ndim=2,
        name=title,
        features=pd.DataFrame({NAME: np.array([region.name for region in regions], dtype=object)}),
        feature_defaults={NAME: ""},
        units=slide_layer.units,
        edge_color="#000000",
        face_color="#FFFFFF20",
        text={"string": f"{{{NAME}}}", "size": 11, "color": "black", "anchor": "center"},
    )
    layer.edge_width = layer.current_edge_width = line_width(slide_layer)
    return layer


def compile_shapes() -> None:
    """Have napari compile what it draws polygons with, which takes seconds when numba has not done it before."""
    slide = Image(np.zeros((4, 4), dtype=np.uint8))
    layer = new_layer(slide)
    square = np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 2.0], [2.0, 0.0]])
    layer.add(square, shape_type="polygon")
    layer.add(np.array([[0.0, 0.0], [0.0, 2.0], [1.0, 1.0], [2.0, 2.0], [2.0, 0.0]]), shape_type="polygon")
    layer.add(square[:2], shape_type="path")
    layer.get_value((1.0, 1.0))


def line_width(slide_layer: Layer) -> float:
    """Return a line width that is visible on the whole slide: a 400th of its longer side, in world units."""
    low, high = np.asarray(slide_layer.extent.world)[:, -2:]
    return float(max(np.max(high - low) / 400, 1e-6))


def regions_of(layer: Shapes, slide_layer: Layer, mpp: Mpp) -> tuple[list[int], list[Region]]:
    """Return the regions of a layer and the indices of their shapes.

    Polygons, rectangles, ellipses and closed paths are regions. A shape without a name is named by its number, and
    shapes of the same name are numbered.

    Parameters
    ----------
    layer
        Layer with any transform.
    slide_layer, mpp
        The slide and its pixel size.
    """
    factor = _units_of(layer, slide_layer)
    world = np.array([layer.data_to_world((*_lead(layer), *point))[-2:] for point in _FRAME]) * factor
    to_um = _affine(world_to_um(slide_layer, mpp, world))
    names = names_of(layer)
    places, regions = [], []
    for i, (data, kind) in enumerate(zip(layer.data, layer.shape_type, strict=True)):
        ring = _ring(np.asarray(data, dtype=np.float64)[:, -2:], str(kind))
        if ring is None:
            continue
        try:
            regions.append(Region.from_vertices(names[i] or f"Region {i + 1}", _transformed(ring, to_um)))
        except RegionsError:  # still being drawn, or without an area
            continue
        places.append(i)
    return places, with_own_names(regions)


@dataclass(frozen=True)
class Drawn:
    """Copy of all shapes of a layer."""

    shapes: tuple[tuple[str, FloatArray], ...]
    features: pd.DataFrame

    @classmethod
    def copy_of(cls, layer: Shapes) -> Drawn:
        kinds = [str(kind) for kind in layer.shape_type]
        copies = [np.array(data, dtype=np.float64) for data in layer.data]
        return cls(tuple(zip(kinds, copies, strict=True)), layer.features.copy())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Drawn)
            and len(self.shapes) == len(other.shapes)
            and all(a == b and np.array_equal(x, y) for (a, x), (b, y) in zip(self.shapes, other.shapes, strict=True))
            and self.features.equals(other.features)
        )

    __hash__ = None  # type: ignore[assignment]

    def put_back(self, layer: Shapes) -> None:
        """Replace the shapes of the layer by these."""
        layer.selected_data = set(range(len(layer.data)))
        layer.remove_selected()
        if self.shapes:
            kinds, data = zip(*self.shapes, strict=True)
            layer.add(list(data), shape_type=list(kinds))
            layer.features = self.features


def names_of(layer: Shapes) -> list[str]:
    """Return the name of each shape of a layer; empty for those without."""
    if NAME not in layer.features:
        return [""] * len(layer.data)
    return ["" if pd.isna(name) else str(name).strip() for name in layer.features[NAME]]


def set_names(layer: Shapes, names: Sequence[str]) -> None:
    """Set the name of each shape, which is drawn on it unless the layer has other texts."""
    if list(names) == names_of(layer):
        return
    features = layer.features.copy()
    features[NAME] = np.array(list(names), dtype=object)
    layer.features = features
    layer.feature_defaults = {**{c: layer.feature_defaults[c].iloc[0] for c in features.columns}, NAME: ""}


def name_all(layer: Shapes) -> None:
    """Name the shapes without a name by the next free ``Region N``."""
    names = names_of(layer)
    taken = set(names)
    number = 1
    for i, name in enumerate(names):
        if not name:
            while f"Region {number}" in taken:
                number += 1
            names[i] = f"Region {number}"
            taken.add(names[i])
    set_names(layer, names)


def add_regions(layer: Shapes, slide_layer: Layer, regions: Sequence[Region], mpp: Mpp) -> None:
    """Add regions to an existing layer."""
    world = um_to_world(slide_layer, mpp, _FRAME) / _units_of(layer, slide_layer)
    to_data = _affine(np.array([layer.world_to_data((*_lead(layer), *point))[-2:] for point in world]))
    names = [*names_of(layer), *(region.name for region in regions)]
    rings = [_transformed(region.vertices_um(), to_data) for region in regions]
    layer.add([np.column_stack([np.tile(_lead(layer), (len(r), 1)), r]) for r in rings], shape_type="polygon")
    set_names(layer, names)


def _ring(points: FloatArray, kind: str) -> FloatArray | None:
    """Return the outline of a shape; ``None`` if it is open."""
    if kind in ("polygon", "rectangle"):
        return points
    if kind == "ellipse":
        centre = points.mean(axis=0)
        across, down = (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
        angle = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)[:, None]
        return np.asarray(centre + np.cos(angle) * across + np.sin(angle) * down)
    closed = kind == "path" and len(points) > 3 and np.allclose(points[0], points[-1])
    return points[:-1] if closed else None


def _affine(images: FloatArray) -> FloatArray:
    """Return the affine map ``(3, 2)`` of `_FRAME` to ``images``."""
    origin, down, right = np.asarray(images, dtype=np.float64)
    return np.stack([down - origin, right - origin, origin])


def _transformed(points: FloatArray, affine: FloatArray) -> FloatArray:
    return np.asarray(np.column_stack([points, np.ones(len(points))]) @ affine)


def _lead(layer: Layer) -> tuple[float, ...]:
    """Return the position on the axes of a layer before the last two."""
    return (0.0,) * (int(layer.ndim) - 2)


def _units_of(layer: Any, slide_layer: Any) -> float:
    """Return the units of the slide layer per unit of a layer; napari shows pixels like micrometres."""
    try:
        return float((1.0 * layer.units[-1]).to(slide_layer.units[-1]).magnitude)
    except (ValueError, TypeError):
        return 1.0
