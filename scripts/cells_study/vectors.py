"""Heads on vectors that are there already, in place of an encoder's features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import napari_cpnn as nc
from napari_cpnn.models import ENCODERS, EncoderInfo
from napari_cpnn.training.bags import Bags, CellSpots


class NoNetwork(nn.Module):
    """Holds the place of an encoder with so many features; it sees no image."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.register_buffer("n", torch.tensor(n_features))

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError("The features are given.")


def given_features(settings: nc.CellSettings, n_features: int) -> nc.CellSettings:
    """The settings for a head on vectors of this length."""
    name = f"given-{n_features}"
    ENCODERS[name] = dataclasses.replace(
        _PLACE, name=name, n_features=n_features, network=lambda: NoNetwork(n_features)
    )
    return settings.replace(encoder=name, encoder_weights="none")


def with_vectors(read: CellSpots, vectors: Sequence[np.ndarray]) -> CellSpots:
    """The same spots with other vectors ``(n_i, F)`` in their bags."""
    old = read.labelled.bags
    bags = Bags.of(vectors, old.names.tolist(), old.patients.tolist())
    return dataclasses.replace(read, labelled=dataclasses.replace(read.labelled, bags=bags))


_PLACE = EncoderInfo(
    name="given", description="features that are given", n_features=1, min_px=1, trained_px=0, trained_mpp=None,
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), licence="none", commercial_use=True, embed=True, source=None,
    network=lambda: NoNetwork(1),
)  # fmt: skip
