"""Mapping throughput over the bare network, and over a plain loop, on the same machine in one run.

    python benchmarks/mapping_throughput.py [--backbone stnet] [--seconds 5] [--rounds 5]

bare   the network on ready float tensors in a loop: channels-last, best available precision, same batch size
fused  the same with what we do to the network on a CPU (folded normalisations, small chunks; ``fuse_for_inference``)
ours   ``LiveMapper`` over a slide: tissue, reading, decoding, resampling, network, map, disk cache
plain  what one would write first: OpenSlide region per patch, float32, batch 16

The four take turns of a few seconds, and each is given with its fastest turn: other work on the machine can only slow a
turn down. Targets: ours / bare >= 0.90 (ST-Net on CPU), ours / plain >= 3.
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


class Whole(torch.nn.Module):
    """The layers of a model on a whole batch at once, as a plain loop has them."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.head(self.model.backbone_interface.predict(x)[0])


def bare(model, predictor: Predictor, batch: int, seconds: float) -> float:
    """Patches per second of the network alone, inputs ready."""
    x = torch.rand(batch, 3, 224, 224).to(predictor.device, memory_format=torch.channels_last)
    with (
        torch.inference_mode(),
        torch.autocast(predictor.device.type, torch.bfloat16, predictor.precision != "float32"),
    ):
        model(x)
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            model(x)
            if predictor.device.type == "cuda":
                torch.cuda.synchronize()
            done += batch
        return done / (time.perf_counter() - start)


def ours(mapper: LiveMapper, seconds: float) -> float:
    """Patches per second of the whole pipeline while it runs, from batch to batch."""
    marks: list[tuple[float, int]] = []
    computed = 0
    mapper.resume()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        n = mapper.n_computed
        if n != computed:
            computed = n
            marks.append((time.perf_counter(), n))
        time.sleep(0.002)
    mapper.pause()
    (t0, n0), (t1, n1) = marks[0], marks[-1]
    return (n1 - n0) / (t1 - t0)


class PlainLoop:
    """The first loop one would write."""

    def __init__(self, path: Path, model) -> None:
        self.model, self.handle = model, openslide.OpenSlide(path)
        with open_slide(path) as slide:
            grid = Grid.over(slide.shape[:2], slide.mpp, 112.0)
            self.side = round(112.0 / slide.mpp[0])
            cells = np.argwhere(find_tissue(slide).coverage(grid) >= 0.3)
            self.corners = [tuple(int(v) for v in cell[::-1] * 112.0 / slide.mpp[0]) for cell in cells]

    def run(self, seconds: float) -> float:
        start, done = time.perf_counter(), 0
        with torch.inference_mode():
            while time.perf_counter() - start < seconds:
                corners = [self.corners[(done + i) % len(self.corners)] for i in range(PLAIN_BATCH)]
                patches = [self.handle.read_region(c, 0, (self.side, self.side)).convert("RGB") for c in corners]
                patches = [np.asarray(p.resize((224, 224), Image.Resampling.BILINEAR)) for p in patches]
                self.model(self.model.normalize(torch.from_numpy(np.stack(patches))))
                done += PLAIN_BATCH
        return done / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="stnet")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slide", type=Path, default=sample_slide())
    args = parser.parse_args()
    model = random_model(args.backbone)
    predictor = Predictor(model)
    standard = Whole(copy.deepcopy(model)).to(predictor.device, memory_format=torch.channels_last)
    plain = PlainLoop(args.slide, model)
    rows = []
    # A quarter of the stride: sixteen times the patches, so that the slide lasts for all turns.
    with (
        scratch() as cache,
        open_slide(args.slide) as slide,
        LiveMapper(slide, model, MappingSettings(cache_dir=cache, stride_um=28.0)) as mapper,
    ):
        mapper.map_whole_slide()
        time.sleep(3)
        mapper.pause()
        for _ in range(args.rounds):
            fast = ours(mapper, args.seconds)
            batch = mapper.batch_size
            alone = bare(standard, predictor, batch, args.seconds)
            fused = bare(predictor.model, predictor, batch, args.seconds)
            rows.append([batch, alone, fused, fast, plain.run(args.seconds)])
    best = np.max([row[1:] for row in rows], axis=0)
    table = [[i + 1, r[0], *(f"{v:.1f}" for v in r[1:])] for i, r in enumerate(rows)]
    table.append(["fastest", "", *(f"{v:.1f}" for v in best)])
    print_table(
        f"Mapping throughput, {args.backbone}, {predictor.description}, patches per second",
        ["round", "batch", "bare", "fused", "ours", "plain loop"],
        table,
    )
    over = [f"ours / {name} {best[2] / best[i]:.2f}" for i, name in ((0, "bare"), (1, "fused"), (3, "plain"))]
    print(f"\n{', '.join(over)}")


if __name__ == "__main__":
    main()
