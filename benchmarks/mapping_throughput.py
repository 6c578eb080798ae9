"""Mapping throughput over the bare network, and over a plain loop, on the same machine in one run.

    python benchmarks/mapping_throughput.py [--backbone stnet] [--patches 600] [--rounds 3]

bare   the network on ready float tensors in a loop: channels-last, best available precision, same batch size
fused  the same with what we do to the network on a CPU (folded normalisations, small chunks; ``fuse_for_inference``)
ours   ``LiveMapper`` over a slide: tissue, reading, decoding, resampling, network, map, disk cache
plain  what one would write first: OpenSlide region per patch, float32, batch 16

Targets: ours / bare >= 0.90 (ST-Net on CPU), ours / plain >= 3.
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
from napari_cpnn.mapping import DONE, LiveMapper, Predictor
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import find_tissue, open_slide


def bare(model, predictor: Predictor, batch: int, seconds: float) -> float:
    """Patches per second of the network alone, inputs ready."""
    x = torch.rand(batch, 3, 224, 224).to(predictor.device, memory_format=torch.channels_last)
    done, start = 0, None
    with (
        torch.inference_mode(),
        torch.autocast(predictor.device.type, torch.bfloat16, predictor.precision != "float32"),
    ):
        for i in range(10_000):
            model(x)
            if predictor.device.type == "cuda":
                torch.cuda.synchronize()
            if i == 1:
                start = time.perf_counter()
            elif i > 1:
                done += batch
                if time.perf_counter() - start > seconds:
                    break
    return done / (time.perf_counter() - start)


def ours(slide_path: Path, model, cache_dir: str, n_patches: int) -> tuple[float, int]:
    """Patches per second of the whole pipeline (after the first batch), and its batch size."""
    with open_slide(slide_path) as slide:
        mapper = LiveMapper(slide, model, MappingSettings(cache_dir=cache_dir))
        marks = []
        mapper.map.changed.connect(lambda _: marks.append((time.perf_counter(), int((mapper.map.state == DONE).sum()))))
        with mapper:
            mapper.map_whole_slide()
            while not marks or marks[-1][1] < n_patches:
                if mapper.wait_until_mapped(0.02) or mapper.error:
                    break
        (t0, n0), (t1, n1) = marks[1], marks[-1]
        return (n1 - n0) / (t1 - t0), mapper.batch_size


def plain(slide_path: Path, model, n_patches: int) -> float:
    """The first loop one would write."""
    with open_slide(slide_path) as slide:
        grid = Grid.over(slide.shape[:2], slide.mpp, 112.0)
        cells = np.argwhere(find_tissue(slide).coverage(grid) >= 0.3)[:n_patches]
        mpp = slide.mpp
    side = round(112.0 / mpp[0])
    corners = [tuple(int(v) for v in (c[::-1] * 112.0 / mpp[0])) for c in cells]
    handle = openslide.OpenSlide(slide_path)
    start = time.perf_counter()
    with torch.inference_mode():
        for i in range(0, len(corners), 16):
            patches = [handle.read_region(c, 0, (side, side)).convert("RGB") for c in corners[i : i + 16]]
            patches = [np.asarray(p.resize((224, 224), Image.Resampling.BILINEAR)) for p in patches]
            model(model.normalize(torch.from_numpy(np.stack(patches))))
    return len(corners) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="stnet")
    parser.add_argument("--patches", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slide", type=Path, default=sample_slide())
    args = parser.parse_args()
    model = random_model(args.backbone)
    predictor = Predictor(model)
    standard = copy.deepcopy(model).to(predictor.device, memory_format=torch.channels_last)
    rows = []
    for round_ in range(args.rounds):
        with scratch() as cache:
            fast, batch = ours(args.slide, model, cache, args.patches)
        alone = bare(standard, predictor, batch, args.patches / fast)
        fused = bare(predictor.model, predictor, batch, args.patches / fast)
        loop = plain(args.slide, model, max(64, args.patches // 6))
        speeds = [f"{v:.1f}" for v in (alone, fused, fast, loop)]
        rows.append([round_ + 1, batch, *speeds, fast / alone, fast / fused, fast / loop])
    rows.append(["median", "", "", "", "", "", *(np.median([r[i] for r in rows]) for i in (6, 7, 8))])
    print_table(
        f"Mapping throughput, {args.backbone}, {predictor.description}, patches per second",
        ["round", "batch", "bare", "fused", "ours", "plain loop", "ours / bare", "ours / fused", "ours / plain"],
        [[*r[:6], *(f"{v:.2f}" for v in r[6:])] for r in rows],
    )


if __name__ == "__main__":
    main()
