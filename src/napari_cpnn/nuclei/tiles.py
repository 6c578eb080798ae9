"""Where nuclei are wanted, and the tiles in which they are looked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import BoolArray, FloatArray
from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Rect
from napari_cpnn.nuclei.separation import MPP
from napari_cpnn.slides import Slide, TissueMask

if TYPE_CHECKING:
    from shapely import Geometry

#: Tiles have this side in px, and finders see this many more on each side, more than half of what a pixel depends on.
CORE, HALO = 512, 64
_CORE_UM = CORE * MPP
#: Nuclei this far outside of the tissue mask, whose pixels are coarse, are kept, in um.
RIM_UM = 16.0


@dataclass(frozen=True)
class Area:
    """Part of a slide in which nuclei are wanted."""

    bounds: Rect
    outline: Geometry | None = None

    @classmethod
    def of(cls, region: Rect | Sequence[float] | Geometry | None, slide: Slide) -> Area:
        """Return the area of a region, clipped to the slide."""
        whole = Rect(0.0, 0.0, *(n * m for n, m in zip(slide.shape[:2], slide.require_mappable(), strict=True)))
        outline = None
        if region is None:
            return cls(whole)
        if isinstance(region, Rect):
            rect = region
        elif isinstance(region, Sequence | np.ndarray):
            rect = _rect(region)
        else:
            x0, y0, x1, y1 = region.bounds
            rect, outline = Rect(y0, x0, y1, x1), region
        values = (rect.y0, rect.x0, rect.y1, rect.x1)
        if not all(map(math.isfinite, values)) or rect.height <= 0 or rect.width <= 0:
            raise NucleiError("The region is empty; give y0 x0 y1 x1 in um with y0 < y1 and x0 < x1, or an outline.")
        clipped = Rect(
            max(rect.y0, 0.0), max(rect.x0, 0.0), min(rect.y1, whole.y1), min(rect.x1, whole.x1)
        )  # fmt: skip
        if clipped.height <= 0 or clipped.width <= 0:
            raise NucleiError(
                f"The region lies outside of {slide.label}, which is {whole.y1:,.0f} x {whole.x1:,.0f} um (y, x)."
            )
        return cls(clipped, outline)

    def contains(self, centers_um: FloatArray) -> BoolArray:
        """Return which centres lie inside, ``(N,)``."""
        y, x = centers_um.T
        rect = self.bounds
        inside: BoolArray = (y >= rect.y0) & (y <= rect.y1) & (x >= rect.x0) & (x <= rect.x1)
        if self.outline is not None:
            import shapely

            inside &= shapely.contains_xy(self.outline, x, y)
        return inside


def _rect(region: Any) -> Rect:
    try:
        y0, x0, y1, x1 = (float(v) for v in region)
    except (TypeError, ValueError) as error:
        raise NucleiError(f"A region is y0 x0 y1 x1 in um, or an outline, not {str(region)[:60]}.") from error
    return Rect(y0, x0, y1, x1)


@dataclass(frozen=True)
class Tiling:
    """Centres of the tiles ``(T, 2)`` in um, row by row."""

    centers_um: FloatArray

    @classmethod
    def of(cls, tissue: TissueMask, area: Area, origin_um: tuple[float, float] = (0.0, 0.0)) -> Tiling:
        """Return the tiles of a lattice with tissue that an area touches."""
        rect = area.bounds
        rows, cols = (
            np.arange(math.floor((low - start) / _CORE_UM), math.floor((high - start) / _CORE_UM) + 1)
            for low, high, start in zip((rect.y0, rect.x0), (rect.y1, rect.x1), origin_um, strict=True)
        )
        at = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
        centers = (at + 0.5) * _CORE_UM + np.asarray(origin_um)
        return cls(centers[tissue.coverage_at(centers, _CORE_UM + 2 * RIM_UM) > 0])
