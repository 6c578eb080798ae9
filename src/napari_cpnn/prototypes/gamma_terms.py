"""The terms of a negative binomial likelihood that hold gamma functions.

They need only to know how often each gene has each count, not in which spot: far fewer numbers than counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from torch import Tensor


class GammaTerms:
    """Sums over spots of ``lgamma(k + theta) - lgamma(theta)`` for each gene, and their derivatives.

    They are computed on the processor in float64, in an order that does not depend on the device.

    Parameters
    ----------
    counts
        ``(S, G)``, k: positive whole numbers, and zeros that are not stored.
    """

    def __init__(self, counts: sp.csr_matrix) -> None:
        import torch

        table = counts.tocoo()
        self._n_genes = table.shape[1]
        values = table.data.astype(np.int64)
        span = int(values.max(initial=0)) + 1
        codes, times = np.unique(table.col.astype(np.int64) * span + values, return_counts=True)
        self._gene = torch.from_numpy(codes // span)
        self._count = torch.from_numpy((codes % span).astype(np.float64))
        self._times = torch.from_numpy(times.astype(np.float64))

    def _sum(self, values: Tensor, like: Tensor) -> Tensor:
        total = values.new_zeros(self._n_genes).index_add_(0, self._gene, self._times * values)
        return total.to(like.device)

    def value(self, theta: Tensor) -> Tensor:
        """``(G,)``, the sum over spots of ``lgamma(k + theta) - lgamma(theta)``."""
        each = theta.cpu()[self._gene]
        return self._sum((self._count + each).lgamma() - each.lgamma(), theta)

    def derivatives(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """``(G,)`` each, first and second derivative of :meth:`value` by theta."""
        each = theta.cpu()[self._gene]
        first = (self._count + each).digamma() - each.digamma()
        second = (self._count + each).polygamma(1) - each.polygamma(1)
        return self._sum(first, theta), self._sum(second, theta)
