"""Out-of-domain score: distance of a patch from the tissue that a model was trained on.

    d(h)^2 = 1/2 ( sum_k t_k^2 / v_k  +  |h - m - U' t|^2 / q ),    t = U (h - m)

is a combined index of the backbone's features ``h`` (Yue and Qin 2001): the squared Mahalanobis distance along the
``K`` principal axes ``U`` of the training patches, and the squared distance from the plane of these axes, each in
units of its mean over held-out patches. The score is the share of held-out patches that are nearer.
:mod:`napari_cpnn.training.fit.domain` fits both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Above this share of the held-out patches, their few largest distances are replaced by an exponential tail.
BODY = 0.9

#: Number of stored quantiles of the held-out distances, from 0 to `BODY`.
N_KNOTS = 91


class Domain(nn.Module):
    """Features ``(N, F)`` -> out-of-domain scores ``(N,)`` in [0, 1].

    0.5 is the median of held-out training tissue, and 5 % of it is above 0.95. The score is strictly increasing with
    distance.

    Parameters
    ----------
    n_features, n_axes
        F and K.

    Attributes
    ----------
    center, axes, variances, residual
        ``(F,)`` mean m, ``(K, F)`` orthonormal rows U, ``(K,)`` v and ``()`` q.
    knots
        ``(N_KNOTS,)`` quantiles of the held-out distances at evenly spaced probabilities from 0 to `BODY`.
    tail
        ``()``, mean excess of a distance over the last knot.
    """

    center: Tensor
    axes: Tensor
    variances: Tensor
    residual: Tensor
    knots: Tensor
    tail: Tensor

    def __init__(self, n_features: int, n_axes: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("axes", torch.zeros(n_axes, n_features))
        self.register_buffer("variances", torch.ones(n_axes))
        self.register_buffer("residual", torch.ones(()))
        self.register_buffer("knots", torch.linspace(0, BODY, N_KNOTS))
        self.register_buffer("tail", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        return self.score(self.distance(features))

    def distance(self, features: Tensor) -> Tensor:
        """Distances ``(N,)``; their mean square is 1 on held-out tissue of the training domain."""
        away = features - self.center
        along = away @ self.axes.T
        rest = (away.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        return (0.5 * ((along.square() / self.variances).sum(dim=1) + rest / self.residual)).sqrt()

    def score(self, distance: Tensor) -> Tensor:
        """Fraction ``(N,)`` of held-out patches with smaller distance; interpolated, extrapolated beyond the last."""
        last = self.knots[-1]
        i = torch.searchsorted(self.knots, distance).clamp(1, N_KNOTS - 1)
        low, high = self.knots[i - 1], self.knots[i]
        within = ((distance - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)).clamp(0, 1)
        body = BODY * (i - 1 + within) / (N_KNOTS - 1)
        beyond = 1 - (1 - BODY) * torch.exp((last - distance) / self.tail)
        return torch.where(distance <= last, body, beyond)
