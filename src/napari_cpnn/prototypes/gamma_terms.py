"""Terms of the negative binomial likelihood with gamma functions.

They depend only on how often each gene has each count, which is far fewer numbers than the counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from torch import Tensor


class GammaTerms:
    """Sums over spots of ``lgamma(k + theta) - lgamma(theta)`` for each gene, and their derivatives.

    Computed on the CPU in float64, in an order independent of the device.

    Parameters
    ----------
    counts
        ``(S, G)``, k: non-negative integers without stored zeros.
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
        """Return the sum over spots of ``lgamma(k + theta) - lgamma(theta)``, ``(G,)``."""
        each = theta.cpu()[self._gene]
        return self._sum((self._count + each).lgamma() - each.lgamma(), theta)

    def derivatives(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and second derivative of :meth:`value` with respect to theta, ``(G,)`` each."""
        each = theta.cpu()[self._gene]
        first = (self._count + each).digamma() - each.digamma()
        second = (self._count + each).polygamma(1) - each.polygamma(1)
        return self._sum(first, theta), self._sum(second, theta)
