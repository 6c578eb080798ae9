"""A small slide of coloured tissue and a network that only looks at the mean colour: quick, and its truth is known."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models.decoder import Decoder
from napari_cpnn.models.prediction import Prediction

TYPES = ("Pink", "Purple", "Blue")
GENES = ("ERBB2", "ACTB", "CD3E", "COL1A1")
MPP = 1.0
PATCH = PatchSpec(32, 1.0)
#: One colour per cell type; a patch of pure colour c has weight softmax(-distance / 20).
COLORS = np.array([[230, 150, 190], [150, 80, 160], [90, 90, 180]], dtype=np.float32)


class ColorModel(torch.nn.Module):
    """Fulfils the interface of ``CPNN`` that mapping uses."""

    genes, cell_types, patch, n_programs = GENES, TYPES, PATCH, 1
    needs_surroundings = False
    input_kind = "patch"
    trained_on = "coloured squares, 1 slide"
    title = "squares (1)"
    trust = None
    hierarchy: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("colors", torch.from_numpy(COLORS))
        self.calls = 0
        self.fingerprint = "color-model"

    def has_seen(self, slide: str) -> bool:
        return False

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        color = x.mean(dim=(2, 3))
        weights = torch.softmax(-torch.cdist(color, self.colors) / 20, dim=1)
        return weights, color[:, :1] / 255

    def predict(self, x: torch.Tensor) -> Prediction[torch.Tensor]:
        weights, programs = self(x)
        return Prediction(weights, programs, x.mean(dim=(1, 2, 3)) / 300)  # at most 0.85: all tissue is familiar

    def decoder(self) -> Decoder:
        rng = np.random.default_rng(0)
        prototypes = rng.dirichlet(np.ones(len(GENES)), len(TYPES)).astype(np.float32)
        return Decoder(
            GENES,
            TYPES,
            prototypes,
            alpha=np.array([1, 2, 3, 4], np.float32),
            beta=np.array([0.1, 0, 0.3, 0], np.float32),
            programs=rng.normal(size=(1, len(GENES))).astype(np.float32),
        )


def tissue_image(rows: int, cols: int, size: int = 32, seed: int = 1) -> np.ndarray:
    """White, with a block of tissue in the middle whose cells of ``size`` px each have one of `COLORS`."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(COLORS), size=(rows, cols))
    image = np.repeat(np.repeat(COLORS[kinds], size, axis=0), size, axis=1)
    image += rng.normal(0, 6, image.shape)
    edge = 2 * size
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[edge:-edge, edge:-edge] = True
    image[~mask] = 245
    return np.clip(image, 0, 255).astype(np.uint8)


def true_weights(image: np.ndarray, row: int, col: int, size: int = 32) -> np.ndarray:
    """What `ColorModel` must say of one cell, computed without torch and without any code of the package."""
    patch = image[row * size : (row + 1) * size, col * size : (col + 1) * size].astype(np.float64)
    distance = np.linalg.norm(patch.mean(axis=(0, 1)) - COLORS, axis=1)
    weights = np.exp(-distance / 20)
    return weights / weights.sum()


def settings(**changes: Any) -> Any:
    from napari_cpnn.settings import MappingSettings, TissueSettings

    tissue = TissueSettings(mpp=4.0, min_area_um2=100.0, max_hole_um2=100.0)
    return MappingSettings(**{"device": "cpu", "precision": "float32", "tissue": tissue, **changes})
