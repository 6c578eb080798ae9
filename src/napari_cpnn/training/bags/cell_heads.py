"""Heads of single cells that are trained on spots: CPNN with correlations, and sCellST's network as the baseline."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import IntArray
from napari_cpnn.models import composition_penalty, pcc_loss
from napari_cpnn.training.bags.cpnn import BagCpnn
from napari_cpnn.training.bags.labels import Labelled
from napari_cpnn.training.bags.loop import Batch
from napari_cpnn.training.bags.networks import BagNetwork

#: Of sCellST: width of its three hidden layers, share of units that are left out, sharpness of its softplus.
_WIDTH, _DROPOUT, _SHARPNESS = 256, 0.1, 20.0
#: Quantile of measured expression that sCellST scales each gene by.
_TOP = 0.95
#: Slope of a gene whose prediction does not follow the measurement, relative to proportionality.
_LEAST_SLOPE = 0.02


def correlation_loss(predicted: Tensor, measured: Tensor, slides: Tensor) -> Tensor:
    """One minus the mean PCC of the columns of ``(S, K)`` over the spots of each slide, ``(S,)``."""
    members = [torch.nonzero(slides == slide).ravel().to(predicted.device) for slide in torch.unique(slides)]
    members = [rows for rows in members if len(rows) > 1]
    losses = [len(rows) * pcc_loss(predicted[rows], measured[rows]) for rows in members]
    return torch.stack(losses).sum() / sum(map(len, members)) if losses else predicted.sum() * 0


class CellCpnn(BagCpnn):
    """CPNN per cell; a spot is the mean of its cells in counts: correlations within slides instead of a likelihood."""

    def loss(self, batch: Batch, counts: Tensor, shares: Tensor, name: str, slides: Tensor | None = None) -> Tensor:
        """One minus the PCC of log1p CP10k, and of the composition beside its squared distance."""
        weights, programs = self.mean_weights(batch)
        assert slides is not None  # noqa: S101
        predicted = (1e4 * self.relative(weights, programs, name)).log1p()
        measured = (1e4 * counts / counts.sum(dim=1, keepdim=True)).log1p()
        loss = correlation_loss(predicted, measured, slides)
        if not self.training:  # what ends the training
            return loss
        known = ~shares.isnan().any(dim=1)
        if self.settings.composition_weight and bool(known.any()):
            composition = composition_penalty(weights, shares)
            composition = composition + correlation_loss(weights[known], shares[known], slides[known.cpu()])
            loss = loss + self.settings.composition_weight * composition
        return loss

    @torch.no_grad()
    def calibrate(self, weights: Tensor, programs: Tensor, counts: Tensor) -> None:
        """Refit alpha and beta to counts per 10,000 ``(S, G)`` by least squares, since correlations know no scale.

        Alpha scales types and free mixture alike; both stay positive, beta is not negative.
        """
        prototypes, alpha, _, of_programs = self.head.coefficients()
        mixed = (weights @ (prototypes * alpha) + programs @ of_programs).double()
        measured = 1e4 * counts.double() / counts.double().sum(dim=1, keepdim=True)
        m, r = mixed.mean(dim=0), measured.mean(dim=0)
        centred = mixed - m
        slope = (centred * (measured - r)).sum(dim=0) / centred.square().sum(dim=0).clamp(min=1e-12)
        through_zero = (mixed * measured).sum(dim=0) / mixed.square().sum(dim=0).clamp(min=1e-12)
        slope = torch.where(slope * m > r, through_zero, slope).clamp(min=1e-12)
        slope = torch.maximum(slope, _LEAST_SLOPE * r / m.clamp(min=1e-12))
        self.head.log_alpha.add_(slope.clamp(min=1e-12).log().float())
        self.head.log_beta.copy_((r - slope * m).clamp(min=1e-6 * r.clamp(min=1e-6)).log().float())


class CellMlp(BagNetwork):
    """sCellST's network: three hidden layers and a softplus per cell; a spot is the mean of its cells.

    With the loss ``"mse"`` the mean is of logarithms and each gene is scaled by its 95th percentile in the training
    spots, as in sCellST (Nat Commun 2026, doi 10.1038/s41467-025-67965-1, and its public code); with ``"pcc"`` the mean
    is of counts and the loss that of :class:`CellCpnn`.
    """

    mean: Tensor
    top: Tensor

    def __init__(self, n_features: int, n_genes: int, loss: Literal["pcc", "mse"] = "pcc") -> None:
        super().__init__(n_features, n_genes)
        layers: list[nn.Module] = []
        for n_in in (n_features, _WIDTH, _WIDTH):
            layers += [nn.Linear(n_in, _WIDTH), nn.LeakyReLU(), nn.Dropout(_DROPOUT)]
        self.network = nn.Sequential(*layers, nn.Linear(_WIDTH, n_genes), nn.Softplus(beta=_SHARPNESS))
        self.register_buffer("mean", torch.ones(n_genes))
        self.register_buffer("top", torch.ones(n_genes))
        self.register_buffer("in_logs", torch.tensor(loss == "mse"))
        self._measured: tuple[Labelled, Tensor] | None = None

    in_logs: Tensor

    def start(self, one: Labelled) -> None:
        values = one.expression
        self.mean.copy_(torch.from_numpy(np.maximum(np.expm1(values).mean(axis=0), 1e-3)))
        self.top.copy_(torch.from_numpy(np.maximum(np.quantile(values, _TOP, axis=0), 1e-3)))

    def expression(self, batch: Batch) -> Tensor:
        spots = batch.mean(self.network(self.scaled(batch.features)))
        return spots * self.top if bool(self.in_logs) else (spots * self.mean).log1p()

    def loss(self, batch: Batch, one: Labelled, index: IntArray) -> Tensor:
        predicted = self.expression(batch)
        if self._measured is None or self._measured[0] is not one:
            self._measured = one, torch.from_numpy(one.expression.astype(np.float32))
        measured = self._measured[1][torch.from_numpy(index)].to(predicted.device)
        if bool(self.in_logs):
            return ((predicted - measured) / self.top).square().mean()
        assert one.slides is not None  # noqa: S101
        return correlation_loss(predicted, measured, torch.from_numpy(one.slides[index]))
