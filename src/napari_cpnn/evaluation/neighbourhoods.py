"""Neighbourhoods and blocks of spots."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from napari_cpnn.arrays import FloatArray, IntArray

#: Radii of neighbourhoods in pitches of the array; 0 is the spot itself.
RADII = (0.0, 1.1, 1.6, 2.3, 3.2, 4.5)

#: Least number of blocks on a slide.
_LEAST_BLOCKS = 6


def neighbourhoods(places_um: FloatArray, radius_um: float) -> sp.csr_matrix:
    """Matrix ``(n, n)`` that averages values of spots over their neighbours within a radius, themselves included."""
    pairs = cKDTree(places_um).query_pairs(radius_um, output_type="ndarray")
    n = len(places_um)
    rows = np.r_[pairs[:, 0], pairs[:, 1], np.arange(n)]
    columns = np.r_[pairs[:, 1], pairs[:, 0], np.arange(n)]
    matrix = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return sp.diags(1 / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix


def pitch_of(places_um: FloatArray) -> float:
    """Median distance of a place to the nearest other place; 0 if there is only one."""
    places = np.unique(places_um, axis=0)
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1])) if len(places) > 1 else 0.0


def blocks_of(places_um: FloatArray, side_um: float) -> IntArray:
    """Number of the square block of tissue of each spot."""
    square = np.floor((places_um - places_um.min(axis=0)) / max(side_um, 1e-9)).astype(np.intp)
    return np.unique(square, axis=0, return_inverse=True)[1].ravel()


def blocks_at(places_um: FloatArray, radius: float, pitch_um: float) -> IntArray | None:
    """Blocks as large as a neighbourhood of ``radius`` pitches; None on a slide too small for such neighbourhoods."""
    blocks = blocks_of(places_um, max(2 * radius, 3) * pitch_um)
    return blocks if blocks.max() + 1 >= _LEAST_BLOCKS else None


def scale_of(radius: float, pitch_um: float) -> float:
    """Diameter in um of a neighbourhood of ``radius`` pitches."""
    return max(2 * radius, 1) * pitch_um
