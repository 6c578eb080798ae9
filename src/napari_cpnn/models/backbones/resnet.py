"""ResNet-18 (He et al. 2016): the target network of TRIPLEX and, with other weights, Ciga's encoder.

Its own modules, since MONAI, which has the same network, takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        same = stride == 1 and n_in == n_out
        self.downsample = (
            None
            if same
            else nn.Sequential(nn.Conv2d(n_in, n_out, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(n_out))
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner = nn.functional.relu(self.bn1(self.conv1(maps)), inplace=True)
        short = maps if self.downsample is None else self.downsample(maps)
        return nn.functional.relu(self.bn2(self.conv2(inner)) + short, inplace=True)


class ResNetFeatures(nn.Module):
    """ResNet-18 without classifier, up to the global average pool: ``(N, 3, S, S)`` -> ``(N, 512)`` float32.

    Parameters below ``features`` are named as in torchvision.
    """

    #: Name used in messages of :func:`load_weights` when a file does not match.
    architecture = "ResNet-18"

    n_features = 512

    #: Names of the layers of ``features`` with parameters, grouped by resolution, from input to output.
    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv1", nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False))
        self.features.add_module("bn1", nn.BatchNorm2d(64))
        self.features.add_module("act", nn.ReLU(inplace=True))
        self.features.add_module("maxpool", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        channels = 64
        for i, n in enumerate((64, 128, 256, 512), start=1):
            first = ResidualBlock(channels, n, stride=1 if i == 1 else 2)
            self.features.add_module(f"layer{i}", nn.Sequential(first, ResidualBlock(n, n)))
            channels = n
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps before pooling, ``(N, 512, S / 32, S / 32)``."""
        maps: Tensor = self.features(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        # The mean is taken in float32: bfloat16 would round away the differences between patches.
        return self.maps(images).mean(dim=(2, 3), dtype=torch.float32)

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of torchvision, MONAI or Ciga (``model.resnet.``) to ours; the classifier is dropped.

        MONAI's ImageNet weights have an all-zero bias in the shortcuts, which is dropped if it is indeed zero.
        """
        renamed = {}
        for name, tensor in state.items():
            bare = name.removeprefix("resnet.").removeprefix("features.")
            if bare.startswith("fc.") or (bare.endswith("downsample.0.bias") and not bool(tensor.any())):
                continue
            renamed[f"features.{bare}"] = tensor
        return renamed
