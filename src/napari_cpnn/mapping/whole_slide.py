"""Map a whole slide or a region of it, locally or on a dask.distributed cluster."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.geometry import Rect
from napari_cpnn.mapping.composition_map import CompositionMap
from napari_cpnn.mapping.live import LiveMapper
from napari_cpnn.mapping.progress import MapProgress
from napari_cpnn.mapping.states import FAILED, UNKNOWN
from napari_cpnn.mapping.streamed import in_blocks, is_streamed, map_streamed
from napari_cpnn.models import Prediction
from napari_cpnn.prediction import PlacePredictor, Predictor, inputs_at
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import Slide

if TYPE_CHECKING:
    from distributed import Client

    from napari_cpnn.models import CPNN

Region = Rect | Sequence[float]
ProgressHook = Callable[[MapProgress], None]

#: Patches per task on a cluster: some tens of seconds on a CPU, and at most 1 MB of results.
_TASK_PATCHES = 1024


def predict_map(
    slide: Slide,
    model: CPNN,
    stride_um: float | None = None,
    region: Region | None = None,
    client: Client | None = None,
    *,
    settings: MappingSettings | None = None,
    on_progress: ProgressHook | None = None,
) -> CompositionMap:
    """Map all tissue of a slide.

    Parameters
    ----------
    slide, model
        As for live mapping.
    stride_um
        Distance between neighbouring patches in um; ``None``: the patch size, so that patches touch.
    region
        ``(y0, x0, y1, x1)`` in slide um; ``None``: the whole slide.
    client
        A ``dask.distributed`` client: blocks of patches run on its workers, which must be able to open the slide's
        path. Only predictions travel back, some 65 numbers per patch.
    settings
        Device, precision, cache. With `reader_processes`, or several GPUs (`n_gpus`), batches of `max_batch` go from
        processes or threads that read to one or several devices.
    on_progress
        Called about twice per second.

    Returns
    -------
    CompositionMap
        The map. Patches that could not be read are `FAILED` in its state, and counted in a :class:`CpnnWarning`.
        Another says if the tissue is unlike that of the training (:meth:`CompositionMap.domain_report`).

    Raises
    ------
    PixelSizeError, SlideError, NoTissueError
        If the slide cannot be mapped.
    MappingError
        If the computation failed, or no patch could be read.

    Examples
    --------
    >>> cmap = nc.predict_map(slide, model, region=(1000, 1000, 1200, 1200))
    >>> cmap.weights.shape == (*cmap.grid.shape, len(model.cell_types))
    True
    """
    settings = settings or MappingSettings()
    if stride_um is not None:
        settings = settings.replace(stride_um=stride_um)
    if region is not None and not isinstance(region, Rect):
        region = Rect(*(float(v) for v in region))
    with LiveMapper(slide, model, settings, region) as mapper:
        problem = ""
        if client is not None:
            _map_on_cluster(mapper, model, client, on_progress)
        elif is_streamed(mapper, model):
            problem = map_streamed(mapper, model, on_progress)
        else:
            _map_here(mapper, on_progress)
        cmap = mapper.map
    n_failed = int((cmap.state == FAILED).sum())
    if n_failed == int(cmap.tissue.sum()):
        raise MappingError(f"No patch of {slide.name} could be read: {problem or mapper.progress().message}")
    if n_failed:
        warnings.warn(f"{n_failed} patches of {slide.name} could not be read.", CpnnWarning, stacklevel=2)
    if foreign := cmap.domain_report().warning:
        warnings.warn(f"{slide.name}: {foreign}", CpnnWarning, stacklevel=2)
    return cmap


def _map_here(mapper: LiveMapper, on_progress: ProgressHook | None) -> None:
    mapper.map_whole_slide()
    while not mapper.wait_until_mapped(0.5):
        if mapper.error is not None:
            raise MappingError(f"Mapping {mapper.slide.name} failed: {mapper.error}") from mapper.error
        if on_progress:
            on_progress(mapper.progress())
    if on_progress:
        on_progress(mapper.progress())


def _map_on_cluster(mapper: LiveMapper, model: CPNN, client: Any, on_progress: ProgressHook | None) -> None:
    from distributed import as_completed  # untyped

    cmap, settings = mapper.map, mapper.settings
    if settings.precision == "int8":
        raise MappingError("int8 is chosen on the patches of one computer; map on a cluster in another precision.")
    patches = in_blocks(cmap, np.flatnonzero(cmap.state == UNKNOWN))  # patches of a task are neighbours
    blocks = [patches[i : i + _TASK_PATCHES] for i in range(0, len(patches), _TASK_PATCHES)]
    inputs = inputs_at(mapper.read_slide, model, mapper.predictor, settings.cache)
    shared = client.scatter((model, inputs.context), broadcast=True)
    futures = {
        client.submit(
            _map_block, mapper.read_slide, shared, settings, cmap.grid.centers_um(cmap.unravel(block)), pure=False
        ): block
        for block in blocks
    }
    started, done = time.monotonic(), 0
    flushed = started
    for future in as_completed(list(futures)):  # type: ignore[no-untyped-call]
        block = futures.pop(future)
        prediction, ok = future.result()
        if prediction is not None:
            cmap.fill(block[ok], *prediction)
        if not ok.all():
            cmap.fail(block[~ok])
        done += len(block)
        if mapper.store is not None and time.monotonic() - flushed > mapper.store.pause_s:
            mapper.store.flush()  # so that a run that is killed goes on from here
            flushed = time.monotonic()
        if on_progress:
            rate = done / (time.monotonic() - started)
            failed = int((cmap.state == FAILED).sum())
            on_progress(MapProgress(done, len(patches), failed, rate, True, done == len(patches), ""))


def _map_block(
    slide: Slide, shared: tuple[CPNN, Any], settings: MappingSettings, centers_um: FloatArray
) -> tuple[Prediction[npt.NDArray[np.float16]] | None, npt.NDArray[np.bool_]]:
    """Predict patches at ``centers_um (N, 2)`` on a worker; return predictions and which patches are readable."""
    model, context = shared
    predictor = _worker_predictor(_Keyed(model, settings.device, settings.precision, settings.engine))
    prediction, ok = PlacePredictor(slide, model, predictor, False, context).predict(centers_um)
    if prediction is None:
        return None, ok
    return Prediction(*(part.astype(np.float16) for part in prediction)), ok


class _Keyed:
    """Hashable model for the worker's cache: equal if fingerprint and device settings are."""

    def __init__(self, model: CPNN, device: str, precision: str, engine: str) -> None:
        self.model = model
        self.key = (model.fingerprint, device, precision, engine)

    def __eq__(self, other: object) -> Any:
        return isinstance(other, _Keyed) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=1)
def _worker_predictor(keyed: _Keyed) -> Predictor:
    """Predictor of a model, created once per worker and reused by its tasks."""
    _, device, precision, engine = keyed.key
    return Predictor(keyed.model, device, precision, engine=engine)
