"""Where on a slide nuclei were looked for: without it, tissue that nobody searched would count as empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Mpp, Rect

if TYPE_CHECKING:
    from shapely import Geometry

    from napari_cpnn.nuclei.tiles import Area
    from napari_cpnn.slides import TissueMask

_GLASS, _MISSED, _SEARCHED = 0, 1, 2
#: Points across an outline at which is looked, so that the pixels of the mask may be coarse.
_ACROSS = 256


@dataclass(frozen=True, eq=False)
class Searched:
    """Tissue of a slide, and which of it was searched for nuclei.

    Parameters
    ----------
    state
        ``(rows, cols)`` uint8: 0 glass, 1 tissue that was not searched, 2 tissue that was; pixel ``(0, 0)`` starts at
        the outer corner of the slide.
    um_per_px
        Size of its pixels in um, ``(y, x)``.

    Raises
    ------
    NucleiError
        If there are other values, or the size is not one.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.nuclei import Searched
    >>> searched = Searched(np.array([[2, 1], [0, 2]], dtype=np.uint8), (1000.0, 500.0))
    >>> searched.area_mm2, searched.within_um((0, 0, 1000, 1000)).area_mm2
    (1.0, 0.5)
    """

    state: npt.NDArray[np.uint8]
    um_per_px: Mpp

    def __post_init__(self) -> None:
        state, sizes = np.asarray(self.state), np.asarray(self.um_per_px, dtype=np.float64)
        if state.ndim != 2 or (state.size and (state.min() < _GLASS or state.max() > _SEARCHED)):
            raise NucleiError("What was searched for nuclei must be a table of 0, 1 and 2.")
        if sizes.shape != (2,) or not (np.isfinite(sizes) & (sizes > 0)).all():
            raise NucleiError("What was searched for nuclei has pixels of no possible size.")
        state = np.ascontiguousarray(state, dtype=np.uint8).view()
        state.setflags(write=False)
        object.__setattr__(self, "state", state)
        object.__setattr__(self, "um_per_px", (float(sizes[0]), float(sizes[1])))

    @classmethod
    def of_tiles(cls, tissue: TissueMask, area: Area, tiles_um: FloatArray, side_um: float) -> Searched:
        """Return what was searched once tiles of a lattice, centres ``(T, 2)`` in um, were looked at in an area."""
        y, x = ((np.arange(n) + 0.5) * size for n, size in zip(tissue.mask.shape, tissue.um_per_px, strict=True))
        done = np.zeros(tissue.mask.shape, dtype=bool)
        if len(tiles_um):
            corner = tiles_um.min(axis=0) - side_um / 2
            at = np.rint((tiles_um - side_um / 2 - corner) / side_um).astype(np.intp)
            lattice = np.zeros(at.max(axis=0) + 2, dtype=bool)  # the last of each axis: outside
            lattice[at[:, 0], at[:, 1]] = True
            rows, cols = (
                np.where(k < 0, n - 1, np.minimum(k, n - 1))
                for k, n in (
                    (np.floor((places - low) / side_um).astype(np.intp), n)
                    for places, low, n in zip((y, x), corner, lattice.shape, strict=True)
                )
            )
            done = tissue.mask & lattice[rows[:, None], cols[None, :]]
            inside = np.argwhere(done)
            wanted = area.contains(np.column_stack([y[inside[:, 0]], x[inside[:, 1]]]))
            done[tuple(inside[~wanted].T)] = False
        return cls(np.where(done, _SEARCHED, np.where(tissue.mask, _MISSED, _GLASS)).astype(np.uint8), tissue.um_per_px)

    @property
    def area_mm2(self) -> float:
        """Area of the tissue that was searched."""
        return float(np.count_nonzero(self.state == _SEARCHED) * np.prod(self.um_per_px) / 1e6)

    @property
    def share(self) -> float:
        """Share of the tissue that was searched; 1 without tissue."""
        tissue = np.count_nonzero(self.state)
        return float(np.count_nonzero(self.state == _SEARCHED) / tissue) if tissue else 1.0

    def within_um(self, rect: Rect | Any) -> Searched:
        """Return this as if only a rectangle (``y0, x0, y1, x1`` in um) had been searched."""
        rect = rect if isinstance(rect, Rect) else Rect(*(float(v) for v in rect))
        y, x = ((np.arange(n) + 0.5) * size for n, size in zip(self.state.shape, self.um_per_px, strict=True))
        inside = ((y >= rect.y0) & (y < rect.y1))[:, None] & ((x >= rect.x0) & (x < rect.x1))[None, :]
        return Searched(np.where(inside, self.state, np.minimum(self.state, _MISSED)).astype(np.uint8), self.um_per_px)

    def areas_in(self, outline: Geometry) -> tuple[float, float]:
        """Return the tissue in an outline with ``(x, y)`` in um, and what was searched of it, in mm2."""
        import shapely

        x0, y0, x1, y1 = outline.bounds
        axes = []
        for low, high, size in ((y0, y1, self.um_per_px[0]), (x0, x1, self.um_per_px[1])):
            n = max(_ACROSS, int(np.ceil((high - low) / size)))
            axes.append(low + (np.arange(n) + 0.5) * ((high - low) / n))
        rows, cols = (
            np.floor(places / size).astype(np.intp) for places, size in zip(axes, self.um_per_px, strict=True)
        )
        on = ((rows >= 0) & (rows < self.state.shape[0]))[:, None] & ((cols >= 0) & (cols < self.state.shape[1]))[None]
        state = np.zeros(on.shape, dtype=np.uint8)
        if on.any():
            height, width = self.state.shape
            state = np.where(on, self.state[rows.clip(0, height - 1)[:, None], cols.clip(0, width - 1)[None]], _GLASS)
        at = np.argwhere(state > _GLASS)
        shapely.prepare(outline)
        inside = at[shapely.contains_xy(outline, axes[1][at[:, 1]], axes[0][at[:, 0]])]
        point_mm2 = (y1 - y0) * (x1 - x0) / (len(axes[0]) * len(axes[1])) / 1e6
        searched = np.count_nonzero(state[inside[:, 0], inside[:, 1]] == _SEARCHED)
        return len(inside) * point_mm2, searched * point_mm2
