"""Batches of spots for Lightning."""

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
    """Specification of a batch.

    Attributes
    ----------
    rows
        ``(n,)`` indices of its spots.
    symmetries
        ``(n,)`` in 0..7, symmetries applied to its patches; None: none.
    stains
        ``(n, 2, 2)`` for :func:`~napari_cpnn.training.data.augmentation.apply_stains`; None: unchanged.
    """

    rows: IntArray
    symmetries: IntArray | None = None
    stains: npt.NDArray[np.float32] | None = None


class _Batches(Dataset[Batch]):
    """Dataset indexed by the specification of a whole batch."""

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
    """Sampler of batches and their augmentation in an epoch; deterministic for given seed and epoch.

    Batches are distributed over processes in turn, equally many each: if they cannot be divided evenly, the first ones
    of the epoch are repeated.
    """

    def __init__(self, data: SpotData, settings: TrainingSettings, process: tuple[int, int] = (0, 1)) -> None:
        self._data, self._settings, self._epoch = data, settings, 0
        self._rank, self._n_processes = process

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by Lightning."""
        self._epoch = epoch

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


class SpotDataModule(LightningDataModule):
    """Data module of training batches; batches are copied from memory-mapped arrays, without worker processes.

    Parameters
    ----------
    inputs
        Prepared inputs of the model at the spots.
    """

    def __init__(self, data: SpotData, inputs: Inputs, settings: TrainingSettings) -> None:
        super().__init__()
        self._data, self._inputs, self._settings = data, inputs, settings

    @property
    def has_held_out(self) -> bool:
        return len(self._data.held_out) > 0

    def train_dataloader(self) -> DataLoader[Batch]:
        process = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return self._loader(_TrainingBatches(self._data, self._settings, process))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.in_order(self._data.held_out)

    def in_order(self, rows: IntArray) -> DataLoader[Batch]:
        """Batches of selected spots, without augmentation and in the given order."""
        n = self._settings.batch_size
        return self._loader([_Order(rows[i : i + n]) for i in range(0, len(rows), n)])

    def _loader(self, sampler: Sampler[_Order] | list[_Order]) -> DataLoader[Batch]:
        return DataLoader(
            _Batches(self._data, self._inputs),
            sampler=sampler,
            batch_size=None,
            # Pinned memory allows copying to a GPU while it computes the previous batch.
            pin_memory=torch.cuda.is_available() and self._settings.device != "cpu",
            generator=torch.Generator(),  # own generator: starting an epoch must not change the random state of the run
        )
