"""Type aliases of arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: float64: places, pixel sizes, statistics.
FloatArray = npt.NDArray[np.float64]
#: float32: predictions, expression, features.
Float32Array = npt.NDArray[np.float32]
#: Indices and positions.
IntArray = npt.NDArray[np.intp]
#: Counts that must not depend on the platform.
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
#: uint8 pixels, (..., height, width, 3), or 4 with alpha.
Picture = npt.NDArray[np.uint8]
