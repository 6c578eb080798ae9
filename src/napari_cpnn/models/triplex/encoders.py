"""Encoders of TRIPLEX: neighbours of a patch, whole slide, and their fusion.

Chung et al., Accurate spatial gene expression prediction by integrating multi-resolution features, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_cpnn.models.triplex.attention import Block, masking_bias


class NeighbourEncoder(nn.Module):
    """Transformer over the block of patches around a patch, with relative position bias.

    Parameters
    ----------
    n_features
        Number F of frozen features.
    side
        Side of the block, in patches.
    """

    offsets: Tensor

    def __init__(self, n_features: int, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.layers = nn.ModuleList(Block(width, heads, mlp_ratio=1, dropout=0.3) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        # Row and column offsets from -(side - 1) to side - 1, as in windows of Swin (Liu et al. 2021).
        self.position_bias = nn.Parameter(torch.zeros(heads, (2 * side - 1) ** 2))
        row, col = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        apart = [(v.flatten()[:, None] - v.flatten()) + side - 1 for v in (row, col)]
        self.register_buffer("offsets", apart[0] * (2 * side - 1) + apart[1])

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Encode frozen features ``(N, side^2, F)``, of which some are ``present``, to tokens ``(N, side^2, width)``.

        Features at absent positions do not influence the others.
        """
        bias = self.position_bias[:, self.offsets] + masking_bias(present)
        tokens: Tensor = self.embed(features.masked_fill(~present[..., None], 0.0))
        for layer in self.layers:
            tokens = layer(tokens, bias=bias)
        normed: Tensor = self.norm(tokens)
        return normed


class PositionEncoding(nn.Module):
    """Depth-wise 3 x 3 convolution over tokens at arbitrary positions.

    Each of the nine taps sums the tokens near ``position + tap`` with bilinear weights. On a full square lattice of
    spacing 1 this is the usual convolution (as in TRIPLEX, over its array of spots); on a hexagonal array, at irregular
    positions or between tokens it is its continuous form, so that no array layout needs to be detected.
    """

    taps: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(9, width).uniform_(-1 / 3, 1 / 3))
        self.bias = nn.Parameter(torch.zeros(width))
        steps = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer("taps", torch.cartesian_prod(steps, steps))

    def forward(self, queries: Tensor, at: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add the convolution of tokens ``(T, width)`` at ``positions (T, 2)`` to queries ``(Q, width)`` at ``at``."""
        apart = positions[None] - at[:, None]
        query, token = torch.nonzero((apart.abs() < 2).all(dim=-1), as_tuple=True)
        # (pairs, taps): the overlap of a token with each tap, the product of two triangles.
        overlap = (1 - (apart[query, token][:, None] - self.taps).abs()).clamp(min=0).prod(dim=-1)
        brought = self._weighted(overlap) * tokens[token]
        # Under autocast, the product may have another precision than the sum.
        added = torch.zeros_like(queries).index_add(0, query, brought.to(queries.dtype))
        return queries + added + self.bias

    def _weighted(self, overlap: Tensor) -> Tensor:
        """Compute ``overlap (pairs, taps) @ weight`` with rounding independent of the number of pairs."""
        if self.training:
            return overlap @ self.weight
        total = overlap[:, :1] * self.weight[0]
        for tap in range(1, len(self.weight)):
            total += overlap[:, tap : tap + 1] * self.weight[tap]
        return total


class GlobalEncoder(nn.Module):
    """Transformer over the tokens of a slide, evaluated at any position on that slide.

    A position is a query: its own frozen feature passes through the layers alongside the tokens and attends to them. A
    query with the position and feature of a token gives that token's output, up to rounding, so that tokens are encoded
    only once.
    """

    def __init__(self, n_features: int, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.layers = nn.ModuleList(Block(width, heads, mlp_ratio=4, dropout=0.1) for _ in range(3))
        self.position = PositionEncoding(width)
        self.norm = nn.LayerNorm(width)

    def encode(self, features: Tensor, positions: Tensor) -> list[Tensor]:
        """Encode tokens with frozen features ``(T, F)`` at ``positions (T, 2)``, in units of their spacing.

        Returns the tokens ``(T, width)`` before each layer, and before the position encoding, as keys for queries.
        """
        tokens: Tensor = self.embed(features)
        states = [tokens]
        for i, layer in enumerate(self.layers[:-1]):
            tokens = layer(tokens[None])[0]
            states.append(tokens)
            if i == 0:
                tokens = self.position(tokens, positions, tokens, positions)
                states.append(tokens)
        return states

    def forward(self, features: Tensor, at: Tensor, states: Sequence[Tensor], positions: Tensor) -> Tensor:
        """Encode places ``at (Q, 2)`` with frozen features ``(Q, F)`` to ``(Q, width)``, given the encoded tokens."""
        first, before_position, *rest = states
        queries: Tensor = self.embed(features)
        queries = self.layers[0](queries[None], first[None])[0]
        queries = self.position(queries, at, before_position, positions)
        for layer, tokens in zip(self.layers[1:], rest, strict=True):
            queries = layer(queries[None], tokens[None])[0]
        normed: Tensor = self.norm(queries)
        return normed


class Fusion(nn.Module):
    """Attention of the slide token to the tokens of the patch and of its neighbours, with one shared layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer = Block(width, heads, mlp_ratio=4, dropout=0.2)
        self.norm = nn.LayerNorm(width)

    def attend(self, place: Tensor, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Attend from ``place (N, width)`` to ``tokens (N, T, width)``; returns ``(N, width)``."""
        bias = None if present is None else masking_bias(present)
        seen: Tensor = self.layer(place[:, None], tokens, bias)
        return seen[:, 0]

    def forward(self, from_patch: Tensor, from_neighbours: Tensor) -> Tensor:
        """Sum and normalise both results of :meth:`attend`: ``(N, width)``."""
        fused: Tensor = self.norm(from_patch + from_neighbours)
        return fused
