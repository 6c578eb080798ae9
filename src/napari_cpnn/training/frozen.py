"""A backbone that does not learn sees the same in every epoch: its features are computed once, and kept.

An epoch then costs no more than the head, seconds on a laptop where the whole network takes minutes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from napari_cpnn.errors import TrainingError
from napari_cpnn.mapping.predictor import Predictor
from napari_cpnn.models import CPNN
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.augmentation import apply_symmetries
from napari_cpnn.training.data import CHUNK, SpotData


def is_frozen(settings: TrainingSettings) -> bool:
    """Whether each patch, in each of its symmetries, has the same features throughout the run."""
    never_learns = settings.backbone == "frozen" or settings.backbone_learning_rate == 0
    return never_learns and settings.stain_augment == 0


def with_features(data: SpotData, model: CPNN, settings: TrainingSettings, folder: Path) -> SpotData:
    """The data with the features that the backbone of ``model`` has for them, ``(V, N, F)`` float32 in ``folder``.

    ``V`` is 8, the symmetries of the square, where a symmetry is asked for in training or at test time, else 1.

    Raises
    ------
    TrainingError
        The folder cannot be written.
    """
    predictor = Predictor(model, settings.device, settings.precision)
    n_views = 8 if settings.augment or settings.symmetries else 1
    path = folder / "features.f32"
    shape: tuple[int, ...] = (0,)
    try:
        with path.open("wb") as file:
            for view in range(n_views):
                for start in range(0, len(data.images), CHUNK):
                    images = data.images[np.arange(start, min(start + CHUNK, len(data.images)))]
                    seen = predictor.features(apply_symmetries(images, np.full(len(images), view)))
                    shape = (n_views, len(data.images), seen.shape[1])
                    file.write(np.ascontiguousarray(seen, dtype=np.float32).data)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error.strerror or error}); free some space or choose another folder."
        ) from error
    return dataclasses.replace(data, features=np.memmap(path, dtype=np.float32, mode="r", shape=shape))


def predict_features(
    model: CPNN, features: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights ``(n, C)`` and programs ``(n, R)`` from features ``(V, n, F)``, the mean over the views."""
    with torch.inference_mode():
        parts = [model.head(torch.from_numpy(np.array(view))) for view in features]
    weights, programs = (torch.stack(values).mean(dim=0).numpy() for values in zip(*parts, strict=True))
    return weights, programs
