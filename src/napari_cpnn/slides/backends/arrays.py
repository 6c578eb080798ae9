"""Source for pyramids of arrays that are already open, such as those of a napari layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.base import Pixels, SourceInfo, over_white
from napari_cpnn.slides.pyramid import true_levels


class ArraySource:
    """Numpy, dask or zarr arrays as a source.

    Raises
    ------
    SlideError
        If the arrays are not ``(Y, X)``, ``(Y, X, 3)`` or ``(Y, X, 4)``.
    """

    backend = "arrays"

    def __init__(self, levels: Sequence[Any]) -> None:
        if not len(levels):
            raise SlideError("A slide needs at least one array.")
        first = levels[0]
        shape = tuple(int(n) for n in first.shape)
        if len(shape) == 3 and shape[0] in (3, 4) and shape[2] not in (3, 4):
            raise SlideError(f"An array of shape {shape} has its channels first; move them last, (Y, X, channels).")
        if len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] not in (3, 4)):
            raise SlideError(f"An array of shape {shape} is not a slide; it must be (Y, X, 3), (Y, X, 4) or (Y, X).")
        if any(len(level.shape) != len(shape) or level.shape[2:] != first.shape[2:] for level in levels):
            raise SlideError("The levels of a slide must have the same number of channels.")
        shapes = [(int(level.shape[0]), int(level.shape[1])) for level in levels]
        kept = true_levels(shapes)
        self._levels = [levels[i] for i in kept]
        self._alpha = len(shape) == 3 and shape[2] == 4 and first.dtype == np.uint8
        channels = 1 if len(shape) == 2 else 3 if self._alpha else shape[2]
        self.info = SourceInfo(
            level_shapes=tuple(shapes[i] for i in kept),
            channels=channels,
            rgb=channels == 3,
            dtype=np.dtype(first.dtype),
        )

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        try:
            box = self._levels[level][y : y + height, x : x + width]
            # Compute dask arrays here, since this may run inside a dask task or next to a cluster of the caller.
            pixels = np.asarray(box.compute(scheduler="synchronous") if hasattr(box, "dask") else box)
        except (OSError, RuntimeError, ValueError, KeyError) as error:  # any error of the array's storage
            raise SlideError(f"The array behind the slide cannot be read at row {y}, column {x} ({error}).") from error
        return over_white(pixels) if self._alpha else pixels

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        """Do nothing: the arrays belong to the caller."""
