"""Lines of a constant width on the screen, as a Vectors layer."""

from __future__ import annotations

import numpy as np
from napari.layers import Vectors as NapariVectors

from napari_cpnn.arrays import FloatArray


class Vectors(NapariVectors):  # type: ignore[misc]
    """Vectors without a thumbnail, for which napari takes longer than for the lines."""

    def _update_thumbnail(self) -> None:
        pass


def with_margin(lines: FloatArray, width: float) -> FloatArray:
    """Return lines with margins of the same width: both margins of each line, then the lines."""
    start, along = lines[:, 0], lines[:, 1]
    along_unit = along / np.maximum(np.sqrt((along**2).sum(axis=1, keepdims=True)), 1e-12)
    start, along = start - along_unit * width / 2, along + along_unit * width
    across = along_unit[:, ::-1] * np.array([1.0, -1.0]) * width
    return np.concatenate([np.stack([start + shift, along], axis=1) for shift in (-across, across, 0 * across)])
