"""Batches for Lightning from the spots of a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from napari_cpnn.geometry import IntArray
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.augmentation import apply_symmetries
from napari_cpnn.training.data import SpotData
from napari_cpnn.training.splits import deal_batches

Batch = dict[str, torch.Tensor]


class _Rows(Dataset[Batch]):
    """A dataset whose index is a whole batch: (rows, symmetries)."""

    def __init__(self, data: SpotData) -> None:
        self._data = data

    def __getitem__(self, index: tuple[IntArray, IntArray | None]) -> Batch:
        data, (rows, symmetries) = self._data, index
        images = data.images[rows]
        batch = {
            "images": torch.from_numpy(images if symmetries is None else apply_symmetries(images, symmetries)),
            "targets": torch.from_numpy(np.asarray(data.targets[rows])),
            "slide": torch.from_numpy(data.slide_of[rows]),
        }
        if data.shares is not None:
            batch["shares"] = torch.from_numpy(data.shares[rows])
        return batch


class _TrainingBatches(Sampler[tuple[IntArray, IntArray | None]]):
    """Batches of an epoch and their symmetries; the same for the same seed and epoch."""

    def __init__(self, data: SpotData, settings: TrainingSettings, first_epoch: int) -> None:
        self._data, self._settings, self._first = data, settings, first_epoch
        self._epoch = first_epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch, and counts from 0 in a resumed run too."""
        self._epoch = self._first + epoch

    def __len__(self) -> int:
        return len(self._deal(np.random.default_rng(0)))

    def __iter__(self) -> Iterator[tuple[IntArray, IntArray | None]]:
        rng = np.random.default_rng((self._settings.seed, self._epoch))
        for batch in self._deal(rng):
            yield self._data.train[batch], rng.integers(0, 8, len(batch)) if self._settings.augment else None

    def _deal(self, rng: np.random.Generator) -> list[IntArray]:
        slides, settings = self._data.slide_of[self._data.train], self._settings
        per_slide = settings.loss == "pcc" and settings.correlation == "slide"
        return deal_batches(slides, settings.batch_size, rng, per_slide)


class _InOrder(Sampler[tuple[IntArray, IntArray | None]]):
    def __init__(self, rows: IntArray, batch_size: int) -> None:
        self._parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[IntArray, IntArray | None]]:
        return ((part, None) for part in self._parts)


class SpotDataModule(LightningDataModule):
    """Batches for Lightning; a memory-mapped batch is a plain copy, so no worker processes are needed.

    Parameters
    ----------
    first_epoch
        Epochs that were complete before this process.
    """

    def __init__(self, data: SpotData, settings: TrainingSettings, first_epoch: int = 0) -> None:
        super().__init__()
        self._data, self._settings, self._first_epoch = data, settings, first_epoch

    @property
    def has_held_out(self) -> bool:
        return len(self._data.held_out) > 0

    def train_dataloader(self) -> DataLoader[Batch]:
        sampler = _TrainingBatches(self._data, self._settings, self._first_epoch)
        return DataLoader(_Rows(self._data), sampler=sampler, batch_size=None, generator=torch.Generator())

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.in_order(self._data.held_out)

    def in_order(self, rows: IntArray) -> DataLoader[Batch]:
        """Some spots, unturned and in the order given."""
        sampler = _InOrder(rows, self._settings.batch_size)
        return DataLoader(_Rows(self._data), sampler=sampler, batch_size=None, generator=torch.Generator())
