"""Mapping on a GPU: the bare network, the pipeline over it, and which of reading, copying and network bounds it.

    python benchmarks/gpu_throughput.py [--backbone stnet] [--side 100000] [--readers 1 2 4 8]
    python benchmarks/gpu_throughput.py --device cpu --side 20000 --batch 8 16 --seconds 3    (to try it without one)

The first table is of the network on ready tensors, channels-last and in the best precision of the device, without and
with ``torch.compile``. The second times each stage alone, for as many reader threads as given:

reading    tiles -> patches of a generated slide, as ``LiveMapper``'s readers cut them, nothing computed
copying    uint8 patches to the device by pinned memory, and normalised there
network    as in the first table, without compiling, at the batch of the pipeline
pipeline   ``LiveMapper`` over the slide, all together; stopped after ``--seconds`` times ten

The slowest stage is what bounds the pipeline. Target: pipeline / network >= 0.90.
"""

from __future__ import annotations

import argparse
import copy
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import print_table, random_model, scratch, sparse_slide
from napari_cpnn.errors import MappingError
from napari_cpnn.mapping import DONE, LiveMapper
from napari_cpnn.prediction import Predictor
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import PatchReader, Slide, open_slide


def rate(work: Callable[[], int], seconds: float, finish: Callable[[], None]) -> float:
    """Patches per second of repeated work, after one call to warm up."""
    work()
    finish()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        done += work()
    finish()
    return done / (time.perf_counter() - start)


class Bare:
    """The network on the device, without anything around it."""

    def __init__(self, model, predictor: Predictor) -> None:
        import torch

        self.torch, self.device = torch, predictor.device
        self.bfloat16 = predictor.precision == "bfloat16"
        network = copy.deepcopy(model.backbone).eval().requires_grad_(False)
        self.network = network.to(predictor.device, memory_format=torch.channels_last)

    def finish(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def rate(self, batch: int, seconds: float, network=None) -> float:
        torch, network = self.torch, self.network if network is None else network
        x = torch.rand(batch, 3, 224, 224).to(self.device, memory_format=torch.channels_last)

        def work() -> int:
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                network(x)
            return batch

        return rate(work, seconds, self.finish)

    def compiled(self, batch: int, seconds: float) -> tuple[float, float]:
        """Patches per second, and seconds until the first batch is there."""
        self.torch.compiler.reset()
        network = self.torch.compile(self.network)
        start = time.perf_counter()
        self.rate(batch, 0.0, network)
        first = time.perf_counter() - start
        return self.rate(batch, seconds, network), first

    def copying(self, predictor: Predictor, batch: int, seconds: float) -> float:
        torch = self.torch
        images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)

        def work() -> int:
            with torch.inference_mode():
                ready = torch.from_numpy(images)
                if self.device.type == "cuda":
                    ready = ready.pin_memory().to(self.device, non_blocking=True)
                predictor.model.normalize(ready)
            return batch

        return rate(work, seconds, self.finish)


def reading(slide: Slide, mapper: LiveMapper, n_readers: int, batch: int, seconds: float) -> float:
    """Readers alone, over the map's order; they begin anew when they are through."""
    order = np.flatnonzero(mapper.map.tissue)
    row, col = np.divmod(order, mapper.grid.shape[1])
    order = order[np.lexsort((col, row, col // 8, row // 8))]
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    reader, lock = PatchReader(slide, mapper.predictor.model.patch), threading.Lock()
    place, done = [0], [0]
    end = time.perf_counter() + seconds

    def work() -> None:
        while time.perf_counter() < end:
            with lock:
                cells, place[0] = batches[place[0] % len(batches)], place[0] + 1
            reader.read(mapper.grid.centers_um(mapper.map.unravel(cells)))
            with lock:
                done[0] += len(cells)

    threads = [threading.Thread(target=work) for _ in range(n_readers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done[0] / (time.perf_counter() - start)


def pipeline(mapper: LiveMapper, seconds: float) -> float:
    """Patches per second of the whole map, from its second batch on."""
    marks: list[tuple[float, int]] = []
    mapper.map.changed.connect(lambda _: marks.append((time.perf_counter(), int((mapper.map.state == DONE).sum()))))
    mapper.map_whole_slide()
    mapper.wait_until_mapped(seconds)
    mapper.pause()
    (t0, n0), (t1, n1) = marks[0], marks[-1]
    return (n1 - n0) / (t1 - t0)


def bare_table(bare: Bare, batches: list[int], seconds: float, *, compile_too: bool) -> list[list[object]]:
    rows: list[list[object]] = []
    for batch in batches:
        row: list[object] = [batch, f"{bare.rate(batch, seconds):.0f}"]
        if compile_too:
            try:
                fast, first = bare.compiled(batch, seconds)
                row += [f"{fast:.0f}", f"{first:.0f}"]
            except Exception as error:  # noqa: BLE001 -- whatever inductor misses: a compiler, Triton, a header
                row += [f"not possible ({type(error).__name__})", "-"]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="stnet")
    parser.add_argument("--side", type=int, default=100_000, help="of the generated slide, px")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    model = random_model(args.backbone)
    try:
        predictor = Predictor(model, args.device)
    except MappingError as error:
        raise SystemExit(f"No device {args.device!r} is there, so nothing was measured: {error}") from error
    bare = Bare(model, predictor)
    title = f"{args.backbone}, {predictor.description}, patches per second"
    rows = bare_table(bare, args.batch, args.seconds, compile_too=not args.no_compile)
    header = ["batch", "network", *([] if args.no_compile else ["compiled", "first batch, s"])]
    print_table(f"Bare network, {title}", header, rows)
    rows = []
    with scratch() as folder, open_slide(sparse_slide(Path(folder), args.side)) as slide:
        for n in args.readers:
            settings = MappingSettings(device=args.device, readers=n, cache_dir=f"{folder}/{n} readers")
            with LiveMapper(slide, model, settings) as mapper:
                whole = pipeline(mapper, 10 * args.seconds)
                batch = mapper.batch_size
                stages = {
                    "reading": reading(slide, mapper, n, batch, args.seconds),
                    "copying": bare.copying(predictor, batch, args.seconds),
                    "network": bare.rate(batch, args.seconds),
                }
            slowest = min(stages, key=stages.__getitem__)
            numbers = [f"{v:.0f}" for v in (*stages.values(), whole)]
            rows.append([n, batch, *numbers, f"{whole / stages['network']:.2f}", slowest])
    header = ["readers", "batch", "reading", "copying", "network", "pipeline", "pipeline / network", "slowest stage"]
    print_table(f"Stages, {title}", header, rows)


if __name__ == "__main__":
    main()
