"""The project's own encoder for H&E: 0.8 M parameters, distilled from larger ones (``scripts/make_encoder.py``)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_cpnn.models.backbones.nic import mean_and_std

#: Channels of the maps at a quarter, an eighth and a sixteenth of the patch's side.
_WIDTHS = (48, 96, 160)


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to their input."""

    #: Convolution and normalisation on the shortcut; there is none.
    downsample = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        inner = nn.functional.relu(self.bn1(self.conv1(maps)))
        return nn.functional.relu(maps + self.bn2(self.conv2(inner)))


class HeSmallFeatures(nn.Module):
    """Small residual network: ``(N, 3, S, S)`` -> ``(N, 512)`` float32.

    The features are mean and standard deviation over the patch of the maps at an eighth, then at a sixteenth of its
    side: the first describe nuclei and texture, the second their arrangement.
    """

    #: Name used in messages of :func:`load_weights` when a file does not match.
    architecture = "he-small"

    n_features = 2 * (_WIDTHS[1] + _WIDTHS[2])

    #: Names of the layers with parameters, grouped by resolution, from input to output.
    stages = (("fine",), ("coarse",))

    def __init__(self) -> None:
        super().__init__()
        quarter, eighth, sixteenth = _WIDTHS
        self.fine = nn.Sequential(
            *_halve(3, 24), *_halve(24, quarter), *_halve(quarter, eighth), Residual(eighth)
        )  # fmt: skip
        self.coarse = nn.Sequential(*_halve(eighth, sixteenth), Residual(sixteenth))

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps before pooling, ``(N, 160, S / 16, S / 16)``."""
        maps: Tensor = self.coarse(self.fine(images))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        return torch.cat([*mean_and_std(fine), *mean_and_std(self.coarse(fine))], dim=1)

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert half-precision weights to float32; the names are the network's own."""
        return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _halve(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)
