"""Registry of image networks (patch -> features) and of the backbones built from them.

Names, sizes and licences are available without torch; a network is imported only when it is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_cpnn.errors import SettingsError
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
    )
}

#: Valid values of ``TrainingSettings.backbone``, with a description.
BACKBONES: dict[str, str] = {
    **{info.name: info.description for info in ENCODERS.values()},
    "frozen": "an encoder whose weights never change (encoder, encoder_weights); its features are computed once",
    "triplex": "TRIPLEX: ResNet-18 on the patch, and a frozen encoder (encoder, encoder_weights) on what is around it",
}


def require_backbone(name: str) -> str:
    """Return ``name`` if it is a known backbone; raise a :class:`SettingsError` that lists them otherwise."""
    if name not in BACKBONES:
        raise SettingsError(f"There is no backbone {name!r}; use one of {', '.join(BACKBONES)}.")
    return name


def get_encoder(name: str) -> EncoderInfo:
    """Look up the metadata of an encoder.

    Parameters
    ----------
    name
        A name in `ENCODERS` or `FOUNDATION`, ``"timm:<name>"``, or ``"hf:<repository or folder>"``.

    Raises
    ------
    SettingsError
        If the name is unknown; the message lists the known names.
    WeightsError
        If an encoder from timm or transformers is unavailable.
    """
    known = {**ENCODERS, **FOUNDATION}
    if name in known:
        return known[name]
    if name.startswith(PREFIXES):
        return by_library(name)
    raise SettingsError(
        f"There is no encoder {name!r}; use one of {', '.join(known)}, or timm:<name> or hf:<repository or folder>."
    )
