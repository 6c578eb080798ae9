"""Outlines of many nuclei in two arrays: all vertices, and where each outline begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, FloatArray, Int64Array, IntArray
from napari_cpnn.errors import NucleiError

#: An outline has at least this many vertices.
LEAST_VERTICES = 3
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Outlines:
    """Closed polygons, one per nucleus, the first vertex not repeated.

    Parameters
    ----------
    vertices_um
        ``(V, 2)`` float32, slide micrometres ``(y, x)``, of one outline after another.
    starts
        ``(N + 1,)`` int64: outline ``i`` has the vertices ``starts[i]:starts[i + 1]``.

    Raises
    ------
    NucleiError
        If a coordinate is not a number, an outline has fewer than three vertices, or ``starts`` does not divide
        ``vertices_um``.

    Examples
    --------
    >>> from napari_cpnn.nuclei import Outlines
    >>> square = Outlines.of([[(0, 0), (0, 8), (8, 8), (8, 0)]])
    >>> len(square), square.areas_um2().tolist(), square.centroids_um().tolist()
    (1, [64.0], [[4.0, 4.0]])
    """

    vertices_um: Float32Array
    starts: Int64Array

    def __post_init__(self) -> None:
        vertices = _as_pairs(self.vertices_um)
        starts = np.ascontiguousarray(self.starts, dtype=np.int64)
        if starts.ndim != 1 or not len(starts) or starts[0] != 0 or starts[-1] != len(vertices):
            raise NucleiError("The starts of outlines must go from 0 to the number of their vertices.")
        sizes = np.diff(starts)
        if (sizes < LEAST_VERTICES).any():
            number = int(np.argmax(sizes < LEAST_VERTICES))
            raise NucleiError(f"Outline {number} has {sizes[number]} vertices; an outline has at least three.")
        if not np.isfinite(vertices).all():
            number = int(np.searchsorted(starts, np.argmin(np.isfinite(vertices).all(axis=1)), side="right") - 1)
            raise NucleiError(f"Outline {number} has a coordinate that is not a number.")
        vertices, starts = vertices.view(), starts.view()
        for array in (vertices, starts):
            array.setflags(write=False)
        object.__setattr__(self, "vertices_um", vertices)
        object.__setattr__(self, "starts", starts)

    @classmethod
    def of(cls, polygons: Iterable[npt.ArrayLike]) -> Outlines:
        """Return the outlines of polygons ``(n, 2)`` as ``(y, x)`` in um; a repeated last vertex is dropped."""
        parts = [_open(np.asarray(polygon, dtype=np.float64).reshape(-1, 2)) for polygon in polygons]
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)
        return cls(np.concatenate([np.empty((0, 2)), *parts]).astype(np.float32), starts)

    @classmethod
    def joined(cls, parts: Sequence[Outlines]) -> Outlines:
        """Return the outlines of several, in their order."""
        sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(part.starts) for part in parts)])
        vertices = np.concatenate([np.empty((0, 2), np.float32), *(part.vertices_um for part in parts)])
        return cls(vertices, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> Float32Array:
        """Return the vertices ``(n, 2)`` of one outline."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} outlines.")
        index %= len(self)
        return self.vertices_um[self.starts[index] : self.starts[index + 1]]

    def subset(self, index: IntArray) -> Outlines:
        """Return the outlines with these numbers, in this order."""
        sizes = np.diff(self.starts)[index]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        return Outlines(self.vertices_um[np.repeat(self.starts[:-1][index], sizes) + within], starts)

    def areas_um2(self) -> FloatArray:
        """Return the areas ``(N,)`` in um2, by the shoelace formula."""
        areas = np.empty(len(self))
        for first in range(0, len(self), _BLOCK):  # so that copies fit the processor's cache
            starts = self.starts[first : first + _BLOCK + 1]
            part = self.vertices_um[starts[0] : starts[-1]]
            areas[first : first + _BLOCK] = areas_and_centroids(part, starts - starts[0])[0]
        return areas

    def centroids_um(self) -> FloatArray:
        """Return the centroids ``(N, 2)``; the mean of the vertices where an outline has no area."""
        return areas_and_centroids(self.vertices_um, self.starts)[1]

    def shapely(self) -> npt.NDArray[Any]:
        """Return shapely polygons ``(N,)`` with the coordinates ``(x, y)`` in um."""
        import shapely

        rings = np.repeat(np.arange(len(self)), np.diff(self.starts))
        if not len(self):
            return np.empty(0, dtype=object)
        xy = self.vertices_um[:, ::-1].astype(np.float64)
        polygons: npt.NDArray[Any] = shapely.polygons(shapely.linearrings(xy, indices=rings))
        return polygons


def areas_and_centroids(vertices: npt.NDArray[np.floating[Any]], starts: Int64Array) -> tuple[FloatArray, FloatArray]:
    """Return areas ``(N,)`` and centroids ``(N, 2)`` of polygons that have vertices each; see :class:`Outlines`.

    Coordinates are taken relative to the first vertex of each polygon, so that large ones lose no digits. Without area,
    the centroid is the mean of the vertices.
    """
    if len(starts) < 2:
        return np.empty(0), np.empty((0, 2))
    sizes, places = np.diff(starts), vertices.astype(np.float64)
    anchors = places[starts[:-1]]
    here = places - np.repeat(anchors, sizes, axis=0)
    following = np.arange(1, len(here) + 1)
    following[starts[1:] - 1] = starts[:-1]
    after = here[following]
    cross = here[:, 1] * after[:, 0] - after[:, 1] * here[:, 0]
    area = np.add.reduceat(cross, starts[:-1]) / 2
    moments = np.add.reduceat((here + after) * cross[:, None], starts[:-1]) / 6
    means = np.add.reduceat(here, starts[:-1]) / sizes[:, None]
    flat = np.abs(area) < 1e-12
    relative = np.where(flat[:, None], means, moments / np.where(flat, 1.0, area)[:, None])
    return np.abs(area), anchors + relative


def _as_pairs(values: npt.ArrayLike) -> Float32Array:
    with np.errstate(over="ignore"):  # infinity is refused by the caller
        pairs = np.ascontiguousarray(values, dtype=np.float32)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise NucleiError(f"Vertices must have the shape (V, 2), not {pairs.shape}.")
    return pairs


def _open(ring: FloatArray) -> FloatArray:
    closed = len(ring) > 1 and (ring[0] == ring[-1]).all()
    return ring[:-1] if closed else ring
