"""Averages of a map over discs of tissue: the map at a coarser scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray

#: Tolerance of distances in patches, so that a disc includes the patches on its rim.
_ROUNDING = 1e-6


def disc_sums(values: npt.NDArray[np.generic], radius: float) -> FloatArray:
    """Sum values over the disc around each patch, by cumulative sums along rows.

    Parameters
    ----------
    values
        ``(rows, cols)``; 0 for patches that do not count.
    radius
        In patches; those with their centre in the disc count.

    Returns
    -------
    numpy.ndarray
        ``(rows, cols)`` float64.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.painting import disc_sums
    >>> disc_sums(np.ones((3, 3)), 1.0).astype(int).tolist()
    [[3, 4, 3], [4, 5, 4], [3, 4, 3]]
    """
    rows, cols = values.shape
    radius = min(radius, float(rows + cols))  # all of the map
    reach = int(radius + _ROUNDING)
    sums = np.zeros((rows, cols + 2 * reach + 1))
    np.cumsum(values, axis=1, out=sums[:, reach + 1 : reach + 1 + cols], dtype=np.float64)
    sums[:, reach + 1 + cols :] = sums[:, reach + cols, None]
    result = np.zeros((rows, cols))
    for dy in range(min(reach, rows - 1) + 1):
        half = int(np.sqrt(max(radius**2 - dy**2, 0.0)) + _ROUNDING)
        chord = sums[:, reach + half + 1 : reach + half + 1 + cols] - sums[:, reach - half : reach - half + cols]
        result[dy:] += chord[: rows - dy]
        if dy:
            result[:-dy] += chord[dy:]
    return result
