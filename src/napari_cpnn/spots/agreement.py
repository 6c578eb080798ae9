"""Check positions without column names against named columns of ``obs``.

``obsm["spatial"]`` is usually a bare array that may hold (x, y) or (row, column), or pixels of a downscaled image.
Named columns such as ``pxl_row_in_fullres`` resolve this, and array coordinates nearly do.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.spots.array import array_coordinates
from napari_cpnn.spots.position_columns import column_of, numbers, pixel_columns
from napari_cpnn.spots.scale_factors import factors_of, libraries_of_uns

if TYPE_CHECKING:
    from anndata import AnnData

#: Shares of the spread below which positions count as equal, and above which they count as unrelated.
_SAME, _UNRELATED = 0.005, 0.1
#: Minimum correlation of array coordinates with the pixels along one axis.
_ALONG = 0.98
_LEAST_SPOTS = 4


def agreeing_positions(spatial: FloatArray, table: AnnData, what: str) -> FloatArray:
    """Return positions ``(N, 2)`` as (x, y), correcting a bare array by named columns that prove it wrong.

    A warning is issued if the two contradict each other. If they differ only by a translation or rotation, the spots
    were moved onto another image, and the array is used without a warning.

    Parameters
    ----------
    spatial
        Positions from ``obsm["spatial"]``.
    table
        Table with the columns of ``obs`` and the scale factors in ``uns``.
    what
        Name of the array in messages.
    """
    array = array_coordinates(table.obs)
    pair = _named(table.obs)
    if pair is not None:
        return _compared(spatial, pair, array, table, what)
    if array is not None and _is_transposed(spatial, array):
        _warn(
            f"{what} runs down along array_col and to the right along array_row, as (row, column) would in place of "
            "(x, y); rotate or mirror the spots if they do not fit their slide."
        )
    return spatial


def _named(obs: Any) -> tuple[str, str] | None:
    """Return the names of the x and y columns, if two columns hold image pixels."""
    found = [column for column in map(column_of, obs.columns) if column is not None and column.kind == "pixel"]
    return pixel_columns([column.name for column in found])


def _compared(
    spatial: FloatArray, pair: tuple[str, str], array: FloatArray | None, table: AnnData, what: str
) -> FloatArray:
    try:
        named = np.column_stack([numbers(table.obs[name], f'obs["{name}"]') for name in pair])
    except SpotsError:
        return spatial
    both = np.isfinite(named).all(axis=1) & np.isfinite(spatial).all(axis=1)
    here, there = spatial[both], named[both]
    if len(here) < _LEAST_SPOTS or _is_scaled(here, there, 1.0):
        return spatial
    columns = f"the columns {pair[0]} and {pair[1]} of obs"
    turned = _factor(here[:, ::-1], there)
    if _is_scaled(here[:, ::-1], there, turned):
        if not np.isclose(turned, 1.0, rtol=_SAME):
            _warn(f"{what} and {columns} disagree on the order of x and y; the former is used, as (x, y).")
            return spatial
        if array is not None and _is_mirrored(there, array[both]) and not _is_mirrored(here, array[both]):
            _warn(f"{what} and {columns} disagree on the order of x and y; the former is used, as it fits the array.")
            return spatial
        _warn(f"{what} holds (row, column) instead of (x, y) according to {columns}, which are used.")
        return named
    factor = _factor(here, there)
    of_full = all("full" in str(name).lower() for name in pair)
    if of_full and _is_scaled(here, there, factor):
        if any(np.isclose(factor * small, 1.0, rtol=0.01) for small in _small_factors(table)):
            _warn(f"{what} holds pixels of a downscaled image according to {columns}, which are used.")
            return named
        _warn(
            f"{what} is {1 / factor:.3g} times {columns}, as if one were in pixels of a rescaled image; the former is "
            "used, as pixels of the slide."
        )
    elif _is_unrelated(here, there):
        _warn(f"{what} and {columns} give different positions for the same spots; the former is used.")
    return spatial


def _small_factors(table: AnnData) -> list[float]:
    libraries = libraries_of_uns(table.uns.get("spatial")).values()
    factors = [factors_of(library.get("scalefactors")) for library in libraries]
    names = ("tissue_hires_scalef", "tissue_lowres_scalef")
    return [given[name] for given in factors for name in names if given.get(name, 1.0) != 1.0]


def _factor(here: FloatArray, there: FloatArray) -> float:
    """Return the factor between two sets of positions, by least squares."""
    return float((here * there).sum() / max(float((here * here).sum()), 1e-300))


def _is_scaled(here: FloatArray, there: FloatArray, factor: float) -> bool:
    """Return whether positions equal others times a factor, except for rounding and a few outliers."""
    if not np.isfinite(factor) or factor <= 0:
        return False
    away = np.abs(there - factor * here).max(axis=1)
    return bool(np.median(away) <= max(1.0, factor, _SAME * float(np.ptp(there, axis=0).max())))


def _is_unrelated(here: FloatArray, there: FloatArray) -> bool:
    """Return whether no affine transform relates the two, as when rows were reordered."""
    design = np.column_stack([here, np.ones(len(here))])
    away = np.linalg.norm(there - design @ np.linalg.lstsq(design, there, rcond=None)[0], axis=1)
    return bool(np.median(away) > _UNRELATED * float(np.ptp(there, axis=0).max()))


def _is_mirrored(spatial: FloatArray, array: FloatArray) -> bool:
    """Return whether the array is seen from behind (mirrored)."""
    design = np.column_stack([array, np.ones(len(array))])
    return bool(np.linalg.det(np.linalg.lstsq(design, spatial, rcond=None)[0][:2]) < 0)


def _is_transposed(spatial: FloatArray, array: FloatArray) -> bool:
    """Return whether array columns run down and rows to the right, which implies a rotated and mirrored image."""
    placed = np.isfinite(spatial).all(axis=1)
    spatial, array = spatial[placed], array[placed]
    if len(spatial) < _LEAST_SPOTS or (np.ptp(spatial, axis=0) == 0).any() or (np.ptp(array, axis=0) == 0).any():
        return False
    along = np.corrcoef(spatial.T, array.T)[:2, 2:]  # x, y against column, row
    return bool(along[0, 1] > _ALONG and along[1, 0] > _ALONG)


def _warn(text: str) -> None:
    warnings.warn(text, CpnnWarning, stacklevel=7)
