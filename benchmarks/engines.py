"""Torch and OpenVINO on a processor (CPU): patches per second of processor time, start, and agreement.

    python benchmarks/engines.py [--backbone stnet squeezenet resnet18] [--rounds 5]

All engines and precisions of one network take turns, 16 patches of the sample slide a turn, on one thread, and each is
given with its fastest turn: other work on the machine can only slow a turn down. *Ready* is the processor time until
the first patch can be predicted: of a network that was never converted, and of one that is kept. Agreement is with
torch in float32: correlation over patches of the weights, the lowest of all types, for the packaged model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import napari_cpnn as nc

# isort: split
import numpy as np
import torch

from common import print_table, random_model, sample_model, sample_slide
from napari_cpnn.models import load_model
from napari_cpnn.prediction import Predictor
from napari_cpnn.prediction import predictor as predicting
from napari_cpnn.slides import read_patches

N = 16
WAYS = (
    ("torch", "float32"), ("torch", "bfloat16"), ("openvino", "float32"), ("openvino", "bfloat16"),
    ("openvino", "int8"),
)  # fmt: skip


def images(model, n: int) -> np.ndarray:
    slide = nc.open_slide(sample_slide())
    height, width = (side * mpp for side, mpp in zip(slide.shape, slide.mpp, strict=False))
    side = int(np.ceil(n**0.5))
    y, x = np.meshgrid(np.linspace(0.2, 0.8, side) * height, np.linspace(0.2, 0.8, side) * width)
    return read_patches(slide, np.column_stack([y.ravel(), x.ravel()])[:n], model.patch)


def quantize(predictor: Predictor, model) -> None:
    """Whatever it costs: a network of random weights has no genes that it knows."""
    predicting.MAX_DRIFT = np.inf
    predictor.quantize(images(model, 128))


def started(model, engine: str, precision: str) -> tuple[Predictor, float]:
    start = time.process_time()
    predictor = Predictor(model, "cpu", precision, engine=engine)
    if precision == "int8":
        quantize(predictor, model)
    return predictor, time.process_time() - start


def compare(name: str, model, rounds: int) -> list[tuple[str, ...]]:
    seen = images(model, N)
    ready = {way: (started(model, *way)[1], *started(model, *way)) for way in WAYS}
    fastest = dict.fromkeys(WAYS, np.inf)
    for _ in range(rounds):
        for way, (_, predictor, _) in ready.items():
            start = time.process_time()
            predictor.predict(seen)
            fastest[way] = min(fastest[way], time.process_time() - start)
    rows = []
    for way, (first, _, again) in ready.items():
        over = min(fastest["torch", "float32"], fastest["torch", "bfloat16"]) / fastest[way]
        rows.append((name, *way, f"{N / fastest[way]:.1f}", f"{over:.2f}", f"{first:.1f}", f"{again:.1f}"))
    return rows


def agreement() -> list[tuple[str, ...]]:
    model = load_model(sample_model())
    seen = images(model, 100)
    exact = Predictor(model, "cpu", "float32", engine="torch").predict(seen)
    rows = []
    for way in WAYS[1:]:
        predictor, _ = started(model, *way)
        found = predictor.predict(seen)
        genes = [model.decoder().expression(p.weights, p.programs, model.genes) for p in (found, exact)]
        per_gene = [np.corrcoef(a, b)[0, 1] for a, b in zip(genes[0].T, genes[1].T, strict=True)]
        rows.append((*way, f"{np.nanmedian(per_gene):.5f}", f"{np.nanmin(per_gene):.5f}"))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["stnet", "squeezenet", "resnet18", "he-small"])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NAPARI_CPNN_CACHE"] = cache
        table = [row for name in given.backbone for row in compare(name, random_model(name), given.rounds)]
        header = ("network", "engine", "precision", "patches/s", "over best of torch", "ready s", "ready, kept s")
        print_table("one thread", header, table)
        header = ("engine", "precision", "r of genes, median", "lowest")
        print_table("agreement with torch in float32, 100 patches of the sample", header, agreement())
