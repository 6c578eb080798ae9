"""Predictions averaged over the symmetries of the square."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_cpnn.models.cpnn import CPNN
from napari_cpnn.models.prediction import Prediction
from napari_cpnn.models.triplex import Surroundings, turned


def predict_symmetric(model: CPNN, images: Tensor, surroundings: Surroundings | None = None) -> Prediction[Tensor]:
    """Average predictions over the eight symmetries of the square (test-time augmentation of ST-Net).

    Parameters
    ----------
    images
        ``(N, 3, S, S)``, normalised.
    surroundings
        For a model that needs them; the block of neighbours is rotated with the patch.
    """
    predictions = []
    for symmetry in range(8):
        around = None if surroundings is None else surroundings.turned(symmetry)
        predictions.append(model.predict(turned(images, symmetry), around))
    return Prediction(*(torch.stack(parts).mean(dim=0) for parts in zip(*predictions, strict=True)))
