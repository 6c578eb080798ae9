"""What the target network of TRIPLEX sees of the patches of a run, computed once where that network does not learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from napari_cpnn.models import CPNN
from napari_cpnn.prediction import Predictor
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.storage import append_to
from napari_cpnn.training.data.augmentation import apply_symmetries
from napari_cpnn.training.data.spot_data import CHUNK, SpotData


def with_tokens(
    data: SpotData, model: CPNN, settings: TrainingSettings, folder: Path, progress: bool = False
) -> SpotData:
    """The data with the tokens of its patches, ``(V, N, T, C)`` float16 in ``folder``: 50 kB each at 224 px.

    ``V`` is 8, the symmetries of the square, where a symmetry is asked for in training or at test time, else 1.

    Raises
    ------
    TrainingError
        The folder cannot be written.
    """
    predictor = Predictor(model, settings.device, settings.precision)
    n_views, n = (8 if settings.augment or settings.symmetries else 1), len(data.images)
    path = folder / "tokens.f16"
    shape: tuple[int, ...] = ()
    with (
        path.open("wb") as file,
        tqdm(total=n_views * n, desc="computing features", unit="patch", disable=not progress) as bar,
    ):
        for view in range(n_views):
            for start in range(0, n, CHUNK):
                images = data.images[np.arange(start, min(start + CHUNK, n))]
                tokens, _ = predictor.look(apply_symmetries(images, np.full(len(images), view)))
                shape = tokens.shape[1:]
                append_to(file, tokens.astype(np.float16))
                bar.update(len(images))
    tokens_of_all = np.memmap(path, dtype=np.float16, mode="r", shape=(n_views, n, *shape))
    return dataclasses.replace(data, features=tokens_of_all)
