"""Live mapping of the current view: a planner orders patches, readers read them, one thread runs the model.

Independent of napari and Qt. A viewer calls :meth:`LiveMapper.set_viewport` and polls ``map.revision``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import CpnnError, NoTissueError
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping.composition_map import CompositionMap
from napari_cpnn.mapping.pace import Pace
from napari_cpnn.mapping.patch_predictor import IndependentPatches, Job, predictor_for
from napari_cpnn.mapping.progress import MapProgress
from napari_cpnn.mapping.scheduler import Scheduler, Viewport, Wish
from napari_cpnn.mapping.states import FAILED, UNKNOWN
from napari_cpnn.mapping.store import describe, open_cache
from napari_cpnn.mapping.surrounded_patches import PREDICTORS
from napari_cpnn.prediction import require_patches
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import PatchReader, Slide, TissueMask, find_tissue
from napari_cpnn.untrusted import is_end_of_program

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Batch:
    number: int
    job: Job
    images: npt.NDArray[np.uint8]
    ok: npt.NDArray[np.bool_]

    @property
    def patches(self) -> IntArray:
        return self.job.patches


class LiveMapper:
    """Fill a :class:`CompositionMap` in the current view of a viewer, coarse to fine.

    Threads start with the first viewport and end with :meth:`stop` (or the ``with`` block). The constructor finds the
    tissue and opens the disk cache, which can take a second: do not call it in a GUI thread.

    Parameters
    ----------
    slide
        RGB, 8 bit, with a pixel size.
    model
        The model; a copy is placed on the device.
    settings
        See :class:`~napari_cpnn.settings.MappingSettings`.
    region
        Restrict the map to this rectangle (slide um).
    tissue
        Tissue of the slide, if it is known; by default it is found.

    Attributes
    ----------
    map
        The map being filled.
    tissue
        Tissue mask of the slide.
    error
        The exception that stopped mapping, if any.

    Raises
    ------
    PixelSizeError, SlideError, NoTissueError
        If the slide cannot be mapped; the message is one sentence.

    Examples
    --------
    >>> with nc.mapping.LiveMapper(slide, model) as mapper:
    ...     mapper.map.grid.stride_um
    112.0
    """

    def __init__(
        self,
        slide: Slide,
        model: CPNN,
        settings: MappingSettings | None = None,
        region: Rect | None = None,
        tissue: TissueMask | None = None,
    ) -> None:
        self.settings = settings = settings or MappingSettings()
        self.slide = slide
        require_patches(model)
        stride = settings.stride_um or model.patch.size_um
        self.grid = Grid.over(slide.shape[:2], slide.require_mappable(), stride, region)
        self.tissue = find_tissue(slide, settings.tissue) if tissue is None else tissue
        covered = self.tissue.coverage(self.grid) >= settings.tissue.min_coverage
        if not covered.any():
            raise NoTissueError(f"{slide.name}: no patch of the map is covered by enough tissue.")
        self.read_slide = slide.with_reduced_levels() if settings.reduced_tiles else slide  #: as patches are read
        self.predictor = predictor_for(self.read_slide, model, self.tissue, settings)
        facts = describe(slide, model, self.grid, self.arithmetic, reduced=self.read_slide is not slide)
        self.map = CompositionMap(self.grid, model.decoder(), covered, facts, model.trust, self.tissue)
        self.store = open_cache(self.map, self.read_slide, model, settings, self.arithmetic) if settings.cache else None
        self.error: Exception | None = None
        #: Niceness of the threads on Linux; a viewer sets it before its first view.
        self.nice = 0
        self._reader = PatchReader(self.read_slide, model.patch)
        kind = PREDICTORS.get(model.input_kind, IndependentPatches)
        self._model = kind(self.read_slide, model, self.predictor, self.map, self.tissue, settings)
        self._scheduler = Scheduler(self.grid, self.map.lattice, settings, self._model.halo_um)
        self._wish, self._condition = Wish(), threading.Condition()
        self._order: IntArray = np.empty(0, dtype=np.intp)
        self._planned, self._generation = True, 0  # whether the order matches the current view; number of views
        self._wanted = self._in_view = np.zeros(self.grid.n_cells, dtype=bool)
        self._busy = np.zeros(self.grid.n_cells, dtype=bool)  # patches being read, queued or computed
        self._ready: list[_Batch] = []
        self._reading = self._claimed = 0  # numbers of batches that are being read, and of all handed to readers
        self._lead: int | None = None  # number of the first batch of the current order, until it is read
        self._computing = self._paused = self._stopped = False
        first = 16 if self.predictor.device.type == "cpu" else 64
        self._pace = Pace(min(first, settings.max_batch), settings.batch_seconds)
        self._read_problem, self._threads = "", list[threading.Thread]()

    # -- public interface --------------------------------------------------------------------------------

    def set_viewport(self, viewport: Viewport | None) -> None:
        """Map a new view immediately; ``None`` for no view (batches in progress are completed)."""
        if viewport != self._wish.viewport or not self._threads:
            self._ask(viewport=viewport)

    def map_areas(self, areas: Sequence[Rect]) -> None:
        """Map all patches in these rectangles (slide um) after the view."""
        self._ask(areas=tuple(areas))

    def map_whole_slide(self, on: bool = True) -> None:
        """Map the remaining tissue of the slide after the view."""
        self._ask(whole_slide=on)

    def _ask(self, **changes: Any) -> None:
        with self._condition:
            if self._idle():
                self._pace.restart()
            self._wish, self._planned = self._wish._replace(**changes), False
            self._condition.notify_all()
        self._start()

    def pause(self) -> None:
        """Pause mapping after the batches in progress."""
        with self._condition:
            self._paused = True

    def resume(self) -> None:
        """Resume mapping after :meth:`pause`."""
        with self._condition:
            self._pace.restart()
            self._paused = False
            self._condition.notify_all()

    @property
    def batch_size(self) -> int:
        """Number of patches of the next batch; adapts to the speed of the device."""
        return self._pace.batch_size

    @property
    def n_computed(self) -> int:
        """Number of patches computed so far."""
        return self._pace.n_patches

    @property
    def device(self) -> str:
        """Device of the network: ``cpu``, ``cuda:0``, ``mps``."""
        return str(self.predictor.device)

    @property
    def arithmetic(self) -> str:
        """Precision of the network, ``float32`` or ``bfloat16``, and engine, if it is not torch."""
        return self.predictor.arithmetic

    def stop(self) -> None:
        """End the threads after the current batch and write the cache; the mapper cannot be restarted."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        for thread in set(self._threads) - {threading.current_thread()}:
            thread.join()
        self._model.flush()
        if self.store is not None:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def progress(self) -> MapProgress:
        """Report the progress; cheap, callable from any thread."""
        with self._condition:
            done = (self.map.state.reshape(-1)[self._wanted] != UNKNOWN) | self._model.held[self._wanted]
            return MapProgress(
                done=int(done.sum()),
                wanted=int(self._wanted.sum()),
                failed=int((self.map.state == FAILED).sum()),
                patches_per_second=self._pace.patches_per_second(),
                running=not (self._paused or self._stopped),
                idle=self._idle(),
                message=self._message(),
                network_share=self._pace.network_share(),
            )

    def wait_until_mapped(self, timeout_s: float | None = None) -> bool:
        """Wait until the current view is mapped; return ``False`` on timeout or failure."""
        with self._condition:
            self._condition.wait_for(lambda: self._idle() or self._stopped, timeout_s)
            return self._idle() and self.error is None

    # -- planning ------------------------------------------------------------------------------------------

    def _plan_loop(self) -> None:
        """Convert the latest view to an order of patches; on a large slide this is too slow for the GUI thread."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopped or not self._planned)
                if self._stopped:
                    return
                wish = self._wish
            viewport = wish.viewport
            targets = self._scheduler.order(viewport, self.map.tissue, wish.whole_slide, wish.areas)
            in_view = np.zeros(self.grid.shape, dtype=bool)
            in_view[(...,) if viewport is None else self.grid.window(viewport.rect)] = True
            with self._condition:
                if wish == self._wish:
                    self._take(targets, in_view.reshape(-1))
                    self._planned = True
                    self._condition.notify_all()

    def _take(self, targets: IntArray, in_view: npt.NDArray[np.bool_]) -> None:
        """Replace the order (lock held); queued patches outside the view are returned to the order."""
        self._wanted[:] = False
        self._wanted[targets] = True
        self._in_view = in_view & self._wanted
        for batch in [b for b in self._ready if not self._in_view[b.patches].any()]:
            self._ready.remove(batch)
            self._busy[batch.patches] = False
            self._model.drop(batch.job)
        self._put_in_order(targets)
        self._generation += 1
        self._lead = self._claimed if self._order.size else None

    def _put_in_order(self, patches: IntArray) -> None:
        """Set the order to the uncomputed ones of ``patches`` and their dependencies (lock held)."""
        pending = (self.map.state.reshape(-1) == UNKNOWN) & ~self._busy & ~self._model.held
        self._order = self._model.first(patches[pending[patches]], pending)

    def _idle(self) -> bool:
        busy = self._order.size or self._ready or self._reading or self._computing or self._model.pending
        return self._planned and not busy

    def _message(self) -> str:
        of_store = "" if self.store is None else self.store.problem
        return str(self.error or self._read_problem or of_store or "")

    # -- threads -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._condition:  # stop(), in another thread, joins those that run
            if self._threads or self._stopped:
                return
            stores = [] if self.store is None else [self._store_loop]
            try:
                for loop in (self._plan_loop, *[self._read_loop] * self.settings.readers, self._model_loop, *stores):
                    name = f"napari-cpnn {loop.__name__.strip('_')}"
                    thread = threading.Thread(target=self._guard, args=(loop,), name=name, daemon=True)
                    thread.start()
                    self._threads.append(thread)
            except RuntimeError as error:  # the system has no thread left
                self._fail(error)

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; an exception stops mapping and is reported through :attr:`error`."""
        if self.nice and sys.platform == "linux":  # niceness is per thread on Linux only
            thread = threading.get_native_id()  # inherited by threads of torch
            os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + self.nice))
        try:
            loop()
        except Exception as error:
            if not is_end_of_program(error):
                log.exception("Mapping of %s stopped", self.slide.name)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._condition:
            self.error, self._stopped = error, True
            self._condition.notify_all()

    def _read_loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopped or self._may_read())
                if self._stopped:
                    return
                n = max(1, self.batch_size // self._model.reads_per_patch)
                patches, self._order = self._order[:n], self._order[n:]
                self._busy[patches] = True
                number, generation, most = self._claimed, self._generation, self.batch_size
                self._reading, self._claimed = self._reading + 1, self._claimed + 1
            try:
                job = self._model.job(patches, most)
                images, ok = self._read(job)
            except Exception:
                with self._condition:
                    self._reading -= 1
                raise  # stops mapping
            with self._condition:
                self._reading -= 1
                if self._lead == number:
                    self._lead = None
                if generation == self._generation or self._in_view[patches].any() or not patches.size:
                    self._ready.append(_Batch(number, job, images, ok))
                else:  # the view has changed in the meantime; patches that are still wanted are ordered again
                    self._busy[patches] = False
                    self._model.drop(job)
                    self._put_in_order(np.concatenate([self._order, patches[self._wanted[patches]]]))
                self._condition.notify_all()

    def _may_read(self) -> bool:
        # One batch more than readers keeps the model busy, and a new view is still served at once.
        room = len(self._ready) + self._reading <= self.settings.readers
        wanted = bool(self._order.size) or (self._model.pending and not self._reading)
        # The model waits for the first batch of a new order, so a queue full of older batches must not block it.
        return self._planned and not self._paused and wanted and (room or self._lead == self._claimed)

    def _may_compute(self) -> bool:
        # The first batch of an order is the coarse overview of the view: it is always computed first.
        return self._planned and bool(self._ready) and self._lead is None and not self._paused

    def _read(self, job: Job) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        try:
            return self._reader.read(job.centers_um)
        except (CpnnError, OSError, MemoryError) as error:
            log.warning("%s: %s", self.slide.name, error)
            self._read_problem = str(error)
            n, size = len(job.centers_um), self._reader.spec.size_px
            return np.zeros((n, size, size, 3), dtype=np.uint8), np.zeros(n, dtype=bool)

    def _model_loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopped or self._may_compute())
                if self._stopped:
                    return
                batch = min(self._ready, key=lambda b: b.number)
                self._ready.remove(batch)
                self._computing = True
                self._condition.notify_all()
            self._compute(batch)
            self._reader.give_back(batch.images)
            with self._condition:
                self._computing = False
                self._busy[batch.patches] = False
                if self._idle():
                    self._reader.release()
                self._condition.notify_all()

    def _compute(self, batch: _Batch) -> None:
        own = batch.ok[: len(batch.patches)]
        if not own.all():
            self.map.fail(batch.patches[~own])
            n = int((self.map.state == FAILED).sum())
            self._read_problem = self._read_problem or f"{n} patches could not be read from {self.slide.name}."
        start = time.monotonic()
        results = self._model.predict(batch.job, batch.images, batch.ok)
        seconds = time.monotonic() - start
        for patches, prediction, final in results:
            self.map.fill(patches, *prediction, final=final)
        if batch.ok.any():
            limit = min(self.settings.max_batch, self.predictor.max_batch or self.settings.max_batch)
            with self._condition:
                self._pace.note(int(batch.ok.sum()), seconds, limit)

    def _store_loop(self) -> None:
        assert self.store is not None  # noqa: S101
        while True:
            with self._condition:
                if self._condition.wait_for(lambda: self._stopped, self.store.pause_s):
                    return
            self._model.flush()
            self.store.flush()
