"""Mapping on a GPU: the bare network, the pipeline over it, and which of reading, copying and network bounds it.

    python benchmarks/gpu_throughput.py [--backbone stnet] [--minutes 8]
    python benchmarks/gpu_throughput.py --device cpu --side 8000 --batch 16 --readers 1 --seconds 2     (to try it)
    python benchmarks/gpu_throughput.py --model        what would bound it, measured without a device (gpu_model.py)

The first table is of the network on ready tensors, channels-last and in the best precision of the device, without and
with ``torch.compile``. The second times each stage alone, with as many readers as given, threads and processes:

reading    tiles -> patches of a generated slide, into the ring of batches, nothing computed
copying    uint8 patches to the device from pinned memory, and normalised there
network    as in the first table, without compiling, at the largest batch
pipeline   ``predict_map`` of the slide, all together, without and with a CUDA graph; stopped after ``--seconds``;
           with threads as in a view, without the streams

The slowest stage is what bounds the pipeline. Target: pipeline / network >= 0.90. Each table is printed as soon as
it is made, and what does not fit into ``--minutes`` is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import print_table, random_model, scratch, sparse_slide
from gpu_model import StandIn, blocks, by_the_clock, tables
from napari_cpnn.errors import MappingError
from napari_cpnn.mapping import MapProgress, predict_map
from napari_cpnn.prediction import Predictor, pinned
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import Slide, open_slide

#: Seconds that are kept for compiling, of which nobody knows how long it takes.
COMPILING = 90


class Budget:
    """Seconds that are left, and what was left out."""

    def __init__(self, seconds: float) -> None:
        self.end, self.left_out = time.monotonic() + seconds, []

    def allows(self, what: str, seconds: float) -> bool:
        if time.monotonic() + seconds <= self.end:
            return True
        self.left_out.append(what)
        return False


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
                predictor.model.normalize(torch.from_numpy(images).to(self.device, non_blocking=True))
            return batch

        with pinned(images, self.device):
            return rate(work, seconds, self.finish)


class EnoughError(Exception):
    """A map was measured for long enough."""


def pipeline(slide: Slide, model, settings: MappingSettings, seconds: float) -> float:
    """Patches per second of a map, from its first batches on."""
    marks: list[tuple[float, int]] = []

    def look(progress: MapProgress) -> None:
        if progress.done:
            marks.append((time.perf_counter(), progress.done))
        if marks and marks[-1][0] - marks[0][0] > seconds:
            raise EnoughError

    with contextlib.suppress(EnoughError):
        predict_map(slide, model, settings=settings, on_progress=look)
    (t0, n0), (t1, n1) = marks[0], marks[-1]
    return (n1 - n0) / (t1 - t0) if t1 > t0 else float("nan")


def bare_table(bare: Bare, args: argparse.Namespace, budget: Budget) -> list[list[object]]:
    rows: list[list[object]] = [
        [batch, f"{bare.rate(batch, args.seconds):.0f}", "-", "-"]
        for batch in args.batch
        if budget.allows(f"network, batch {batch}", 2 * args.seconds)
    ]
    if not args.no_compile and rows and budget.allows("torch.compile", COMPILING + args.seconds):
        try:
            fast, first = bare.compiled(args.batch[-1], args.seconds)
            rows[-1][2:] = [f"{fast:.0f}", f"{first:.0f}"]
        except Exception as error:  # noqa: BLE001 -- whatever inductor misses: a compiler, Triton, a header
            rows[-1][2] = f"not possible ({type(error).__name__})"
    return rows


def stage_rows(
    slide: Slide, model, predictor: Predictor, bare: Bare, args: argparse.Namespace, budget: Budget
) -> list[list[object]]:
    batch, rows = args.batch[-1], []
    alone = {
        "copying": bare.copying(predictor, batch, args.seconds),
        "network": bare.rate(batch, args.seconds),
    }
    batches = blocks(slide, model.patch, batch, 64 * batch)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    processes = args.readers or sorted({1, 4, max(1, cores - 1)})
    for kind, n in [("processes", n) for n in reversed(processes)] + [("threads", 2)]:
        if not budget.allows(f"{n} {kind}", 6 * args.seconds):
            continue
        few = batches[: max(n, int(len(batches) * min(1.0, n / 16)))]
        stages = {"reading": by_the_clock(slide, model.patch, few, kind, n, StandIn()), **alone}
        found = []
        for graph in (False, True):
            settings = MappingSettings(
                device=args.device, readers=n, reader_processes=n if kind == "processes" else 0, max_batch=batch,
                cache=False, cuda_graphs=graph,
            )  # fmt: skip
            wanted = not graph or (kind == "processes" and predictor.device.type == "cuda")
            if wanted and budget.allows(f"{n} {kind}, graph: {graph}", 2 * args.seconds):
                found.append(pipeline(slide, model, settings, args.seconds))
        best = max(found, default=float("nan"))
        slowest = min(stages, key=stages.__getitem__)
        shown = [f"{v:.0f}" for v in (*stages.values(), *found)] + ["-"] * (2 - len(found))
        rows.append([f"{n} {kind}", *shown, f"{best / stages['network']:.2f}", slowest])
    return rows


def show_model(args: argparse.Namespace) -> None:
    decoder = random_model("squeezenet").decoder()
    with scratch() as folder:
        for title, header, rows in tables(
            sparse_slide(Path(folder), min(args.side, 20_000)), decoder, device=args.rate, bandwidth=args.bandwidth,
            readers=args.readers or [1, 2, 4, 8, 12, 15, 31], batch=128, patches=args.patches, rounds=args.rounds,
            seconds=240,
        ):  # fmt: skip
            print_table(title, header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="stnet")
    parser.add_argument("--side", type=int, default=60_000, help="of the generated slide, px")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="the last is that of the pipeline")
    parser.add_argument("--readers", type=int, nargs="+", help="processes that read")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=8, help="of all")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--model", action="store_true", help="what would bound it, measured without a device")
    parser.add_argument("--rate", type=float, default=20_000, help="--model: patches/s of the stand-in device")
    parser.add_argument("--bandwidth", type=float, default=25e9, help="--model: bytes/s to it")
    parser.add_argument("--patches", type=int, default=1024, help="--model: patches of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="--model: turns")
    args = parser.parse_args()
    budget = Budget(60 * args.minutes)
    if args.model:
        show_model(args)
        return
    model = random_model(args.backbone)
    try:
        predictor = Predictor(model, args.device)
    except MappingError as error:
        raise SystemExit(f"No device {args.device!r} is there, so nothing was measured: {error}") from error
    bare = Bare(model, predictor)
    title = f"{args.backbone}, {predictor.description}, patches per second"
    with scratch() as folder, open_slide(sparse_slide(Path(folder), args.side)) as slide:
        rows = stage_rows(slide, model, predictor, bare, args, budget)
        header = [
            "readers",
            "reading",
            "copying",
            "network",
            "pipeline",
            "by a graph",
            "best / network",
            "slowest stage",
        ]
        print_table(f"Stages, batches of {args.batch[-1]}, {title}", header, rows)
    header = ["batch", "network", "compiled", "first batch, s"]
    print_table(f"Bare network, {title}", header, bare_table(bare, args, budget))
    if budget.left_out:
        print(f"\nLeft out, since {args.minutes:g} minutes were over: {'; '.join(budget.left_out)}")


if __name__ == "__main__":
    main()
