"""Where the cells of an imaging instrument lie: on its own picture, or on an H&E picture by its alignment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import SpotsError
from napari_cpnn.geometry import is_plausible_mpp
from napari_cpnn.spots.affine import XENIUM_ALIGNMENT, inverted, read_affine


@dataclass(frozen=True, eq=False)
class InstrumentFrame:
    """Where positions of an instrument lie on a picture.

    Attributes
    ----------
    matrix
        ``(2, 3)``: level-0 pixels ``(x, y) = matrix @ (x, y, 1)`` of the instrument's positions.
    mpp
        Micrometres per pixel of that picture.
    alignment
        Name of the file of the alignment; empty if the picture is the instrument's own.
    """

    matrix: FloatArray
    mpp: float
    alignment: str

    def to_pixels(self, xy: FloatArray) -> FloatArray:
        """Return level-0 pixels ``(N, 2)`` of positions ``(x, y)`` in the instrument's unit."""
        return np.asarray(xy @ self.matrix[:, :2].T + self.matrix[:, 2])


def frame_on(own: FloatArray, mpp: float, alignment: Path | None) -> InstrumentFrame:
    """Return the frame of the H&E picture by a file of its alignment, or that of the instrument's own picture.

    Parameters
    ----------
    own
        ``(2, 3)``: pixels of the instrument's own picture of its positions.
    mpp
        Micrometres per pixel of that picture.
    alignment
        File of an affine map from pixels of the H&E picture to those of the own picture.

    Raises
    ------
    SpotsError
        If the file holds no affine matrix, or one to pixels of no microscope.
    """
    if alignment is None:
        return InstrumentFrame(own, mpp, "")
    read = read_affine(alignment)
    back = read if alignment.name.endswith(XENIUM_ALIGNMENT) else inverted(read)
    sides = mpp / np.linalg.svd(back[:, :2], compute_uv=False)
    if not is_plausible_mpp((float(sides[0]), float(sides[1]))):
        raise SpotsError(
            f"{alignment} gives the H&E picture pixels of {sides[0]:.3g} x {sides[1]:.3g} um, which no microscope has; "
            "get the file again."
        )
    scale = math.sqrt(abs(float(np.linalg.det(back[:, :2]))))
    matrix = np.column_stack([back[:, :2] @ own[:, :2], back[:, :2] @ own[:, 2] + back[:, 2]])
    return InstrumentFrame(matrix, mpp / scale, alignment.name)
