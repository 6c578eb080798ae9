"""Colour statistics of a patch as an encoder without weights: what any network has to surpass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from napari_cpnn.errors import WeightsError
from napari_cpnn.models.backbones.sources import PRETRAINED

#: Percentiles of R, G and B.
_PERCENTILES = (10, 50, 90)


class ColourFeatures(nn.Module):
    """Colour statistics of a patch: ``(N, 3, S, S)`` -> ``(N, 21)`` float32 (:func:`colour_statistics`).

    Images are normalised by mean 0.5 and standard deviation 0.5. There is nothing to train; the buffer holds the
    percentiles, so that features of another definition are told apart by their fingerprint.
    """

    #: Name used in messages about weights.
    architecture = "colour statistics"

    n_features = 21

    percentiles: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("percentiles", torch.tensor(_PERCENTILES))

    def forward(self, images: Tensor) -> Tensor:
        levels = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
        return colour_statistics(levels.to(torch.uint8)).to(images.device, torch.float32)


def colour_features(weights: str) -> ColourFeatures:
    """Build the encoder; it has no weights, so ``"pretrained"`` and ``"none"`` are the same.

    Raises
    ------
    WeightsError
        If a file is given.
    """
    if weights not in (*PRETRAINED, "none"):
        raise WeightsError(f"Encoder 'colour' has no weights to load; give 'pretrained' or 'none', not {weights}.")
    return ColourFeatures()


def colour_statistics(images: Tensor) -> Tensor:
    """Colour statistics of images ``(N, 3, H, W)`` uint8: ``(N, 21)`` float64, on the CPU.

    Each for R, G and B: mean, standard deviation and 10th, 50th and 90th percentile (numpy's ``inverted_cdf``) of the
    levels 0 to 255; mean and standard deviation of the optical density ``-log10((level + 1) / 256)``. They are computed
    from the histograms, in whole numbers as far as possible, so they depend neither on the order of the pixels nor on
    other images.

    Examples
    --------
    >>> import torch
    >>> from napari_cpnn.models import colour_statistics
    >>> grey = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    >>> colour_statistics(grey)[0, :9].tolist()
    [200.0, 200.0, 200.0, 0.0, 0.0, 0.0, 200.0, 200.0, 200.0]
    """
    n, n_pixels = len(images), images.shape[2] * images.shape[3]
    histogram = torch.arange(3 * n, device=images.device)[:, None] * 256
    bins = (histogram + images.reshape(3 * n, n_pixels).long()).flatten()
    counts = torch.bincount(bins, minlength=3 * n * 256).reshape(n, 3, 256).cpu()
    below = 100 * counts.cumsum(dim=2)
    percentiles = [(below < q * n_pixels).sum(dim=2).double() for q in _PERCENTILES]
    levels = torch.arange(256, dtype=torch.float64)
    densities = torch.from_numpy(-np.log10((levels.numpy() + 1) / 256))
    return torch.cat([*_moments(counts, levels), *percentiles, *_moments(counts, densities)], dim=1)


def _moments(counts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(N, 3)`` of values ``(256,)`` that occur ``counts (N, 3, 256)`` times."""
    n_pixels = counts.sum(dim=2)
    mean = (counts * values).sum(dim=2) / n_pixels
    return mean, ((counts * (values - mean[..., None]).square()).sum(dim=2) / n_pixels).sqrt()
