"""Optimise a model for prediction on a CPU.

On a CPU the networks are limited by memory bandwidth, since every layer reads and writes its feature maps. Layers are
therefore fused (:mod:`napari_cpnn.models.fused`), and batches are split into chunks whose feature maps fit into the
processor's cache (:mod:`napari_cpnn.models.chunks`).
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_cpnn.models.backbones.densenet import DenseNetFeatures
from napari_cpnn.models.backbones.he_small import Residual
from napari_cpnn.models.backbones.resnet import ResNetFeatures
from napari_cpnn.models.backbones.squeezenet import Fire
from napari_cpnn.models.cpnn import CPNN
from napari_cpnn.models.fused import FusedConv, FusedDenseBlock, FusedFire, FusedResidual, FusedTransition


def fuse_for_inference(model: CPNN, bfloat16: bool = False) -> CPNN:
    """Copy ``model`` into a faster form for a CPU; predictions are equal up to rounding.

    Batch normalisations are folded into adjacent convolutions, ReLUs are fused with convolutions (oneDNN), and the
    memory format is channels-last.

    Parameters
    ----------
    model
        The model; not modified.
    bfloat16
        Whether convolutions are computed in bfloat16, with biases in float32. The head runs in float32 in any case.
        Do not wrap the copy in autocast.

    Returns
    -------
    CPNN
        In eval mode, for prediction only: it cannot be trained or saved.
    """
    fused = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    backbone = fused.backbone_interface
    for name in backbone.image_networks:  # the transformers of TRIPLEX are not changed
        setattr(backbone, name, _ready(getattr(backbone, name), dtype))
    if not isinstance(backbone, nn.Module):
        fused.backbone = backbone.network
    return fused


def _ready(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    _fuse(network, dtype)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(dtype)
    return _Ready(network.to(memory_format=torch.channels_last), dtype)  # type: ignore[call-overload]


class _Ready(nn.Module):
    """Image network that converts its input to the fastest type and memory format."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(self._given(images))
        return features

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps of the wrapped network."""
        maps: Tensor = self.network.maps(self._given(images))  # type: ignore[operator]
        return maps

    def _given(self, images: Tensor) -> Tensor:
        return images.to(self.dtype).contiguous(memory_format=torch.channels_last)


def _fuse(network: nn.Module, dtype: torch.dtype) -> None:
    """Replace known blocks and consecutive layers by fused ones, in place."""
    for module in list(network.modules()):
        if isinstance(module, (DenseNetFeatures, ResNetFeatures)):
            _fuse_blocks(module.features, dtype)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fuse_sequence(module, dtype)


def _fuse_blocks(features: nn.Sequential, dtype: torch.dtype) -> None:
    for name, part in list(features.named_children()):
        if name.startswith("denseblock"):
            features.register_module(name, FusedDenseBlock(part, dtype))
        elif name.startswith("transition"):
            features.register_module(name, FusedTransition(part, dtype))
        elif name.startswith("layer"):
            features.register_module(name, nn.Sequential(*(FusedResidual(block, dtype) for block in part.children())))


def _fuse_sequence(sequence: nn.Sequential, dtype: torch.dtype) -> None:
    """Fuse consecutive ``conv, norm`` and then ``conv, relu``, and fire modules, in place."""
    for (first, conv), (second, norm) in pairwise(list(sequence.named_children())):
        if _is_plain(conv) and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
            sequence.register_module(first, nn.Identity())
            sequence.register_module(second, fuse_conv_bn_eval(conv, norm))
    for (first, conv), (second, relu) in pairwise(list(sequence.named_children())):
        if _is_plain(conv) and isinstance(relu, nn.ReLU):
            sequence.register_module(first, nn.Identity())
            sequence.register_module(second, FusedConv(conv, dtype))
    for name, module in list(sequence.named_children()):
        if isinstance(module, Fire):
            sequence.register_module(name, FusedFire(module, dtype))
        elif isinstance(module, Residual):
            sequence.register_module(name, FusedResidual(module, dtype))


def _is_plain(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a convolution is torch's own, not a subclass of a third-party encoder that may do more."""
    return type(conv) is nn.Conv2d and isinstance(conv.padding, tuple) and conv.padding_mode == "zeros"
