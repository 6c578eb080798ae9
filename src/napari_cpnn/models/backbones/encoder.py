"""Metadata of image networks, without torch: names, sizes, normalisation, weights and their licences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cpnn.models.backbones.sources import WeightsSource

if TYPE_CHECKING:
    from torch import nn

#: Normalisation of networks trained on ImageNet by torchvision's recipe; RGB on a scale of 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderInfo:
    """Metadata of an image network.

    Parameters
    ----------
    name
        Name in the registry.
    description
        One-line description for users.
    n_features
        Features per patch.
    min_px
        Smallest supported patch side, in pixels.
    trained_px, trained_mpp
        Side (px) and pixel size (um) of the training patches; ``None`` if these were photographs or slides at several
        magnifications, and 0 px of an encoder that is not trained.
    mean, std
        Normalisation of its input, RGB on a scale of 0 to 1.
    licence
        Licence of the pre-trained weights, as text.
    commercial_use
        Whether the licence allows commercial use.
    embed
        Whether the frozen weights are stored in model files: False if the licence forbids it or they are very large.
    source
        File of the pre-trained weights.
    network
        Factory of the network with random weights; callers use :meth:`build`.
    load
        Factory for networks that load their own weights (of timm, transformers), given ``"pretrained"``, ``"none"`` or
        a path.
    frozen_only
        Whether it serves only backbone ``"frozen"``, which standardises its features: they are of several scales.
    parts
        The encoders of a combination (:mod:`~napari_cpnn.models.backbones.combination`); empty otherwise.

    Examples
    --------
    >>> from napari_cpnn.models import ENCODERS
    >>> ENCODERS["stnet"].n_features, ENCODERS["stnet"].commercial_use
    (1024, True)
    """

    name: str
    description: str
    n_features: int
    min_px: int
    trained_px: int
    trained_mpp: float | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    commercial_use: bool
    embed: bool
    source: WeightsSource | None
    network: Callable[[], nn.Module]
    load: Callable[[str], nn.Module] | None = None
    frozen_only: bool = False
    parts: tuple[EncoderInfo, ...] = ()

    def build(self, weights: str = "none") -> nn.Module:
        """Build the network: normalised images ``(N, 3, S, S)`` -> ``(N, n_features)`` float32.

        Parameters
        ----------
        weights
            ``"pretrained"`` (downloaded once and verified; ``"imagenet"`` is a synonym), ``"none"`` (random), or the
            path of a file.

        Raises
        ------
        WeightsError
            If the weights are unavailable or belong to another network.
        """
        if self.load is not None:
            return self.load(weights)
        network = self.network()
        if weights != "none":
            from napari_cpnn.models.backbones.weights import load_weights

            load_weights(network, self, weights)
        return network
