"""Measured spots and outlines of regions on the panels of a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from shapely import Polygon, box
from shapely.geometry import MultiPolygon

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.texts import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from napari_cpnn.geometry import Rect

#: Maximum letters of the name of a region.
_MOST = 40
_BORDER = (0.125, 0.125, 0.125, 1.0)


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots to be drawn as discs.

    Parameters
    ----------
    centers_um
        ``(N, 2)`` float, slide micrometres ``(y, x)``.
    diameters_um
        ``(N,)`` float, micrometres.
    colors
        ``(N, 4)`` RGBA in 0 to 1.
    name
        What the colours show.
    """

    centers_um: FloatArray
    diameters_um: FloatArray
    colors: Float32Array
    name: str = ""


@dataclass(frozen=True, eq=False)
class Marks:
    """Spots, and outlines of regions by name (slide micrometres, ``(x, y)`` as in :class:`Region`), above a map.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.export import Marks, Spots
    >>> spots = Spots(np.array([[1200.0, 1200.0]]), np.array([100.0]), np.ones((1, 4), np.float32), "measured ERBB2")
    >>> nc.to_figure(cmap, "spots.png", "ERBB2", slide=slide, marks=Marks((spots,))).name
    'spots.png'
    """

    spots: tuple[Spots, ...] = ()
    outlines: tuple[tuple[str, Polygon | MultiPolygon], ...] = ()

    @property
    def note(self) -> str:
        """Return what the marks are, in one sentence; empty if there are none."""
        parts = [f"circles: {shown(spots.name, _MOST)}" for spots in self.spots if spots.name]
        parts += ["outlines: regions"] if self.outlines else []
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}." if text else ""


def draw_marks(axes: Axes, marks: Marks, rect: Rect, pt: float) -> None:
    """Draw the marks that touch a rectangle on axes in slide micrometres, with names of regions of ``pt`` points."""
    for spots in marks.spots:
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
        axes.text(at.x, at.y, shown(name, _MOST), fontsize=pt, ha="center", va="center", bbox=white, parse_math=False)


def path_of(outline: Polygon | MultiPolygon) -> Outline:
    """Return the rings of an outline as one path."""
    rings = [
        Outline(np.asarray(ring.coords)[:, :2], closed=True)
        for part in getattr(outline, "geoms", [outline])
        for ring in (part.exterior, *part.interiors)
    ]
    return Outline.make_compound_path(*rings)
