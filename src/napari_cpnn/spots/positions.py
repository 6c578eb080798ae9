"""Where the spots of a table are: ``obsm["spatial"]``, an array or a table with named columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from napari_cpnn.errors import SpotsError
from napari_cpnn.spots.agreement import agreeing_positions
from napari_cpnn.spots.libraries import require_one_library
from napari_cpnn.spots.position_columns import xy_of_table

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.arrays import FloatArray


def positions_of(table: AnnData, owner: str) -> FloatArray:
    """``obsm["spatial"]`` as ``(N, 2)``: of a table the names of its columns decide, of an array the order (x, y).

    Parameters
    ----------
    owner
        The table, for messages.

    Raises
    ------
    SpotsError
        There are none, they are no numbers, or the names of their columns do not say which is x.
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
        raise SpotsError(f"{what} has the shape {spatial.shape} in place of (spots, 2).")
    return agreeing_positions(spatial[:, :2], table, what)


def with_positions(table: AnnData, owner: str) -> AnnData:
    """The table itself when ``obsm["spatial"]`` is an array ``(N, 2)``; else a copy where it is one.

    Parameters
    ----------
    owner
        The table, for messages.
    """
    import pandas as pd

    found = table.obsm.get("spatial")
    is_plain = isinstance(found, np.ndarray) and not found.dtype.names and found.ndim == 2 and found.shape[1] == 2
    if found is None or (is_plain and found.dtype.kind in "iuf"):
        return table
    at = positions_of(table, owner)
    changed = table.copy()
    if isinstance(found, pd.DataFrame):
        del changed.obsm["spatial"]  # a table would stay one
    changed.obsm["spatial"] = at
    return changed


def on_one_slide(spots: AnnData, owner: str) -> AnnData:
    """Spots that a caller has at hand, with their positions as an array, when they are of one library.

    Raises
    ------
    SpotsError
        Positions that cannot be read, or spots of several libraries; the message names these.
    """
    spots = with_positions(spots, owner)
    if "spatial" in spots.obsm:
        require_one_library(spots, owner)
    return spots
