"""Steps over bags: a batch of bags, a draw of patches of each, and when to stop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.training.bags.bags import Bags
from napari_cpnn.training.data import deal_batches

#: Fewer patients are all trained on: none ends the training.
_LEAST_PATIENTS = 5


@dataclass(frozen=True)
class Optimisation:
    """Optimiser with the schedule of its learning rate, once per epoch, and the largest norm of the gradient."""

    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    clip: float = 5.0


@dataclass(frozen=True)
class Batch:
    """Patches of some bags.

    Attributes
    ----------
    features
        ``(n, F)``.
    owner
        ``(n,)`` number of the bag within the batch.
    n_bags
        Number of bags in the batch.
    log_areas
        ``(n,)`` logarithm of the nuclear area of each, as in :class:`Bags`, or None.
    """

    features: Tensor
    owner: Tensor
    n_bags: int
    log_areas: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        areas = None if self.log_areas is None else self.log_areas.to(device)
        return Batch(self.features.to(device), self.owner.to(device), self.n_bags, areas)

    def mean(self, values: Tensor, content: Tensor | None = None) -> Tensor:
        """Means ``(n_bags, K)`` over the patches of each bag of ``(n, K)``; ``content`` ``(n,)`` are weights."""
        if content is None:
            total = torch.bincount(self.owner, minlength=self.n_bags).to(values)
        else:
            values = content[:, None] * values
            total = content.new_zeros(self.n_bags).index_add(0, self.owner, content)
        sums = values.new_zeros((self.n_bags, values.shape[1])).index_add(0, self.owner, values)
        return sums / total[:, None]


def batch_of(
    bags: Bags, index: IntArray, features: Tensor, draw: int | None = None, rng: np.random.Generator | None = None
) -> Batch:
    """Patches of the bags of these indices: all, or at most ``draw`` of each, drawn without replacement."""
    rows = []
    for i in index:
        start, n = int(bags.starts[i]), int(bags.sizes[i])
        if draw is None or rng is None or n <= draw:
            rows.append(np.arange(start, start + n))
        else:
            rows.append(start + np.sort(rng.choice(n, draw, replace=False)))
    owner = np.repeat(np.arange(len(index)), [len(one) for one in rows])
    chosen = np.concatenate(rows)
    areas = None if bags.log_areas is None else torch.from_numpy(bags.log_areas[chosen])
    return Batch(features[torch.from_numpy(chosen)], torch.from_numpy(owner), len(index), areas)


def validation_rows(bags: Bags, settings: SlideLevelSettings) -> IntArray:
    """Indices of the bags whose likelihood ends the training: a share of the patients, drawn by the seed."""
    patients = sorted(set(bags.patients.tolist()))
    n = round(settings.validation * len(patients))
    if len(patients) < _LEAST_PATIENTS or not n:
        return np.zeros(0, dtype=np.intp)
    chosen = np.random.default_rng(settings.seed).choice(patients, min(n, len(patients) - 1), replace=False)
    return np.flatnonzero(np.isin(bags.patients, chosen))


def dealing(
    slides: IntArray | None, kept: IntArray, settings: SlideLevelSettings
) -> Callable[[np.random.Generator], list[IntArray]] | None:
    """Return what deals the ``kept`` bags of slides to batches of one or two slides; None where each bag is a slide."""
    if slides is None:
        return None
    return lambda rng: deal_batches(slides[kept], settings.batch_bags, rng, per_slide=True)


def run_epochs(
    module: nn.Module,
    optimisation: Optimisation,
    sizes: Sequence[int],
    step: Callable[[list[IntArray], np.random.Generator], Tensor],
    settings: SlideLevelSettings,
    validate: Callable[[], float] | None = None,
    progress: Progress = no_progress,
    deal: Callable[[np.random.Generator], list[IntArray]] | None = None,
) -> int:
    """Train a module in place; return the epoch of its weights.

    Parameters
    ----------
    sizes
        Number of bags of each source of labels. In an epoch, each bag of the largest source comes once, and
        those of the others in turn.
    step
        Returns the loss of the bags of these indices, one array for each source.
    validate
        Returns what shall become small; without it, all epochs are run.
    deal
        Returns the batches of an epoch, of one source of labels; by default they are drawn at random.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    rng = np.random.default_rng(settings.seed)
    n_steps = max(1, -(-max(sizes) // settings.batch_bags))
    best, best_epoch, best_state = np.inf, settings.epochs, None
    for epoch in range(1, settings.epochs + 1):
        module.train()
        if deal is None:
            orders = [
                np.resize(rng.permutation(n), max(n, min(n_steps * settings.batch_bags, max(sizes)))) for n in sizes
            ]
            batches = [[np.array_split(order, n_steps)[k] for order in orders] for k in range(n_steps)]
        else:
            batches = [[rows] for rows in deal(rng)]
        total = 0.0
        for rows in batches:
            optimisation.optimiser.zero_grad()
            loss = step(rows, rng)
            if not bool(torch.isfinite(loss)):
                raise TrainingError("The loss is not finite; lower the learning rate.")
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), optimisation.clip)
            optimisation.optimiser.step()
            total += float(loss.detach()) / len(batches)
        optimisation.schedule.step()
        text = f"epoch {epoch} of {settings.epochs}, loss {total:.4f}"
        if validate is not None:
            module.eval()
            with torch.no_grad():
                value = validate()
            text += f", validation {value:.4f}"
            if value < best:
                best, best_epoch, best_state = value, epoch, copy.deepcopy(module.state_dict())
        progress(text, epoch / settings.epochs)
        if validate is not None and epoch - best_epoch >= settings.patience:
            break
    if best_state is not None:
        module.load_state_dict(best_state)
    module.eval()
    return best_epoch
