"""Training losses and penalties, computed in float32 (or float64) whatever the backbone's precision.

In bfloat16, small differences between patches are rounded away and correlations cannot be learned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: A gene whose standard deviation over the batch is below this fraction of its largest value is constant: in
#: float32, rounding alone makes such differences.
_CONSTANT = 1e-6

#: Elements of predictions in a block of genes on a CPU, so that a handful of such arrays stays in its cache.
_BLOCK = 2**18


def pcc_loss(
    predicted: Tensor, measured: Tensor, weights: Tensor | None = None, groups: Tensor | None = None
) -> Tensor:
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
    groups
        ``(N,)``, the group of each spot, such as its slide, best on the CPU: correlations are over the spots of each
        group, and the loss is the mean of theirs over the spots. By default all spots are one group.

    Returns
    -------
    torch.Tensor
        Scalar in [0, 2], float32 (float64 for float64 input), never NaN for finite input, nor are its gradients. It can
        be differentiated once.

    Examples
    --------
    >>> import torch
    >>> from napari_cpnn.models import pcc_loss
    >>> measured = torch.tensor([[0.0], [1.0], [2.0]])
    >>> [round(float(pcc_loss(slope * measured, measured))) for slope in (3, -1)]
    [0, 2]
    """
    with torch.autocast(predicted.device.type, enabled=False):
        dtype = torch.promote_types(_precise(predicted).dtype, _precise(measured).dtype)
        rows: list[slice | Tensor]
        rows = [slice(0, len(predicted))] if groups is None else _rows_of(groups, predicted.device)
        correlation, constant = _correlations(predicted.to(dtype), measured.to(dtype), rows)
        counts = (~constant).to(dtype) if weights is None else weights.to(dtype) * ~constant
        total = counts.sum(dim=1)
        losses = ((1 - correlation) * counts).sum(dim=1) / torch.where(total > 0, total, torch.ones_like(total))
        if len(rows) == 1:
            return losses[0]
        sizes = [row.stop - row.start if isinstance(row, slice) else len(row) for row in rows]
        return (losses * losses.new_tensor(sizes)).sum() / len(predicted)


def _rows_of(groups: Tensor, device: torch.device) -> list[slice | Tensor]:
    """Rows of each group, as a slice where they follow one another, so that nothing is copied."""
    rows: list[slice | Tensor] = []
    for group in torch.unique(groups):
        members = torch.nonzero(groups == group).ravel()
        first, last = int(members[0]), int(members[-1])
        rows.append(slice(first, last + 1) if last - first + 1 == len(members) else members.to(device))
    return rows


def _correlations(p: Tensor, m: Tensor, rows: list[slice | Tensor]) -> tuple[Tensor, Tensor]:
    """:class:`_Correlations` of predicted and measured values ``(N, G)``."""
    correlation, constant = _Correlations.apply(p, m, rows)  # type: ignore[no-untyped-call]
    return correlation, constant


class _Correlations(torch.autograd.Function):
    """Pearson correlation ``(K, G)`` of each gene over K groups of rows, and whether its measurement is constant there.

    With centred ``p`` and ``m``, ``r = p . m / (|p| |m|)`` and ``dr/dp = m / (|p| |m|) - r p / |p|^2``, which is
    centred, too. Both are computed in one pass, a block of genes at a time, which stays in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, m: Tensor, rows: list[slice | Tensor]) -> tuple[Tensor, Tensor]:
        correlation = p.new_empty((len(rows), p.shape[1]))
        constant = torch.empty_like(correlation, dtype=torch.bool)
        needed = ctx.needs_input_grad
        slopes = [torch.empty_like(values) if needed[i] else None for i, values in enumerate((p, m))]
        for k, row in enumerate(rows):
            p_rows, m_rows = p[row], m[row]
            step = max(1, (_BLOCK if p.device.type == "cpu" else p.numel()) // max(1, len(p_rows)))
            for start in range(0, p.shape[1], step):
                block = slice(start, start + step)
                x, y = p_rows[:, block], m_rows[:, block]
                px, py = x - x.mean(dim=0), y - y.mean(dim=0)
                p_squares, p_constant = _sum_of_squares(x, px)
                m_squares, m_constant = _sum_of_squares(y, py)
                m_norm = torch.where(m_constant, torch.ones_like(m_squares), m_squares).sqrt()
                p_norm = torch.where(p_constant, m_norm, p_squares.sqrt())
                norms = p_norm * m_norm
                r = (px * py).sum(dim=0) / norms
                correlation[k, block], constant[k, block] = r, m_constant
                if slopes[0] is not None:
                    own = torch.where(p_constant, torch.zeros_like(r), r / p_norm.square())
                    _fill(slopes[0], row, block, py, norms, px, own)
                if slopes[1] is not None:
                    _fill(slopes[1], row, block, px, norms, py, r / m_norm.square())
        ctx.rows, ctx.slopes = rows, slopes
        ctx.mark_non_differentiable(constant)
        return correlation, constant

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _constant: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        results: list[Tensor | None] = []
        for slope in ctx.slopes:
            if slope is None:
                results.append(None)
                continue
            result = torch.empty_like(slope)
            for k, row in enumerate(ctx.rows):
                if isinstance(row, slice):
                    torch.mul(slope[row], gradient[k], out=result[row])
                else:
                    result[row] = slope[row] * gradient[k]
            results.append(result)
        return results[0], results[1], None


def _fill(
    slopes: Tensor, row: slice | Tensor, block: slice, other: Tensor, norms: Tensor, own: Tensor, factor: Tensor
) -> None:
    """Write ``other / norms - factor * own`` into a part of the slopes, in place where its rows follow one another."""
    if isinstance(row, slice):
        torch.div(other, norms, out=slopes[row, block]).addcmul_(own, factor, value=-1)
    else:
        slopes[row, block] = (other / norms).addcmul_(own, factor, value=-1)


def _sum_of_squares(values: Tensor, centred: Tensor) -> tuple[Tensor, Tensor]:
    squares = centred.square().sum(dim=0)
    largest = values.abs().amax(dim=0)
    constant = squares <= len(values) * (_CONSTANT * largest).square()
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
