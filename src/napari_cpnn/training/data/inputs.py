"""Model inputs at the spots of a run: preparation, batches and predictions.

There is one class per kind of input, chosen once by :func:`inputs_for` from the settings. The data module, loss,
calibration and out-of-domain score use it without reference to the backbone's name.
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
from napari_cpnn.models import CPNN, StandardisedEncoder, Surroundings, is_trained
from napari_cpnn.prediction import Predictor
from napari_cpnn.progress import Reporting
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.data.augmentation import apply_stains, apply_symmetries
from napari_cpnn.training.data.feature_cache import FeatureCache
from napari_cpnn.training.data.spot_samples import SpotSample
from napari_cpnn.training.data.surroundings import SpotSurroundings, around, array_pitch_um, spot_surroundings

if TYPE_CHECKING:
    from torch import nn

    from napari_cpnn.training.data.spot_data import SpotData

Batch = dict[str, torch.Tensor]

Predicted = tuple[IntArray, Float32Array, Float32Array]
"""Indices ``(n,)`` of spots, their weights ``(n, C)`` and programs ``(n, R)``."""

SurroundingsOf = Callable[[IntArray], Surroundings | None]
"""Function of spot indices that returns their surroundings; None for a model without surroundings."""

#: Patches per batch in predictions.
_CHUNK = 256


class Inputs(ABC):
    """Inputs of a model at the spots of a run.

    Parameters
    ----------
    settings
        Settings of the run.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings

    def complete(self, parts: Sequence[SpotSample]) -> TrainingSettings:  # noqa: ARG002
        """Complete the settings with values that depend on the samples."""
        return self.settings

    def cache(self, network: nn.Module, scratch: Path) -> FeatureCache | None:  # noqa: ARG002
        """Cache of the features of a frozen image network; None if it is trained."""
        return None

    @abstractmethod
    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: Reporting = False) -> None:
        """Precompute what is constant during the run, in ``scratch``; called once, before the methods below."""

    def standardise(self, model: CPNN, rows: IntArray) -> None:
        """Set the scale of features that need one from the training spots ``rows``; after :meth:`prepare`."""
        if isinstance(model.backbone, StandardisedEncoder):
            model.backbone.standardise(torch.from_numpy(self.own_features(model, rows)))

    @abstractmethod
    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        """Inputs of spots ``(n,)``, rotated and flipped by ``symmetries (n,)`` in 0..7."""

    @abstractmethod
    def views(self, model: CPNN, batch: Batch, bfloat16: bool) -> tuple[torch.Tensor, ...]:
        """Inputs of the model's heads for a batch, main head first, each ``(n, F)`` float32, with gradients."""

    @abstractmethod
    def predict(self, model: CPNN, rows: IntArray) -> Iterator[Predicted]:
        """Yield predictions at spots, as in a map, in parts."""

    @abstractmethod
    def own_features(self, model: CPNN, rows: IntArray) -> Float32Array:
        """:meth:`~napari_cpnn.models.CPNN.features` of the patches of spots, ``(n, F)``."""


class PatchInputs(Inputs):
    """Patches alone, for a trainable image network."""

    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: Reporting = False) -> None:  # noqa: ARG002
        self._images = data.images

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        images = self._images[rows]
        return {"images": torch.from_numpy(images if symmetries is None else apply_symmetries(images, symmetries))}

    def patch_features(self, model: CPNN, batch: Batch, bfloat16: bool) -> torch.Tensor:
        """:meth:`~napari_cpnn.models.CPNN.patch_features` of a batch."""
        images = apply_stains(batch["images"], batch["stains"]) if "stains" in batch else batch["images"]
        normalised = model.normalize(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            return model.patch_features(normalised)

    def views(self, model: CPNN, batch: Batch, bfloat16: bool) -> tuple[torch.Tensor, ...]:
        return model.views(self.patch_features(model, batch, bfloat16))

    def predict(self, model: CPNN, rows: IntArray) -> Iterator[Predicted]:
        return self.predict_among(model, rows, lambda _: None)

    def predict_among(self, model: CPNN, rows: IntArray, around: SurroundingsOf) -> Iterator[Predicted]:
        """Predict as :meth:`predict`, with the surroundings of the patches if the model needs them."""
        predictor = Predictor(model, self.settings.device, self.settings.precision, self.settings.symmetries, "torch")
        for part in _parts(rows):
            weights, programs, _ = predictor.predict(np.asarray(self._images[part]), around(part))
            yield part, weights, programs

    def own_features(self, model: CPNN, rows: IntArray) -> Float32Array:
        predictor = Predictor(model, self.settings.device, self.settings.precision, engine="torch")
        return np.concatenate([predictor.features(np.asarray(self._images[part])) for part in _parts(rows)])


class FeatureInputs(PatchInputs):
    """Features of patches from a frozen image network, computed once for each symmetry.

    Attributes
    ----------
    features
        ``(V, N, F)`` float32 on disk; for TRIPLEX the tokens of its target network, ``(V, N, T, C)`` float16.
    """

    features: npt.NDArray[np.floating]

    def cache(self, network: nn.Module, scratch: Path) -> FeatureCache:
        return FeatureCache(self.settings, scratch, network)

    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: Reporting = False) -> None:
        predictor: list[Predictor] = []  # created only if something is missing

        def look(images: npt.NDArray[np.uint8]) -> Float32Array:
            if not predictor:
                predictor.append(Predictor(model, self.settings.device, self.settings.precision, engine="torch"))
            return predictor[0].patch_features(images)

        self.features = self.cache(model.backbone, scratch).collect(data.sections, look, progress)

    def batch(self, rows: IntArray, symmetries: IntArray | None = None) -> Batch:
        views = 0 if symmetries is None else symmetries
        return {"features": torch.from_numpy(np.asarray(self.features[views, rows]))}

    def patch_features(self, model: CPNN, batch: Batch, bfloat16: bool) -> torch.Tensor:  # noqa: ARG002
        return batch["features"].float()

    def predict_among(self, model: CPNN, rows: IntArray, around: SurroundingsOf) -> Iterator[Predicted]:
        n_views = 8 if self.settings.symmetries else 1
        for part in _parts(rows):
            surroundings = around(part)
            with torch.inference_mode():
                near = None if surroundings is None else model.encode(surroundings)
                outputs = []
                for view, kept in enumerate(self.features[:n_views, part]):
                    features = torch.from_numpy(np.array(kept, dtype=np.float32))
                    outputs.append(
                        model.head_outputs(model.views(features, None if near is None else near.turned(view))[0])
                    )
            weights, programs = (torch.stack(values).mean(dim=0).numpy() for values in zip(*outputs, strict=True))
            yield part, weights, programs

    def own_features(self, model: CPNN, rows: IntArray) -> Float32Array:
        features = torch.from_numpy(np.array(self.features[0, rows], dtype=np.float32))
        return model.views(features)[0].numpy()


class SurroundedInputs(Inputs):
    """Patches with their neighbours and the tokens of their slides (TRIPLEX).

    Attributes
    ----------
    patch
        Inputs of the patch itself.
    surroundings
        Surroundings of all spots.
    """

    surroundings: SpotSurroundings

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.patch = _patch_inputs(settings)

    def complete(self, parts: Sequence[SpotSample]) -> TrainingSettings:
        """Set the distance between tokens to that between neighbouring training spots."""
        if self.settings.context_pitch_um is not None:
            return self.settings
        return self.settings.replace(context_pitch_um=array_pitch_um(parts))

    def cache(self, network: nn.Module, scratch: Path) -> FeatureCache | None:
        return self.patch.cache(network, scratch)

    def prepare(self, data: SpotData, model: CPNN, scratch: Path, progress: Reporting = False) -> None:
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
    """Return whether the image network is frozen, so that features are constant during the run."""
    learns = is_trained(settings.backbone) and settings.backbone_learning_rate > 0
    return not learns and settings.stain_augment == 0


def _parts(rows: IntArray) -> list[IntArray]:
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def _patch_inputs(settings: TrainingSettings) -> PatchInputs:
    return FeatureInputs(settings) if is_frozen(settings) else PatchInputs(settings)


#: Backbones that need more than the patch. To add a kind of input, define a class above and register its backbone here.
INPUTS: dict[str, type[Inputs]] = {"triplex": SurroundedInputs}


def inputs_for(settings: TrainingSettings) -> Inputs:
    """Create the inputs of a run's backbone from its settings."""
    kind = INPUTS.get(settings.backbone)
    return _patch_inputs(settings) if kind is None else kind(settings)
