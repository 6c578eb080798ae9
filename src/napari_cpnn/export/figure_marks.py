"""Spots and outlines drawn on the axes of a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.image import AxesImage
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D
from shapely import Polygon, box

from napari_cpnn.export.marks import MOST_LETTERS, Marks
from napari_cpnn.texts import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from shapely.geometry import MultiPolygon

    from napari_cpnn.arrays import Float32Array
    from napari_cpnn.geometry import Rect
    from napari_cpnn.spots import Bins

_BORDER = (0.125, 0.125, 0.125, 1.0)


def draw_marks(axes: Axes, marks: Marks, rect: Rect, pt: float) -> None:
    """Draw the marks that touch a rectangle on axes in slide micrometres, with names of regions of ``pt`` points."""
    for spots in marks.spots:
        if spots.bins is not None:
            _draw_bins(axes, spots.bins, spots.colors)
            continue
        half = spots.diameters_um / 2
        y, x = spots.centers_um[:, 0], spots.centers_um[:, 1]
        near = (y + half > rect.y0) & (y - half < rect.y1) & (x + half > rect.x0) & (x - half < rect.x1)
        near &= np.asarray(spots.colors[:, 3] > 0)
        if not near.any():
            continue
        size = spots.diameters_um[near]
        axes.add_collection(
            EllipseCollection(
                size,
                size,
                np.zeros(len(size)),
                units="xy",
                offsets=np.column_stack([x[near], y[near]]),
                offset_transform=axes.transData,
                facecolors=spots.colors[near],
                edgecolors=[_BORDER],
                linewidths=0.25,
                gid="spots",
            ),
            autolim=False,
        )
    view = box(rect.x0, rect.y0, rect.x1, rect.y1)
    for name, outline in marks.outlines:
        seen = outline.intersection(view)
        if seen.is_empty:
            continue
        for color, line in (("white", 2.2), ("black", 1.0)):
            axes.add_patch(PathPatch(path_of(outline), fill=False, edgecolor=color, linewidth=line))
        at = seen.representative_point()
        white = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.text(
            at.x, at.y, shown(name, MOST_LETTERS), fontsize=pt, ha="center", va="center", bbox=white, parse_math=False
        )


def _draw_bins(axes: Axes, bins: Bins, colors: Float32Array) -> None:
    """Draw bins as one picture of which each pixel is a square, at its place."""
    rows, columns = bins.shape
    picture = AxesImage(axes, interpolation="nearest", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), zorder=1)
    picture.set_data(bins.picture(np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)))
    turned = bins.affine[[1, 0, 2]][:, [1, 0, 2]]  # from (column, row) to (x, y)
    picture.set_transform(Affine2D(turned) + axes.transData)
    picture.set_gid("spots")
    axes.add_image(picture)
    picture.set_clip_path(axes.patch)


def path_of(outline: Polygon | MultiPolygon) -> Outline:
    """Return the rings of an outline as one path."""
    rings = [
        Outline(np.asarray(ring.coords)[:, :2], closed=True)
        for part in getattr(outline, "geoms", [outline])
        for ring in (part.exterior, *part.interiors)
    ]
    return Outline.make_compound_path(*rings)
