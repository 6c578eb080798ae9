"""The small world at a scale at which its tissue is found, and a TRIPLEX of its size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from anndata import AnnData

from margins import SEED
from napari_cpnn import Slide
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models.backbones import ENCODERS
from napari_cpnn.models.triplex import triplex
from napari_cpnn.settings import TrainingSettings
from tiny_triplex import TinyNet

MPP = 4.0
PATCH = PatchSpec(32, MPP)
MARGIN = 2  # patches of glass around the tissue

SETTINGS = TrainingSettings(
    backbone="triplex", target="tiny", weights="none", encoder="tiny", encoder_weights="none", context_pitch_um=128.0,
    patch=PATCH, hidden=16, n_programs=2, max_epochs=2, batch_size=20, learning_rate=3e-3, backbone_learning_rate=1e-3,
    composition_weight=1.0, device="cpu", precision="float32", seed=SEED,
)  # fmt: skip


class LearningNet(TinyNet):
    """With known stages."""

    stages = (("conv",),)


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Make transformers narrow, and know an image network of one convolution as ``tiny``."""
    patch.setattr(triplex, "WIDTH", 32)
    patch.setattr(triplex.Triplex, "n_features", 32)
    tiny = dataclasses.replace(
        ENCODERS["squeezenet"], name="tiny", n_features=TinyNet.n_features, min_px=8, network=LearningNet
    )
    patch.setitem(ENCODERS, "tiny", tiny)


def on_glass(sample: tuple[Slide, AnnData]) -> tuple[Slide, AnnData]:
    """A sample of the small world, eight times as large, with glass around it."""
    slide, spots = sample
    edge = MARGIN * 32
    pixels = np.pad(np.asarray(slide.levels[0]), ((edge, edge), (edge, edge), (0, 0)), constant_values=255)
    spots = spots.copy()
    spots.obsm["spatial"] = spots.obsm["spatial"] + edge
    return Slide.from_arrays([pixels], MPP, name=slide.name), spots
