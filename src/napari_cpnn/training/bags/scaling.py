"""Features on a common scale for training, folded into the first layer of the network afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Scaling:
    """Centre ``(F,)`` and spread of features: ``x -> (x - center) / spread``.

    The spread is one number, the root of the mean variance: features keep their scales relative to one another, since
    one that hardly varies in training would otherwise be enlarged without bound on new tissue.
    """

    center: Tensor
    spread: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scaling:
        """Scaling of features ``(N, F)``."""
        values = features.double()
        spread = values.var(dim=0, correction=0).mean().sqrt().clamp(min=1e-6)
        return cls(values.mean(dim=0).float(), spread.float())

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.center.to(features.device)) / self.spread.to(features.device)

    def fold(self, layer: nn.Linear) -> None:
        """Change the first layer so that it takes features as they are."""
        with torch.no_grad():
            weight = layer.weight.double() / self.spread.double()
            layer.bias.copy_((layer.bias.double() - weight @ self.center.double()).float())
            layer.weight.copy_(weight.float())
