"""Interface between a live mapper and a model: which patches to read, and their predictions.

In names of this package, a *cell* is a patch of the map's grid, given by its flat index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.geometry import Grid
from napari_cpnn.models import Prediction
from napari_cpnn.prediction import Predictor


@dataclass(frozen=True, eq=False)
class Job:
    """Patches to be read and computed together.

    Attributes
    ----------
    cells
        ``(N,)`` flat indices of the requested patches of the map.
    centers_um
        ``(M, 2)`` centres of the patches to read; the first ``N`` are the requested ones, the others dependencies.
    """

    cells: IntArray
    centers_um: FloatArray


class CellValues(NamedTuple):
    """Predictions of patches ``(n,)`` of the map; values that are not ``final`` are replaced once, by final ones."""

    cells: IntArray
    prediction: Prediction[Float32Array]
    final: bool


class CellPredictor(Protocol):
    """Model applied to the grid of one slide.

    Jobs are created by reader threads, and computed sequentially by the model thread.

    Attributes
    ----------
    halo_um
        Margin around a view within which patches are computed too, since values in the view depend on them.
    patches_per_cell
        Approximate number of patches to read per patch of the map.
    held
        ``(n_cells,)`` bool: patches whose own features are computed, and whose final value depends on others.
    pending
        True while patches outside the requested ones are still needed.
    """

    halo_um: float
    patches_per_cell: int
    held: BoolArray

    @property
    def pending(self) -> bool: ...

    def first(self, order: IntArray, pending: BoolArray) -> IntArray:
        """Return ``order``, preceded by those of the ``pending (n_cells,)`` patches that others depend on."""
        ...

    def job(self, cells: IntArray, most: int) -> Job:
        """Create a job for patches of the map, with other patches that are needed, up to about ``most``."""
        ...

    def drop(self, job: Job) -> None:
        """Discard a job that will not be computed."""
        ...

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[CellValues]:
        """Compute a job from its images ``(M, S, S, 3)``, of which ``ok (M,)`` were readable."""
        ...

    def flush(self) -> None:
        """Write reusable results to disk."""
        ...


class PatchCells:
    """Predictor of a model whose predictions depend on the patch alone."""

    halo_um = 0.0
    patches_per_cell = 1
    pending = False

    def __init__(self, predictor: Predictor, grid: Grid) -> None:
        self.held: BoolArray = np.zeros(grid.n_cells, dtype=bool)
        self._predictor, self._grid = predictor, grid

    def first(self, order: IntArray, pending: BoolArray) -> IntArray:  # noqa: ARG002
        return order

    def job(self, cells: IntArray, most: int) -> Job:  # noqa: ARG002
        return Job(cells, self._grid.centers_um(np.stack(np.unravel_index(cells, self._grid.shape), axis=1)))

    def drop(self, job: Job) -> None:
        """Do nothing: a job reserves no patches."""

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[CellValues]:
        if not ok.any():
            return []
        prediction = self._predictor.predict(images if ok.all() else images[ok])
        return [CellValues(job.cells[ok], prediction, final=True)]

    def flush(self) -> None:
        """Do nothing: there are no reusable results."""
