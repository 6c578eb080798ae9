"""The registry of image networks, patch -> features.

This module knows their names, sizes and licences without torch; the networks are imported when one is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cpnn.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

#: Normalisation of networks trained on ImageNet by torchvision's recipe; RGB on a scale of 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightsSource:
    """A file of pre-trained weights that can be downloaded.

    Parameters
    ----------
    url
        Where it is.
    sha256
        Its checksum, whole.
    """

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of an image network.

    Parameters
    ----------
    name
        Its name in the registry.
    description
        One line for people who choose.
    n_features
        Features per patch.
    min_px
        The smallest patch it can take.
    mean, std
        Normalisation of its input, RGB on a scale of 0 to 1.
    licence
        Terms of the pre-trained weights, in words.
    commercial_use
        Whether these terms allow commercial use.
    imagenet
        Where its ImageNet weights are.
    network
        Makes it, with random weights; :meth:`build` is what others call.
    """

    name: str
    description: str
    n_features: int
    min_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    commercial_use: bool
    imagenet: WeightsSource
    network: Callable[[], nn.Module]

    def build(self, weights: str = "none") -> nn.Module:
        """The network, which takes ``(N, 3, S, S)`` normalised images and gives ``(N, n_features)`` float32.

        Parameters
        ----------
        weights
            ``"imagenet"`` (downloaded once, checked), ``"none"`` (random), or the path of a file.

        Raises
        ------
        WeightsError
            When the weights cannot be had, or are of another network.
        """
        network = self.network()
        if weights != "none":
            from napari_cpnn.models.backbones.weights import load_weights

            load_weights(network, self, weights)
        return network


def _stnet() -> nn.Module:
    from napari_cpnn.models.backbones.densenet import DenseNetFeatures

    return DenseNetFeatures()


def _squeezenet() -> nn.Module:
    from napari_cpnn.models.backbones.squeezenet import SqueezeNetFeatures

    return SqueezeNetFeatures()


_TORCHVISION_LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet, whose images have terms of their own"

#: Every image network, by name.
BACKBONES: dict[str, BackboneInfo] = {
    info.name: info
    for info in (
        BackboneInfo(
            name="stnet",
            description="ST-Net: DenseNet-121, 7.0 M parameters; the reference",
            n_features=1024,
            min_px=32,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence=_TORCHVISION_LICENCE,
            commercial_use=True,
            imagenet=WeightsSource(
                "https://download.pytorch.org/models/densenet121-a639ec97.pth",
                "a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
            ),
            network=_stnet,
        ),
        BackboneInfo(
            name="squeezenet",
            description="SqueezeNet 1.1, 0.7 M parameters; several times faster, for laptops",
            n_features=512,
            min_px=32,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence=_TORCHVISION_LICENCE,
            commercial_use=True,
            imagenet=WeightsSource(
                "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
                "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            ),
            network=_squeezenet,
        ),
    )
}


def get_backbone(name: str) -> BackboneInfo:
    """The entry of the registry; a :class:`SettingsError` lists the names when there is none."""
    try:
        return BACKBONES[name]
    except KeyError:
        raise SettingsError(f"There is no backbone {name!r}; use one of {', '.join(BACKBONES)}.") from None
