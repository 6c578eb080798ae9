"""Prediction heads: features of the image network -> weights of cell types, and programs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_cpnn.models.card import ModelSpec

#: Initial standard deviation of the programs' gene loadings: small, so that the composition is fitted first.
_PROGRAM_SCALE = 0.01

#: Layers with at most this many outputs are summed row by row.
_FEW = 3

#: ``T (C, G), alpha (G,), beta (G,), V (R, G)``
Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


class PrototypeHead(nn.Module):
    """Features -> softmax weights of prototypes, and programs.

    ``w = softmax(MLP(features))`` with two hidden layers and GELU; ``T`` is the softmax over genes of
    ``log_prototypes``; ``alpha = exp(log_alpha)`` and ``beta = exp(log_beta)`` are positive (eq. 1 of the paper).

    There are two kinds of programs, both beyond the paper and linear in the decoder. The *free mixture* is a second set
    of C softmax weights over profiles that are initialised at the prototypes and then fitted freely, with a fraction
    ``spec.free_mixture`` of ``alpha``; it is bounded like a composition, which generalises across patients, and lets
    ``w`` remain a composition. The *residual programs* are unbounded outputs of a network of the same form or of a
    linear layer; outside of training they are multiplied by ``spec.program_gain``, since they tend to overfit.
    """

    def __init__(self, n_features: int, spec: ModelSpec) -> None:
        super().__init__()
        n_types, n_genes = len(spec.cell_types), len(spec.genes)
        self.free_share, self.program_gain = spec.free_mixture, spec.program_gain
        self.composition = _mlp(n_features, spec.hidden, n_types)
        self.programs = _programs(n_features, spec)
        self.program_genes = nn.Parameter(torch.randn(spec.n_programs, n_genes).mul_(_PROGRAM_SCALE))
        self.log_prototypes = nn.Parameter(torch.randn(n_types, n_genes))
        self.log_alpha = nn.Parameter(torch.zeros(n_genes))
        self.log_beta = nn.Parameter(torch.zeros(n_genes))
        self.mixture: nn.Module | None = None
        if self.free_share > 0:
            self.mixture = _mlp(n_features, spec.hidden, n_types)
            self.log_free = nn.Parameter(torch.randn(n_types, n_genes))

    @property
    def n_programs(self) -> int:
        """Number of programs, free mixture included."""
        free = 0 if self.mixture is None else len(self.log_free)
        return free + len(self.program_genes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        gain = 1.0 if self.training else self.program_gain
        return _look(self.composition, self.mixture, self.programs, features, gain)

    def coefficients(self) -> Coefficients:
        prototypes, alpha = self.log_prototypes.softmax(dim=1), self.log_alpha.exp()
        programs: Tensor = self.program_genes
        if self.mixture is not None:
            free = self.free_share * alpha * self.log_free.softmax(dim=1)
            alpha, programs = (1 - self.free_share) * alpha, torch.cat([free, programs])
        return prototypes, alpha, self.log_beta.exp(), programs


class ViewHead(nn.Module):
    """Networks of a :class:`PrototypeHead` for another view of the patch (TRIPLEX), sharing its prototypes."""

    def __init__(self, n_features: int, spec: ModelSpec) -> None:
        super().__init__()
        n_types = len(spec.cell_types)
        self.composition = _mlp(n_features, spec.hidden, n_types)
        self.mixture = _mlp(n_features, spec.hidden, n_types) if spec.free_mixture > 0 else None
        self.programs = _programs(n_features, spec)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return _look(self.composition, self.mixture, self.programs, features, 1.0)


def _look(
    composition: nn.Module, mixture: nn.Module | None, programs: nn.Module | None, features: Tensor, gain: float
) -> tuple[Tensor, Tensor]:
    """Weights ``(N, C)``; free mixture and ``gain`` times the residual programs, side by side, ``(N, R)``."""
    weights = composition(features).softmax(dim=1)
    parts = [features.new_zeros((len(features), 0))]
    if mixture is not None:
        parts.append(mixture(features).softmax(dim=1))
    if programs is not None:
        parts.append(gain * programs(features))
    return weights, torch.cat(parts, dim=1)


def _programs(n_features: int, spec: ModelSpec) -> nn.Module | None:
    if not spec.n_programs:
        return None
    if spec.program_net == "linear":
        return _Linear(n_features, spec.n_programs)
    return _mlp(n_features, spec.hidden, spec.n_programs)


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), _Linear(hidden, n_out)
    )


class _Linear(nn.Linear):
    """Linear layer whose results are bit-identical wherever a row is in the batch.

    Matrix product libraries treat results of one to three columns as special cases that depend on the row's position;
    here these few products are summed row by row, which is the same for every row on any processor.
    """

    def forward(self, values: Tensor) -> Tensor:
        if self.training or self.out_features > _FEW:
            return super().forward(values)
        return (values[:, None] * self.weight).sum(dim=-1) + self.bias


class LinearHead(nn.Module):
    """Linear head of ST-Net: the features are the programs, ``V`` is the linear layer; no cell types."""

    def __init__(self, n_features: int, spec: ModelSpec) -> None:
        super().__init__()
        self.program_genes = nn.Parameter(torch.zeros(n_features, len(spec.genes)))
        self.bias = nn.Parameter(torch.zeros(len(spec.genes)))

    @property
    def n_programs(self) -> int:
        """Number of features."""
        return len(self.program_genes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features.new_zeros((len(features), 0)), features

    def coefficients(self) -> Coefficients:
        n_genes = len(self.bias)
        return self.bias.new_zeros((0, n_genes)), self.bias.new_ones(n_genes), self.bias, self.program_genes
