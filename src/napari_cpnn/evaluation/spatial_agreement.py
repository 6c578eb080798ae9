"""Spatial autocorrelation (Moran's I, by squidpy) of measured and predicted expression."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.spots import ArrayKind

#: Number of neighbours of a spot: its ring on an array, and the same number without an array.
NEIGHBOURS: dict[ArrayKind | None, int] = {"square": 4, "hexagonal": 6, None: 6}


def morans_i(values: npt.ArrayLike, centers_um: FloatArray, kind: ArrayKind | None = None) -> FloatArray:
    """Moran's I of each gene: near 1 if neighbouring spots are similar, near 0 if they are independent.

    Weights are array neighbours, with rows normalised to sum 1, as in squidpy.

    Parameters
    ----------
    values
        ``(N, G)`` expression.
    centers_um
        ``(N, 2)`` positions of the spots.
    kind
        Array of the spots (see :func:`~napari_cpnn.spots.fit_array`): four or six neighbours at about the pitch, so
        that gaps are not bridged. None for spots without array: the six nearest neighbours.

    Returns
    -------
    ndarray
        ``(G,)``; NaN for a gene that is constant or not finite, and if there are too few spots.

    Raises
    ------
    TrainingError
        If squidpy is not installed.
    """
    table = np.asarray(values, dtype=np.float32)
    result = np.full(table.shape[1], np.nan)
    n_neighbours = NEIGHBOURS[kind]
    if len(table) <= n_neighbours + 1:
        return result
    usable = np.flatnonzero(np.isfinite(table).all(axis=0) & (np.ptp(table, axis=0) > 0))
    if not len(usable):
        return result
    from anndata import AnnData

    with _squidpy() as squidpy:
        spots = AnnData(table[:, usable], obsm={"spatial": np.asarray(centers_um, dtype=np.float64)})
        if kind is None:
            squidpy.gr.spatial_neighbors_knn(spots, n_neighs=n_neighbours)
        else:
            squidpy.gr.spatial_neighbors_grid(spots, n_neighs=n_neighbours)
        found = squidpy.gr.spatial_autocorr(
            spots, mode="moran", genes=list(spots.var_names), corr_method=None, copy=True, show_progress_bar=False
        )
        result[usable] = found.loc[spots.var_names, "I"].to_numpy(dtype=np.float64)
    return result


@contextmanager
def _squidpy() -> Iterator[Any]:
    """Import squidpy without its internal warnings, preserving the number of threads."""
    import torch

    n_threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import squidpy
        except ImportError as error:
            raise TrainingError(
                f"Moran's I needs squidpy ({error}); run pip install 'napari-cpnn[squidpy]' or leave spatial off."
            ) from error
        logger = logging.getLogger("spatialdata._logging")
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            yield squidpy
        finally:
            logger.setLevel(level)
            torch.set_num_threads(n_threads)  # numba uses all processors, which changes the last bits of later models
