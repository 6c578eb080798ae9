"""Encoder of neural image compression (Tellez et al.), trained on four tasks of H&E histology: 0.6 M parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

#: Channels of every layer, and numbers of the code of a 64 px patch.
_WIDTH = 128


class NicFeatures(nn.Module):
    """Code of every 64 px window of a patch, summarised: ``(N, 3, S, S)`` -> ``(N, 512)`` float32.

    The published network maps 64 px to 128 numbers: four times convolution 3 x 3 of stride 2, leaky ReLU and batch
    normalisation, and one dense layer over the 3 x 3 positions that remain. On larger patches it runs as a
    convolution, with a code every 16 px. The features are mean and standard deviation over the patch of the code, then
    of the last normalised maps.

    References
    ----------
    Tellez et al., Neural image compression for gigapixel histopathology image analysis, IEEE TPAMI 2021, and
    Extending unsupervised neural image compression with supervised multitask learning, MIDL 2020.
    """

    #: Name used in messages of :func:`load_weights` when a file does not match.
    architecture = "the multi-task encoder of neural image compression"

    n_features = 4 * _WIDTH

    #: Names of the layers with parameters, grouped by resolution, from input to output.
    stages = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("conv4", "bn4", "dense"))

    def __init__(self) -> None:
        super().__init__()
        for i in range(1, 5):
            self.add_module(f"conv{i}", nn.Conv2d(3 if i == 1 else _WIDTH, _WIDTH, 3, stride=2))
            self.add_module(f"bn{i}", nn.BatchNorm2d(_WIDTH, eps=1e-3))
        self.dense = nn.Conv2d(_WIDTH, _WIDTH, 3)

    def trunk(self, images: Tensor) -> Tensor:
        """Last normalised maps, about ``(N, 128, S / 16, S / 16)``."""
        maps = images
        for i in range(1, 5):
            maps = nn.functional.leaky_relu(self.get_submodule(f"conv{i}")(maps), 0.2)
            maps = self.get_submodule(f"bn{i}")(maps)
        return maps

    def maps(self, images: Tensor) -> Tensor:
        """Codes before pooling, about ``(N, 128, S / 16, S / 16)``."""
        maps: Tensor = self.dense(self.trunk(images))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        trunk = self.trunk(images)
        return torch.cat([*mean_and_std(self.dense(trunk)), *mean_and_std(trunk)], dim=1)

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of the published Keras file to ours."""
        if not any(name.startswith("conv2d_") for name in state):
            return dict(state)
        return dict(_from_keras(name, tensor) for name, tensor in state.items())


def mean_and_std(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of maps ``(N, C, H, W)`` over the patch, ``(N, C)`` each, computed in float32.

    The deviation is at least 1e-6, so that its gradient is finite on a patch of one colour.
    """
    values = maps.float().flatten(2)
    mean = values.mean(dim=2)
    return mean, (values - mean[..., None]).square().mean(dim=2).clamp(min=1e-12).sqrt()


#: Arrays of a batch normalisation in Keras -> in torch.
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def _from_keras(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Name and axis order of one array, named ``<layer>.<kind>`` by :func:`~.weights.read_keras`.

    Kernels are (height, width, in, out) there; that of the dense layer is over flattened (height, width, in).
    """
    layer, kind = name.rsplit(".", 1)
    if match := re.fullmatch(r"batch_normalization_(\d)", layer):
        return f"bn{match[1]}.{_NORM.get(kind, kind)}", tensor
    match = re.fullmatch(r"conv2d_(\d)", layer)
    target = f"conv{match[1]}" if match else "dense" if layer == "encoded" else layer
    if kind != "kernel":
        return f"{target}.{kind}", tensor
    if layer == "encoded" and tensor.shape == (9 * _WIDTH, _WIDTH):
        tensor = tensor.reshape(3, 3, _WIDTH, _WIDTH)
    return f"{target}.weight", tensor.permute(3, 2, 0, 1).contiguous() if tensor.ndim == 4 else tensor
