"""Encoders whose weights never change, as backbones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_cpnn.models.backbones.backbone import Backbone, n_features_of
from napari_cpnn.models.backbones.colour import ColourFeatures
from napari_cpnn.models.backbones.side_by_side import SideBySide

#: Colour numbers that vary less than this over the training patches, a quarter of a grey level, are constant.
_LEAST_COLOUR = 1e-3


class FrozenEncoder(nn.Module):
    """Encoder with frozen weights: no gradients, and fixed batch statistics even in training mode.

    Parameters
    ----------
    encoder
        ``(N, 3, S, S)`` -> ``(N, F)``, with ``n_features`` F.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.n_features = n_features_of(encoder)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Set the training mode; the encoder always stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps of the wrapped encoder, if it has a ``maps`` method."""
        maps: Tensor = self.encoder.maps(images)  # type: ignore[operator]
        return maps

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images)
        return features


class StandardisedEncoder(FrozenEncoder, Backbone):
    """Frozen encoder whose features, of several scales, are standardised before the heads and the domain.

    Features are cached as the encoder gives them, so that runs on other training spots share them.

    Attributes
    ----------
    center, spread
        ``(F,)`` over the training patches: mean, and standard deviation, of the features of a network the root of
        their mean variance; 0 and 1 before :meth:`standardise`.
    """

    image_networks = ("encoder",)

    center: Tensor
    spread: Tensor

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder)
        self.register_buffer("center", torch.zeros(self.n_features))
        self.register_buffer("spread", torch.ones(self.n_features))

    def standardise(self, features: Tensor) -> None:
        """Set the scale from features ``(N, F)`` of the training patches; what is constant there is only centred.

        Features of a network keep their scales relative to one another: one that hardly varies in training would
        otherwise be enlarged without bound, and with it what new tissue has of it.
        """
        values = features.double()
        center, spread = values.mean(dim=0), values.std(dim=0, correction=0)
        start = 0
        for part in self.encoder.parts if isinstance(self.encoder, SideBySide) else [self.encoder]:
            block = slice(start, start + n_features_of(part))
            if isinstance(getattr(part, "network", part), ColourFeatures):
                spread[block] = torch.where(spread[block] < _LEAST_COLOUR, 0.0, spread[block])
            else:
                spread[block] = spread[block].square().mean().sqrt()
            start = block.stop
        is_constant = spread <= 1e-6 * center.abs()  # but for rounding
        self.center.copy_(center)
        self.spread.copy_(torch.where(is_constant, torch.ones_like(spread), spread))

    def views(self, patch_features: Tensor, surroundings: object = None) -> tuple[Tensor, ...]:  # noqa: ARG002
        return ((patch_features.float() - self.center) / self.spread,)

    def own_features(self, images: Tensor) -> Tensor:
        return self.views(self.encoder(images))[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.own_features(images)


def frozen_backbone(encoder: nn.Module) -> FrozenEncoder:
    """Make an encoder a backbone that never changes; features of several scales are standardised."""
    return (StandardisedEncoder if isinstance(encoder, ColourFeatures | SideBySide) else FrozenEncoder)(encoder)
