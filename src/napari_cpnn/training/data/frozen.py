"""Features of frozen image networks, computed once for all epochs.

An epoch then costs only the head: seconds on a laptop, where the whole network takes minutes. Later runs on the same
spots need not even read the slides.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from napari_cpnn.models import CPNN, Surroundings
from napari_cpnn.prediction import Predictor
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.storage import append_to
from napari_cpnn.training.data.augmentation import apply_symmetries
from napari_cpnn.training.data.feature_cache import FeatureCache

if TYPE_CHECKING:
    from napari_cpnn.training.data.spot_data import SpotData


def kept_features(
    data: SpotData, model: CPNN, settings: TrainingSettings, cache: FeatureCache, folder: Path, progress: bool = False
) -> npt.NDArray[np.floating]:
    """Compute the image network's features of the patches of ``data``, as a memory-mapped file in ``folder``.

    The shape is ``(V, N, F)``, float32, or for the tokens of TRIPLEX's target network ``(V, N, T, C)``, float16. ``V``
    is 8, the symmetries of the square, if symmetries are used in training or at test time, else 1. Features of earlier
    runs are taken from the cache (:mod:`napari_cpnn.training.data.feature_cache`).

    Raises
    ------
    TrainingError
        If the folder cannot be written.
    """
    path = folder / "features.raw"
    wanted = sum(cache.missing(section) for section in data.sections)
    predictors: list[Predictor] = []  # created only if something is missing
    with (
        path.open("wb") as file,
        tqdm(total=wanted, desc="computing features", unit="patch", disable=not (progress and wanted)) as bar,
    ):

        def look(images: npt.NDArray[np.uint8], view: int) -> npt.NDArray[np.float32]:
            if not predictors:
                predictors.append(Predictor(model, settings.device, settings.precision))
            turned = apply_symmetries(images, np.full(len(images), view))
            bar.update(len(images))
            return predictors[0].patch_features(turned)

        for view in range(cache.n_views):
            for section in data.sections:
                append_to(file, cache.read(section, view, look)[section.chosen])
    shape = (cache.n_views, len(data.images), *cache.row_shape)
    return np.memmap(path, dtype=cache.dtype, mode="r", shape=shape)


def predict_features(
    model: CPNN, features: npt.NDArray[np.floating], around: Surroundings | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Predict weights ``(n, C)`` and programs ``(n, R)`` from features ``(V, n, ...)``, averaged over symmetries."""
    parts = []
    with torch.inference_mode():
        around = None if around is None else model.encode(around)
        for view, seen in enumerate(features):
            turned = None if around is None else around.turned(view)
            parts.append(model.head_outputs(model.views(torch.from_numpy(np.array(seen, dtype=np.float32)), turned)[0]))
    weights, programs = (torch.stack(values).mean(dim=0).numpy() for values in zip(*parts, strict=True))
    return weights, programs
