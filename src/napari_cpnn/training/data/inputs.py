"""What a model sees of the spots of a run, and how that is prepared, put into batches and predicted from.

There is one class per kind of input. :func:`inputs_for` chooses one from the settings, once; the data module, the loss,
calibration and the out-of-domain score ask it, and never ask for the backbone's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from napari_cpnn.arrays import Float32Array, IntArray
from napari_cpnn.models import CPNN, Surroundings
from napari_cpnn.prediction import Predictor
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data.augmentation import apply_stains, apply_symmetries
from napari_cpnn.training.data.feature_cache import FeatureCache
from napari_cpnn.training.data.frozen import kept_features, predict_features
from napari_cpnn.training.data.spot_samples import SpotSample
from napari_cpnn.training.data.surroundings import SpotSurroundings, around, array_pitch_um, spot_surroundings

if TYPE_CHECKING:
    from torch import nn

    from napari_cpnn.training.data.spot_data import SpotData

Batch = dict[str, torch.Tensor]

Predicted = tuple[IntArray, Float32Array, Float32Array]
"""Positions of some spots ``(n,)``, their weights ``(n, C)`` and programs ``(n, R)``."""

SurroundingsOf = Callable[[IntArray], Surroundings | None]
"""From positions of spots to what is around them; None for a model that does not look there."""

#: Patches that are looked at together.
_CHUNK = 256


class Inputs(ABC):
    """What the model of a run sees of its spots.

    Parameters
    ----------
    settings
        Of the run.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    def complete(self, parts: Sequence[SpotSample]) -> TrainingSettings:  # noqa: ARG002
        """The settings, with what they leave open taken from the samples."""
        return self.settings

    def cache(self, network: nn.Module, scratch: Path) -> FeatureCache | None:  # noqa: ARG002
        """Where features of an image network that does not learn are kept from run to run; None for one that does."""
        return None

    @abstractmethod
    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: bool = False) -> None:
        """Compute what stays the same throughout the run, written into ``scratch``; called once, before all below.

        Raises
        ------
        TrainingError
            The folder cannot be written.
        """

    @abstractmethod
    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        """What is seen of some spots ``(n,)``, turned and flipped by ``symmetries (n,)`` in 0..7."""

    @abstractmethod
    def views(self, model: CPNN, batch: Batch, bfloat16: bool) -> tuple[torch.Tensor, ...]:
        """What the heads of the model take of a batch, ``(n, F)`` float32 each, the main one first; with gradients."""

    @abstractmethod
    def predict(self, model: CPNN, rows: IntArray) -> Iterator[Predicted]:
        """Predictions at some spots as a map would have them, a part at a time."""

    @abstractmethod
    def own_features(self, model: CPNN, rows: IntArray) -> Float32Array:
        """:meth:`~napari_cpnn.models.CPNN.features` of the patches of some spots, ``(n, F)``."""


class PatchInputs(Inputs):
    """The patch alone, for an image network that learns."""

    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: bool = False) -> None:  # noqa: ARG002
        self._images = data.images

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        images = self._images[rows]
        return {"images": torch.from_numpy(images if symmetries is None else apply_symmetries(images, symmetries))}

    def patch_features(self, model: CPNN, batch: Batch, bfloat16: bool) -> torch.Tensor:
        """What the part of the backbone that sees pixels makes of a batch."""
        images = apply_stains(batch["images"], batch["stains"]) if "stains" in batch else batch["images"]
        normalised = model.normalize(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            return model.patch_features(normalised)

    def views(self, model: CPNN, batch: Batch, bfloat16: bool) -> tuple[torch.Tensor, ...]:
        return model.views(self.patch_features(model, batch, bfloat16))

    def predict(self, model: CPNN, rows: IntArray) -> Iterator[Predicted]:
        return self.predict_among(model, rows, lambda _: None)

    def predict_among(self, model: CPNN, rows: IntArray, around: SurroundingsOf) -> Iterator[Predicted]:
        """As :meth:`predict`, with what is around the patches where the model looks there."""
        predictor = Predictor(model, self.settings.device, self.settings.precision, self.settings.symmetries)
        for part in _parts(rows):
            weights, programs, _ = predictor.predict(np.asarray(self._images[part]), around(part))
            yield part, weights, programs

    def own_features(self, model: CPNN, rows: IntArray) -> Float32Array:
        predictor = Predictor(model, self.settings.device, self.settings.precision)
        return np.concatenate([predictor.features(np.asarray(self._images[part])) for part in _parts(rows)])


class FeatureInputs(PatchInputs):
    """What an image network that does not learn sees of the patch: computed once, in each symmetry, and kept.

    Attributes
    ----------
    features
        ``(V, N, F)`` float32 on disk; of the target network of TRIPLEX its tokens, ``(V, N, T, C)`` float16.
    """

    features: npt.NDArray[np.floating]

    def cache(self, network: nn.Module, scratch: Path) -> FeatureCache:
        return FeatureCache(self.settings, scratch, network)

    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: bool = False) -> None:
        cache = self.cache(model.backbone, scratch)
        self.features = kept_features(data, model, self.settings, cache, scratch, progress)

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        views = 0 if symmetries is None else symmetries
        return {"features": torch.from_numpy(np.asarray(self.features[views, rows]))}

    def patch_features(self, model: CPNN, batch: Batch, bfloat16: bool) -> torch.Tensor:  # noqa: ARG002
        return batch["features"].float()

    def predict_among(self, model: CPNN, rows: IntArray, around: SurroundingsOf) -> Iterator[Predicted]:
        n_views = 8 if self.settings.symmetries else 1
        for part in _parts(rows):
            yield part, *predict_features(model, self.features[:n_views, part], around(part))

    def own_features(self, model: CPNN, rows: IntArray) -> Float32Array:  # noqa: ARG002
        return np.asarray(self.features[0, rows], dtype=np.float32)


class SurroundedInputs(Inputs):
    """The patch with its neighbours and the tokens of its slide (TRIPLEX).

    Attributes
    ----------
    patch
        What is seen of the patch itself.
    surroundings
        What is around it.
    """

    surroundings: SpotSurroundings

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.patch = _patch_inputs(settings)

    def complete(self, parts: Sequence[SpotSample]) -> TrainingSettings:
        """With the distance of the tokens: as far apart as neighbouring training spots.

        Raises
        ------
        TrainingError
            No slide has an array that can be recognised, and ``context_pitch_um`` is not set.
        """
        if self.settings.context_pitch_um is not None:
            return self.settings
        return self.settings.replace(context_pitch_um=array_pitch_um(parts))

    def cache(self, network: nn.Module, scratch: Path) -> FeatureCache | None:
        return self.patch.cache(network, scratch)

    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: bool = False) -> None:
        self.surroundings = spot_surroundings(data, model, self.settings, scratch, progress)
        self.patch.prepare(data, model, scratch, progress)

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        return self.patch.batch(rows, symmetries) | self.surroundings.batch(rows, symmetries)

    def views(self, model: CPNN, batch: Batch, bfloat16: bool) -> tuple[torch.Tensor, ...]:
        return model.views(self.patch.patch_features(model, batch, bfloat16), around(batch, self.surroundings.slides))

    def predict(self, model: CPNN, rows: IntArray) -> Iterator[Predicted]:
        return self.patch.predict_among(model, rows, self.surroundings.at)

    def own_features(self, model: CPNN, rows: IntArray) -> Float32Array:  # noqa: ARG002
        return self.surroundings.own(rows)


def is_frozen(settings: TrainingSettings) -> bool:
    """Whether each patch, in each of its symmetries, has the same features throughout the run."""
    never_learns = settings.backbone == "frozen" or settings.backbone_learning_rate == 0
    return never_learns and settings.stain_augment == 0


def _parts(rows: IntArray) -> list[IntArray]:
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def _patch_inputs(settings: TrainingSettings) -> PatchInputs:
    return FeatureInputs(settings) if is_frozen(settings) else PatchInputs(settings)


#: Backbones that see more than the patch. A new kind of input is a class above, and its backbone's name here.
INPUTS: dict[str, type[Inputs]] = {"triplex": SurroundedInputs}


def inputs_for(settings: TrainingSettings) -> Inputs:
    """What the backbone of a run sees, by the settings."""
    kind = INPUTS.get(settings.backbone)
    return _patch_inputs(settings) if kind is None else kind(settings)
