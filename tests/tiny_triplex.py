"""A TRIPLEX whose image networks are one convolution each: quick, and every part of it speaks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fakes import PATCH
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import CPNN, ModelSpec
from napari_cpnn.models.triplex import Triplex

N_FEATURES = 12


class TinyNet(nn.Module):
    """An image network of one convolution."""

    n_features = N_FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, N_FEATURES, 8, stride=8)
        self.n_images = 0

    def maps(self, images: Tensor) -> Tensor:
        self.n_images += len(images)
        return self.conv(images).relu()

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean(dim=(2, 3))


def tiny_triplex(patch: PatchSpec = PATCH, pitch_um: float = 64.0, max_tokens: int = 1024) -> CPNN:
    """A model with random weights, large enough that neighbours and slide show in what it says."""
    torch.manual_seed(0)
    spec = ModelSpec(
        genes=("ERBB2", "ACTB", "CD3E"),
        cell_types=("Pink", "Purple", "Blue", "Green"),
        patch=patch,
        backbone="triplex",
        head="cpnn",
        n_programs=2,
        hidden=16,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        backbone_args={"encoder": "squeezenet", "target": "squeezenet", "pitch_um": pitch_um, "max_tokens": max_tokens},
    )
    model = CPNN(spec, Triplex(TinyNet(), TinyNet(), ((1.0,) * 3, (0.0,) * 3)))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return model.eval()
