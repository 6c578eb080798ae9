"""ResNet-18 (He et al. 2016), by MONAI: the target network of TRIPLEX, and with other weights Ciga's encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ResNetFeatures(nn.Module):
    """ResNet-18 up to the global average pool: ``(N, 3, S, S)`` -> ``(N, 512)`` float32.

    Below ``features``, parameters have the names that torchvision gives them.
    """

    #: What :func:`load_weights` says when a file does not fit.
    architecture = "ResNet-18"

    n_features = 512

    #: Names of the layers of ``features`` that have parameters, by resolution, from the image on.
    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(self) -> None:
        super().__init__()
        from monai.networks.nets.resnet import resnet18

        # In MONAI's own defaults the first convolution has no stride and the short cuts have a bias.
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
        """What comes before the pool, ``(N, 512, S / 32, S / 32)``."""
        maps: Tensor = self.features(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        # The mean is taken in float32: in bfloat16 it would lose what tells one patch from another.
        return self.maps(images).mean(dim=(2, 3), dtype=torch.float32)

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights under our names, from torchvision's, MONAI's or Ciga's (``model.resnet.``); no classifier.

        MONAI's files of ImageNet weights have a bias in the short cuts, always zero, which is dropped when it is.
        """
        renamed = {}
        for name, tensor in state.items():
            bare = name.removeprefix("resnet.").removeprefix("features.")
            if bare.startswith("fc.") or (bare.endswith("downsample.0.bias") and not bool(tensor.any())):
                continue
            renamed[f"features.{bare}"] = tensor
        return renamed
