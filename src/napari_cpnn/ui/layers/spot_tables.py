"""Layers with a table of spots: those of our reader, and those of napari-spatialdata. No Qt here.

Both keep the table in ``layer.metadata["adata"]``. Our reader's layer has a point per row (of very many
cells, per :func:`drawn_rows`), or of many bins a pixel, at the positions in the table (``obsm["spatial"]``). That of
napari-spatialdata has a shape or point per row of a SpatialData element; rows are matched by the instance key, and
positions are those of the drawn shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import SpotsError
from napari_cpnn.geometry import LayerFrame, Mpp, spatial_to_um, um_to_spatial
from napari_cpnn.ui.layers.slide_layers import BINS_KEY, MEASURE_KEY, OVERLAY_KEY, um_to_world, world_to_um

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.layers import Layer

    from napari_cpnn.spots import Bins

TABLE_KEY = "adata"
"""Key of a layer's table in its metadata, as in napari-spatialdata."""

SOURCE_KEY = "spots_path"
"""Key of the file in the metadata of our reader's layers."""

POSITIONS_KEY = "spots_positions"
"""Key of the file of their positions, if it is another one."""

SPOTS_KEY = "napari_cpnn_spots"
"""Marks the layer of spots that the Compare dock creates."""

#: Diameter of spots whose size is unknown, as of Visium.
DEFAULT_UM = 55.0

#: Colours of spots that show only their positions: face, and border with its width as a part of the diameter.
PLAIN, BORDER, BORDER_WIDTH = (1.0, 1.0, 1.0, 0.35), (0.125, 0.125, 0.125, 1.0), 0.1
PLAIN_BYTES = np.array([255, 255, 255, 89], dtype=np.uint8)

#: Measured cells drawn at most: without a GPU, napari needs 5 s to colour a million points and 4 s for each frame.
MOST_DRAWN = 50_000


def drawn_rows(spots: AnnData) -> IntArray:
    """Return the rows ``(n,)`` of a table that are drawn: all, but of more measured cells a regular part."""
    from napari_cpnn.spots import is_of_cells

    step = math.ceil(spots.n_obs / MOST_DRAWN) if is_of_cells(spots) else 1
    return np.arange(0, spots.n_obs, max(step, 1))


def has_table(layer: Layer) -> bool:
    """Return whether a layer has spots: points, shapes or a picture of bins with a table."""
    is_drawing = type(layer).__name__ in ("Points", "Shapes") or holds_bins(layer)
    return layer.metadata.get(TABLE_KEY) is not None and is_drawing


def holds_bins(layer: Layer) -> bool:
    """Return whether a layer is a picture of bins: not one of its channels, which napari gives the same metadata."""
    bins = layer.metadata.get(BINS_KEY)
    return bins is not None and getattr(layer, "rgb", False) and tuple(layer.data.shape) == (*bins.shape, 4)


def holds_regions(layer: Layer) -> bool:
    """Return whether the shapes of a layer are regions: not cells with a table, measured distances or our marks."""
    layer = getattr(layer, "__wrapped__", layer)
    others = {MEASURE_KEY, OVERLAY_KEY} & set(layer.metadata)
    return type(layer).__name__ == "Shapes" and not others and not has_table(layer)


def is_ours(layer: Layer) -> bool:
    """Return whether our reader created the layer, so that it may be painted and moved."""
    return has_table(layer) and SOURCE_KEY in layer.metadata


def diameter_um(spots: AnnData, mpp: Mpp) -> float:
    """Return the diameter of a spot; 0 when it is unknown."""
    for library in dict(spots.uns.get("spatial", {})).values():
        diameter = dict(library.get("scalefactors", {})).get("spot_diameter_fullres")
        if diameter is not None and np.isfinite(diameter):
            return float(diameter) * float(np.sqrt(mpp[0] * mpp[1]))
    return 0.0


def drawing_of(
    spots: AnnData, source: Path, name: str, slide: tuple[Layer | None, Mpp | None]
) -> tuple[Any, dict[str, Any], str]:
    """Return the layer of some spots as data, keywords and kind: points, or an image of many bins.

    Parameters
    ----------
    source
        File of the spots.
    slide
        Layer of their slide, if it is on screen, and the pixel size; without one they are drawn in pixels.
    """
    from napari_cpnn.spots import bins_of

    layer, mpp = slide
    rows = drawn_rows(spots)
    known = mpp or (1.0, 1.0)
    per_um: float = 1.0
    units: Any = ("um", "um")
    if mpp is None:
        units = ("pixel", "pixel")
    elif layer is not None:
        per_um, units = world_per_um(layer, mpp), layer.units
    diameter = diameter_um(spots, known)

    def to_world(um: FloatArray) -> FloatArray:
        if mpp is None:
            return um - 0.5
        return LayerFrame.of_slide(mpp).um_to_world(um) if layer is None else um_to_world(layer, mpp, um)

    keywords: dict[str, Any] = {
        "name": name if len(rows) == spots.n_obs else f"{name}, {len(rows):,} of {spots.n_obs:,}",
        "units": units,
        "metadata": {TABLE_KEY: spots, SOURCE_KEY: str(source)},
    }
    bins = bins_of(spots, known, diameter)
    if bins is not None:
        picture = bins_picture(bins, to_world)
        keywords["metadata"] |= picture.pop("metadata")
        return picture.pop("data"), keywords | picture, "image"
    data = to_world(spatial_to_um(np.asarray(spots.obsm["spatial"])[rows], known))
    return data, keywords | points_look((diameter or DEFAULT_UM) * per_um), "points"


def points_look(size: Any) -> dict[str, Any]:
    """Return the keywords of points for spots of a size that show only their positions."""
    return {
        "size": size,
        "border_width": BORDER_WIDTH,
        "border_color": np.array(BORDER),
        "face_color": np.array(PLAIN),
        "antialiasing": 0,  # it widens the border by a pixel, which hides a spot on a whole slide
    }


def bins_picture(bins: Bins, to_world: Callable[[FloatArray], FloatArray]) -> dict[str, Any]:
    """Return the keywords of an image that shows only where bins are, ``data`` included.

    Parameters
    ----------
    to_world
        From slide micrometres ``(N, 2)`` to world coordinates; affine.
    """
    return {
        "data": bins.picture(np.broadcast_to(PLAIN_BYTES, (len(bins.pixels), 4))),
        "rgb": True,
        "multiscale": False,
        "interpolation2d": "nearest",
        "blending": "translucent_no_depth",
        "cache": False,
        "affine": affine_of_bins(bins, to_world),
        "metadata": {BINS_KEY: bins},
    }


def affine_of_bins(bins: Bins, to_world: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the matrix ``(3, 3)`` that takes the pixels of a picture of bins to world coordinates."""
    frame = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) @ bins.affine[:2, :2].T + bins.affine[:2, 2]
    first, down, right = to_world(frame)
    affine = np.eye(3)
    affine[:2, 0], affine[:2, 1], affine[:2, 2] = down - first, right - first, first
    return affine


def spots_of_layer(layer: Layer, slide_layer: Layer | None, mpp: Mpp | None) -> AnnData:
    """Return the spots of a layer as :func:`~napari_cpnn.read_spots` does, at level-0 pixels of the slide.

    Parameters
    ----------
    layer
        Layer with a table, see :func:`has_table`.
    slide_layer, mpp
        The slide and its pixel size. Until both are known, spots of napari-spatialdata stay in world units.

    Raises
    ------
    SpotsError
        The table has no raw counts, its rows do not match the shapes, or they belong to several libraries.
    """
    table: AnnData = layer.metadata[TABLE_KEY]
    if is_ours(layer):
        return table
    from napari_cpnn.counts import counts_of
    from napari_cpnn.spots import require_one_library

    rows, shapes = _matched(layer, table)
    spots = counts_of(table[rows].copy(), f"The table of layer {layer.name!r}", SpotsError)
    if "spatial" in spots.obsm:  # a table would stay one
        del spots.obsm["spatial"]
    if len(rows) < table.n_obs:  # it may describe any of the other rows
        spots.uns.pop("spatial", None)
    centers, sizes = _places(layer)
    lead = (0.0,) * (layer.ndim - 2)
    corners = np.array([layer.data_to_world((*lead, *point))[-2:] for point in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))])
    to_world = np.stack([corners[1] - corners[0], corners[2] - corners[0], corners[0]])
    world = np.column_stack([centers[shapes], np.ones(len(shapes))]) @ to_world
    diameter = float(np.median(sizes[shapes])) * float(np.sqrt(abs(np.linalg.det(to_world[:2]))))
    if slide_layer is not None and mpp is not None:
        spots.obsm["spatial"] = um_to_spatial(world_to_um(slide_layer, mpp, world), mpp)
        diameter /= world_per_um(slide_layer, mpp) * float(np.sqrt(mpp[0] * mpp[1]))
    else:
        spots.obsm["spatial"] = world[:, ::-1].copy()
    require_one_library(spots, f"The table of layer {layer.name!r}")
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": diameter}
    spots.uns["spatial"] = {layer.name: {"images": {}, "scalefactors": factors}}
    return spots


def world_per_um(layer: Any, mpp: Mpp) -> float:
    """Return the length of one um of the slide in world units."""
    corners = um_to_world(layer, mpp, np.array([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]]))
    sides = np.linalg.norm(corners[1:, -2:] - corners[0, -2:], axis=1)
    return float(np.sqrt(sides[0] * sides[1]) / 1000)


def _matched(layer: Layer, table: AnnData) -> tuple[IntArray, IntArray]:
    """Return matching rows of the table and indices of the layer's shapes."""
    import pandas as pd

    metadata = layer.metadata
    element, region_key, instance_key = metadata.get("name"), metadata.get("region_key"), metadata.get("instance_key")
    n_shapes = len(layer.data)
    rows = np.arange(table.n_obs)
    if region_key in table.obs and element is not None:
        rows = rows[(table.obs[region_key].astype(str) == str(element)).to_numpy()]
    indices = metadata.get("indices")
    if instance_key in table.obs and indices is not None and len(indices) == n_shapes:
        at = pd.Index(list(indices)).get_indexer(pd.Index(table.obs[instance_key].to_numpy()[rows]))
        if (at >= 0).any():
            return rows[at >= 0], at[at >= 0]
    elif len(rows) == n_shapes:
        return rows, np.arange(n_shapes)
    raise SpotsError(
        f"The {n_shapes} shapes of layer {layer.name!r} cannot be matched with the {len(rows)} rows of its table: "
        f"there is no column {instance_key!r} that identifies them."
    )


def _places(layer: Any) -> tuple[FloatArray, FloatArray]:
    """Return centres ``(n, 2)`` and diameters ``(n,)`` of the shapes or points of a layer, in its data units."""
    if type(layer).__name__ == "Points":
        return np.asarray(layer.data, dtype=np.float64)[:, -2:], np.broadcast_to(layer.size, len(layer.data))
    import shapely

    rings = [np.asarray(ring, dtype=np.float64)[:, -2:] for ring in layer.data]
    polygons = np.array([shapely.Polygon(ring) for ring in rings])
    centers = shapely.get_coordinates(shapely.centroid(polygons))
    # Diameter of the disc of the same area; the side of a square bin. Rings may be closed or open.
    corners = shapely.get_num_coordinates(polygons) - 1
    round_ones = corners > 4
    return centers, np.sqrt(shapely.area(polygons)) * np.where(round_ones, np.sqrt(4 / np.pi), 1.0)
