"""Predictions at any places of a slide, with what a model needs to know around them.

Evaluation, and tasks on a cluster, predict here; the live mapper does the same, in the order of a view
(:mod:`napari_cpnn.mapping.cells`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.errors import MappingError
from napari_cpnn.models import Prediction
from napari_cpnn.prediction.context import ContextPlan, keys_of
from napari_cpnn.prediction.feature_store import FeatureStore
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.slides import PatchReader, Slide

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN, SlideTokens, Surroundings

Context: TypeAlias = "tuple[ContextPlan, SlideTokens]"
"""What a model that looks around needs to know of a slide: its plan, and its tokens."""

Progress = Callable[[str, int, int], object]
"""Called as ``progress(what, done, of)`` between batches, in the thread that computes; ``what`` is ``"places"``, or
``"surroundings"`` while patches around them are seen. What it raises ends the work: that is how to cancel."""

#: Patches cut at a time, and predicted at a time where there are few cores: there, 256 would be a long wait.
_CHUNK, _CPU_BATCH = 256, 64


def silent(_what: str, _done: int, _of: int) -> None:
    """Nobody waits."""


class SlideSurroundings:
    """The surroundings of places on one slide, as a model that needs them sees them.

    Parameters
    ----------
    slide, model
        The model's frozen encoder is what sees.
    predictor
        The model on its device.
    keep
        Keep features on disk, for other runs and models with the same encoder.
    context
        Where the model looks and what the slide's tokens are, when that is known already.

    Attributes
    ----------
    plan
        Where the model looks.
    store
        Frozen features by place.
    failed
        Keys of patches that cannot be read; they count as absent.
    progress
        Who waits while features are computed.
    """

    def __init__(
        self, slide: Slide, model: CPNN, predictor: Predictor, keep: bool = True, context: Context | None = None
    ) -> None:
        self.plan = ContextPlan.of(slide, model) if context is None else context[0]
        self.store = FeatureStore.of(slide, model, predictor.precision, keep)
        self.failed: set[int] = set()
        self.progress: Progress = silent
        self._reader = PatchReader(slide, model.patch)
        self._predictor = predictor
        self._name = slide.name
        self._tokens: SlideTokens | None = None if context is None else context[1]

    @property
    def context(self) -> Context:
        """All that another process needs to predict on this slide."""
        return self.plan, self.tokens

    @property
    def tokens(self) -> SlideTokens:
        """The tokens of the slide; computed when they are first asked for.

        Raises
        ------
        MappingError
            When none of their patches can be read.
        """
        if self._tokens is None:
            places = self.plan.tokens_um
            self.compute(places)
            self._tokens = slide_tokens(self.plan, self.store, self._usable(keys_of(places)), self._name)
            self.store.flush()
        return self._tokens

    def at(self, centers_um: npt.ArrayLike) -> Surroundings:
        """The surroundings of places ``(N, 2)``, slide micrometres, on the processor."""
        places, present = self.plan.blocks(centers_um)
        keys = keys_of(places)
        self.compute(places[present])
        present = self._present(keys, present)
        return as_surroundings(self.store.get(keys), present, np.asarray(centers_um), self.tokens)

    def compute(self, places_um: FloatArray) -> None:
        """Compute the features at places ``(M, 2)`` where they are not known yet."""
        keys, first = np.unique(keys_of(places_um), return_index=True)
        new = ~(self.store.known(keys) | np.isin(keys, list(self.failed)))
        places = places_um[np.sort(first[new])]  # in the order given, in which neighbours follow each other
        for start in range(0, len(places), _CHUNK):
            self.progress("surroundings", start, len(places))
            part = places[start : start + _CHUNK]
            images, ok = self._reader.read(part)
            self.add(part, ok, self._predictor.features(images[ok]) if ok.any() else None)

    def add(self, places_um: FloatArray, ok: npt.NDArray[np.bool_], features: Float32Array | None) -> None:
        """Take over the features ``(n, F)`` of those of the places ``(M, 2)`` that could be read."""
        keys = keys_of(places_um)
        if features is not None:
            self.store.add(keys[ok], features)
        self.failed.update(keys[~ok].tolist())

    def flush(self) -> None:
        """Keep what is new."""
        self.store.flush()

    def _usable(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return self.store.known(keys)

    def _present(self, keys: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return present & self.store.known(keys) if self.failed else present


def slide_tokens(plan: ContextPlan, store: FeatureStore, usable: npt.NDArray[np.bool_], name: str) -> SlideTokens:
    """The tokens of a plan that are ``usable (T,)``, with the features of the store."""
    import torch

    from napari_cpnn.models import SlideTokens

    if not usable.any():
        raise MappingError(f"No patch of {name} could be read; the file may be damaged.")
    places = plan.tokens_um[usable]
    features = torch.from_numpy(store.get(keys_of(places)).astype(np.float32))
    return SlideTokens(features, torch.from_numpy(places.astype(np.float32)), plan.spacing_um)


def as_surroundings(
    neighbours: npt.NDArray[np.float16], present: npt.NDArray[np.bool_], centers_um: FloatArray, tokens: SlideTokens
) -> Surroundings:
    """Surroundings on one slide, from arrays."""
    import torch

    from napari_cpnn.models import Surroundings

    return Surroundings(
        torch.from_numpy(neighbours.astype(np.float32)),
        torch.from_numpy(present),
        torch.from_numpy(np.asarray(centers_um, dtype=np.float32)),
        torch.zeros(len(neighbours), dtype=torch.long),
        [tokens],
    )


class PlacePredictor:
    """A model at work on one slide.

    Parameters
    ----------
    slide, model
        As for a map.
    device, precision, symmetries
        As for :class:`~napari_cpnn.prediction.predictor.Predictor`.
    keep
        Keep frozen features on disk.
    """

    def __init__(
        self,
        slide: Slide,
        model: CPNN,
        device: str = "auto",
        precision: str = "auto",
        symmetries: bool = False,
        keep: bool = True,
    ) -> None:
        predictor = Predictor(model, device, precision, symmetries)
        around = SlideSurroundings(slide, model, predictor, keep) if model.needs_surroundings else None
        self._set_up(slide, predictor, around)

    @classmethod
    def on(cls, slide: Slide, model: CPNN, predictor: Predictor, context: Context | None) -> Self:
        """With a model that is on its device, and what is known of the slide (``None`` where nothing is needed)."""
        new = cls.__new__(cls)
        around = None if context is None else SlideSurroundings(slide, model, predictor, False, context)
        new._set_up(slide, predictor, around)  # noqa: SLF001
        return new

    def _set_up(self, slide: Slide, predictor: Predictor, surroundings: SlideSurroundings | None) -> None:
        self.predictor, self.surroundings = predictor, surroundings
        self._reader = PatchReader(slide, predictor.model.patch)

    def predict(
        self, centers_um: npt.ArrayLike, progress: Progress = silent
    ) -> tuple[Prediction[Float32Array] | None, npt.NDArray[np.bool_]]:
        """Predictions at those of the places ``(N, 2)`` whose patch can be read, and which these are ``(N,)``.

        There is no prediction when there are none. A place's own patch is read once; the patches around it are read
        where their features are not known yet.
        """
        centers = np.asarray(centers_um, dtype=np.float64).reshape(-1, 2)
        oks, parts = [], []
        step = _CPU_BATCH if self.predictor.device.type == "cpu" else _CHUNK
        if self.surroundings is not None:
            self.surroundings.progress = progress
        for start in range(0, len(centers), _CHUNK):
            progress("places", start, len(centers))
            part = centers[start : start + _CHUNK]
            images, ok = self._reader.read(part)
            oks.append(ok)
            images, part = images[ok], part[ok]
            for first in range(0, len(part), step):
                if first:
                    progress("places", start + first, len(centers))
                parts.append(self._predict(images[first : first + step], part[first : first + step]))
        progress("places", len(centers), len(centers))
        if self.surroundings is not None:
            self.surroundings.flush()
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Prediction(*columns) if parts else None, np.concatenate(oks) if oks else np.zeros(0, dtype=bool)

    def _predict(self, images: npt.NDArray[np.uint8], centers_um: FloatArray) -> Prediction[Float32Array]:
        around = self.surroundings
        if around is None:
            return self.predictor.predict(images)
        new = ~around.store.known(keys_of(centers_um))
        if new.any():
            around.add(centers_um[new], new[new], self.predictor.features(images[new]))
        return self.predictor.predict(images, around.at(centers_um))
