"""What is known of an image network without torch: names, sizes, normalisation, weights and their terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

#: Normalisation of networks trained on ImageNet by torchvision's recipe; RGB on a scale of 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: Names of the weights that come with an encoder, in ``weights`` and ``encoder_weights`` of the settings.
PRETRAINED = ("imagenet", "pretrained")


@dataclass(frozen=True)
class WeightsSource:
    """A file of pre-trained weights.

    Parameters
    ----------
    url
        Where it is.
    sha256
        Its checksum, whole; without one nothing is downloaded, and the user has to bring the file.
    """

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class EncoderInfo:
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
    trained_px, trained_mpp
        Side and pixel size (um) of the patches that it was trained on; ``None`` where these were photographs, or
        slides at several magnifications.
    mean, std
        Normalisation of its input, RGB on a scale of 0 to 1.
    licence
        Terms of the pre-trained weights, in words.
    commercial_use
        Whether these terms allow commercial use.
    embed
        Whether the weights, frozen, may travel inside our model files; not where their terms are against it, or where
        they are huge.
    source
        Where its pre-trained weights are.
    network
        Makes it, with random weights; :meth:`build` is what others call.
    load
        Makes it with the weights of a library, ``"pretrained"``, ``"none"`` or a path; for networks of such a library.
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

    def build(self, weights: str = "none") -> nn.Module:
        """The network, which takes ``(N, 3, S, S)`` normalised images and gives ``(N, n_features)`` float32.

        Parameters
        ----------
        weights
            ``"pretrained"`` (downloaded once, checked; ``"imagenet"`` says the same), ``"none"`` (random), or the path
            of a file.

        Raises
        ------
        WeightsError
            When the weights cannot be had, or are of another network.
        """
        if self.load is not None:
            return self.load(weights)
        network = self.network()
        if weights != "none":
            from napari_cpnn.models.backbones.weights import load_weights

            load_weights(network, self, weights)
        return network
