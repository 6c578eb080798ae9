"""The encoders of TRIPLEX: surroundings of a patch, the slide as a whole, and their fusion.

Chung et al., Accurate spatial gene expression prediction by integrating multi-resolution features, CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_cpnn.models.triplex.attention import Block, masking_bias


class NeighbourEncoder(nn.Module):
    """A transformer over the block of patches around a patch, with a bias for each relative position.

    Parameters
    ----------
    n_features
        F of the frozen features.
    side
        Patches along a side of the block.
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
        """Tokens ``(N, side^2, width)`` from frozen features ``(N, side^2, F)`` of which some are ``present``.

        What stands at the places that are not present has no influence on the others.
        """
        bias = self.position_bias[:, self.offsets] + masking_bias(present)
        tokens: Tensor = self.embed(features.masked_fill(~present[..., None], 0.0))
        for layer in self.layers:
            tokens = layer(tokens, bias=bias)
        normed: Tensor = self.norm(tokens)
        return normed


class PositionEncoding(nn.Module):
    """A depth-wise 3 x 3 convolution over tokens that may lie anywhere.

    Each of the nine taps takes the tokens near ``position + tap`` by bilinear weights. On a full square lattice of
    spacing 1 that is the usual convolution (of which TRIPLEX has one, over its array of spots); on a hexagonal array,
    at irregular places or between tokens it is its continuous form, and no array has to be recognised.
    """

    taps: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(9, width).uniform_(-1 / 3, 1 / 3))
        self.bias = nn.Parameter(torch.zeros(width))
        steps = torch.tensor([-1.0, 0.0, 1.0])
        self.register_buffer("taps", torch.cartesian_prod(steps, steps))

    def forward(self, queries: Tensor, at: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """``queries (Q, width)`` at ``at (Q, 2)`` with what tokens ``(T, width)`` at ``positions (T, 2)`` add."""
        apart = positions[None] - at[:, None]
        query, token = torch.nonzero((apart.abs() < 2).all(dim=-1), as_tuple=True)
        # (pairs, taps): the overlap of a token with each tap, the product of two triangles.
        overlap = (1 - (apart[query, token][:, None] - self.taps).abs()).clamp(min=0).prod(dim=-1)
        brought = self._weighted(overlap) * tokens[token]
        # Under an enclosing autocast the product may be in another precision than the sum.
        added = torch.zeros_like(queries).index_add(0, query, brought.to(queries.dtype))
        return queries + added + self.bias

    def _weighted(self, overlap: Tensor) -> Tensor:
        """``overlap (pairs, taps) @ weight``: how many pairs there are must not show in the rounding of any of them."""
        if self.training:
            return overlap @ self.weight
        total = overlap[:, :1] * self.weight[0]
        for tap in range(1, len(self.weight)):
            total += overlap[:, tap : tap + 1] * self.weight[tap]
        return total


class GlobalEncoder(nn.Module):
    """A transformer over the tokens of a slide, and what it says of any place of that slide.

    A place is a query: its own frozen feature goes through the layers beside the tokens and attends to them. A query at
    a token's place with the token's feature becomes what the token becomes, up to rounding, so that tokens need
    encoding only once.
    """

    def __init__(self, n_features: int, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.layers = nn.ModuleList(Block(width, heads, mlp_ratio=4, dropout=0.1) for _ in range(3))
        self.position = PositionEncoding(width)
        self.norm = nn.LayerNorm(width)

    def encode(self, features: Tensor, positions: Tensor) -> list[Tensor]:
        """What queries attend to, from frozen features ``(T, F)`` at ``positions (T, 2)``, in units of their spacing.

        Returns the tokens ``(T, width)`` before each layer, and before the position encoding.
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
        """Tokens ``(Q, width)`` of the places ``at (Q, 2)`` with frozen features ``(Q, F)``, given :meth:`encode`'s."""
        first, before_position, *rest = states
        queries: Tensor = self.embed(features)
        queries = self.layers[0](queries[None], first[None])[0]
        queries = self.position(queries, at, before_position, positions)
        for layer, tokens in zip(self.layers[1:], rest, strict=True):
            queries = layer(queries[None], tokens[None])[0]
        normed: Tensor = self.norm(queries)
        return normed


class Fusion(nn.Module):
    """The token of a place attends to the tokens of its patch and to those of its neighbours, by the same layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layer = Block(width, heads, mlp_ratio=4, dropout=0.2)
        self.norm = nn.LayerNorm(width)

    def attend(self, place: Tensor, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """``(N, width)``: what ``place (N, width)`` makes of ``tokens (N, T, width)``."""
        bias = None if present is None else masking_bias(present)
        seen: Tensor = self.layer(place[:, None], tokens, bias)
        return seen[:, 0]

    def forward(self, from_patch: Tensor, from_neighbours: Tensor) -> Tensor:
        """The two, summed and normalised: ``(N, width)``."""
        fused: Tensor = self.norm(from_patch + from_neighbours)
        return fused
