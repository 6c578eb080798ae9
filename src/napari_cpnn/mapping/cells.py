"""What a live mapper asks of a model: which patches to cut for some cells, and what they say."""

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
    """Patches to be cut and computed together.

    Attributes
    ----------
    cells
        ``(N,)`` flat indices of the cells that it is for.
    centers_um
        ``(M, 2)`` centres of the patches; the first ``N`` are the cells' own, others are what those depend on.
    """

    cells: IntArray
    centers_um: FloatArray


class CellValues(NamedTuple):
    """What is known of some cells ``(n,)``; what is not ``final`` is replaced once, by what is."""

    cells: IntArray
    prediction: Prediction[Float32Array]
    final: bool


class CellPredictor(Protocol):
    """A model at work on the grid of one slide.

    Jobs are made by reader threads, and computed by the model thread one after the other.

    Attributes
    ----------
    halo_um
        Cells this far around a view are computed with it, since its values depend on them.
    patches_per_cell
        How many patches a cell costs about.
    held
        ``(n_cells,)``: cells whose own patch has been computed, and whose final value waits for others.
    pending
        Whether patches are to be computed that no cell of an order stands for.
    """

    halo_um: float
    patches_per_cell: int
    held: BoolArray

    @property
    def pending(self) -> bool: ...

    def first(self, order: IntArray, pending: BoolArray) -> IntArray:
        """The ``order`` of cells, with those of the ``pending (n_cells,)`` ones before it that others depend on."""
        ...

    def job(self, cells: IntArray, most: int) -> Job:
        """The patches to cut for some cells; with others that are needed, up to about ``most``."""
        ...

    def drop(self, job: Job) -> None:
        """A job is not going to be computed."""
        ...

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[CellValues]:
        """What follows from the images ``(M, S, S, 3)`` of a job, of which those that are ``ok (M,)`` could be read."""
        ...

    def flush(self) -> None:
        """Keep on disk what other runs can use."""
        ...


class PatchCells:
    """A model whose value of a cell depends on the cell's patch alone."""

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
        """There is nothing to give back."""

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[CellValues]:
        if not ok.any():
            return []
        prediction = self._predictor.predict(images if ok.all() else images[ok])
        return [CellValues(job.cells[ok], prediction, final=True)]

    def flush(self) -> None:
        """Nothing is kept."""
