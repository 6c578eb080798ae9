"""Detect spatially whether a table of spots holds several arrays, and which column distinguishes them.

On one array each place occurs once, and no two spots are closer than the pitch. If the groups of a column satisfy this
while the whole table does not, the column identifies the arrays, whatever its name.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.spots.array import array_coordinates, neighbour_distance
from napari_cpnn.spots.barcodes import MOST_LIBRARIES, Barcodes, barcodes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from napari_cpnn.arrays import FloatArray

    Texts = np.ndarray[Any, Any]

#: Shares of spots with a repeated barcode, or a repeated place.
_REPEATED, _TWICE = 0.01, 0.1
#: Shares of the pitch: minimum distance on one array, maximum distance of touching parts, and search radius.
_NEAR, _TOUCHING, _REACH = 0.8, 1.5, 1.25
#: Share of the spots that are closer to a spot of another group.
_SHARE = 0.05
#: Number of spots examined around the centre, and of neighbours of each.
_WINDOW, _FEW, _MANY = 10_000, 24, 128
#: Tolerated deviation from one array, in pitches.
_OFF = 0.5


class Places:
    """Barcodes, array places and positions of the spots of a table.

    Parameters
    ----------
    spots
        Table with ``obsm["spatial"]``.
    """

    def __init__(self, spots: AnnData) -> None:
        self._names: Sequence[str] = list(spots.obs_names)
        self.spatial: FloatArray = np.asarray(spots.obsm["spatial"], dtype=np.float64)
        self.array = array_coordinates(spots.obs)

    @cached_property
    def barcodes(self) -> Barcodes | None:
        """Barcodes parsed from the names of the spots, if they have any."""
        return barcodes_of(self._names)

    @cached_property
    def has_barcodes_twice(self) -> bool:
        """Whether a barcode occurs in several names."""
        return self.barcodes is not None and _repeated(self.barcodes.cores) > _REPEATED

    @cached_property
    def shared(self) -> float:
        """Share of the spots at the same place as another: the array place if known, else the position."""
        key = self._place
        return 0.0 if key is None or len(key) < 10 else _repeated(key[key >= 0])

    @property
    def are_of_several(self) -> bool:
        """Whether barcodes or places repeat so often that the spots must belong to several arrays."""
        return self.has_barcodes_twice or self.shared > _TWICE

    def are_told_apart(self, labels: Texts) -> bool:
        """Return whether each group of spots can be one array, but all of them together cannot."""
        named = labels != ""
        if not 2 <= len(set(labels[named])) <= MOST_LIBRARIES or named.mean() < 1 - _REPEATED:
            return False
        if self.are_of_several:
            codes = _codes(labels)
            keys = [self.barcodes.cores] if self.has_barcodes_twice and self.barcodes is not None else []
            keys += [self._place] if self.shared > _TWICE and self._place is not None else []
            return all(_repeated(_codes_of_pairs(codes, key)[key >= 0]) <= _REPEATED for key in keys)
        return self._lie_among_each_other(labels)

    def are_parts_of_one(self, labels: Texts) -> bool:
        """Return whether adjacent groups of spots are parts of one array: they touch, or one transform fits all."""
        if self.array is not None and not self.shared:
            fits = self._fits_one_array
            if fits is not None:
                return fits
        groups = [self.spatial[(labels == label) & self._placed] for label in dict.fromkeys(labels[labels != ""])]
        groups = [group for group in groups if len(group)]
        pitch = neighbour_distance(self.spatial[self._placed])
        return len(groups) < 2 or _touch(groups, _TOUCHING * pitch)

    @cached_property
    def _placed(self) -> np.ndarray[Any, Any]:
        return np.asarray(np.isfinite(self.spatial).all(axis=1))

    @cached_property
    def _place(self) -> np.ndarray[Any, Any] | None:
        """Integer codes of the places, -1 for a spot without one."""
        import pandas as pd

        at = self.spatial if self.array is None else self.array
        if not len(at):
            return None
        return np.where(np.isfinite(at).all(axis=1), pd.DataFrame(at).groupby([0, 1], dropna=False).ngroup(), -1)

    @cached_property
    def _fits_one_array(self) -> bool | None:
        """Whether one affine transform maps all array places to the positions; None if undecidable."""
        if self.array is None or self._placed.sum() < 6:
            return None
        array, pixels = self.array[self._placed], self.spatial[self._placed]
        design = np.column_stack([array, np.ones(len(array))])
        if np.linalg.matrix_rank(design) < 3:
            return None
        away = np.linalg.norm(pixels - design @ np.linalg.lstsq(design, pixels, rcond=None)[0], axis=1)
        return bool(np.quantile(away, 0.95) <= _OFF * neighbour_distance(pixels))

    @cached_property
    def _window(self) -> np.ndarray[Any, Any]:
        """Rows of the spots that are examined."""
        rows = np.flatnonzero(self._placed)
        if len(rows) <= _WINDOW:
            return rows
        away = np.linalg.norm(self.spatial[rows] - np.median(self.spatial[rows], axis=0), axis=1)
        return rows[np.argpartition(away, _WINDOW)[:_WINDOW]]

    def _neighbours(self, n: int) -> tuple[FloatArray, np.ndarray[Any, Any]]:
        """Return distances and indices of the nearest spots."""
        from scipy.spatial import cKDTree

        if n not in self._found:
            at = self.spatial[self._window]
            away, which = cKDTree(at).query(at, k=min(n, len(at)))
            away[which == np.arange(len(at))[:, None]] = np.inf
            self._found[n] = away, which
        return self._found[n]

    @cached_property
    def _found(self) -> dict[int, tuple[FloatArray, np.ndarray[Any, Any]]]:
        return {}

    def _lie_among_each_other(self, labels: Texts) -> bool:
        """Return whether spots keep the pitch within their group, but not between groups."""
        rows = self._window
        if len(rows) < 10:
            return False
        codes = _codes(labels)[rows]
        away, which = self._neighbours(_FEW if codes.max() < 6 else _MANY)
        same = codes[which] == codes[:, None]
        within = np.where(same, away, np.inf).min(axis=1)
        across = np.where(same, np.inf, away).min(axis=1)
        # Single rows or columns of one array keep a pitch too, but are not arrays themselves.
        are_arrays = _is_array(np.where(same, away, np.inf))
        near = across < _NEAR * float(np.median(within))
        if not are_arrays or float(near.mean()) <= _SHARE:
            return False
        at = self.spatial[rows]
        return not _is_array(away) and not _is_symmetric(at[which] - at[:, None], away)


def _is_array(away: FloatArray) -> bool:
    """Return whether most spots have at least four equidistant neighbours, from their neighbour distances."""
    nearest = away.min(axis=1)
    pitch = float(np.median(nearest))
    if not 0 < pitch < np.inf or float(np.quantile(nearest, 0.05)) < _NEAR * pitch:
        return False
    return bool(np.quantile((away <= _REACH * pitch).sum(axis=1), 0.75) >= 4)


def _is_symmetric(steps: FloatArray, away: FloatArray) -> bool:
    """Return whether most spots have nearest neighbours on both sides, as on an array with anisotropic pitch."""
    pitch = float(np.median(away.min(axis=1)))
    near = away <= _REACH * pitch
    off = np.linalg.norm((steps * near[..., None]).sum(axis=1), axis=1)
    return bool(((off < (1 - _NEAR) * pitch) & (near.sum(axis=1) >= 2)).mean() > 0.5)


def _touch(groups: Sequence[FloatArray], reach: float) -> bool:
    """Return whether all groups are connected by steps between nearby spots."""
    from scipy.spatial import cKDTree

    if not reach > 0:
        return True
    trees = [cKDTree(group) for group in groups]
    reached, waiting = {0}, [0]
    while waiting:
        one = trees[waiting.pop()]
        for i, other in enumerate(trees):
            if i in reached:
                continue
            small, large = (one, other) if one.n < other.n else (other, one)
            near = np.isfinite(large.query(small.data, distance_upper_bound=reach)[0]).sum()
            if near >= min(3, small.n):
                reached.add(i)
                waiting.append(i)
    return len(reached) == len(groups)


def _codes(labels: Texts) -> np.ndarray[Any, Any]:
    import pandas as pd

    return np.asarray(pd.factorize(labels)[0])


def _codes_of_pairs(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(one.astype(np.int64) * (int(other.max(initial=0)) + 2) + other)


def _repeated(keys: np.ndarray[Any, Any]) -> float:
    """Return the share of keys that occur more than once."""
    import pandas as pd

    return float(pd.Series(keys).duplicated(keep=False).mean()) if len(keys) else 0.0
