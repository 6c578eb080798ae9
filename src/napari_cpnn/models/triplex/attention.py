"""Transformer layers, using ``scaled_dot_product_attention`` of torch except for single queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self- or cross-attention.

    Parameters
    ----------
    width
        Features per token; a multiple of ``heads``.
    heads
        Number of attention heads.
    dropout
        Dropout of attention weights and output, in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend from ``queries (B, Q, width)`` to ``tokens (B, T, width)``; returns ``(B, Q, width)``.

        ``bias`` is added to the logits and broadcasts to ``(B, heads, Q, T)``; minus infinity masks a token.
        """
        q = self._split(self.query(queries))
        k, v = (self._split(part) for part in self.key_value(tokens).chunk(2, dim=-1))
        if q.shape[-2] == 1 and q.device.type == "cpu" and not self.training:
            taken = _attend_with_one(q, k, v, bias)
        else:
            p = self.dropout if self.training else 0.0
            taken = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)
        joined = taken.transpose(1, 2).flatten(2)
        return nn.functional.dropout(self.out(joined), self.dropout, self.training)

    def _split(self, values: Tensor) -> Tensor:
        return values.view(*values.shape[:-1], self.heads, -1).transpose(1, 2)


def _attend_with_one(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention of a single query, ``(B, heads, 1, D)``, summed row by row.

    torch's implementation gives each thread a buffer at an arbitrary address, and the rounding of products with a
    single row depends on memory alignment, so that results would depend on the thread.
    """
    logits = (query * keys).sum(dim=-1) * query.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias.squeeze(-2)
    taken: Tensor = (logits.softmax(dim=-1)[..., None] * values).sum(dim=-2, keepdim=True)
    return taken


class Block(nn.Module):
    """Pre-norm transformer layer: attention, then an MLP with one hidden layer and GELU, both residual.

    Parameters
    ----------
    mlp_ratio
        Width of the hidden layer relative to ``width``.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, queries: Tensor, tokens: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Update ``queries (B, Q, width)`` by attention to ``tokens (B, T, width)``, or to each other if None."""
        normed = self.norm(queries)
        seen = normed if tokens is None else self.norm(tokens)
        queries = queries + self.attention(normed, seen, bias)
        result: Tensor = queries + self.mlp(queries)
        return result


def masking_bias(present: Tensor) -> Tensor:
    """Attention bias ``(B, 1, 1, T)`` that masks tokens that are not ``present (B, T)``."""
    return torch.zeros(present.shape, device=present.device).masked_fill(~present, -torch.inf)[:, None, None]
