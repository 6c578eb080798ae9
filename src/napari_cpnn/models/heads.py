"""The heads of a model: features of the image network -> weights of cell types and programs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_cpnn.models.card import ModelSpec

#: Standard deviation of the programs' genes at the start: small, so that the composition speaks first.
_PROGRAM_SCALE = 0.01

#: Layers of so few outputs are summed row by row.
_FEW = 3

#: ``T (C, G), alpha (G,), beta (G,), V (R, G)``
Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


class PrototypeHead(nn.Module):
    """Features -> softmax weights of prototypes, and programs.

    ``w = softmax(MLP(features))`` with two hidden layers and GELU; ``T`` is the softmax over genes of
    ``log_prototypes``; ``alpha = exp(log_alpha)`` and ``beta = exp(log_beta)`` are positive (eq. 1 of the paper).

    Programs are of two kinds, both ours, and both linear for the decoder. The *free mixture*: a second set of C softmax
    weights, of profiles that start at the prototypes and then go where the genes want them, for a share
    ``spec.free_mixture`` of ``alpha``; it is as bounded as a composition, which is what carries over to other patients,
    and leaves ``w`` free to be a composition. The *residual programs*: numbers without bounds, from a network of the
    same form or a linear layer; outside of training they count ``spec.program_gain``, since they are what fits the
    training tissue too closely.
    """

    def __init__(self, n_features: int, spec: ModelSpec) -> None:
        super().__init__()
        n_types, n_genes = len(spec.cell_types), len(spec.genes)
        self.free_share, self.program_gain = spec.free_mixture, spec.program_gain
        self.composition = _mlp(n_features, spec.hidden, n_types)
        self.programs = _programs(n_features, spec)
        self.program_genes = nn.Parameter(_PROGRAM_SCALE * torch.randn(spec.n_programs, n_genes))
        self.log_prototypes = nn.Parameter(torch.randn(n_types, n_genes))
        self.log_alpha = nn.Parameter(torch.zeros(n_genes))
        self.log_beta = nn.Parameter(torch.zeros(n_genes))
        self.mixture: nn.Module | None = None
        if self.free_share > 0:
            self.mixture = _mlp(n_features, spec.hidden, n_types)
            self.log_free = nn.Parameter(torch.randn(n_types, n_genes))

    @property
    def n_programs(self) -> int:
        """Free mixture and residual programs together."""
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
    """The networks of a :class:`PrototypeHead` for another view of the patch (of TRIPLEX), over the same prototypes."""

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
    """A linear layer whose last bits do not depend on where a row stands.

    Libraries of matrix products treat results of one to three columns as a special case that depends on it; their few
    products are summed row by row here, which no processor does differently for one row than for another.
    """

    def forward(self, values: Tensor) -> Tensor:
        if self.training or self.out_features > _FEW:
            return super().forward(values)
        return (values[:, None] * self.weight).sum(dim=-1) + self.bias


class LinearHead(nn.Module):
    """The plain head of ST-Net: features are the programs, ``V`` is the linear layer, there are no cell types."""

    def __init__(self, n_features: int, spec: ModelSpec) -> None:
        super().__init__()
        self.program_genes = nn.Parameter(torch.zeros(n_features, len(spec.genes)))
        self.bias = nn.Parameter(torch.zeros(len(spec.genes)))

    @property
    def n_programs(self) -> int:
        """The features."""
        return len(self.program_genes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features.new_zeros((len(features), 0)), features

    def coefficients(self) -> Coefficients:
        n_genes = len(self.bias)
        return self.bias.new_zeros((0, n_genes)), self.bias.new_ones(n_genes), self.bias, self.program_genes
