"""The heads of a model: features of the image network -> weights of cell types and programs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_cpnn.models.card import ModelSpec

#: Standard deviation of the programs' genes at the start: small, so that the composition speaks first.
_PROGRAM_SCALE = 0.01

#: ``T (C, G), alpha (G,), beta (G,), V (R, G)``
Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


class PrototypeHead(nn.Module):
    """Features -> softmax weights of prototypes, and programs.

    ``w = softmax(MLP(features))`` with two hidden layers and GELU; the programs are a network of the same form, or a
    linear layer, without softmax; ``T`` is the softmax over genes of ``log_prototypes``; ``alpha = exp(log_alpha)``
    and ``beta = exp(log_beta)`` are positive (eq. 1 of the paper).
    """

    def __init__(self, n_features: int, spec: ModelSpec) -> None:
        super().__init__()
        n_types, n_genes = len(spec.cell_types), len(spec.genes)
        self.composition = _mlp(n_features, spec.hidden, n_types)
        self.programs: nn.Module | None = None
        if spec.n_programs:
            linear = spec.program_net == "linear"
            self.programs = (
                nn.Linear(n_features, spec.n_programs) if linear else _mlp(n_features, spec.hidden, spec.n_programs)
            )
        self.program_genes = nn.Parameter(_PROGRAM_SCALE * torch.randn(spec.n_programs, n_genes))
        self.log_prototypes = nn.Parameter(torch.randn(n_types, n_genes))
        self.log_alpha = nn.Parameter(torch.zeros(n_genes))
        self.log_beta = nn.Parameter(torch.zeros(n_genes))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.composition(features).softmax(dim=1)
        programs = features.new_zeros((len(features), 0)) if self.programs is None else self.programs(features)
        return weights, programs

    def coefficients(self) -> Coefficients:
        return self.log_prototypes.softmax(dim=1), self.log_alpha.exp(), self.log_beta.exp(), self.program_genes


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, n_out)
    )


class LinearHead(nn.Module):
    """The plain head of ST-Net: features are the programs, ``V`` is the linear layer, there are no cell types."""

    def __init__(self, n_features: int, spec: ModelSpec) -> None:
        super().__init__()
        self.program_genes = nn.Parameter(torch.zeros(n_features, len(spec.genes)))
        self.bias = nn.Parameter(torch.zeros(len(spec.genes)))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features.new_zeros((len(features), 0)), features

    def coefficients(self) -> Coefficients:
        n_genes = len(self.bias)
        return self.bias.new_zeros((0, n_genes)), self.bias.new_ones(n_genes), self.bias, self.program_genes
