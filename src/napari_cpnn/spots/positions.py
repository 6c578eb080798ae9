"""Read the positions of spots from ``obsm["spatial"]``, an array or a table with named columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.agreement import agreeing_positions
from napari_cpnn.spots.position_columns import xy_of_table

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.arrays import FloatArray


def positions_of(table: AnnData, owner: str) -> FloatArray:
    """Return ``obsm["spatial"]`` as ``(N, 2)`` (x, y), by column names for a table and by column order for an array.

    Parameters
    ----------
    owner
        Name of the table in messages.

    Raises
    ------
    SpotsError
        If there are no positions, they are not numeric, or the column names do not identify x.
    """
    import pandas as pd

    what = f'obsm["spatial"] of {owner}'
    if "spatial" not in table.obsm:
        raise SpotsError(f'{owner} has no positions: obsm["spatial"] must hold level-0 pixels (x, y).')
    found: Any = table.obsm["spatial"]
    if sp.issparse(found):
        found = found.toarray()
    if isinstance(found, np.ndarray) and found.dtype.names:
        found = pd.DataFrame({name: found[name] for name in found.dtype.names})
    if isinstance(found, pd.DataFrame):
        return xy_of_table(found, what)
    try:
        spatial = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise SpotsError(f"{what} does not hold numbers ({exc}).") from exc
    if spatial.ndim != 2 or spatial.shape[1] < 2:
        raise SpotsError(f"{what} has the shape {spatial.shape} instead of (spots, 2).")
    return agreeing_positions(spatial[:, :2], table, what)


def with_positions(table: AnnData, owner: str) -> AnnData:
    """Return the table with ``obsm["spatial"]`` as an array ``(N, 2)``; a copy if it had to be converted.

    Parameters
    ----------
    owner
        Name of the table in messages.
    """
    import pandas as pd

    found = table.obsm.get("spatial")
    is_plain = isinstance(found, np.ndarray) and not found.dtype.names and found.ndim == 2 and found.shape[1] == 2
    if found is None or (is_plain and found.dtype.kind in "iuf"):
        return table
    at = positions_of(table, owner)
    changed = table.copy()
    if isinstance(found, pd.DataFrame):
        del changed.obsm["spatial"]  # assigning over a DataFrame would keep a DataFrame
    changed.obsm["spatial"] = at
    return changed
