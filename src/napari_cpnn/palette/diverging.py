"""Colours of differences, from too low to too high."""

from __future__ import annotations

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray

DIFFERENCE = ("#00576B", "#00839A", "#66B5C4", "#FFFFFF", "#F5B04C", "#E07B12", "#A34700")
"""Colours at equal distances from the lowest to the highest difference: blue, white at none, orange.

No colour is pink or purple, as those of haematoxylin and eosin are, and the two sides differ for all kinds of colour
vision.
"""


def difference_colors(share: FloatArray | Float32Array) -> Float32Array:
    """Colours of differences.

    Parameters
    ----------
    share
        ``(n,)``, 0 at the lowest difference, 0.5 at none, 1 at the highest.

    Returns
    -------
    numpy.ndarray
        ``(n, 4)`` float32, red, green, blue and alpha in 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> difference_colors(np.array([0.5])).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """
    anchors = np.array([[int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)] for color in DIFFERENCE])
    at = np.linspace(0, 1, len(anchors))
    columns = [np.interp(share, at, anchors[:, channel]) for channel in range(3)]
    return np.stack([*columns, np.ones(len(share))], axis=1).astype(np.float32)
