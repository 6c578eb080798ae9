"""DenseNet-121 (Huang et al. 2017), the image network of ST-Net (He et al. 2020).

Its own modules, since MONAI, which has the same network, takes seconds to import. Layers are named as MONAI names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class _DenseLayer(nn.Module):
    """Bottleneck of 4 x ``growth`` channels and a 3 x 3 convolution, whose maps are appended to the input."""

    def __init__(self, known: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        self.layers.add_module("norm1", nn.BatchNorm2d(known))
        self.layers.add_module("relu1", nn.ReLU(inplace=True))
        self.layers.add_module("conv1", nn.Conv2d(known, 4 * growth, kernel_size=1, bias=False))
        self.layers.add_module("norm2", nn.BatchNorm2d(4 * growth))
        self.layers.add_module("relu2", nn.ReLU(inplace=True))
        self.layers.add_module("conv2", nn.Conv2d(4 * growth, growth, kernel_size=3, padding=1, bias=False))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps, self.layers(maps)], dim=1)


def _transition(known: int) -> nn.Sequential:
    """Halve channels and resolution."""
    part = nn.Sequential()
    part.add_module("norm", nn.BatchNorm2d(known))
    part.add_module("relu", nn.ReLU(inplace=True))
    part.add_module("conv", nn.Conv2d(known, known // 2, kernel_size=1, bias=False))
    part.add_module("pool", nn.AvgPool2d(kernel_size=2, stride=2))
    return part


def _features(blocks: Sequence[int], growth: int, first: int) -> nn.Sequential:
    features = nn.Sequential()
    features.add_module("conv0", nn.Conv2d(3, first, kernel_size=7, stride=2, padding=3, bias=False))
    features.add_module("norm0", nn.BatchNorm2d(first))
    features.add_module("relu0", nn.ReLU(inplace=True))
    features.add_module("pool0", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    known = first
    for i, n_layers in enumerate(blocks, start=1):
        block = nn.Sequential()
        for j in range(1, n_layers + 1):
            block.add_module(f"denselayer{j}", _DenseLayer(known, growth))
            known += growth
        features.add_module(f"denseblock{i}", block)
        if i < len(blocks):
            features.add_module(f"transition{i}", _transition(known))
            known //= 2
    features.add_module("norm5", nn.BatchNorm2d(known))
    return features


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
        self.features = _features(blocks=(6, 12, 24, 16), growth=32, first=64)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

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
