"""What a model asks of its backbone, whatever it sees of a place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_cpnn.models.triplex import Surroundings


class Backbone:
    """Interface of a backbone; the defaults are those of an image network that sees the patch alone.

    Attributes
    ----------
    network
        Network of the patch, which is trained with ``backbone_learning_rate``.
    own_network
        Network of :meth:`own_features`.
    image_networks
        Names of the submodules that are image networks; empty if the backbone itself is one.
    n_views
        Number of views with heads of their own in training, besides the main one.
    needs_surroundings
        True if predictions also depend on the patch's neighbours and slide.
    """

    network: nn.Module
    own_network: nn.Module
    image_networks: tuple[str, ...] = ()
    n_views = 0
    needs_surroundings = False

    def own_features(self, images: Tensor) -> Tensor:
        """Features ``(N, F)`` of patches from their own pixels, on which out-of-domain scores are based."""
        features: Tensor = self.network(images)
        return features

    def patch_features(self, images: Tensor) -> Tensor:
        """Output ``(N, ...)`` of the network of the patch, which can be cached while that is frozen."""
        return self.own_features(images)

    def patch_row(self, size_px: int) -> tuple[tuple[int, ...], type[np.floating]]:  # noqa: ARG002
        """Shape and type in which :meth:`patch_features` of one patch are cached."""
        return (n_features_of(self.network),), np.float32

    def views(self, patch_features: Tensor, surroundings: Surroundings | None = None) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Inputs of the heads, main head first, each ``(N, F)``."""
        return (patch_features,)

    def encode_surroundings(self, surroundings: Surroundings) -> Surroundings:
        """Encode the slides of surroundings once, for repeated predictions."""
        return surroundings

    def predict(self, images: Tensor, surroundings: Surroundings | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Input of the main head, and :meth:`own_features`."""
        features = self.own_features(images)
        return features, features


def backbone_of(network: nn.Module) -> Backbone:
    """Interface of a network: its own, or that of an image network that sees the patch alone."""
    if isinstance(network, Backbone):
        return network
    alone = Backbone()
    alone.network = alone.own_network = network
    return alone


def n_features_of(network: nn.Module) -> int:
    """Number of features per patch of an image network."""
    return int(network.n_features)  # type: ignore[arg-type]
