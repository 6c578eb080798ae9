"""Batches for Lightning from the spots of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from napari_cpnn.arrays import IntArray
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data.augmentation import draw_stains
from napari_cpnn.training.data.inputs import Batch, Inputs
from napari_cpnn.training.data.splits import deal_batches
from napari_cpnn.training.data.spot_data import SpotData


@dataclass(frozen=True)
class _Order:
    """What a batch is made of.

    Attributes
    ----------
    rows
        ``(n,)`` positions of its spots.
    symmetries
        ``(n,)`` in 0..7, how its patches are turned and flipped; None: not at all.
    stains
        ``(n, 2, 2)`` for :func:`~napari_cpnn.training.data.augmentation.apply_stains`; None: no change.
    """

    rows: IntArray
    symmetries: IntArray | None = None
    stains: npt.NDArray[np.float32] | None = None


class _Batches(Dataset[Batch]):
    """A dataset whose index is the order for a whole batch."""

    def __init__(self, data: SpotData, inputs: Inputs) -> None:
        self._data, self._inputs = data, inputs

    def __getitem__(self, order: _Order) -> Batch:
        data, rows = self._data, order.rows
        batch = {
            **self._inputs.batch(rows, order.symmetries),
            "targets": torch.from_numpy(np.asarray(data.targets[rows])),
            "slide": torch.from_numpy(data.slide_of[rows]),
        }
        if data.shares is not None:
            batch["shares"] = torch.from_numpy(data.shares[rows])
        if order.stains is not None:
            batch["stains"] = torch.from_numpy(order.stains)
        return batch


class _TrainingBatches(Sampler[_Order]):
    """Batches of an epoch and how their patches are changed; the same for the same seed and epoch.

    Of several processes each gets every so many-th batch, and all equally many: where they do not come out even, the
    first ones of the epoch come twice.
    """

    def __init__(
        self, data: SpotData, settings: TrainingSettings, first_epoch: int, process: tuple[int, int] = (0, 1)
    ) -> None:
        self._data, self._settings, self._first = data, settings, first_epoch
        self._epoch = first_epoch
        self._rank, self._n_processes = process

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch, and counts from 0 in a resumed run too."""
        self._epoch = self._first + epoch

    def __len__(self) -> int:
        return math.ceil(len(self._deal(np.random.default_rng(0))) / self._n_processes)

    def __iter__(self) -> Iterator[_Order]:
        orders = list(self._orders())
        return (orders[i % len(orders)] for i in range(self._rank, len(self) * self._n_processes, self._n_processes))

    def _orders(self) -> Iterator[_Order]:
        settings = self._settings
        rng = np.random.default_rng((settings.seed, self._epoch))
        for batch in self._deal(rng):
            rows = self._data.train[batch]
            symmetries = rng.integers(0, 8, len(rows)) if settings.augment else None
            yield _Order(rows, symmetries, self._stains(rows, rng) if settings.stain_augment > 0 else None)

    def _stains(self, rows: IntArray, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        strength = self._settings.stain_augment
        if self._settings.stain_unit == "patch":
            return draw_stains(len(rows), strength, rng)
        return draw_stains(len(self._data.slides), strength, rng)[self._data.slide_of[rows]]

    def _deal(self, rng: np.random.Generator) -> list[IntArray]:
        slides, settings = self._data.slide_of[self._data.train], self._settings
        per_slide = settings.loss == "pcc" and settings.correlation == "slide"
        return deal_batches(slides, settings.batch_size, rng, per_slide)


class _InOrder(Sampler[_Order]):
    def __init__(self, rows: IntArray, batch_size: int) -> None:
        self._parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[_Order]:
        return (_Order(part) for part in self._parts)


class SpotDataModule(LightningDataModule):
    """Batches for Lightning; a memory-mapped batch is a plain copy, so no worker processes are needed.

    Parameters
    ----------
    inputs
        What is seen of the spots; prepared.
    first_epoch
        Epochs that were complete before this process.
    """

    def __init__(self, data: SpotData, inputs: Inputs, settings: TrainingSettings, first_epoch: int = 0) -> None:
        super().__init__()
        self._data, self._inputs, self._settings, self._first_epoch = data, inputs, settings, first_epoch

    @property
    def has_held_out(self) -> bool:
        return len(self._data.held_out) > 0

    def train_dataloader(self) -> DataLoader[Batch]:
        process = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        sampler = _TrainingBatches(self._data, self._settings, self._first_epoch, process)
        return self._loader(sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.in_order(self._data.held_out)

    def in_order(self, rows: IntArray) -> DataLoader[Batch]:
        """Some spots, unturned and in the order given."""
        sampler = _InOrder(rows, self._settings.batch_size)
        return self._loader(sampler)

    def _loader(self, sampler: Sampler[_Order]) -> DataLoader[Batch]:
        return DataLoader(
            _Batches(self._data, self._inputs),
            sampler=sampler,
            batch_size=None,
            # From pinned memory a batch goes to a GPU while that works on the one before.
            pin_memory=torch.cuda.is_available() and self._settings.device != "cpu",
            generator=torch.Generator(),  # its own: to begin an epoch must not draw from the numbers of the run
        )
