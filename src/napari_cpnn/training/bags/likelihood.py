"""Negative binomial likelihood of bulk counts, given relative expression and library size (eq. 2 to 4 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

#: Range of log theta: over-dispersion beyond it cannot be told from Poisson noise, or from no information.
_LOG_THETA = (-3.0, 7.0)


def nb_loss(counts: Tensor, relative: Tensor, log_theta: Tensor) -> Tensor:
    """Negative log-likelihood ``(S, G)`` of counts under ``NB(mean l_n p_ng, dispersion theta_g)``, in float64.

    The variance is ``mu + mu^2 / theta``. The library ``l_n`` is the sum of the counts over the genes given.

    Parameters
    ----------
    counts
        ``(S, G)``.
    relative
        ``(S, G)`` relative expression p; rows sum to 1.
    log_theta
        ``(G,)``.

    Examples
    --------
    >>> import torch
    >>> from napari_cpnn.training.bags import nb_loss
    >>> counts = torch.tensor([[30.0, 70.0]])
    >>> right, wrong = torch.tensor([[0.3, 0.7]]), torch.tensor([[0.6, 0.4]])
    >>> bool(nb_loss(counts, right, torch.zeros(2)).sum() < nb_loss(counts, wrong, torch.zeros(2)).sum())
    True
    """
    y, p = counts.double(), relative.double()
    mu = (y.sum(dim=1, keepdim=True) * p).clamp(min=1e-8)
    theta = log_theta.double().clamp(*_LOG_THETA).exp()
    both = (theta + mu).log()
    return (
        torch.lgamma(theta)
        + torch.lgamma(y + 1)
        - torch.lgamma(y + theta)
        - theta * (theta.log() - both)
        - y * (mu.log() - both)
    )


def start_log_theta(counts: Tensor) -> Tensor:
    """Moment estimate ``(G,)`` of log theta from counts ``(S, G)`` around the mean relative expression."""
    y = counts.double()
    library = y.sum(dim=1, keepdim=True)
    mu = library * (y / library).mean(dim=0)
    excess = ((y - mu).square() - mu).sum(dim=0) / mu.square().sum(dim=0).clamp(min=1e-12)
    return (1 / excess.clamp(min=1e-3)).log().clamp(*_LOG_THETA).float()
