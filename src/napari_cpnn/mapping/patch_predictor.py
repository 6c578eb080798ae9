"""Interface between a live mapper and a model: which patches to read, and their predictions.

Patches of the map are given by their flat index in its grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping.composition_map import CompositionMap
from napari_cpnn.models import CPNN, Prediction
from napari_cpnn.prediction import Predictor, inputs_at
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import PatchReader, Slide, TissueMask


@dataclass(frozen=True, eq=False)
class Job:
    """Patches to be read and computed together.

    Attributes
    ----------
    patches
        ``(N,)`` flat indices of the requested patches of the map.
    centers_um
        ``(M, 2)`` centres of the patches to read; the first ``N`` are the requested ones, the others dependencies.
    """

    patches: IntArray
    centers_um: FloatArray


class PatchValues(NamedTuple):
    """Predictions of patches ``(n,)`` of the map; values that are not ``final`` are replaced once, by final ones."""

    patches: IntArray
    prediction: Prediction[Float32Array]
    final: bool


class PatchPredictor(Protocol):
    """Model applied to the grid of one slide.

    Jobs are created by reader threads, and computed sequentially by the model thread.

    Attributes
    ----------
    halo_um
        Margin around a view within which patches are computed too, since values in the view depend on them.
    reads_per_patch
        Approximate number of patches to read per patch of the map.
    held
        ``(n_cells,)`` bool: patches whose own features are computed, and whose final value depends on others.
    pending
        True while patches outside the requested ones are still needed.
    """

    halo_um: float
    reads_per_patch: int
    held: BoolArray

    @property
    def pending(self) -> bool: ...

    def first(self, order: IntArray, pending: BoolArray) -> IntArray:
        """Return ``order``, preceded by those of the ``pending (n_cells,)`` patches that others depend on."""
        ...

    def job(self, patches: IntArray, most: int) -> Job:
        """Create a job for patches of the map, with other patches that are needed, up to about ``most``."""
        ...

    def drop(self, job: Job) -> None:
        """Discard a job that will not be computed."""
        ...

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[PatchValues]:
        """Compute a job from its images ``(M, S, S, 3)``, of which ``ok (M,)`` were readable."""
        ...

    def flush(self) -> None:
        """Write reusable results to disk."""
        ...


class IndependentPatches:
    """Predictor of any kind of model, patch by patch; see :class:`PatchPredictor`.

    What a prediction depends on besides the patch is read by the inputs of the model
    (:mod:`napari_cpnn.prediction.inputs`).

    Parameters
    ----------
    slide, model, predictor
        The slide, the model, and the model on its device.
    cmap
        The map to fill.
    tissue, settings
        Settings of the map, and the tissue for them.
    """

    halo_um = 0.0
    reads_per_patch = 1
    pending = False

    def __init__(
        self,
        slide: Slide,
        model: CPNN,
        predictor: Predictor,
        cmap: CompositionMap,
        tissue: TissueMask,  # noqa: ARG002
        settings: MappingSettings,
    ) -> None:
        self.held: BoolArray = np.zeros(cmap.grid.n_cells, dtype=bool)
        self._map, self._inputs = cmap, inputs_at(slide, model, predictor, settings.cache)

    def first(self, order: IntArray, pending: BoolArray) -> IntArray:  # noqa: ARG002
        return order

    def job(self, patches: IntArray, most: int) -> Job:  # noqa: ARG002
        return Job(patches, self._map.grid.centers_um(self._map.unravel(patches)))

    def drop(self, job: Job) -> None:
        """Do nothing: a job reserves no patches."""

    def predict(self, job: Job, images: npt.NDArray[np.uint8], ok: BoolArray) -> list[PatchValues]:
        if not ok.any():
            return []
        prediction = self._inputs.predict(images if ok.all() else images[ok], job.centers_um[ok])
        return [PatchValues(job.patches[ok], prediction, final=True)]

    def flush(self) -> None:
        self._inputs.flush()


def predictor_for(slide: Slide, model: CPNN, tissue: TissueMask, settings: MappingSettings) -> Predictor:
    """Make a model ready to map a slide; in int8, by patches of its tissue."""
    predictor = Predictor(model, settings.device, settings.precision, engine=settings.engine)
    if settings.precision == "int8":
        predictor.quantize(sample_patches(slide, model, tissue))
    return predictor


def sample_patches(slide: Slide, model: CPNN, tissue: TissueMask, most: int = 128) -> npt.NDArray[np.uint8]:
    """Read tissue patches, spread over the slide at random; the same each time: ``(N, S, S, 3)``."""
    grid = Grid.over(slide.shape[:2], slide.require_mappable(), model.patch.size_um / 2)
    covered = np.flatnonzero(tissue.coverage(grid) >= 0.5)
    chosen = np.random.default_rng(0).permutation(covered)[:most]
    images, ok = PatchReader(slide, model.patch).read(
        grid.centers_um(np.column_stack(np.divmod(chosen, grid.shape[1])))
    )
    return images[ok]
