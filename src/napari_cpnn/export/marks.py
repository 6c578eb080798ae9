"""Measured spots and outlines of regions on the panels of a figure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from shapely import Polygon
from shapely.geometry import MultiPolygon

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.texts import shown

if TYPE_CHECKING:
    from napari_cpnn.spots import Bins

#: Maximum letters of the name of spots or of a region.
MOST_LETTERS = 40


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots to be drawn as discs, or many bins as one picture.

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
    bins
        The lattice that the spots fill, in the same order: they are drawn as its squares.
    """

    centers_um: FloatArray
    diameters_um: FloatArray
    colors: Float32Array
    name: str = ""
    bins: Bins | None = None

    def moved(self, dy: float, dx: float) -> Spots:
        """Return the same spots some micrometres further down and to the right."""
        bins = None if self.bins is None else self.bins.moved(dy, dx)
        return replace(self, centers_um=self.centers_um + np.array([dy, dx]), bins=bins)


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
        parts = [
            f"{'circles' if spots.bins is None else 'squares'}: {shown(spots.name, MOST_LETTERS)}"
            for spots in self.spots
            if spots.name
        ]
        parts += ["outlines: regions"] if self.outlines else []
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}." if text else ""
