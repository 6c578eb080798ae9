"""A model made ready to predict fast on a processor (CPU).

There the networks of the registry are bound by memory, not by arithmetic: every layer reads and writes its maps. So
layers that can share a pass over them do (and a model takes its batch in pieces, :mod:`napari_cpnn.models.chunks`,
whose maps fit into the processor's cache).
"""

from __future__ import annotations

import copy
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_cpnn.models.backbones.squeezenet import Fire
from napari_cpnn.models.cpnn import CPNN
from napari_cpnn.models.triplex import Triplex


def fuse_for_inference(model: CPNN, bfloat16: bool = False) -> CPNN:
    """A copy of ``model`` that gives the same predictions, up to rounding, in less time on a CPU.

    Batch normalisations are folded into the convolutions before them, rectifiers run inside these convolutions
    (oneDNN), and the memory format is channels-last.

    Parameters
    ----------
    model
        Stays as it is.
    bfloat16
        Whether convolutions are computed in bfloat16. Normalisations keep their float32 parameters, and the head
        runs in float32 in any case. No autocast is needed around the copy.

    Returns
    -------
    CPNN
        In eval mode, for prediction only: it cannot be trained or saved.
    """
    fused = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    if isinstance(fused.backbone, Triplex):  # its transformers stay as they are
        fused.backbone.target = _ready(fused.backbone.target, dtype)
        fused.backbone.encoder = _ready(fused.backbone.encoder, dtype)
    else:
        fused.backbone = _ready(fused.backbone, dtype)
    return fused


def _ready(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    _fuse(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(dtype)
    return _Ready(network.to(memory_format=torch.channels_last), dtype)  # type: ignore[call-overload]


class _Ready(nn.Module):
    """An image network that is given what it computes fastest."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(self._given(images))
        return features

    def maps(self, images: Tensor) -> Tensor:
        """As the network's own."""
        maps: Tensor = self.network.maps(self._given(images))  # type: ignore[operator]
        return maps

    def _given(self, images: Tensor) -> Tensor:
        return images.to(self.dtype).contiguous(memory_format=torch.channels_last)


class _ConvReLU(nn.Module):
    """A convolution and its rectifier in one pass."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, maps: Tensor) -> Tensor:
        c = self.conv
        if not _has_fused_convolution(maps.dtype):
            return nn.functional.relu(c(maps), inplace=True)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            maps, c.weight, c.bias, c.padding, c.stride, c.dilation, c.groups, "relu", [], ""
        )
        return result


class _FusedFire(nn.Module):
    """A fire module whose three rectifiers run inside its convolutions."""

    def __init__(self, fire: Fire) -> None:
        super().__init__()
        self.squeeze = _ConvReLU(fire.squeeze)
        self.expand1x1 = _ConvReLU(fire.expand1x1)
        self.expand3x3 = _ConvReLU(fire.expand3x3)

    def forward(self, maps: Tensor) -> Tensor:
        squeezed = self.squeeze(maps)
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1)


@cache
def _has_fused_convolution(dtype: torch.dtype) -> bool:
    """Whether this build of torch has oneDNN's fused convolution, and it does what it should.

    It is what ``torch.compile`` itself emits, but not a public operator, so that it is tried before it is trusted.
    """
    conv = nn.Conv2d(8, 8, 1, dtype=dtype)
    maps = torch.linspace(-1, 1, 8 * 16, dtype=dtype).reshape(1, 8, 4, 4)
    try:
        with torch.inference_mode():
            fused = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
                maps, conv.weight, conv.bias, (0, 0), (1, 1), (1, 1), 1, "relu", [], ""
            )
            return bool(torch.allclose(fused, conv(maps).relu(), rtol=0.02, atol=0.02))
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


def _fuse(network: nn.Module) -> None:
    """Fold ``conv, norm`` and then ``conv, relu`` that follow each other in a sequence, in place."""
    sequences = [m for m in network.modules() if isinstance(m, nn.Sequential)]
    for sequence in sequences:
        for (first, conv), (second, norm) in pairwise(list(sequence.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence.register_module(first, nn.Identity())
                sequence.register_module(second, fuse_conv_bn_eval(conv, norm))
        for (first, conv), (second, relu) in pairwise(list(sequence.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(relu, nn.ReLU):
                sequence.register_module(first, nn.Identity())
                sequence.register_module(second, _ConvReLU(conv))
        for name, module in list(sequence.named_children()):
            if isinstance(module, Fire):
                sequence.register_module(name, _FusedFire(module))
