"""Registry of image networks (patch -> features) and of the backbones built from them.

Names, sizes and licences are available without torch; a network is imported only when it is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.errors import SettingsError
from napari_cpnn.models.backbones.combination import combination, split_names, split_weights
from napari_cpnn.models.backbones.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo
from napari_cpnn.models.backbones.foundation import FOUNDATION, PREFIXES, by_library
from napari_cpnn.models.backbones.sources import PRETRAINED, WeightsSource

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "BACKBONES",
    "ENCODERS",
    "FOUNDATION",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PRETRAINED",
    "EncoderInfo",
    "WeightsSource",
    "get_encoder",
    "named_parts",
    "require_backbone",
]


def _stnet() -> nn.Module:
    from napari_cpnn.models.backbones.densenet import DenseNetFeatures

    return DenseNetFeatures()


def _squeezenet() -> nn.Module:
    from napari_cpnn.models.backbones.squeezenet import SqueezeNetFeatures

    return SqueezeNetFeatures()


def _resnet18() -> nn.Module:
    from napari_cpnn.models.backbones.resnet import ResNetFeatures

    return ResNetFeatures()


def _he_small() -> nn.Module:
    from napari_cpnn.models.backbones.he_small import HeSmallFeatures

    return HeSmallFeatures()


def _nic() -> nn.Module:
    from napari_cpnn.models.backbones.nic import NicFeatures

    return NicFeatures()


def _colour(weights: str = "none") -> nn.Module:
    from napari_cpnn.models.backbones.colour import colour_features

    return colour_features(weights)


_TORCHVISION_LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet, whose images have terms of their own"

#: All image networks bundled with the package, by name.
ENCODERS: dict[str, EncoderInfo] = {
    info.name: info
    for info in (
        EncoderInfo(
            name="stnet",
            description="ST-Net: DenseNet-121, 7.0 M parameters; the reference",
            n_features=1024,
            min_px=32,
            trained_px=224,
            trained_mpp=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence=_TORCHVISION_LICENCE,
            commercial_use=True,
            embed=True,
            source=WeightsSource(
                "https://download.pytorch.org/models/densenet121-a639ec97.pth",
                "a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
            ),
            network=_stnet,
        ),
        EncoderInfo(
            name="squeezenet",
            description="SqueezeNet 1.1, 0.7 M parameters; several times faster, for laptops",
            n_features=512,
            min_px=32,
            trained_px=224,
            trained_mpp=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence=_TORCHVISION_LICENCE,
            commercial_use=True,
            embed=True,
            source=WeightsSource(
                "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
                "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            ),
            network=_squeezenet,
        ),
        EncoderInfo(
            name="resnet18",
            description="ResNet-18, 11.2 M parameters, trained on ImageNet; the target network of TRIPLEX",
            n_features=512,
            min_px=32,
            trained_px=224,
            trained_mpp=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence=_TORCHVISION_LICENCE,
            commercial_use=True,
            embed=True,
            source=WeightsSource(
                "https://download.pytorch.org/models/resnet18-f37072fd.pth",
                "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
            ),
            network=_resnet18,
        ),
        EncoderInfo(
            name="ciga",
            description="ResNet-18, 11.2 M parameters, self-supervised on 400,000 pathology patches (Ciga et al. 2022)",
            n_features=512,
            min_px=32,
            trained_px=224,
            trained_mpp=None,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            licence="none is stated with the weights (github.com/ozanciga/self-supervised-histopathology)",
            commercial_use=False,
            embed=False,
            source=WeightsSource(
                "https://github.com/ozanciga/self-supervised-histopathology/releases/download/tenpercent/"
                "tenpercent_resnet18.ckpt"
            ),
            network=_resnet18,
        ),
        EncoderInfo(
            name="he-small",
            description="the project's own, 0.8 M parameters, distilled on H&E; comes with the package",
            n_features=512,
            min_px=32,
            trained_px=160,
            trained_mpp=1.0,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="BSD-3-Clause (napari-cpnn)",
            commercial_use=True,
            embed=True,
            source=WeightsSource("he_small.safetensors"),
            network=_he_small,
        ),
        EncoderInfo(
            name="nic",
            description="neural image compression, 0.6 M parameters, trained on four tasks of H&E (Tellez et al. 2020)",
            n_features=512,
            min_px=64,
            trained_px=64,
            trained_mpp=1.0,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="MIT (github.com/davidtellez/neural-image-compression)",
            commercial_use=True,
            embed=True,
            source=WeightsSource(
                "https://raw.githubusercontent.com/davidtellez/neural-image-compression/"
                "117e5e6e32dc10c51e6870a4426f445839ad1364/models/encoders_patches_pathology/encoder_multitask-4.h5",
                "714684a5aacbc4b2dc3718db5e91f4222ffbcdaa7df81d6daa31a006a9a1da0b",
            ),
            network=_nic,
        ),
        EncoderInfo(
            name="colour",
            description="21 colour statistics, no weights: the baseline that a network has to surpass",
            n_features=21,
            min_px=1,
            trained_px=0,
            trained_mpp=None,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            licence="BSD-3-Clause (napari-cpnn); no weights",
            commercial_use=True,
            embed=True,
            source=None,
            network=_colour,
            load=_colour,
            frozen_only=True,
        ),
    )
}

#: Valid values of ``TrainingSettings.backbone``, with a description.
BACKBONES: dict[str, str] = {
    **{info.name: info.description for info in ENCODERS.values() if not info.frozen_only},
    "frozen": "an encoder whose weights never change (encoder, encoder_weights); its features are computed once",
    "triplex": "TRIPLEX: ResNet-18 on the patch, and a frozen encoder (encoder, encoder_weights) on what is around it",
}


def require_backbone(name: str) -> str:
    """Return ``name`` if it is a known backbone; raise a :class:`SettingsError` that lists them otherwise."""
    if name not in BACKBONES:
        hint = f"; {name!r} is an encoder of backbone 'frozen'" if name.split("+", maxsplit=1)[0] in ENCODERS else ""
        raise SettingsError(f"There is no backbone {name!r}; use one of {', '.join(BACKBONES)}{hint}.")
    return name


def get_encoder(name: str) -> EncoderInfo:
    """Look up the metadata of an encoder.

    Parameters
    ----------
    name
        A name in `ENCODERS` or `FOUNDATION`, ``"timm:<name>"``, or ``"hf:<repository or folder>"``; or several of them
        joined by ``+``, whose features are then concatenated in this order.

    Raises
    ------
    SettingsError
        If a name is unknown, which lists the known names, or is given twice.
    WeightsError
        If an encoder from timm or transformers is unavailable.

    Examples
    --------
    >>> from napari_cpnn.models import get_encoder
    >>> get_encoder("nic+squeezenet+colour").n_features
    1045
    """
    known = {**ENCODERS, **FOUNDATION}
    names = split_names(name, list(known))
    if len(names) > 1:
        return combination([get_encoder(one) for one in names])
    if name in known:
        return known[name]
    if name.startswith(PREFIXES):
        return by_library(name)
    raise SettingsError(
        f"There is no encoder {name!r}; use one of {', '.join(known)}, or timm:<name> or hf:<repository or folder>, or "
        "several joined by +."
    )


def named_parts(name: str, weights: str) -> list[tuple[str, str]]:
    """Name and weights of each encoder in ``name``, which may be a combination.

    Raises
    ------
    SettingsError
        If the number of weights is not that of the encoders.
    """
    names = split_names(name, [*ENCODERS, *FOUNDATION])
    return list(zip(names, split_weights(name, weights, len(names)), strict=True))
