"""Map a whole slide at the speed of the device: reader processes, batches of one size, one or several GPUs."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import CpnnWarning, MappingError, SlideError
from napari_cpnn.mapping.composition_map import CompositionMap
from napari_cpnn.mapping.live import LiveMapper
from napari_cpnn.mapping.pace import Pace
from napari_cpnn.mapping.pipeline import Done, Lane, Pipeline
from napari_cpnn.mapping.progress import MapProgress
from napari_cpnn.mapping.scheduler import BLOCK
from napari_cpnn.mapping.states import FAILED, UNKNOWN
from napari_cpnn.models import choose_devices, n_visible_gpus
from napari_cpnn.prediction import DeviceStream, Predictor, pinned
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import PatchReader, PatchRing, ReaderProcess, ReaderThread, RingReader, Slide

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN

#: Fewer processes are not started by themselves, since as many threads do as well; nor are more.
_LEAST_PROCESSES, _MOST_PROCESSES = 3, 32
#: Between calls of what hears of the progress.
_REPORT_SECONDS = 0.5


def is_streamed(mapper: LiveMapper, model: CPNN) -> bool:
    """Whether a whole slide is mapped here rather than by the mapper's own threads.

    So it is with reader processes or several GPUs, by choice as long as it has not been tried on a card. A model that
    looks around its patches is not: which patches it needs follows from those that it has seen.
    """
    on_gpu, processes = mapper.predictor.device.type == "cuda", mapper.settings.reader_processes
    wanted = processes > 0 or (on_gpu and (processes < 0 or mapper.settings.n_gpus != 1))
    return model.input_kind == "patch" and wanted


def n_processes(slide: Slide, settings: MappingSettings, device_type: str, share_of_gpus: float = 1.0) -> int:
    """Number of processes that read; 0 for threads.

    Other programs, such as the workers of a cohort, are left the cores for the GPUs that this one does not use.
    """
    if settings.reader_processes >= 0:
        return settings.reader_processes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Arrays in memory would be copied to each process, and need no decoding.
    if device_type != "cuda" or slide.backend == "arrays":
        return 0
    n = int((cores - 1) * share_of_gpus)
    return min(n, _MOST_PROCESSES) if n >= _LEAST_PROCESSES else 0


def in_blocks(cmap: CompositionMap, patches: IntArray) -> IntArray:
    """Order patches of a map block by block, so that those of a batch are neighbours and share tiles of the slide."""
    row, col = np.divmod(patches, cmap.grid.shape[1])
    return patches[np.lexsort((col, row, col // BLOCK, row // BLOCK))]


def map_streamed(mapper: LiveMapper, model: CPNN, on_progress: Callable[[MapProgress], None] | None = None) -> str:
    """Fill the map of a mapper whose threads were not started; return why patches could not be read, if so.

    Raises
    ------
    MappingError
        If the computation failed. What was mapped until then is in the map, and in its cache.
    """
    settings = mapper.settings
    devices = choose_devices(settings.device, settings.n_gpus)
    others = [Predictor(model, str(device), settings.precision, engine=settings.engine) for device in devices[1:]]
    lanes = [DeviceStream(one, settings.max_batch, graph=settings.cuda_graphs) for one in (mapper.predictor, *others)]
    return fill(mapper, lanes, on_progress)


def fill(mapper: LiveMapper, lanes: Sequence[Lane], on_progress: Callable[[MapProgress], None] | None = None) -> str:
    """Fill the map of a mapper by these devices, as :func:`map_streamed`."""
    cmap, settings = mapper.map, mapper.settings
    patches = in_blocks(cmap, np.flatnonzero(cmap.state == UNKNOWN))
    if not patches.size:
        return ""
    batches = [patches[start : start + settings.max_batch] for start in range(0, len(patches), settings.max_batch)]
    centers = [cmap.grid.centers_um(cmap.unravel(batch)) for batch in batches]
    pace, problem, n_done = Pace(settings.max_batch, settings.batch_seconds), "", 0
    flushed, reported = time.monotonic(), 0.0

    def report(*, idle: bool) -> None:
        if on_progress:
            failed, rate = int((cmap.state == FAILED).sum()), pace.patches_per_second()
            message = problem or (mapper.store.problem if mapper.store is not None else "") or ""
            share = pace.network_share()
            on_progress(MapProgress(n_done, len(patches), failed, rate, True, idle, message, share))

    with (
        _readers(mapper, lanes, len(batches)) as (ring, readers),
        contextlib.closing(_told(mapper, Pipeline(ring, readers, lanes).run(centers))) as through,
    ):
        for some in through:
            for done in some:
                _enter(cmap, batches[done.number], done)
                if done.prediction is not None:
                    pace.note(int(done.ok.sum()), done.seconds / len(lanes), settings.max_batch)
                problem, n_done = problem or done.problem, n_done + len(done.ok)
            if mapper.store is not None and time.monotonic() - flushed > mapper.store.pause_s:
                mapper.store.flush()
                flushed = time.monotonic()
            if time.monotonic() - reported > _REPORT_SECONDS:
                report(idle=False)
                reported = time.monotonic()
    n_failed = int((cmap.state == FAILED).sum())
    if n_failed and not problem:
        problem = f"{n_failed} patches could not be read from {mapper.slide.name}."
    report(idle=True)
    return problem


def _enter(cmap: CompositionMap, patches: IntArray, done: Done) -> None:
    """Enter a batch of patches into the map."""
    if done.prediction is not None:
        cmap.fill(patches[done.ok], *done.prediction)
    if not done.ok.all():
        cmap.fail(patches[~done.ok])


def _told(mapper: LiveMapper, through: Iterator[list[Done]]) -> Generator[list[Done], None, None]:
    try:
        yield from through
    except Exception as error:
        is_kept = mapper.store is not None and not mapper.store.problem
        kept = " What was mapped until then is kept, and the next run goes on from there." if is_kept else ""
        raise MappingError(f"Mapping {mapper.slide.name} failed: {error}{kept}") from error


@contextlib.contextmanager
def _readers(mapper: LiveMapper, lanes: Sequence[Lane], n_batches: int) -> Iterator[tuple[PatchRing, list[RingReader]]]:
    """A ring of slots, in memory that a GPU copies from, and what fills it."""
    settings, slide, spec = mapper.settings, mapper.read_slide, mapper.predictor.model.patch
    under_way = sum(lane.depth for lane in lanes) + 1
    device = mapper.predictor.device
    wanted = min(n_processes(slide, settings, device.type, len(lanes) / n_visible_gpus()), n_batches)
    n = wanted or min(settings.readers, n_batches)

    def ring_of(n_readers: int, *, shared: bool) -> PatchRing:
        return PatchRing(n_readers + under_way, settings.max_batch, spec.size_px, shared=shared)

    try:
        ring = ring_of(n, shared=wanted > 0)
    except SlideError as error:
        if settings.reader_processes > 0:
            raise
        warnings.warn(f"{error} Threads read for now, which is slower.", CpnnWarning, stacklevel=2)
        wanted, n = 0, min(settings.readers, n_batches)
        ring = ring_of(n, shared=False)
    with ring, contextlib.ExitStack() as stack, pinned(ring.array, device):
        readers: list[RingReader] = []
        if wanted:
            for _ in range(n):
                readers.append(ReaderProcess(slide, spec, ring))
                stack.callback(readers[-1].close)
        else:
            reader = PatchReader(slide, spec)
            readers = [ReaderThread(reader, ring) for _ in range(n)]
        yield ring, readers
