"""Conversions between micrometres and pixels, axis order, and grids.

Two coordinate systems are used, and only this module converts between them.

Slide micrometres, ``(y, x)``
    Continuous, origin at the outer corner of the slide's first pixel: level-0 pixel ``i`` covers
    ``[i * mpp, (i + 1) * mpp)``. Patches, grids, viewports and all napari layers created by this package use it. A
    napari layer puts the *centre* of its first pixel at ``translate``, so a layer with pixel size ``s`` gets ``scale =
    s, translate = s / 2``.
Level-0 pixels, ``(x, y)``
    Continuous, same origin; the convention of scverse for ``obsm["spatial"]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import SettingsError

Mpp = tuple[float, float]
"""Micrometres per level-0 pixel, ``(y, x)``."""


#: A pixel size outside this range (um/px) is implausible for a microscope slide: the finest objectives give about 0.1,
#: and beyond 10 a biological cell is smaller than a pixel.
PLAUSIBLE_MPP = (0.05, 10.0)


#: A map stores about 65 numbers per patch, so this many patches take 2.6 GB (25 x 25 mm of tissue at 8 um). A smaller
#: stride is usually a typing error, and would exhaust the memory.
MAX_CELLS = 10_000_000


def is_plausible_mpp(mpp: Mpp) -> bool:
    """Return whether both pixel sizes are plausible for a microscope slide and within a factor of two of each other."""
    low, high = PLAUSIBLE_MPP
    return all(math.isfinite(m) and low <= m <= high for m in mpp) and 0.5 <= mpp[0] / mpp[1] <= 2.0


def as_mpp(value: float | str | tuple[float, float]) -> Mpp:
    """Return ``mpp`` as ``(y, x)`` from a number, text or pair; raise :class:`SettingsError` if it is implausible."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        pair = tuple(parse_decimal(v) if isinstance(v, str) else float(v) for v in given)
    except (TypeError, ValueError, OverflowError):
        pair = ()
    if len(pair) != 2 or not is_plausible_mpp((pair[0], pair[1])):
        low, high = PLAUSIBLE_MPP
        raise SettingsError(
            f"A pixel size of {str(value)[:40]} um/px is not plausible: give one number, or (y, x), between {low} and "
            f"{high}."
        )
    return pair[0], pair[1]


def spatial_to_um(spatial_px: npt.ArrayLike, mpp: Mpp) -> FloatArray:
    """Convert level-0 pixels ``(N, 2)`` as ``(x, y)`` to slide micrometres ``(N, 2)`` as ``(y, x)``."""
    um: FloatArray = np.asarray(spatial_px, dtype=np.float64)[..., ::-1] * np.asarray(mpp)
    return um


def um_to_spatial(um: npt.ArrayLike, mpp: Mpp) -> FloatArray:
    """Convert slide micrometres ``(N, 2)`` as ``(y, x)`` to level-0 pixels ``(N, 2)`` as ``(x, y)``."""
    spatial_px: FloatArray = (np.asarray(um, dtype=np.float64) / np.asarray(mpp))[..., ::-1]
    return spatial_px


@dataclass(frozen=True)
class PatchSpec:
    """The square of tissue that a network sees.

    Parameters
    ----------
    size_px
        Side in pixels of the network's input.
    mpp
        Pixel size of the network's input in micrometres. 224 px at 0.5 um/px is 112 um of tissue.

    Examples
    --------
    >>> nc.PatchSpec(size_px=224, mpp=0.5).size_um
    112.0
    """

    size_px: int = 224
    mpp: float = 0.5

    def __post_init__(self) -> None:
        if self.size_px < 8 or not is_plausible_mpp((self.mpp, self.mpp)):
            raise SettingsError(f"A patch of {self.size_px} px at {self.mpp} um/px is not usable.")

    @property
    def size_um(self) -> float:
        """Side in micrometres."""
        return self.size_px * self.mpp


@dataclass(frozen=True)
class Rect:
    """An axis-aligned rectangle in slide micrometres; ``y1, x1`` are exclusive."""

    y0: float
    x0: float
    y1: float
    x1: float

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def center(self) -> tuple[float, float]:
        return (self.y0 + self.y1) / 2, (self.x0 + self.x1) / 2

    def grown(self, margin_um: float) -> Rect:
        """Return the rectangle enlarged by ``margin_um`` on each side."""
        return Rect(self.y0 - margin_um, self.x0 - margin_um, self.y1 + margin_um, self.x1 + margin_um)


@dataclass(frozen=True)
class Grid:
    """A regular grid of square patches over a slide.

    Parameters
    ----------
    shape
        ``(rows, cols)``.
    stride_um
        Side of a patch of the grid, and distance between neighbours, in micrometres.
    origin_um
        Slide micrometres ``(y, x)`` of the outer corner of patch ``(0, 0)``.
    """

    shape: tuple[int, int]
    stride_um: float
    origin_um: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def over(cls, shape_px: tuple[int, int], mpp: Mpp, stride_um: float, region: Rect | None = None) -> Grid:
        """Return the grid covering a slide of ``shape_px`` (height, width), or the part of it in ``region``.

        The grid of a region is a window of the grid of the whole slide, so both have the same patches. The last row and
        column may extend beyond the edge of the slide.

        Raises
        ------
        SettingsError
            If the stride is not a positive number or results in more than `MAX_CELLS` patches, or the region is empty
            or lies outside the slide.
        """
        if not (math.isfinite(stride_um) and stride_um > 0):
            raise SettingsError(f"The stride of a map must be a positive number of um, not {stride_um}.")
        extent = (shape_px[0] * mpp[0], shape_px[1] * mpp[1])
        first, last = [0, 0], [max(1, math.ceil(e / stride_um - 1e-6)) for e in extent]
        if region is not None:
            low, high = (region.y0, region.x0), (region.y1, region.x1)
            if not all(map(math.isfinite, (*low, *high))) or high[0] <= low[0] or high[1] <= low[1]:
                raise SettingsError(
                    f"A region must be given as y0 x0 y1 x1 in um, with y0 < y1 and x0 < x1, not as "
                    f"{low[0]:g} {low[1]:g} {high[0]:g} {high[1]:g}."
                )
            first = [max(0, math.floor(v / stride_um)) for v in low]
            last = [min(n, math.ceil(v / stride_um)) for n, v in zip(last, high, strict=True)]
            if last[0] <= first[0] or last[1] <= first[1]:
                raise SettingsError(
                    f"The region lies outside the slide, which is {extent[0]:.0f} x {extent[1]:.0f} um (y, x)."
                )
        n_cells = (last[0] - first[0]) * (last[1] - first[1])
        if n_cells > MAX_CELLS:
            least = math.ceil(stride_um * math.sqrt(n_cells / MAX_CELLS))
            raise SettingsError(
                f"A stride of {stride_um:g} um gives a map of {n_cells:,} patches, too many for the memory; use at "
                f"least {least} um, or map a smaller region."
            )
        return cls((last[0] - first[0], last[1] - first[1]), stride_um, (first[0] * stride_um, first[1] * stride_um))

    @property
    def n_cells(self) -> int:
        return self.shape[0] * self.shape[1]

    def centers_um(self, cells: npt.ArrayLike | None = None) -> FloatArray:
        """Return the centres of patches as slide micrometres ``(N, 2)``.

        ``cells`` are the (row, col) of the patches, ``(N, 2)``; by default all, row by row.
        """
        if cells is None:
            rows, cols = np.indices(self.shape)
            cells = np.stack([rows.ravel(), cols.ravel()], axis=1)
        centers: FloatArray = (np.asarray(cells, dtype=np.float64) + 0.5) * self.stride_um + np.asarray(self.origin_um)
        return centers

    def cell_at(self, y_um: float, x_um: float) -> tuple[int, int] | None:
        """Return (row, col) of the patch that contains a point; ``None`` outside the grid."""
        row = math.floor((y_um - self.origin_um[0]) / self.stride_um)
        col = math.floor((x_um - self.origin_um[1]) / self.stride_um)
        return (row, col) if 0 <= row < self.shape[0] and 0 <= col < self.shape[1] else None

    def window(self, rect: Rect) -> tuple[slice, slice]:
        """Return (row, col) slices of the patches that intersect ``rect``; empty slices if there are none."""
        slices = []
        for low, high, origin, n in zip(
            (rect.y0, rect.x0), (rect.y1, rect.x1), self.origin_um, self.shape, strict=True
        ):
            start = min(max(math.floor((low - origin) / self.stride_um), 0), n)
            stop = min(max(math.ceil((high - origin) / self.stride_um), start), n)
            slices.append(slice(start, stop))
        return slices[0], slices[1]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable description for :meth:`from_dict`."""
        return {"shape": list(self.shape), "stride_um": self.stride_um, "origin_um": list(self.origin_um)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Grid:
        rows, cols = data["shape"]
        y, x = data["origin_um"]
        return cls((int(rows), int(cols)), float(data["stride_um"]), (float(y), float(x)))


@dataclass(frozen=True)
class LayerFrame:
    """The transform from level-0 pixels to napari's world: ``world = index * scale + translate``, per axis.

    Slide layers of this package have ``scale = mpp, translate = mpp / 2``, so that world coordinates are slide
    micrometres. A layer opened by another plugin may be in pixels, or shifted; the frame converts overlays and
    viewports accordingly.
    """

    scale: tuple[float, float]
    translate: tuple[float, float]
    mpp: Mpp

    @classmethod
    def of_slide(cls, mpp: Mpp) -> LayerFrame:
        return cls(mpp, (mpp[0] / 2, mpp[1] / 2), mpp)

    def um_to_world(self, um: npt.ArrayLike) -> FloatArray:
        """Convert slide micrometres ``(..., 2)`` to world coordinates ``(..., 2)``, both (y, x)."""
        index = np.asarray(um, dtype=np.float64) / np.asarray(self.mpp) - 0.5
        world: FloatArray = index * np.asarray(self.scale) + np.asarray(self.translate)
        return world

    def world_to_um(self, world: npt.ArrayLike) -> FloatArray:
        """Convert world coordinates ``(..., 2)`` to slide micrometres ``(..., 2)``, both (y, x)."""
        index = (np.asarray(world, dtype=np.float64) - np.asarray(self.translate)) / np.asarray(self.scale)
        um: FloatArray = (index + 0.5) * np.asarray(self.mpp)
        return um

    def grid_transform(self, grid: Grid) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return ``(scale, translate)`` of an image layer with one pixel per patch of ``grid``."""
        first = self.um_to_world(grid.centers_um([(0, 0)])[0])
        world_per_um = np.asarray(self.scale) / np.asarray(self.mpp)
        scale = world_per_um * grid.stride_um
        return (float(scale[0]), float(scale[1])), (float(first[0]), float(first[1]))


#: Maximum length of a scale bar, as a share of the width of its picture.
SCALE_BAR = 0.3


def scale_bar_um(width_um: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... um that fits as a scale bar into a picture of this width."""
    most = SCALE_BAR * width_um
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def length_text(um: float) -> str:
    """Return a length as text, such as ``500 µm`` or ``2 mm``."""
    return f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"
