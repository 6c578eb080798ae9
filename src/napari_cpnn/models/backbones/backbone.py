"""What a model asks of its backbone, whatever it sees of a place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_cpnn.models.triplex.surroundings import Surroundings


class Backbone:
    """Interface of a backbone; the defaults are those of an image network that sees the patch alone.

    Attributes
    ----------
    image_networks
        Names of the attributes that are image networks: first that of the patch, which is trained with
        ``backbone_learning_rate``, last that of :meth:`own_features`.
    n_views
        Number of views with heads of their own in training, besides the main one.
    input_kind
        Kind of input: ``"patch"``, or ``"surroundings"`` if predictions also depend on the patch's neighbours and
        slide; keys of ``INPUTS`` in :mod:`napari_cpnn.prediction`.
    """

    image_networks: tuple[str, ...] = ("alone",)
    n_views = 0
    input_kind = "patch"

    @property
    def network(self) -> nn.Module:
        """Image network of the patch."""
        network: nn.Module = getattr(self, self.image_networks[0])
        return network

    @property
    def own_network(self) -> nn.Module:
        """Image network of :meth:`own_features`."""
        network: nn.Module = getattr(self, self.image_networks[-1])
        return network

    def own_features(self, images: Tensor) -> Tensor:
        """Features ``(N, F)`` of patches from their own pixels, on which out-of-domain scores are based."""
        features: Tensor = self.own_network(images)
        return features

    def patch_features(self, images: Tensor) -> Tensor:
        """Output ``(N, ...)`` of the network of the patch, which can be cached while that is frozen."""
        features: Tensor = self.network(images)
        return features

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


class _ImageNetwork(Backbone):
    def __init__(self, network: nn.Module) -> None:
        self.alone = network


def backbone_of(network: nn.Module) -> Backbone:
    """Interface of a network: its own, or that of an image network that sees the patch alone."""
    return network if isinstance(network, Backbone) else _ImageNetwork(network)


def n_features_of(network: nn.Module) -> int:
    """Number of features per patch of an image network."""
    return int(network.n_features)  # type: ignore[arg-type]
