"""Train a CPNN on bags: one label per bag, negative binomial likelihood, eq. 8 as sums.

Everything after the weights is linear, so that the expression of a slide needs only its mean weights; the matrix of
patches by genes is never made. Several sources of labels, such as bulk samples and measured spots (bags of one patch),
share the network and the prototypes; each has its own alpha, beta and dispersion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import IntArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.models import (
    CPNN,
    PrototypeHead,
    StandardisedEncoder,
    choose_device,
    composition_penalty,
    prototype_penalty,
)
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.training.bags.labels import Labelled
from napari_cpnn.training.bags.likelihood import nb_loss, start_log_theta
from napari_cpnn.training.bags.loop import Batch, Optimisation, batch_of, dealing, run_epochs, validation_rows
from napari_cpnn.training.bags.scaling import Scaling

#: Lower bound of a gene's mean, in counts per 10,000.
_LEAST_MEAN = 1e-3
#: Share of a gene's mean that the first shift explains, as in models of spots.
_SHIFT_SHARE = 0.1
#: Exponent of the nuclear area at the start: half-way between no influence and proportionality.
_START_EXPONENT = 0.5


class BagCpnn(nn.Module):
    """Head of a model with the genes' parameters of each source of labels.

    Parameters
    ----------
    model
        On the count scale; its own alpha and beta are those of the first source.
    labelled
        Bags with counts, by name of the source. Where they have areas, a patch counts as its area to the power of an
        exponent that is learnt.
    """

    def __init__(self, model: CPNN, labelled: Mapping[str, Labelled], settings: SlideLevelSettings) -> None:
        super().__init__()
        assert isinstance(model.head, PrototypeHead)  # noqa: S101
        self.head = model.head
        self.settings = settings
        self.names = list(labelled)
        first = self.names[0]
        self.log_theta = nn.ParameterDict()
        self.log_alpha, self.log_beta = nn.ParameterDict(), nn.ParameterDict()
        for name, one in labelled.items():
            self.log_theta[name] = nn.Parameter(start_log_theta(torch.from_numpy(one.counts)))
            if name != first:
                alpha, beta = _start(self.head.log_prototypes, one, learned=settings.scale_shift)
                self.log_alpha[name] = nn.Parameter(alpha, requires_grad=settings.scale_shift)
                self.log_beta[name] = nn.Parameter(beta, requires_grad=settings.scale_shift)
        self.register_buffer("initial", model.prototypes.detach().clone(), persistent=False)
        has_areas = labelled[first].bags.log_areas is not None
        self.signed_exponent = nn.Parameter(torch.tensor(_START_EXPONENT)) if has_areas else None

    initial: Tensor

    @property
    def exponent(self) -> Tensor | None:
        """Exponent of the nuclear area, not negative (its parameter is reflected at 0); None without areas."""
        return None if self.signed_exponent is None else self.signed_exponent.abs()

    def gene_scales(self, name: str) -> tuple[Tensor, Tensor]:
        """Logarithms of alpha and beta ``(G,)`` of a source."""
        if name == self.names[0]:
            return self.head.log_alpha, self.head.log_beta
        return self.log_alpha[name], self.log_beta[name]

    def mean_weights(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean weights ``(S, C)`` and programs ``(S, R)`` of the bags of a batch, by the content of patches."""
        weights, programs = self.head(batch.features)
        content = None
        if self.exponent is not None and batch.log_areas is not None:
            content = (self.exponent * batch.log_areas).exp()
        return batch.mean(weights, content), batch.mean(programs, content)

    def relative(self, weights: Tensor, programs: Tensor, name: str) -> Tensor:
        """Relative expression ``(S, G)`` from mean weights and programs, eq. 1 and 2; rows sum to 1."""
        share = self.head.free_share
        mixed = weights @ self.head.log_prototypes.softmax(dim=1)
        if self.head.mixture is not None:
            mixed = (1 - share) * mixed + share * (programs @ self.head.log_free.softmax(dim=1))
        log_alpha, log_beta = self.gene_scales(name)
        counts = log_alpha.exp() * mixed + log_beta.exp()
        return counts / counts.sum(dim=1, keepdim=True)

    def loss(self, batch: Batch, counts: Tensor, shares: Tensor, name: str, slides: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Negative log-likelihood per gene, and the composition's distance from the deconvolved shares."""
        weights, programs = self.mean_weights(batch)
        likelihood = nb_loss(counts, self.relative(weights, programs, name), self.log_theta[name]).mean()
        if not self.settings.composition_weight:
            return likelihood
        return likelihood + self.settings.composition_weight * composition_penalty(weights, shares)

    def penalty(self) -> Tensor:
        """Squared distance of the prototypes from the start, times its weight."""
        moved = prototype_penalty(self.head.log_prototypes.softmax(dim=1), self.initial)
        return self.settings.prototype_weight * moved


@runtime_checkable
class Calibrated(Protocol):
    """A module whose loss knows no scale, so that alpha and beta are refitted after training."""

    def calibrate(self, weights: Tensor, programs: Tensor, counts: Tensor) -> None: ...


@dataclass(frozen=True)
class Trained:
    """Result of :func:`train_cpnn`.

    Attributes
    ----------
    epoch
        Epoch of the weights.
    n_validation
        Number of bags whose likelihood ended the training.
    scales
        Logarithms of alpha and beta of each source.
    exponent
        Exponent of the nuclear area; None where patches count alike.
    """

    epoch: int
    n_validation: int
    scales: dict[str, tuple[Tensor, Tensor]]
    exponent: float | None = None


def train_cpnn(
    model: CPNN,
    labelled: Mapping[str, Labelled],
    settings: SlideLevelSettings,
    progress: Progress = no_progress,
    *,
    kind: type[BagCpnn] = BagCpnn,
    held_out: IntArray | None = None,
) -> Trained:
    """Train the head of a model with a frozen encoder, in place; deterministic for given settings and data.

    Parameters
    ----------
    labelled
        Bags with raw features of the encoder, counts and shares, by source. The model gets alpha and beta of the first.
    kind
        Class with the loss.
    held_out
        Bags of the first source whose loss ends the training; by default those of some patients.

    Raises
    ------
    TrainingError
        If there are no bags, or the loss is not finite.
    """
    if not labelled:
        raise TrainingError("There are no bags to train on.")
    device = choose_device(settings.device)
    raw = {name: torch.from_numpy(one.bags.features) for name, one in labelled.items()}
    together = torch.cat(list(raw.values()))
    if isinstance(model.backbone, StandardisedEncoder):
        model.backbone.standardise(together)
    scaling = Scaling.of(model.views(together)[0])
    features = {name: scaling(model.views(values)[0]).to(device) for name, values in raw.items()}
    first = next(iter(labelled))
    held = validation_rows(labelled[first].bags, settings) if held_out is None else held_out
    kept = {name: np.arange(len(one.bags)) for name, one in labelled.items()}
    kept[first] = np.setdiff1d(kept[first], held)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = kind(model, {n: one.subset(kept[n]) for n, one in labelled.items()}, settings).to(device)
        counts = {name: torch.from_numpy(one.counts).to(device) for name, one in labelled.items()}
        shares = {name: torch.from_numpy(one.shares).to(device) for name, one in labelled.items()}

        def part(name: str, index: IntArray, rng: np.random.Generator | None) -> Tensor:
            batch = batch_of(labelled[name].bags, index, features[name], settings.draw, rng).to(device)
            at = torch.from_numpy(index).to(device)
            slides = labelled[name].slides
            of_slides = None if slides is None else torch.from_numpy(slides[index])
            return module.loss(batch, counts[name][at], shares[name][at], name, of_slides)

        def step(rows: list[IntArray], rng: np.random.Generator) -> Tensor:
            losses = [part(name, kept[name][index], rng) for name, index in zip(labelled, rows, strict=True)]
            return torch.stack(losses).sum() + module.penalty()

        optimiser = torch.optim.AdamW(_groups(module, settings), lr=settings.learning_rate)
        epoch = run_epochs(
            module,
            Optimisation(optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)),
            [len(kept[name]) for name in labelled],
            step,
            settings,
            (lambda: float(part(first, held, None))) if len(held) else None,
            progress,
            dealing(labelled[first].slides, kept[first], settings),
        )
    module.to("cpu")
    if isinstance(module, Calibrated):
        rows = torch.from_numpy(kept[first])
        every = batch_of(labelled[first].bags, np.arange(len(labelled[first].bags)), features[first].cpu())
        with torch.no_grad():
            weights, programs = module.mean_weights(every)
        module.calibrate(weights[rows], programs[rows], torch.from_numpy(labelled[first].counts)[rows])
    for network in (module.head.composition, module.head.mixture):
        if isinstance(network, nn.Sequential) and isinstance(network[0], nn.Linear):
            scaling.fold(network[0])
    scales = {name: tuple(t.detach().clone() for t in module.gene_scales(name)) for name in labelled}
    exponent = None if module.exponent is None else float(module.exponent.detach())
    return Trained(epoch, len(held), scales, exponent)  # type: ignore[arg-type]


def _start(log_prototypes: Tensor, one: Labelled, *, learned: bool) -> tuple[Tensor, Tensor]:
    """Alpha and beta of a further source: at uniform weights, the prediction is its mean."""
    counts = torch.from_numpy(one.counts).double()
    mean = (1e4 * counts / counts.sum(dim=1, keepdim=True)).mean(dim=0).clamp(min=_LEAST_MEAN)
    average = log_prototypes.detach().double().softmax(dim=1).mean(dim=0)
    if not learned:
        return mean.sum().log().expand(len(mean)).clone().float(), torch.full((len(mean),), -30.0)
    return ((1 - _SHIFT_SHARE) * mean / average).log().float(), (_SHIFT_SHARE * mean).log().float()


def _groups(module: BagCpnn, settings: SlideLevelSettings) -> list[dict[str, object]]:
    """Weight decay on the network only: it would pull logarithms of scales and prototypes towards 0."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    genes: list[Tensor] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_network = name.startswith(("head.composition.", "head.mixture."))
            (genes if not is_network else decayed if parameter.ndim > 1 else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
        {"params": genes, "weight_decay": 0.0, "lr": settings.gene_learning_rate},
    ]
