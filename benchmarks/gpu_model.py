"""What bounds mapping on a GPU, from what is measured without one: ``python benchmarks/gpu_throughput.py --model``.

The real pipeline (reader processes or threads, ring, thread of the device) runs in front of a stand-in device of set
speed: it takes as long as a card of that speed and a bus of that bandwidth would, and sleeps meanwhile, so that it
takes no core. Measured are the processor time of each stage for one patch, and the rate by the clock with threads and
with processes, in turns. From the processor times follows which stage bounds the map at which number of readers. What
the model leaves out: that readers share the memory's bandwidth, that the processor's clock falls with the cores in
use, and the time that the program takes to start the kernels of a network.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_cpnn.geometry import Grid, PatchSpec
from napari_cpnn.mapping import CompositionMap, Pipeline
from napari_cpnn.models import Prediction
from napari_cpnn.slides import PatchReader, PatchRing, ReaderProcess, ReaderThread, Slide, find_tissue, open_slide


class StandIn:
    """A card that predicts ``rate`` patches/s and copies ``bandwidth`` bytes/s, both at once, without taking a core."""

    depth = 2

    def __init__(
        self,
        rate: float = math.inf,
        bandwidth: float = math.inf,
        outputs: tuple[int, int] = (22, 16),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = f"stand-in of {rate:,.0f} patches/s"
        self._rate, self._bandwidth, self._outputs, self._clock, self._sleep = rate, bandwidth, outputs, clock, sleep
        self._copied = self._computed = -math.inf  # when bus and card have done all that they were given

    def start(self, images: np.ndarray) -> tuple[int, float]:
        """Number of patches, and when their predictions are there."""
        self._copied = max(self._clock(), self._copied) + images.nbytes / self._bandwidth
        self._computed = max(self._copied, self._computed) + len(images) / self._rate
        return len(images), self._computed

    def finish(self, flight: tuple[int, float]) -> Prediction:
        n, ready = flight
        self._sleep(max(0.0, ready - self._clock()))
        weights, programs = (np.full((n, size), 1 / size, np.float32) for size in self._outputs)
        return Prediction(weights, programs, np.zeros(n, np.float32))


def bound(rates: Mapping[str, float], n_readers: int) -> tuple[float, str]:
    """Patches/s of the map and the stage that bounds it, of the rates of stages; ``reading`` is that of one reader."""
    all_rates = {name: rate * (n_readers if name == "reading" else 1) for name, rate in rates.items()}
    slowest = min(all_rates, key=all_rates.__getitem__)
    return all_rates[slowest], slowest


def cores_for(target: float, rates: Mapping[str, float]) -> float:
    """Cores that ``target`` patches/s take: those of the readers, and that of the program which hands batches on."""
    return target / rates["reading"] + target / rates["program"]


def blocks(slide: Slide, spec: PatchSpec, batch: int, most: int) -> list[np.ndarray]:
    """Centres of tissue patches in batches, block by block as a whole slide is mapped."""
    grid = Grid.over(slide.shape[:2], slide.require_mappable(), spec.size_um)
    row, col = np.nonzero(find_tissue(slide).coverage(grid) >= 0.5)
    order = np.lexsort((col, row, col // 32, row // 32))[:most]
    centers = grid.centers_um(np.stack([row, col], axis=1)[order])
    return [centers[i : i + batch] for i in range(0, len(centers), batch)]


def reading_cost(slide: Slide, spec: PatchSpec, batches: Sequence[np.ndarray]) -> float:
    """Patches per second of processor time of one reader, on a slide that was just opened."""
    with open_slide(slide.path) as fresh:
        reader = PatchReader(fresh, spec)
        images = np.empty((len(batches[0]), spec.size_px, spec.size_px, 3), np.uint8)
        reader.read_into(batches[-1][:1], images[:1])  # what is made once
        start = time.thread_time()
        for centers in batches:
            assert reader.read_into(centers, images[: len(centers)]).all()
        return sum(map(len, batches)) / (time.thread_time() - start)


class NoReading:
    """Takes no time to read."""

    def read(self, _slot: int, centers: np.ndarray) -> tuple[np.ndarray, str]:
        return np.ones(len(centers), bool), ""

    def close(self) -> None:
        """Nothing is open."""


def program_cost(decoder, spec: PatchSpec, batch: int, n: int = 40_000) -> float:
    """Patches per second of processor time of the program: handing batches on, and filling the map."""
    side = math.ceil(math.sqrt(n))
    grid = Grid.over((side * spec.size_px,) * 2, (spec.mpp, spec.mpp), spec.size_um)
    cmap = CompositionMap(grid, decoder, np.ones(grid.shape, bool))
    patches = np.arange(grid.n_cells)
    parts = [patches[i : i + batch] for i in range(0, len(patches), batch)]
    card = StandIn(outputs=(len(decoder.cell_types), len(decoder.programs)))
    ring = PatchRing(6, batch, 8, shared=False)  # nobody looks at the pixels
    start = time.process_time()
    pipeline = Pipeline(ring, [NoReading() for _ in range(3)], [card])
    for some in pipeline.run([grid.centers_um(cmap.unravel(part)) for part in parts]):
        for done in some:
            cmap.fill(parts[done.number], *done.prediction)
    return grid.n_cells / (time.process_time() - start)


def by_the_clock(slide: Slide, spec: PatchSpec, batches: Sequence[np.ndarray], kind: str, n: int, card) -> float:
    """Patches/s by the clock of the pipeline with ``n`` readers, from when each of them has read once."""
    size = max(map(len, batches))
    with PatchRing(n + card.depth + 1, size, spec.size_px, shared=kind == "processes") as ring:
        if kind == "processes":
            readers = [ReaderProcess(slide, spec, ring) for _ in range(n)]
        else:
            reader = PatchReader(slide, spec)
            readers = [ReaderThread(reader, ring) for _ in range(n)]
        for reader in readers:  # started and warm
            reader.read(0, batches[-1])
        start = time.perf_counter()
        for _ in Pipeline(ring, readers, [card]).run(batches):
            pass
        return sum(map(len, batches)) / (time.perf_counter() - start)


def tables(
    path: Path,
    decoder,
    *,
    device: float,
    bandwidth: float,
    readers: Sequence[int],
    batch: int,
    patches: int,
    rounds: int,
    seconds: float,
) -> list[tuple[str, list[str], list[list[object]]]]:
    """All tables: title, header, rows. ``seconds`` bounds the turns by the clock; each kind has one turn at least."""
    kinds = {"20x, pixels copied": PatchSpec(224, 0.5), "40x, resampled from 448 px": PatchSpec(224, 1.0)}
    stages, ahead, clock = [], [], []
    for name, spec in kinds.items():
        with open_slide(path) as slide:
            batches = blocks(slide, spec, batch, patches)
            rates = {
                "reading": statistics.median(reading_cost(slide, spec, batches) for _ in range(rounds)),
                "program": statistics.median(program_cost(decoder, spec, 256) for _ in range(rounds)),
                "copying": bandwidth / (spec.size_px**2 * 3),
                "device": device,
            }
            whole = PatchSpec(round(spec.size_um / slide.mpp[0]), slide.mpp[0])
            whole_rate = statistics.median(reading_cost(slide, whole, batches) for _ in range(rounds))
            cores = [f"{cores_for(device, {**rates, 'reading': rate}):.1f}" for rate in (rates["reading"], whole_rate)]
            shown = [f"{rate:,.0f}" for rate in (rates["reading"], whole_rate, *list(rates.values())[1:])]
            stages.append([name, *shown, *cores])
            for n in readers:
                rate, slowest = bound(rates, n)
                ahead.append([name, n, f"{rate:,.0f}", slowest, f"{rate / device:.2f}"])
            clock += turns(slide, spec, batches, name, rounds, seconds / len(kinds), rates["reading"])
    return [
        (
            "Stages, patches per second (reading and program: of processor time, of one reader)",
            [
                *("slide", "reading", "the same without resampling", "program", "copying", "device"),
                *(f"cores for {device:,.0f}/s", "without resampling"),
            ],
            stages,
        ),
        (
            f"Ahead: in front of a device of {device:,.0f} patches/s, a core for each reader and one for the program",
            ["slide", "readers", "patches/s", "bounded by", "share of the device"],
            ahead,
        ),
        (
            "Measured here, in turns, medians: patches/s by the clock, in front of a stand-in",
            ["slide", "device", "1 thread", "2 threads", "1 process", "2 processes", "2 processes / 2 threads"],
            clock,
        ),
    ]


def turns(
    slide: Slide, spec: PatchSpec, batches: Sequence[np.ndarray], name: str, rounds: int, seconds: float, rate: float
) -> list[list[object]]:
    """Threads and processes in turn, in front of a device that never waits, and of one of half a reader's rate."""
    kinds = [("threads", 1), ("threads", 2), ("processes", 1), ("processes", 2)]
    rows, end = [], time.monotonic() + seconds
    for label, speed in (("without limit", math.inf), (f"{rate / 2:,.0f}/s", rate / 2)):
        found: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
        for turn in range(rounds):
            if turn and time.monotonic() > end:
                break
            for kind, n in kinds:
                found[kind, n].append(by_the_clock(slide, spec, batches, kind, n, StandIn(speed)))
        pairs = zip(found["processes", 2], found["threads", 2], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        medians = [f"{statistics.median(found[kind]):,.0f}" for kind in kinds]
        rows.append([name, label, *medians, f"{ratio:.2f}"])
    return rows
