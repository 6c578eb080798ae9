"""The project's own detector of nuclei: a small U-Net (``scripts/train_nuclei.py``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Channels at the full resolution and at a half, a quarter and an eighth of it.
_WIDTHS = (16, 32, 64, 96)

#: Sides of its input are multiples of this, so that each level halves without remainder.
MULTIPLE = 8


class NucleusNetwork(nn.Module):
    """U-Net ``(N, 3, H, W)`` -> ``(N, 2, H, W)``: of each pixel, whether it is a nucleus, and how central in it.

    The input is uint8 or float RGB of 0 to 255, at 0.5 um/px, with sides that are multiples of 8. Both outputs are
    logits. The second is trained on ``exp(-m^2 / 2)`` with the Mahalanobis distance ``m`` to the centre of the nucleus
    under the covariance of its pixels: one peak per nucleus, however long it is, and about 0.14 at its rim, so that
    touching nuclei are parted by a valley. What is halved is smoothed before, so that a shift of the image by any
    number of pixels changes little.
    """

    def __init__(self) -> None:
        super().__init__()
        full, half, quarter, eighth = _WIDTHS
        self.at_full = _convolution(3, full)
        self.at_half = nn.Sequential(_convolution(full, half, stride=2), _Residual(half))
        self.at_quarter = nn.Sequential(_convolution(half, quarter, stride=2), _Residual(quarter))
        self.at_eighth = nn.Sequential(_convolution(quarter, eighth, stride=2), _Residual(eighth))
        self.to_quarter = _Up(eighth, quarter)
        self.to_half = _Up(quarter, half)
        self.to_full = _Up(half, full)
        self.out = nn.Conv2d(full, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        full = self.at_full((images.float() - 160) / 60)
        half = self.at_half(_blurred(full))
        quarter = self.at_quarter(_blurred(half))
        maps = self.to_quarter(self.at_eighth(_blurred(quarter)), quarter)
        maps = self.to_full(self.to_half(maps, half), full)
        logits: Tensor = self.out(maps)
        return logits

    def chances(self, images: Tensor) -> Tensor:
        """Return both maps ``(N, 2, H, W)`` in [0, 1]: the mean over images ``(N, 3, H, W)`` and the same turned round.

        The network leaves out every second pixel thrice. Of turned images it leaves out the others.
        """
        straight: Tensor = self(images).sigmoid()
        turned: Tensor = self(images.flip(2, 3)).sigmoid().flip(2, 3)
        return (straight + turned).float() / 2


def _blurred(maps: Tensor) -> Tensor:
    """Smooth by 1 2 1 along both axes, before every second pixel is left out (Zhang, ICML 2019)."""
    line = maps.new_tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line).expand(maps.shape[1], 1, 3, 3)
    return functional.conv2d(maps, kernel, padding=1, groups=maps.shape[1])


class _Residual(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(maps + self.second(self.first(maps)))


class _Up(nn.Module):
    """Maps of the coarser level, doubled, and those of this level, side by side, through one convolution."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(coarse, fine, 1)
        self.join = _convolution(2 * fine, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        doubled = functional.interpolate(self.narrow(coarse), scale_factor=2.0, mode="nearest")
        joined: Tensor = self.join(torch.cat([doubled, fine], dim=1))
        return joined


def _convolution(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )
