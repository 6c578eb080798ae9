"""Networks that are compared with CPNN on bags: mean-pool MLP, gated attention, and the paper's published code."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import Float32Array, FloatArray, IntArray
from napari_cpnn.models import choose_device
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.training.bags.bags import Bags
from napari_cpnn.training.bags.labels import Labelled
from napari_cpnn.training.bags.likelihood import nb_loss
from napari_cpnn.training.bags.loop import Batch, Optimisation, batch_of, dealing, run_epochs, validation_rows
from napari_cpnn.training.bags.scaling import Scaling

#: Of the published code: batch of bags, weight of both penalties, gradient norm, decay of the learning rate, its step,
#: patches drawn of a slide, first log beta.
_PAPER_BATCH, _PAPER_WEIGHT, _PAPER_CLIP, _PAPER_DECAY, _PAPER_STEP = 8, 1e3, 0.5, 0.9, 50
_PAPER_DRAW = 4096
_PAPER_BETA = math.log(1e-10)


class BagNetwork(nn.Module, ABC):
    """A network from bags to expression.

    Parameters
    ----------
    n_features, n_genes
        F and G.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, n_features: int, n_genes: int) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(()))

    def scale_to(self, features: Tensor) -> None:
        """Take the scale of the training patches."""
        scaling = Scaling.of(features)
        self.center.copy_(scaling.center)
        self.spread.copy_(scaling.spread)

    def scaled(self, features: Tensor) -> Tensor:
        return (features - self.center) / self.spread

    def start(self, one: Labelled) -> None:
        """Initialise what depends on the training labels."""

    @abstractmethod
    def expression(self, batch: Batch) -> Tensor:
        """Predicted log1p CP10k ``(S, G)``."""

    @abstractmethod
    def loss(self, batch: Batch, one: Labelled, index: IntArray) -> Tensor:
        """Loss of the bags of a batch, which are those of ``index`` in ``one``."""


class _Regression(BagNetwork):
    """Squared error on standardised log1p CP10k."""

    mean: Tensor
    sd: Tensor

    def __init__(self, n_features: int, n_genes: int) -> None:
        super().__init__(n_features, n_genes)
        self.register_buffer("mean", torch.zeros(n_genes))
        self.register_buffer("sd", torch.ones(n_genes))
        self._targets: dict[int, Tensor] = {}

    def start(self, one: Labelled) -> None:
        values = torch.from_numpy(one.expression)
        self.mean.copy_(values.mean(dim=0))
        self.sd.copy_(values.std(dim=0, correction=0).clamp(min=1e-3))

    def expression(self, batch: Batch) -> Tensor:
        return self.outputs(batch) * self.sd + self.mean

    def loss(self, batch: Batch, one: Labelled, index: IntArray) -> Tensor:
        if id(one) not in self._targets:
            self._targets = {id(one): torch.from_numpy(one.expression.astype(np.float32))}
        target = self._targets[id(one)].to(self.mean.device)[torch.from_numpy(index)]
        return (self.outputs(batch) - (target - self.mean) / self.sd).square().mean()

    @abstractmethod
    def outputs(self, batch: Batch) -> Tensor:
        """Standardised log1p CP10k ``(S, G)``."""


class MeanPool(_Regression):
    """Two layers on the mean features of a bag."""

    def __init__(self, n_features: int, n_genes: int, hidden: int) -> None:
        super().__init__(n_features, n_genes)
        self.network = nn.Sequential(nn.Linear(n_features, hidden), nn.GELU(), nn.Linear(hidden, n_genes))

    def outputs(self, batch: Batch) -> Tensor:
        result: Tensor = self.network(batch.mean(self.scaled(batch.features)))
        return result


class AttentionPool(_Regression):
    """Gated attention over patches (Ilse et al. 2018, eq. 9), then a linear layer."""

    def __init__(self, n_features: int, n_genes: int, hidden: int) -> None:
        super().__init__(n_features, n_genes)
        self.embedding = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU())
        self.signal, self.gate = nn.Linear(hidden, hidden // 2 or 1), nn.Linear(hidden, hidden // 2 or 1)
        self.attention = nn.Linear(hidden // 2 or 1, 1)
        self.last = nn.Linear(hidden, n_genes)

    def outputs(self, batch: Batch) -> Tensor:
        embedded = self.embedding(self.scaled(batch.features))
        scores = self.attention(self.signal(embedded).tanh() * self.gate(embedded).sigmoid())
        weights = bag_softmax(scores[:, 0], batch)
        sums = embedded.new_zeros((batch.n_bags, embedded.shape[1]))
        result: Tensor = self.last(sums.index_add(0, batch.owner, weights[:, None] * embedded))
        return result


def bag_softmax(scores: Tensor, batch: Batch) -> Tensor:
    """Softmax of scores ``(n,)`` within each bag."""
    largest = scores.detach().new_full((batch.n_bags,), -torch.inf)
    largest = largest.scatter_reduce(0, batch.owner, scores.detach(), "amax")
    exponentials = (scores - largest[batch.owner]).exp()
    sums = exponentials.new_zeros(batch.n_bags).index_add(0, batch.owner, exponentials)
    return exponentials / sums[batch.owner]


class PaperCpnn(BagNetwork):
    """CPNN as its published code trains it, at its faults' own scale; for comparison.

    Prototypes are not normalised (counts per cell); the likelihood is a sum over genes, both penalties are means; all
    parameters decay; the dispersion starts at random; features are not scaled. Only the scores differ from the code:
    they are those of all heads (log1p CP10k).
    """

    initial: Tensor

    def __init__(self, n_features: int, profiles: Tensor) -> None:
        super().__init__(n_features, profiles.shape[1])
        self.network = nn.Sequential(
            nn.Linear(n_features, 1024), nn.GELU(), nn.Linear(1024, 512), nn.GELU(), nn.Linear(512, len(profiles))
        )
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        self.register_buffer("initial", profiles.clamp(min=1e-10).log())
        self.log_prototypes = nn.Parameter(self.initial.clone())
        self.log_alpha = nn.Parameter(torch.zeros(self.n_genes))
        self.log_beta = nn.Parameter(torch.full((self.n_genes,), _PAPER_BETA))
        self.log_theta = nn.Parameter(torch.randn(self.n_genes))

    def scale_to(self, features: Tensor) -> None:
        """Features stay as they are."""

    def start(self, one: Labelled) -> None:
        counts = torch.from_numpy(one.counts).double()
        mean = (counts / counts.sum(dim=1, keepdim=True)).mean(dim=0).clamp(min=1e-9)
        average = self.initial.double().exp().mean(dim=0)
        with torch.no_grad():  # the detection of genes relative to single cells, as cell2location's m_g
            self.log_alpha.copy_((mean / (average / average.sum())).log().float())

    def relative(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Relative expression ``(S, G)``, and mean weights."""
        weights = batch.mean(self.network(batch.features).softmax(dim=1))
        counts = self.log_alpha.exp() * (weights @ self.log_prototypes.exp()) + self.log_beta.exp()
        return counts / counts.sum(dim=1, keepdim=True), weights

    def expression(self, batch: Batch) -> Tensor:
        return (1e4 * self.relative(batch)[0]).log1p()

    def loss(self, batch: Batch, one: Labelled, index: IntArray) -> Tensor:
        relative, weights = self.relative(batch)
        counts, shares = (torch.from_numpy(v[index]).to(relative.device) for v in (one.counts, one.shares))
        likelihood = nb_loss(counts, relative, self.log_theta).sum(dim=1).mean()
        if not self.training:
            return likelihood
        moved = (self.log_prototypes.softmax(dim=1) - self.initial.softmax(dim=1)).square().mean()
        known = ~shares.isnan().any(dim=1)
        tied = (weights[known] - shares[known]).square().mean() if bool(known.any()) else likelihood.new_zeros(())
        return likelihood + _PAPER_WEIGHT * (moved + tied)


def train_network(
    network: BagNetwork,
    one: Labelled,
    settings: SlideLevelSettings,
    progress: Progress = no_progress,
    held_out: IntArray | None = None,
) -> int:
    """Train a network in place; return the epoch of its weights.

    Features of ``one`` are views of the backbone. The loss of ``held_out``, by default some patients, ends the
    training.
    """
    device = choose_device(settings.device)
    is_paper = isinstance(network, PaperCpnn)
    if is_paper:
        settings = settings.replace(batch_bags=_PAPER_BATCH, draw=_PAPER_DRAW)
    features = torch.from_numpy(one.bags.features)
    held = validation_rows(one.bags, settings) if held_out is None else held_out
    kept = np.setdiff1d(np.arange(len(one.bags)), held)
    network.scale_to(features)
    network.start(one.subset(kept))
    network.to(device)
    features = features.to(device)

    def part(index: IntArray, rng: np.random.Generator | None) -> Tensor:
        batch = batch_of(one.bags, index, features, settings.draw, rng)
        return network.loss(batch.to(device), one, index)

    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=1e-2 if is_paper else settings.weight_decay
    )
    schedule: torch.optim.lr_scheduler.LRScheduler = (
        torch.optim.lr_scheduler.StepLR(optimiser, _PAPER_STEP, _PAPER_DECAY)
        if is_paper
        else torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)
    )
    epoch = run_epochs(
        network,
        Optimisation(optimiser, schedule, _PAPER_CLIP if is_paper else 5.0),
        [len(kept)],
        lambda rows, rng: part(kept[rows[0]], rng),
        settings,
        (lambda: float(part(held, None))) if len(held) else None,
        progress,
        dealing(one.slides, kept, settings),
    )
    network.to("cpu")
    return epoch


def predict_network(network: BagNetwork, bags: Bags) -> FloatArray:
    """Predict log1p CP10k ``(S, G)`` of bags, from all their patches, one bag at a time."""
    features: Float32Array = bags.features
    values = torch.from_numpy(features)
    with torch.no_grad():
        rows = [network.expression(batch_of(bags, np.array([i]), values))[0] for i in range(len(bags))]
    return torch.stack(rows).double().numpy()
