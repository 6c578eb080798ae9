"""Fused blocks of the image networks with fewer passes over feature maps, for prediction on a CPU.

All expect and return channels-last feature maps of one floating-point type. Biases stay in float32 if oneDNN permits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_cpnn.models.backbones.squeezenet import Fire


class FusedConv(nn.Module):
    """Convolution fused with its ReLU (oneDNN).

    Parameters
    ----------
    conv
        Is copied.
    dtype
        Of weights and maps.
    rectify
        Whether a ReLU follows.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, *, rectify: bool = True) -> None:
        super().__init__()
        if not isinstance(conv.padding, tuple):
            raise TypeError("A padding in words is not known here.")
        self.padding, self.rectify = conv.padding, rectify
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        weight = conv.weight.detach().to(dtype, copy=True)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().float())

    weight: Tensor
    bias: Tensor | None

    def forward(self, maps: Tensor) -> Tensor:
        if not has_fused_convolution(maps.dtype):
            result = self._plain(maps)
            return result.relu_() if self.rectify else result
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            maps, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups,
            "relu" if self.rectify else "none", [], "",
        )  # fmt: skip
        return fused

    def onto(self, maps: Tensor, sums: Tensor) -> Tensor:
        """Add the convolution to ``sums`` in place and apply the ReLU."""
        if not has_fused_convolution(maps.dtype):
            return self._plain(maps).add_(sums).relu_()
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            sums, maps, self.weight, self._rounded_bias(maps), self.padding, self.stride, self.dilation, self.groups,
            "add", 1.0, "relu", [], "",
        )  # fmt: skip
        return result

    def _plain(self, maps: Tensor) -> Tensor:
        bias = self._rounded_bias(maps)
        return nn.functional.conv2d(maps, self.weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _rounded_bias(self, maps: Tensor) -> Tensor | None:
        return None if self.bias is None else self.bias.to(maps.dtype)


class FusedFire(nn.Module):
    """Fused fire module of SqueezeNet."""

    def __init__(self, fire: Fire, dtype: torch.dtype) -> None:
        super().__init__()
        self.squeeze = FusedConv(fire.squeeze, dtype)
        self.expand1x1 = FusedConv(fire.expand1x1, dtype)
        self.expand3x3 = FusedConv(fire.expand3x3, dtype)

    def forward(self, maps: Tensor) -> Tensor:
        squeezed = self.squeeze(maps)
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1)


class FusedResidual(nn.Module):
    """Fused ResNet block of two convolutions and a shortcut (``ResidualBlock``), normalisations folded."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv1 = FusedConv(fuse_conv_bn_eval(block.conv1, block.bn1), dtype)
        self.conv2 = FusedConv(fuse_conv_bn_eval(block.conv2, block.bn2), dtype)
        short = block.downsample
        self.short = None if short is None else FusedConv(fuse_conv_bn_eval(*short), dtype, rectify=False)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv1(maps)
        return self.conv2.onto(inner, maps if self.short is None else self.short(maps))


class _Clipped(nn.Module):
    """Batch normalisation, ReLU and 1 x 1 convolution; the first two are computed as one clipping.

    With the scale s and shift b of a channel and t = -b / s, the rectified s x + b is s (max(x, t) - t) for s > 0, and
    s (min(x, t) - t) for s < 0. The factor s and the constant s t are folded into the convolution, so that the
    feature maps are only clipped.
    """

    low: Tensor
    high: Tensor

    def __init__(self, norm: nn.BatchNorm2d, conv: nn.Conv2d, dtype: torch.dtype, *, rectify: bool) -> None:
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("A normalisation by its batch cannot be folded.")
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - scale * norm.running_mean.double()
        # A scale of zero makes a channel constant; at this one the threshold is still a number.
        scale = torch.where(scale.abs() < 1e-12, 1e-12, scale)
        weight = (conv.weight.double() * scale[:, None, None]).to(dtype)
        threshold = (-shift / scale).to(dtype)
        # Computed from the rounded weights and thresholds, so that clipped values contribute exactly zero.
        bias = -(weight.double() * threshold.double()[:, None, None]).sum(dim=(1, 2, 3))
        if conv.bias is not None:
            bias += conv.bias.double()
        folded = nn.Conv2d(conv.in_channels, conv.out_channels, 1)
        folded.weight.data, folded.bias.data = weight, bias.float()  # type: ignore[union-attr]
        self.conv = FusedConv(folded, dtype, rectify=rectify)
        infinite = torch.full_like(threshold, torch.inf)
        self.register_buffer("low", torch.where(scale > 0, threshold, -infinite)[:, None, None])
        self.register_buffer("high", torch.where(scale > 0, infinite, threshold)[:, None, None])

    def clip(self, maps: Tensor) -> Tensor:
        return torch.clamp(maps, self.low, self.high)


class FusedDenseLayer(_Clipped):
    """Fused DenseNet layer; returns the feature maps that it adds."""

    def __init__(self, layers: Any, dtype: torch.dtype) -> None:
        super().__init__(layers.norm1, fuse_conv_bn_eval(layers.conv1, layers.norm2), dtype, rectify=True)
        self.conv2 = FusedConv(layers.conv2, dtype, rectify=False)

    def forward(self, maps: Tensor) -> Tensor:
        new: Tensor = self.conv2(self.conv(self.clip(maps)))
        return new


class FusedDenseBlock(nn.Module):
    """Fused DenseNet block; layers write into one buffer, which avoids copies for concatenation."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        super().__init__()
        layers = [FusedDenseLayer(layer.layers, dtype) for layer in block.children()]
        self.n_added = sum(len(layer.conv2.weight) for layer in layers)
        self.layers = nn.ModuleList(layers)

    def forward(self, maps: Tensor) -> Tensor:
        n, known, height, width = maps.shape
        shape = n, known + self.n_added, height, width
        out = torch.empty(shape, dtype=maps.dtype, memory_format=torch.channels_last)
        out[:, :known] = maps
        for layer in self.layers:
            new = layer(out[:, :known])
            out[:, known : known + new.shape[1]] = new
            known += new.shape[1]
        return out


class FusedTransition(_Clipped):
    """Fused DenseNet transition; 2 x 2 mean pooling precedes the convolution, which is equivalent and cheaper."""

    def __init__(self, transition: Any, dtype: torch.dtype) -> None:
        super().__init__(transition.norm, transition.conv, dtype, rectify=False)
        self.pool = transition.pool

    def forward(self, maps: Tensor) -> Tensor:
        smaller: Tensor = self.conv(self.pool(self.clip(maps)))
        return smaller


@cache
def has_fused_convolution(dtype: torch.dtype) -> bool:
    """Return whether this build of torch has working fused convolutions of oneDNN.

    ``torch.compile`` emits them, but they are not public operators, so they are tested before use.
    """
    numbers = torch.linspace(-1, 1, 72)
    weight, bias = numbers[:64].reshape(8, 8, 1, 1).to(dtype), numbers[64:].clone()
    maps = torch.linspace(-1, 1, 8 * 16, dtype=dtype).reshape(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    sums = maps.flip(1).contiguous(memory_format=torch.channels_last)
    rest = (0, 0), (1, 1), (1, 1), 1
    try:
        # Under the autocast of a prediction, the reference would be rounded, and the comparison refused.
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            expected = nn.functional.conv2d(maps.float(), weight.float(), bias)
            one = torch.ops.mkldnn._convolution_pointwise(maps, weight, bias, *rest, "relu", [], "")  # noqa: SLF001
            two = torch.ops.mkldnn._convolution_pointwise_.binary(
                sums.clone(), maps, weight, bias.to(dtype), *rest, "add", 1.0, "relu", [], ""
            )
            pairs = (one, expected.relu()), (two, (expected + sums.float()).relu())
            return all(torch.allclose(got.float(), want, rtol=0.02, atol=0.05) for got, want in pairs)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
