"""Array of spots: its kind, its pitch, and the pixel size that follows from the pitch.

An array is printed at a known pitch, so its spots on the image determine the pixel size. Two printed arrays are known:
the square array of Spatial Transcriptomics (100 um spots, 200 um apart) and the hexagonal one of Visium (55 um spots,
100 um apart). The pitch of any other array, such as the channels of DBiT-seq or bins of arbitrary size, cannot be
inferred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.geometry import Mpp, is_plausible_mpp

ArrayKind = Literal["square", "hexagonal"]

PITCH_UM: dict[ArrayKind, float] = {"square": 200.0, "hexagonal": 100.0}
"""Centre-to-centre distance in um of Spatial Transcriptomics and Visium."""

SPOT_UM: dict[ArrayKind, float] = {"square": 100.0, "hexagonal": 55.0}
"""Diameter of a spot in um."""

#: Rows, columns and spots of the largest array of each kind: Spatial Transcriptomics, and Visium with an 11 mm capture
#: area, whose columns are counted in half pitches.
_FRAME: dict[ArrayKind, tuple[int, int, int]] = {"square": (33, 35, 1007), "hexagonal": (128, 224, 14_336)}

_MIN_SPOTS = 6
# no Spatial Transcriptomics array has more; a larger square array consists of bins of unknown size
_MAX_ST_SPOTS = 5000
_MAX_SCATTER = 0.15  # share of the pitch; positions that are farther from any lattice are beads or cells


@dataclass(frozen=True)
class ArrayFit:
    """Array fitted to the positions of spots.

    Parameters
    ----------
    kind
        Square (four neighbours) or hexagonal (six).
    pitch_um
        Centre-to-centre distance of neighbouring spots.
    mpp
        Micrometres per pixel implied by this pitch, ``(y, x)``.
    """

    kind: ArrayKind
    pitch_um: float
    mpp: Mpp

    @property
    def spot_diameter_px(self) -> float:
        """Diameter of a spot in level-0 pixels, in proportion to the pitch."""
        diameter_um = SPOT_UM[self.kind] * self.pitch_um / PITCH_UM[self.kind]
        return diameter_um / math.sqrt(self.mpp[0] * self.mpp[1])


def is_within_known_array(kind: ArrayKind, spatial: npt.ArrayLike, array: npt.ArrayLike | None) -> bool:
    """Return whether the number and extent of the spots fit the known array of their kind.

    Parameters
    ----------
    spatial, array
        As for :func:`fit_array`.
    """
    pixels = np.asarray(spatial, dtype=np.float64)
    *frame, n_spots = _FRAME[kind]
    if len(pixels) > n_spots:
        return False
    if array is not None:
        columns, rows = np.ptp(np.asarray(array, dtype=np.float64), axis=0) + 0.5
        as_it_is, turned = rows <= frame[0] and columns <= frame[1], rows <= frame[1] and columns <= frame[0]
        return bool(as_it_is or (kind == "square" and turned))
    steps = (math.sqrt(3) / 2, 0.5) if kind == "hexagonal" else (1.0, 1.0)  # pitches per row and column
    diagonal = math.hypot(*(n * step for n, step in zip(frame, steps, strict=True)))
    turns = np.linspace(0, np.pi, 36, endpoint=False)
    longest = np.ptp(pixels @ np.stack([np.cos(turns), np.sin(turns)]), axis=0).max()
    return bool(longest <= diagonal * neighbour_distance(pixels))


def fit_array(
    spatial: npt.ArrayLike,
    array: npt.ArrayLike | None = None,
    pitch_um: float | None = None,
    *,
    any_mpp: bool = False,
) -> ArrayFit | None:
    """Fit an array to the positions of spots on an image.

    The kind is determined from the positions alone. Whether a square array is really that of Spatial Transcriptomics,
    so that its default pitch applies, is decided by :func:`~napari_cpnn.spots.estimate_mpp`.

    Parameters
    ----------
    spatial
        Level-0 pixels ``(N, 2)`` as ``(x, y)``.
    array
        Array coordinates ``(N, 2)`` as ``(column, row)``, where known. Those of Visium are doubled: a column is half a
        pitch, so row + column is even.
    pitch_um
        Pitch of the array; by default the known pitch of its kind.
    any_mpp
        Whether to accept pixel sizes that are implausible for a slide.

    Returns
    -------
    ArrayFit or None
        None if there are too few spots, they do not lie on a lattice, the pixel size is implausible, or no pitch is
        given and the array is not one of the two known ones.

    Examples
    --------
    >>> from napari_cpnn.spots import fit_array
    >>> fit_array(spots.obsm["spatial"]).kind
    'hexagonal'
    """
    pixels = np.asarray(spatial, dtype=np.float64)
    if len(pixels) < _MIN_SPOTS:
        return None
    if array is not None:
        fit = _fit_coordinates(pixels, np.asarray(array, dtype=np.float64), pitch_um)
    else:
        fit = _fit_neighbours(pixels, pitch_um)
    if fit is not None and not (any_mpp or is_plausible_mpp(fit.mpp)):
        return None
    if fit is not None and fit.kind == "square" and pitch_um is None and len(pixels) > _MAX_ST_SPOTS:
        return None
    return fit


def _fit_coordinates(pixels: FloatArray, array: FloatArray, pitch_um: float | None) -> ArrayFit | None:
    """Fit an affine transform from array um to pixels by least squares.

    The transform is ``pixels = diag(1 / mpp) R um + shift`` with a rotation (or reflection) ``R``, whose rows have unit
    length. So each row of the fitted matrix has length ``1 / mpp`` of its axis, whatever the orientation of the array.
    """
    kind = _kind_of_coordinates(array)
    pitch = PITCH_UM[kind] if pitch_um is None else pitch_um
    steps = (0.5, math.sqrt(3) / 2) if kind == "hexagonal" else (1.0, 1.0)
    design = np.column_stack([array * steps * pitch, np.ones(len(array))])
    keep = np.ones(len(array), dtype=bool)
    for _ in range(5):
        if keep.sum() < _MIN_SPOTS or np.linalg.matrix_rank(design[keep]) < 3:
            return None
        solution = np.linalg.lstsq(design[keep], pixels[keep], rcond=None)[0]
        away = np.linalg.norm(pixels - design @ solution, axis=1)
        limit = max(4 * float(np.median(away)), 1e-6 * float(np.ptp(pixels)))
        if np.array_equal(keep, away <= limit):
            break
        keep = away <= limit
    lengths = np.linalg.norm(solution[:2], axis=0)  # pixels per um along x and y
    if not lengths.all() or np.median(away) > _MAX_SCATTER * pitch * lengths.mean():
        return None
    return ArrayFit(kind, float(pitch), (float(1 / lengths[1]), float(1 / lengths[0])))


def _kind_of_coordinates(array: FloatArray) -> ArrayKind:
    """Return hexagonal if row + column has the same parity everywhere, as in Visium's coordinates."""
    whole = np.rint(array)
    if np.abs(array - whole).max() > 1e-6:
        return "square"
    parity = whole.sum(axis=1) % 2
    return "hexagonal" if (parity == parity[0]).all() else "square"


def _fit_neighbours(pixels: FloatArray, pitch_um: float | None) -> ArrayFit | None:
    """Fit the vectors between neighbours by least squares, without array coordinates.

    Each vector ``(dx, dy)`` is one pitch long, ``mpp_x^2 dx^2 + mpp_y^2 dy^2 = pitch^2``, which is linear in the
    squared pixel sizes for any rotation. If the vectors cannot distinguish the axes (a square array at 45 degrees), the
    minimum-norm solution makes both equal.
    """
    from scipy.spatial import cKDTree  # as in neighbour_distance

    tree = cKDTree(pixels)
    reach = 1.25 * neighbour_distance(pixels)
    if not reach > 0:
        return None
    pairs = tree.query_pairs(reach, output_type="ndarray")
    vectors = pixels[pairs[:, 0]] - pixels[pairs[:, 1]]
    lengths = np.linalg.norm(vectors, axis=1)
    if len(pairs) < _MIN_SPOTS or lengths.std() > _MAX_SCATTER * lengths.mean():
        return None
    neighbours = np.bincount(pairs.ravel(), minlength=len(pixels))
    # An inner spot has four or six neighbours and spots at the edge fewer, so an upper quantile is used.
    kind: ArrayKind = "hexagonal" if np.quantile(neighbours, 0.9) > 4.5 else "square"
    if np.quantile(neighbours, 0.9) > 6:
        return None
    pitch = PITCH_UM[kind] if pitch_um is None else pitch_um
    squares = np.linalg.lstsq(vectors**2, np.full(len(vectors), pitch**2), rcond=1e-3)[0]
    if (squares <= 0).any():
        return None
    return ArrayFit(kind, float(pitch), (math.sqrt(squares[1]), math.sqrt(squares[0])))


def neighbour_distance(pixels: FloatArray) -> float:
    """Return the median nearest-neighbour distance of ``(N, 2)`` positions; NaN for fewer than two."""
    if len(pixels) < 2:
        return math.nan
    from scipy.spatial import cKDTree  # a tenth of a second, for which windows without spots need not wait

    distances = np.asarray(cKDTree(pixels).query(pixels, k=2)[0])
    return float(np.median(distances[:, 1]))


def array_coordinates(obs: Any) -> FloatArray | None:
    """Return ``(N, 2)`` array coordinates (column, row) from ``obs``; None if absent, incomplete or not numeric."""
    for column, row in (("new_x", "new_y"), ("array_col", "array_row")):
        if column in obs and row in obs:
            numbers = [_as_numbers(obs[name]) for name in (column, row)]
            array = np.column_stack([np.asarray(values, dtype=np.float64) for values in numbers])
            if np.isfinite(array).all():
                return array
    return None


def _as_numbers(column: Any) -> Any:
    """Return a column as numbers, NaN where it has none; quickly if they are numbers already, as those of bins."""
    import pandas as pd

    return column if pd.api.types.is_numeric_dtype(column) else pd.to_numeric(column.astype(object), errors="coerce")
