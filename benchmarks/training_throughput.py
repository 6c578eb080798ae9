"""Training throughput over a bare loop on ready tensors, with a frozen and with a trained image network.

    OMP_NUM_THREADS=1 python benchmarks/training_throughput.py [--slide A B --spot-table A B --positions A B]

ours   ``train``: cached patches or features, turns and flips, all terms of the loss, Lightning, the metrics after each
       epoch, and every five seconds model and state
bare   the same network, loss, optimiser and batches in a loop over tensors in memory, patches normalised; nothing is
       turned, checked, shown or written

The two take turns epoch by epoch in one process, and each is given with its fastest epoch: other work on the machine
can only slow an epoch down. Nothing is held out, so that an epoch is training alone. Target: ours / bare at most 1.05.
The processor time of all threads is given too: on a machine that is shared it says more than the clock does. What a
first and a second start cost is given before.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import print_table, sample_slide, scratch
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.samples import sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.spots import open_sample

CASES = {"frozen": 0.0, "fine-tuned": 2e-4}


class BareLoop:
    """The loop that is bound by network and loss alone."""

    def __init__(
        self, samples: Sequence[Any], prototypes: Prototypes, settings: TrainingSettings, folder: Path
    ) -> None:
        import torch

        from napari_cpnn.models import build_model, choose_device, choose_precision
        from napari_cpnn.training.data import SpotDataModule, check_samples, inputs_for, prepare
        from napari_cpnn.training.fit import CpnnTraining, adamw

        inputs = inputs_for(settings)
        data = prepare(check_samples(samples, settings), prototypes, settings, folder)
        chosen = prototypes.select(data.genes)
        model = build_model(settings, data.genes, chosen.cell_types, chosen.profiles, data.mean_expression())
        inputs.prepare(data, model, folder)
        device = choose_device(settings.device)
        precision = choose_precision(device, settings.precision)
        self.module = CpnnTraining(model, inputs, settings, precision).to(device).train()
        if settings.backbone_learning_rate == 0:
            model.backbone_interface.network.eval()
        self.optimizer = adamw(model, settings)
        self.batches = []
        for batch in SpotDataModule(data, inputs, settings).train_dataloader():
            if "images" in batch:
                batch["images"] = model.normalize(batch["images"]).contiguous(memory_format=torch.channels_last)
            self.batches.append({name: t if name == "slide" else t.to(device) for name, t in batch.items()})
        model.normalize = lambda images: images  # type: ignore[method-assign]  # they are
        self.n_genes = len(data.genes)

    @property
    def n_spots(self) -> int:
        return sum(len(batch["targets"]) for batch in self.batches)

    def epoch(self) -> np.ndarray:
        """Seconds of one epoch, by the clock and of the processor."""
        import torch

        start = now()
        for batch in self.batches:
            loss = torch.stack(list(self.module.terms(batch).values())).sum()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        loss.item()  # wait for the device
        return now() - start


def now() -> np.ndarray:
    """Seconds by the clock, and of the processor over all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def starts(
    samples: Sequence[Any], prototypes: Prototypes, settings: TrainingSettings, folder: Path
) -> list[list[object]]:
    """Seconds to prepare a run whose patches are not cached, and one whose are."""
    from napari_cpnn.training.data import check_samples, prepare

    rows = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        start = now()
        data = prepare(check_samples(samples, settings), prototypes, settings, folder / name)
        clock, used = now() - start
        size = sum(f.stat().st_size for f in Path(settings.patch_cache).rglob("*.npy")) / 1e6
        rows.append([name, len(data.images), f"{clock:.2f}", f"{used:.2f}", f"{size:.0f}"])
    return rows


def compare(
    samples: Sequence[Any], prototypes: Prototypes, settings: TrainingSettings, folder: Path
) -> tuple[BareLoop, np.ndarray]:
    """Seconds of the fastest epoch: ours and bare by the clock, ours and bare of the processor."""
    from napari_cpnn.training import train

    (folder / "bare").mkdir(parents=True)
    bare = BareLoop(samples, prototypes, settings, folder / "bare")
    rows: list[np.ndarray] = []
    mark = [now()]

    def take_turns(_row: object) -> None:
        ours = now() - mark[0]
        rows.append(np.stack([ours, bare.epoch()], axis=1).ravel())
        mark[0] = now()

    train(samples, prototypes, settings, folder / "run", progress=False, on_epoch=take_turns)
    # The first epoch of ours holds the preparation, that of the other the warming up.
    return bare, np.min(rows[1:], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="squeezenet")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6, help="epochs of each, after one to warm up")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--slide", type=Path, nargs="+", default=[sample_slide()])
    parser.add_argument("--spot-table", type=Path, nargs="+", default=[sample_folder() / "spots.h5ad"])
    parser.add_argument("--positions", type=Path, nargs="+", help="spot tables of legacy ST")
    parser.add_argument("--prototypes", type=Path, default=sample_folder() / "prototypes.h5ad")
    args = parser.parse_args()
    prototypes = Prototypes.load(args.prototypes)
    positions = args.positions or [None] * len(args.slide)
    samples = [
        open_sample(slide, table, positions=where)
        for slide, table, where in zip(args.slide, args.spot_table, positions, strict=True)
    ]
    table = []
    with scratch() as name:
        folder = Path(name)
        settings = TrainingSettings(
            backbone=args.backbone, weights="none", validation="none", batch_size=args.batch_size, calibrate=False,
            max_epochs=args.rounds + 1, patch_cache=str(folder / "patches"),
        )  # fmt: skip
        preparation = starts(samples, prototypes, settings, folder)
        for case in args.cases:
            chosen = settings.replace(backbone_learning_rate=CASES[case])
            bare, best = compare(samples, prototypes, chosen, folder / case)
            for what, (ours, theirs) in zip(("by the clock", "processor"), best.reshape(2, 2), strict=True):
                table.append(
                    [case, bare.n_spots, bare.n_genes, what, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"]
                )
    for slide, _ in samples:
        slide.close()
    print_table("Start of a run", ["start", "spots", "clock, s", "processor, s", "cache, MB"], preparation)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print_table(
        f"Epoch, {args.backbone}, batches of {args.batch_size}, {os.cpu_count()} cores, load {load:.1f}, seconds",
        ["network", "spots", "genes", "time", "ours", "bare loop", "ours / bare"],
        table,
    )


if __name__ == "__main__":
    main()
