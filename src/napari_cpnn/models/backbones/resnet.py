"""ResNet-18 (He et al. 2016), from MONAI: the target network of TRIPLEX and, with other weights, Ciga's encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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
        from monai.networks.nets.resnet import resnet18

        # In MONAI's own defaults the first convolution has no stride and the shortcuts have a bias.
        network = resnet18(
            spatial_dims=2,
            n_input_channels=3,
            conv1_t_size=7,
            conv1_t_stride=2,
            bias_downsample=False,
            feed_forward=False,
        )
        parts = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
        self.features = nn.Sequential()
        for part in parts:
            self.features.add_module(part, getattr(network, part))

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
