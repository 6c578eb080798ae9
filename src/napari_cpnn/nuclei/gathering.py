"""Make nuclei of what a file holds: centres or rings of many, classes by name, in other units."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, FloatArray, Int64Array, IntArray
from napari_cpnn.errors import CpnnWarning, NucleiError
from napari_cpnn.nuclei.nuclei import NO_CLASS, Nuclei, counted_nuclei
from napari_cpnn.nuclei.outlines import LEAST_VERTICES, Outlines, areas_and_centroids
from napari_cpnn.texts import shown

#: Coordinates beyond this are none, in any unit.
_FARTHEST = 1e8


@dataclass
class Gathered:
    """Nuclei as a file gives them, in its own units.

    Attributes
    ----------
    rings
        Outlines ``(n, 2)`` as ``(x, y)``, of one nucleus after another; points are rings of one vertex.
    labels
        Class of each; empty for none.
    """

    rings: list[npt.ArrayLike] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def take(self, ring: npt.ArrayLike, label: str = "") -> None:
        self.rings.append(ring)
        self.labels.append(label)

    def nuclei(self, um_per_unit: FloatArray, file: Any, source: str) -> Nuclei:
        """Return all of them; see :func:`nuclei_of_rings`."""
        parts = [_pairs(ring) for ring in self.rings]
        xy = np.concatenate([np.empty((0, 2)), *parts])
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.int64)]).astype(np.int64)
        return nuclei_of_rings(xy, starts, um_per_unit, self.labels, file, source)


def _pairs(ring: Any) -> FloatArray:
    """A ring as ``(n, 2)``; what is none has no vertices."""
    try:
        pairs = np.asarray(ring, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty((0, 2))
    return pairs[:, :2] if pairs.ndim == 2 and pairs.shape[1] in (2, 3) else np.empty((0, 2))


def nuclei_of_rings(
    xy: FloatArray, starts: Int64Array, um_per_unit: FloatArray, labels: Sequence[str], file: Any, source: str
) -> Nuclei:
    """Return the nuclei of rings ``xy[starts[i]:starts[i + 1]]`` as ``(x, y)``.

    Rings of one vertex are centres. Where all are outlines, they are kept; otherwise only the centres are. Rings with
    coordinates that are no numbers, with two vertices or without area are left out with a warning.

    Parameters
    ----------
    um_per_unit
        Micrometres per unit, ``(x, y)``.
    labels
        Class of each ring, empty for none; or nothing.
    file
        Name of the file in messages.
    """
    total = len(starts) - 1
    keep, sizes = _usable(xy, starts)
    vertices, first = _picked(xy, starts, sizes, np.flatnonzero(keep))
    um = (vertices * um_per_unit)[:, ::-1]
    sizes = np.diff(first)
    numbers = np.flatnonzero(keep)
    is_point = sizes == 1
    outlines, centers = None, um[first[:-1]]
    if len(sizes) and not is_point.all():
        rings, begin = um[np.repeat(~is_point, sizes)], _starts(sizes[~is_point])
        areas, centroids = areas_and_centroids(rings, begin)
        has_area = np.ones(len(sizes), bool)
        has_area[~is_point] = areas > 0
        centers[~is_point] = centroids
        if not is_point.any():
            outlines = Outlines(rings.astype(np.float32), begin).subset(np.flatnonzero(has_area))
        numbers, centers = numbers[has_area], centers[has_area]
    if not len(numbers):
        raise NucleiError(f"{file} has no nucleus that can be used" + (f" among {total:,}." if total else "."))
    if total - len(numbers):
        warnings.warn(
            f"{total - len(numbers):,} of {counted_nuclei(total)} in {file} left out: a coordinate is not a number, or "
            "an outline has no area.",
            CpnnWarning,
            stacklevel=5,
        )
    codes, names = coded([labels[i] for i in numbers.tolist()] if len(labels) else [])
    return Nuclei(centers.astype(np.float32), outlines, codes, names, source)


def coded(labels: Sequence[Any]) -> tuple[npt.NDArray[np.int16] | None, tuple[str, ...]]:
    """Return codes and sorted names of classes; ``None`` where no nucleus has one."""
    texts = [shown(label) for label in labels]
    names = tuple(sorted({text for text in texts if text}))
    if not names:
        return None, ()
    if len(names) > np.iinfo(np.int16).max:
        raise NucleiError(f"The nuclei have {len(names):,} different classes; is the right column the class?")
    code = {"": NO_CLASS, **{name: i for i, name in enumerate(names)}}
    return np.array([code[text] for text in texts], dtype=np.int16), names


def _usable(xy: FloatArray, starts: Int64Array) -> tuple[BoolArray, Int64Array]:
    """Which rings have numbers, and enough of them; and the vertices of each, without a repeated last one."""
    sizes = np.diff(starts)
    wrong = np.concatenate([[0], np.cumsum(~(np.abs(xy) < _FARTHEST).all(axis=1))])
    keep = (sizes > 0) & (wrong[starts[1:]] == wrong[starts[:-1]])
    some = sizes > 1
    closed = np.zeros(len(sizes), bool)
    closed[some] = (xy[starts[:-1][some]] == xy[starts[1:][some] - 1]).all(axis=1)
    sizes = np.where(closed, sizes - 1, sizes)
    return keep & ((sizes >= LEAST_VERTICES) | (np.diff(starts) == 1)), sizes


def _picked(xy: FloatArray, starts: Int64Array, sizes: Int64Array, numbers: IntArray) -> tuple[FloatArray, Int64Array]:
    """Vertices and starts of some rings, each cut to its size."""
    chosen = sizes[numbers]
    first = _starts(chosen)
    within = np.arange(first[-1]) - np.repeat(first[:-1], chosen)
    return xy[np.repeat(starts[:-1][numbers], chosen) + within], first


def _starts(sizes: Int64Array) -> Int64Array:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
