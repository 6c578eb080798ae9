"""Training throughput over a plain loop on ready tensors, and what a first and a second start cost.

    python benchmarks/training_throughput.py [--backbone squeezenet] [--spots 256] [--rounds 5]

ours   ``train``: cached patches, turns and flips, all terms of the loss, Lightning, and after each epoch the model, the
       metrics and the state to resume from
plain  the same network, loss, optimiser and batch size in a loop over normalised float tensors in memory; nothing is
       turned, checked, shown or written

The two take turns epoch by epoch in one process, and each is given with its fastest epoch: other work on the machine
can only slow an epoch down. Nothing is held out, so that an epoch is training alone. Target: ours / plain >= 0.90.
The processor time of all threads is given too: on a machine that is shared it says more than the clock does.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

from common import print_table, sample_slide, scratch
from napari_cpnn.prototypes import Prototypes
from napari_cpnn.samples import sample_folder
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.spots import open_sample


class PlainLoop:
    """The loop that is bound by the network alone."""

    def __init__(self, sample, prototypes: Prototypes, settings: TrainingSettings, folder: Path) -> None:
        import torch

        from napari_cpnn.models import build_model, choose_device, choose_precision
        from napari_cpnn.training.data import prepare
        from napari_cpnn.training.fit import CpnnTraining, parameter_groups

        data = prepare([sample], prototypes, settings, folder)
        chosen = prototypes.select(data.genes)
        model = build_model(settings, data.genes, chosen.cell_types, chosen.profiles, data.mean_expression())
        device = choose_device(settings.device)
        self.module = CpnnTraining(model, settings, choose_precision(device, settings.precision)).to(device).train()
        self.optimizer = torch.optim.AdamW(parameter_groups(model, settings))
        self.module.model.normalize = lambda images: images  # they are
        n = len(data.train) // settings.batch_size * settings.batch_size
        self.batches = []
        for rows in data.train[:n].reshape(-1, settings.batch_size):
            images = torch.from_numpy(data.images[rows])
            batch = {
                "images": type(model).normalize(model, images).contiguous(memory_format=torch.channels_last),
                "targets": torch.from_numpy(np.asarray(data.targets[rows])),
                "slide": torch.from_numpy(data.slide_of[rows]),
            }
            if data.shares is not None:
                batch["shares"] = torch.from_numpy(data.shares[rows])
            self.batches.append({name: tensor.to(device) for name, tensor in batch.items()})

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


def starts(sample, prototypes: Prototypes, settings: TrainingSettings, folder: Path) -> list[list[object]]:
    """Seconds to prepare a run whose patches are not cached, and one whose are."""
    from napari_cpnn.training.data import prepare

    rows = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        start = time.perf_counter()
        data = prepare([sample], prototypes, settings, folder / name)
        seconds = time.perf_counter() - start
        size = sum(f.stat().st_size for f in Path(settings.patch_cache).rglob("*.npy")) / 1e6
        rows.append([name, len(data.images), f"{seconds:.2f}", f"{size:.0f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="squeezenet")
    parser.add_argument("--spots", type=int, default=256, help="spots per epoch; batches are full")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slide", type=Path, default=sample_slide())
    parser.add_argument("--spot-table", type=Path, default=sample_folder() / "spots.h5ad")
    parser.add_argument("--positions", type=Path, help="spot table of legacy ST")
    parser.add_argument("--prototypes", type=Path, default=sample_folder() / "prototypes.h5ad")
    args = parser.parse_args()
    from napari_cpnn.training import train

    prototypes = Prototypes.load(args.prototypes)
    with scratch() as name:
        folder = Path(name)
        settings = TrainingSettings(
            backbone=args.backbone, weights="none", validation="none", batch_size=args.batch_size, calibrate=False,
            max_epochs=args.rounds + 1, patch_cache=str(folder / "patches"),
        )  # fmt: skip
        slide, spots = open_sample(args.slide, args.spot_table, positions=args.positions)
        preparation = starts((slide, spots), prototypes, settings, folder)
        n = min(args.spots, spots.n_obs) // args.batch_size * args.batch_size
        sample = slide, spots[:n].copy()
        (folder / "plain").mkdir()
        plain = PlainLoop(sample, prototypes, settings, folder / "plain")
        rows: list[np.ndarray] = []
        mark = [now()]

        def take_turns(_row) -> None:
            ours = now() - mark[0]
            rows.append(np.stack([ours, plain.epoch()], axis=1).ravel())
            mark[0] = now()

        train([sample], prototypes, settings, folder / "run", progress=False, on_epoch=take_turns)
        slide.close()
    rows = rows[1:]  # the first epoch of ours holds the preparation, that of the other the warming up
    print_table("Start of a run", ["start", "spots", "seconds", "cache, MB"], preparation)
    best = np.min(rows, axis=0)
    table = [[i + 1, *(f"{plain.n_spots / t:.1f}" for t in row)] for i, row in enumerate(rows)]
    table.append(["fastest", *(f"{plain.n_spots / t:.1f}" for t in best)])
    title = (
        f"Training throughput, {args.backbone}, batches of {args.batch_size}, {os.cpu_count()} cores, spots per second"
    )
    print_table(title, ["epoch", "ours", "plain", "ours, processor", "plain, processor"], table)
    print(f"\nours / plain {best[1] / best[0]:.2f} by the clock, {best[3] / best[2]:.2f} in processor time")


if __name__ == "__main__":
    main()
