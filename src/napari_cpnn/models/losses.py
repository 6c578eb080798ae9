"""Training losses and penalties, computed in float32 (or float64) whatever the backbone's precision.

In bfloat16, small differences between patches are rounded away and correlations cannot be learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: A gene whose standard deviation over the batch is below this fraction of its largest value is constant: in
#: float32, rounding alone makes such differences.
_CONSTANT = 1e-6


def pcc_loss(predicted: Tensor, measured: Tensor, weights: Tensor | None = None) -> Tensor:
    """One minus the Pearson correlation over the spots of a batch, mean over genes (section 3.2 of the paper).

    A gene whose *measured* values are constant in the batch has no correlation and contributes nothing; when all
    are constant, the loss is 0. A gene whose *predicted* values are constant counts as uncorrelated; its gradient is
    that of a prediction as variable as the measurement, so that a head that starts at zero weights can leave it.

    Parameters
    ----------
    predicted, measured
        ``(N, G)``: spots, genes.
    weights
        ``(G,)``, not negative: the mean over genes is weighted by them. By default all genes count the same.

    Returns
    -------
    torch.Tensor
        Scalar in [0, 2], float32 (float64 for float64 input), never NaN for finite input, nor are its gradients.

    Examples
    --------
    >>> import torch
    >>> from napari_cpnn.models import pcc_loss
    >>> measured = torch.tensor([[0.0], [1.0], [2.0]])
    >>> [round(float(pcc_loss(slope * measured, measured))) for slope in (3, -1)]
    [0, 2]
    """
    with torch.autocast(predicted.device.type, enabled=False):
        p, m = _precise(predicted), _precise(measured)
        p_centred, m_centred = p - p.mean(dim=0), m - m.mean(dim=0)
        p_squares, p_constant = _sum_of_squares(p, p_centred)
        m_squares, m_constant = _sum_of_squares(m, m_centred)
        # sqrt has an infinite gradient at 0: constant genes get a harmless value before it, not after.
        m_norm = torch.where(m_constant, torch.ones_like(m_squares), m_squares).sqrt()
        p_norm = torch.where(p_constant, m_norm.square(), p_squares).sqrt()
        correlation = (p_centred * m_centred).sum(dim=0) / (p_norm * m_norm)
        counts = (~m_constant).to(p.dtype) if weights is None else weights.to(p.dtype) * ~m_constant
        total = counts.sum()
        return ((1 - correlation) * counts).sum() / torch.where(total > 0, total, torch.ones_like(total))


def _sum_of_squares(values: Tensor, centred: Tensor) -> tuple[Tensor, Tensor]:
    squares = centred.square().sum(dim=0)
    largest = values.detach().abs().amax(dim=0)
    constant = squares.detach() <= len(values) * (_CONSTANT * largest).square()
    return squares, constant


def mse_loss(predicted: Tensor, measured: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error over spots and genes, ``(N, G)`` each; ST-Net's own loss (He et al. 2020).

    With ``weights`` ``(G,)``, not all 0, the mean over genes is weighted by them.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        squares = (_precise(predicted) - _precise(measured)).square()
        return squares.mean() if weights is None else (squares.mean(dim=0) * weights).sum() / weights.sum()


def prototype_penalty(prototypes: Tensor, initial: Tensor) -> Tensor:
    """Squared distance of the prototypes from their initial values, ``||T - T0||^2`` (eq. 8 of the paper).

    Parameters
    ----------
    prototypes, initial
        ``(C, G)``, rows sum to 1; the first from :attr:`CPNN.prototypes`, with gradients.

    Examples
    --------
    >>> import torch
    >>> from napari_cpnn.models import prototype_penalty
    >>> float(prototype_penalty(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])))
    0.5
    """
    with torch.autocast(prototypes.device.type, enabled=False):
        return (_precise(prototypes) - _precise(initial)).square().sum()


def composition_penalty(weights: Tensor, deconvolved: Tensor) -> Tensor:
    """Mean over spots of ``||w - W||^2`` between predicted weights and deconvolved shares (eq. 8, per spot).

    Parameters
    ----------
    weights
        ``(N, C)`` predicted.
    deconvolved
        ``(N, C)``; a spot with a NaN has no deconvolution and is left out. With no spot left the penalty is 0.

    Examples
    --------
    >>> import torch
    >>> from napari_cpnn.models import composition_penalty
    >>> float(composition_penalty(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])))
    0.5
    """
    with torch.autocast(weights.device.type, enabled=False):
        w, target = _precise(weights), _precise(deconvolved)
        known = ~target.isnan().any(dim=1)
        # NaN times 0 is NaN, in gradients too: unknown targets are replaced before the difference is taken.
        target = torch.where(known[:, None], target, w.detach())
        return (w - target).square().sum() / known.sum().clamp(min=1)


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
