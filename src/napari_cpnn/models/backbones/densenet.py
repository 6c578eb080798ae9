"""DenseNet-121 (Huang et al. 2017), the image network of ST-Net (He et al. 2020), by MONAI."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class DenseNetFeatures(nn.Module):
    """DenseNet-121 up to the global average pool: ``(N, 3, S, S)`` -> ``(N, 1024)`` float32."""

    #: What :func:`load_weights` says when a file does not fit.
    architecture = "DenseNet-121"

    n_features = 1024

    #: Names of the layers of ``features`` that have parameters, by resolution, from the image on.
    stages = (
        ("conv0", "norm0"),
        ("denseblock1", "transition1"),
        ("denseblock2", "transition2"),
        ("denseblock3", "transition3"),
        ("denseblock4", "norm5"),
    )

    def __init__(self) -> None:
        super().__init__()
        from monai.networks.nets.densenet import DenseNet121

        self.features: nn.Sequential = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1).features

    def maps(self, images: Tensor) -> Tensor:
        """What comes before the pool, ``(N, 1024, S / 32, S / 32)``."""
        return nn.functional.relu(self.features(images), inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        # The mean is taken in float32: in bfloat16 it would lose what tells one patch from another.
        return self.maps(images).mean(dim=(2, 3), dtype=torch.float32)

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights under our names, from MONAI's or torchvision's (old and new); the classifier is dropped."""
        return {_rename(name): t for name, t in state.items() if not name.startswith(("classifier.", "class_layers."))}


#: ``denselayer3.norm.1.weight`` in the files of old torchvision, ``denselayer3.norm1.weight`` in new ones,
#: ``denselayer3.layers.norm1.weight`` in MONAI.
_LAYER = re.compile(r"(denselayer\d+)\.(?:layers\.)?(norm|conv)\.?([12])\.")


def _rename(name: str) -> str:
    return _LAYER.sub(r"\1.layers.\2\3.", name)
