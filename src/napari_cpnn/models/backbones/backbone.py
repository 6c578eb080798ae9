"""What a model asks of its backbone, whatever it sees of a place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_cpnn.models.triplex import Surroundings


class Backbone:
    """Interface of a backbone; the defaults are those of a network that sees the patch alone.

    A network with other inputs inherits from this class. Any other module is wrapped by :func:`backbone_of`.

    Attributes
    ----------
    image_networks
        Names of the submodules that are image networks; empty if the network itself is one.
    n_views
        Number of views with heads of their own in training, besides the main one.
    needs_surroundings
        True if predictions also depend on the patch's neighbours and slide.
    """

    image_networks: tuple[str, ...] = ()
    n_views = 0
    needs_surroundings = False

    def image_network(self) -> nn.Module:
        """Network of the patch, which is trained with ``backbone_learning_rate``."""
        raise NotImplementedError

    def own_network(self) -> nn.Module:
        """Network of :meth:`own_features`."""
        return self.image_network()

    def own_features(self, images: Tensor) -> Tensor:
        """Features ``(N, F)`` of patches from their own pixels, on which out-of-domain scores are based."""
        features: Tensor = self.image_network()(images)
        return features

    def patch_features(self, images: Tensor) -> Tensor:
        """Output ``(N, ...)`` of the image network, which can be cached while that is frozen."""
        return self.own_features(images)

    def patch_row(self, size_px: int) -> tuple[tuple[int, ...], type[np.floating]]:  # noqa: ARG002
        """Shape and type in which :meth:`patch_features` of one patch are cached."""
        return (n_features_of(self.image_network()),), np.float32

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


class _PatchBackbone(Backbone):
    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def image_network(self) -> nn.Module:
        return self._network


def backbone_of(network: nn.Module) -> Backbone:
    """Interface of a network: its own, or that of one that sees the patch alone."""
    return network if isinstance(network, Backbone) else _PatchBackbone(network)


def n_features_of(network: nn.Module) -> int:
    """Number of features per patch of an image network."""
    return int(network.n_features)  # type: ignore[arg-type]
