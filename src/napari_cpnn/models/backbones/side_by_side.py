"""Several frozen encoders side by side, and features on a common scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_cpnn.models.backbones.backbone import n_features_of


class Part(nn.Module):
    """One of several encoders, with the conversion of their common images to its own normalisation.

    Parameters
    ----------
    network
        ``(N, 3, S, S)`` -> ``(N, F)``.
    scale, shift
        Per channel, from the common normalised images to its own.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, scale: Sequence[float], shift: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.n_features = n_features_of(network)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        own = images.float() * self.scale[:, None, None] + self.shift[:, None, None]
        features: Tensor = self.network(own.to(images.dtype))
        return features.float()


class SideBySide(nn.Module):
    """Concatenated features of several encoders: ``(N, 3, S, S)`` -> ``(N, F)`` float32, F the sum over the parts."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.n_features = sum(part.n_features for part in parts)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.parts], dim=1)
