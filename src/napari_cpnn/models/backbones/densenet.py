"""DenseNet-121 (Huang et al. 2017), the image network of ST-Net (He et al. 2020), from MONAI."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class DenseNetFeatures(nn.Module):
    """DenseNet-121 without classifier, up to the global average pool: ``(N, 3, S, S)`` -> ``(N, 1024)`` float32."""

    #: Name used in messages of :func:`load_weights` when a file does not match.
    architecture = "DenseNet-121"

    n_features = 1024

    #: Names of the layers of ``features`` with parameters, grouped by resolution, from input to output.
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
        """Feature maps before pooling, ``(N, 1024, S / 32, S / 32)``."""
        return nn.functional.relu(self.features(images), inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        # The mean is taken in float32: bfloat16 would round away the differences between patches.
        return self.maps(images).mean(dim=(2, 3), dtype=torch.float32)

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of MONAI or torchvision (old and new) to ours; the classifier is dropped."""
        return {_rename(name): t for name, t in state.items() if not name.startswith(("classifier.", "class_layers."))}


#: ``denselayer3.norm.1.weight`` in the files of old torchvision, ``denselayer3.norm1.weight`` in new ones,
#: ``denselayer3.layers.norm1.weight`` in MONAI.
_LAYER = re.compile(r"(denselayer\d+)\.(?:layers\.)?(norm|conv)\.?([12])\.")


def _rename(name: str) -> str:
    return _LAYER.sub(r"\1.layers.\2\3.", name)
