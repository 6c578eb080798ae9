"""Bins of Visium HD and the like: spots that fill a square lattice, so that they can be drawn as one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_cpnn.arrays import FloatArray, IntArray, Picture
from napari_cpnn.geometry import Mpp, spatial_to_um
from napari_cpnn.spots.array import array_coordinates
from napari_cpnn.spots.quality import is_of_cells

if TYPE_CHECKING:
    from anndata import AnnData

MANY_BINS = 10_000
"""Fewer spots than this are drawn one by one."""

LARGEST_SIDE = 8192
"""Rows or columns (px) of the largest picture: more is too much for one texture of some graphics cards."""

#: Largest part of the picture's pixels to each bin: a lattice that is almost empty is no picture.
_EMPTIEST = 20
#: A bin lies at most this part of the pitch from the pixel that stands for it.
_MAX_AWAY = 0.5
#: A bin is as big as the pitch up to this factor, and so is one side of it as long as the other.
_SAME = 1.25
#: Cosine of the angle between the sides of a bin at most.
_MAX_SKEW = 0.2
#: Bins around the middle from which the lattice is found; then it is followed outwards.
_FIRST = 2000
#: About as many bins are enough for each of its steps.
_ENOUGH = 20_000
_OUTWARDS = 3.0


@dataclass(frozen=True, eq=False)
class Bins:
    """Spots that fill a square lattice, one pixel of a picture for each.

    Parameters
    ----------
    shape
        Rows and columns of the picture.
    pixels
        Pixel of each bin, ``(N,)``, counted along the rows.
    affine
        ``(3, 3)`` matrix from (row, column, 1) of a pixel's centre to (y, x, 1) in slide micrometres.
    """

    shape: tuple[int, int]
    pixels: IntArray
    affine: FloatArray

    def picture(self, colors: npt.NDArray[np.uint8]) -> Picture:
        """Return ``(rows, columns, 4)`` bytes from the RGBA bytes ``(N, 4)`` of the bins; clear where there is none."""
        picture = np.zeros((*self.shape, 4), dtype=np.uint8)
        self.draw(colors, picture)
        return picture

    def draw(self, colors: npt.NDArray[np.uint8], picture: Picture) -> None:
        """Replace the pixels of the bins in a ``picture`` of :attr:`shape` by their colours ``(N, 4)``."""
        as_numbers = np.ascontiguousarray(colors).view(np.uint32)[:, 0]
        picture.reshape(-1, 4).view(np.uint32)[self.pixels, 0] = as_numbers

    def moved(self, dy: float, dx: float) -> Bins:
        """Return the same bins some micrometres further down and to the right."""
        affine = self.affine.copy()
        affine[:2, 2] += dy, dx
        return replace(self, affine=affine)

    def centers_um(self) -> FloatArray:
        """Return the centres of the pixels of all bins, ``(N, 2)`` slide micrometres ``(y, x)``."""
        at = np.stack(np.divmod(self.pixels, self.shape[1]), axis=1)
        centers: FloatArray = at @ self.affine[:2, :2].T + self.affine[:2, 2]
        return centers

    @property
    def side_um(self) -> float:
        """Side of a bin, of the square of the same area."""
        return math.sqrt(abs(float(np.linalg.det(self.affine[:2, :2]))))


def bins_of(spots: AnnData, mpp: Mpp, diameter_um: float, at_least: int | None = None) -> Bins | None:
    """Return the lattice of spots that fill one, by their array coordinates or else by their positions.

    Parameters
    ----------
    spots
        Table with positions in ``obsm["spatial"]``.
    mpp
        Pixel size of the slide, ``(y, x)``.
    diameter_um
        Size of a spot; bins are as big as the distance to the next.
    at_least
        Number of spots from which it is worth it; by default :data:`MANY_BINS`.

    Returns
    -------
    Bins or None
        None for single cells, spots with gaps between them or too few of them, positions that lie on no square lattice
        (as after a thin plate) or share a place on it, and pictures that would be larger than :data:`LARGEST_SIDE`
        or almost empty.

    Examples
    --------
    >>> from napari_cpnn.spots import bins_of
    >>> bins_of(spots, (0.5, 0.5), 55.0) is None  # a Visium section
    True
    """
    fewest = MANY_BINS if at_least is None else at_least
    if spots.n_obs < max(fewest, 4) or not diameter_um > 0 or is_of_cells(spots):
        return None
    places = np.ascontiguousarray(spatial_to_um(spots.obsm["spatial"], mpp))
    if not np.isfinite(places).all():
        return None
    array = array_coordinates(spots.obs)
    found = None if array is None else _placed(places, array[:, ::-1], diameter_um)
    return found or _placed(places, _followed(places, diameter_um), diameter_um)


def _placed(places: FloatArray, array: FloatArray | None, diameter_um: float) -> Bins | None:
    """Return bins of array coordinates ``(N, 2)`` as (row, column), if they fit the places and fill the lattice."""
    if array is None:
        return None
    at = np.rint(array).astype(np.intp)
    if np.abs(array - at).max() > 0.01:
        return None
    at -= at.min(axis=0)
    shape = int(at[:, 0].max()) + 1, int(at[:, 1].max()) + 1
    n_pixels = shape[0] * shape[1]
    if max(shape) > LARGEST_SIDE or n_pixels > _EMPTIEST * len(at):
        return None
    fitted = _affine(at, places)
    if fitted is None:
        return None
    sides = np.linalg.norm(fitted[:2, :2], axis=0)
    pitch = float(np.sqrt(sides.prod()))
    skew = abs(float(fitted[:2, 0] @ fitted[:2, 1])) / pitch**2
    if not (sides.max() <= _SAME * sides.min() and 1 / _SAME <= diameter_um / pitch <= _SAME and skew <= _MAX_SKEW):
        return None
    down, right = at[:, 0], at[:, 1]
    y, x = (places[:, i] - (down * fitted[i, 0] + right * fitted[i, 1] + fitted[i, 2]) for i in (0, 1))
    if float((y * y + x * x).max()) > (_MAX_AWAY * pitch) ** 2:
        return None
    pixels = down * shape[1] + right
    if np.bincount(pixels, minlength=n_pixels).max() > 1:
        return None
    return Bins(shape, pixels, fitted)


def _affine(at: IntArray | FloatArray, places: FloatArray) -> FloatArray | None:
    """Return the ``(3, 3)`` matrix that takes ``at (N, 2)`` to ``places (N, 2)`` with the least squares."""
    middle, centre = at.mean(axis=0), places.mean(axis=0)
    from_middle = at - middle
    normal = from_middle.T @ from_middle
    if not np.linalg.cond(normal) < 1e9:  # all in one line
        return None
    fitted = np.eye(3)
    fitted[:2, :2] = np.linalg.solve(normal, from_middle.T @ (places - centre)).T
    fitted[:2, 2] = centre - fitted[:2, :2] @ middle
    return fitted


def _followed(places: FloatArray, diameter_um: float) -> FloatArray | None:
    """Return (row, column) of places ``(N, 2)`` on a square lattice, followed outwards from their middle."""
    middle = np.median(places, axis=0)
    squares = np.square(places[:, 0] - middle[0]) + np.square(places[:, 1] - middle[1])
    first = places[np.argpartition(squares, min(_FIRST, len(places) - 1))[:_FIRST]]
    steps = first[cKDTree(first).query(first, k=2)[1][:, 1]] - first
    pitch = float(np.median(np.linalg.norm(steps, axis=1)))
    if not 1 / _SAME <= diameter_um / max(pitch, 1e-9) <= _SAME:
        return None
    # Directions of neighbours are the same but for quarter turns, which four times the angle does not see.
    angle = float(np.angle(np.exp(4j * np.arctan2(steps[:, 1], steps[:, 0])).mean())) / 4
    axes = pitch * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    start, to_array = places[np.argmin(squares)], np.linalg.inv(axes).T
    reach, far = 8 * pitch, math.sqrt(float(squares.max()))
    while reach < far:
        inside = np.flatnonzero(squares <= reach**2)
        near = places[inside[:: 1 + len(inside) // _ENOUGH]]
        if len(near) < 4 or (fitted := _affine(np.rint((near - start) @ to_array), near)) is None:
            return None
        to_array, start = np.linalg.inv(fitted[:2, :2]).T, fitted[:2, 2]
        reach *= _OUTWARDS
    found: FloatArray = np.rint((places - start) @ to_array)
    return found
