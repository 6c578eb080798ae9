"""SqueezeNet 1.1 (Iandola et al. 2016): 0.7 M parameters, for machines without an accelerator."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_cpnn.models.backbones.encoder import IMAGENET_MEAN, IMAGENET_STD

#: Fire module -> (channels in, squeezed, expanded by each of the two kernels), by position in ``features``.
_FIRES = {
    3: (64, 16, 64),
    4: (128, 16, 64),
    6: (128, 32, 128),
    7: (256, 32, 128),
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}

#: Mean (blue, green, red) that the Keras network subtracts from images in 0 to 255.
_KERAS_BGR_MEAN = (103.939, 116.779, 123.68)


class Fire(nn.Module):
    """Fire module: squeeze to few channels, then expand by parallel 1 x 1 and 3 x 3 kernels."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        squeezed = nn.functional.relu(self.squeeze(maps), inplace=True)
        # One ReLU after the concatenation is equivalent to two before it.
        return nn.functional.relu(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1), inplace=True)


class SqueezeNetFeatures(nn.Module):
    """SqueezeNet 1.1 without classifier, up to the global average pool: ``(N, 3, S, S)`` -> ``(N, 512)`` float32.

    Parameters are named and ordered as in torchvision.
    """

    #: Name used in messages of :func:`load_weights` when a file does not match.
    architecture = "SqueezeNet 1.1"

    n_features = 512

    #: Positions of the layers of ``features`` with parameters, grouped by resolution, from input to output.
    stages = (("0",), ("3", "4"), ("6", "7"), ("9", "10", "11", "12"))

    def __init__(self) -> None:
        super().__init__()
        layers: dict[int, nn.Module] = {0: nn.Conv2d(3, 64, 3, stride=2), 1: nn.ReLU(inplace=True)}
        for place in (2, 5, 8):
            layers[place] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        for place, channels in _FIRES.items():
            layers[place] = Fire(*channels)
        self.features = nn.Sequential(*(layers[place] for place in sorted(layers)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps before pooling, about ``(N, 512, S / 16, S / 16)``."""
        maps: Tensor = self.features(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean(dim=(2, 3), dtype=torch.float32)

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of torchvision or Keras to ours; the classifier is dropped."""
        if any(name.startswith("fire") for name in state):
            return _from_keras(state)
        return {name: t for name, t in state.items() if not name.startswith("classifier.")}


def _from_keras(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert Keras's names, axis order and input convention to ours.

    ``state`` has one entry per array, named ``<layer>.kernel`` and ``<layer>.bias``, as
    :func:`~napari_cpnn.models.backbones.weights.read_keras` gives them. Kernels are (height, width, in, out) there.
    The Keras network has the same layers; its ``valid`` pooling drops an incomplete last window which ours, like
    torchvision's, keeps. There is none at 224 px.
    """
    fires = dict(zip(range(2, 10), _FIRES, strict=True))
    renamed = {}
    for name, array in state.items():
        layer, kind = name.rsplit(".", 1)
        match = re.fullmatch(r"fire(\d+)/(squeeze|expand)(1x1|3x3)", layer)
        if layer == "conv1":
            target = "features.0"
        elif match and int(match[1]) in fires:
            part = "squeeze" if match[2] == "squeeze" else match[2] + match[3]
            target = f"features.{fires[int(match[1])]}.{part}"
        elif layer == "conv10":
            continue  # the classifier
        else:
            target = layer  # unknown: load_weights reports it
        is_kernel = kind == "kernel" and array.ndim == 4
        renamed[f"{target}.{'weight' if kind == 'kernel' else 'bias'}"] = (
            array.permute(3, 2, 0, 1).contiguous() if is_kernel else array
        )
    kernel, bias = renamed.get("features.0.weight"), renamed.get("features.0.bias")
    if kernel is not None and bias is not None and kernel.shape[1:] == (3, 3, 3) and bias.shape == kernel.shape[:1]:
        renamed["features.0.weight"], renamed["features.0.bias"] = _fold_keras_input(kernel, bias)
    return renamed


def _fold_keras_input(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Adapt the first convolution to torchvision's normalisation instead of Keras's.

    With ``x = (v - mean) / std`` the normalised value of a channel ``v`` in [0, 1], Keras's input is
    ``255 v - m = 255 std x + (255 mean - m)``: a scale per channel that goes into the kernel, and a constant that goes
    into the bias. Exact, since this convolution has no padding.
    """
    mean, std, keras_mean = (
        torch.tensor(v, dtype=torch.float64) for v in (IMAGENET_MEAN, IMAGENET_STD, _KERAS_BGR_MEAN[::-1])
    )
    rgb = kernel.double().flip(1)
    folded = rgb * (255 * std)[None, :, None, None]
    constant = (rgb * (255 * mean - keras_mean)[None, :, None, None]).sum(dim=(1, 2, 3))
    return folded.float(), (bias.double() + constant).float()
