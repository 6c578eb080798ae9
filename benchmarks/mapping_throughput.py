"""Mapping throughput over the bare network, and over a plain loop, on the same machine in one run.

    python benchmarks/mapping_throughput.py [--backbone stnet] [--seconds 5] [--rounds 5] [--processor-time]

bare    the network on ready float tensors in a loop: channels-last, best precision of torch, same batch size
network the same with what we compute it by: OpenVINO where it is installed, else folded by ``fuse_for_inference``
engine  ``Predictor.predict`` of patches in memory: normalisation, network and head, as in ``engines.py``
ours    ``LiveMapper`` over a slide: tissue, reading, decoding, resampling, network, map, disk cache
plain   what one would write first: OpenSlide region per patch, float32, batch 16

The four take turns of a few seconds, and each is given with its fastest turn: other work on the machine can only slow a
turn down. With ``--processor-time``, patches are counted per second of processor time of all threads, and ours / engine
is the median of the turns. Targets: ours / bare >= 0.90 (ST-Net on CPU), ours / engine >= 0.95, ours / plain >= 3.
``--mpp`` gives the slide another pixel size: of the sample, patches of 0.5 um/px are copied; with 0.25 they are shrunk.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import openslide
import torch
from PIL import Image

from common import print_table, random_model, sample_slide, scratch
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import LiveMapper
from napari_cpnn.prediction import Predictor
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import find_tissue, open_slide

PLAIN_BATCH = 16
#: Seconds without a batch after which the mapper is asked whether it has anything left to do.
QUIET_S = 1.0


class Whole(torch.nn.Module):
    """The layers of a model on a whole batch at once, as a plain loop has them."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.head(self.model.backbone_interface.predict(x)[0])


#: What is taken for time; ``--processor-time`` changes it.
clock = time.perf_counter


def bare(model, predictor: Predictor, batch: int, seconds: float) -> float:
    """Patches per second of the network alone, inputs ready."""
    x = torch.rand(batch, 3, 224, 224).to(predictor.device, memory_format=torch.channels_last)
    with (
        torch.inference_mode(),
        torch.autocast(predictor.device.type, torch.bfloat16, predictor.precision != "float32"),
    ):
        model(x)
        start, done = clock(), 0
        while clock() - start < seconds:
            model(x)
            if predictor.device.type == "cuda":
                torch.cuda.synchronize()
            done += batch
        return done / (clock() - start)


def engine(predictor: Predictor, batch: int, seconds: float) -> float:
    """Patches per second of all that is computed for patches that were read."""
    images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    predictor.predict(images)
    start, done = clock(), 0
    while clock() - start < seconds:
        predictor.predict(images)
        done += batch
    return done / (clock() - start)


def ours(mapper: LiveMapper, seconds: float) -> float:
    """Patches per second of the whole pipeline while it runs, from batch to batch."""
    marks: list[tuple[float, int]] = []
    computed = mapper.n_computed
    mapper.resume()
    start, changed = clock(), time.monotonic()
    while clock() - start < seconds:
        if (n := mapper.n_computed) != computed:
            computed, changed = n, time.monotonic()
            marks.append((clock(), n))
        # The progress is counted over the whole map, 0.5 ms for the usual slide, which would show in processor time.
        elif time.monotonic() - changed > QUIET_S and mapper.progress().idle:
            raise SystemExit("All of the slide is mapped, so that there is nothing left to measure; see --stride.")
        time.sleep(0.02)
    mapper.pause()
    (t0, n0), (t1, n1) = marks[0], marks[-1]
    return (n1 - n0) / (t1 - t0)


class PlainLoop:
    """The first loop one would write."""

    def __init__(self, path: Path, mpp: float | None, model) -> None:
        self.model, self.handle = model, openslide.OpenSlide(path)
        with open_slide(path, mpp) as slide:
            grid = Grid.over(slide.shape[:2], slide.mpp, 112.0)
            self.side = round(112.0 / slide.mpp[0])
            cells = np.argwhere(find_tissue(slide).coverage(grid) >= 0.3)
            self.corners = [tuple(int(v) for v in cell[::-1] * 112.0 / slide.mpp[0]) for cell in cells]

    def run(self, seconds: float) -> float:
        start, done = clock(), 0
        with torch.inference_mode():
            while clock() - start < seconds:
                corners = [self.corners[(done + i) % len(self.corners)] for i in range(PLAIN_BATCH)]
                patches = [self.handle.read_region(c, 0, (self.side, self.side)).convert("RGB") for c in corners]
                patches = [np.asarray(p.resize((224, 224), Image.Resampling.BILINEAR)) for p in patches]
                self.model(self.model.normalize(torch.from_numpy(np.stack(patches))))
                done += PLAIN_BATCH
        return done / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="stnet")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slide", type=Path, default=sample_slide())
    parser.add_argument("--mpp", type=float, help="pixel size of the slide, instead of its own")
    parser.add_argument(
        "--stride",
        type=float,
        default=28.0,
        help="um between patches; fast networks need less to have work for all turns",
    )
    parser.add_argument("--reduced-tiles", action="store_true", help="as the setting of that name")
    parser.add_argument("--processor-time", action="store_true", help="for a machine on which others work, too")
    args = parser.parse_args()
    if args.processor_time:
        global clock  # noqa: PLW0603
        clock = time.process_time
    model = random_model(args.backbone)
    predictor = Predictor(model)
    standard = Whole(copy.deepcopy(model)).to(predictor.device, memory_format=torch.channels_last)
    plain = PlainLoop(args.slide, args.mpp, model)
    rows = []
    # A fraction of the usual stride: sixteen times the patches and more, so that the slide lasts for all turns.
    with (
        scratch() as cache,
        open_slide(args.slide, args.mpp) as slide,
        LiveMapper(
            slide, model, MappingSettings(cache_dir=cache, stride_um=args.stride, reduced_tiles=args.reduced_tiles)
        ) as mapper,
    ):
        mapper.map_whole_slide()
        time.sleep(3)
        mapper.pause()
        for _ in range(args.rounds):
            fast = ours(mapper, args.seconds)
            batch = mapper.batch_size
            alone = bare(standard, predictor, batch, args.seconds)
            network = bare(predictor.model, predictor, batch, args.seconds)
            whole = engine(predictor, batch, args.seconds)
            rows.append([batch, alone, network, whole, fast, plain.run(args.seconds)])
    best = np.max([row[1:] for row in rows], axis=0)
    table = [[i + 1, r[0], *(f"{v:.1f}" for v in r[1:])] for i, r in enumerate(rows)]
    table.append(["fastest", "", *(f"{v:.1f}" for v in best)])
    second = "of processor time" if args.processor_time else "by the clock"
    print_table(
        f"Mapping throughput, {args.backbone}, {predictor.description}, patches per second {second}",
        ["round", "batch", "bare", "network", "engine", "ours", "plain loop"],
        table,
    )
    others = enumerate(("bare", "network", "engine", "", "plain"), 1)
    over = [f"{name} {np.median([row[4] / row[i] for row in rows]):.2f}" for i, name in others if name]
    print(f"\nours over each, medians of the turns: {', '.join(over)}")


if __name__ == "__main__":
    main()
