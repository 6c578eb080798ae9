"""Predict at arbitrary places on a slide, including their surroundings.

Used by evaluation and by tasks on a cluster; the live mapper does the same in the order that a view requires
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
"""Slide-level context of a model that needs surroundings: its plan and tokens."""

Progress = Callable[[str, int, int], object]
"""Called as ``progress(what, done, of)`` between batches, in the computing thread; ``what`` is ``"places"``, or
``"surroundings"`` while features of surrounding patches are computed. Raising an exception cancels the work."""

#: Patches read at a time, and patches per batch on a CPU, where a batch of 256 would delay progress reports.
_CHUNK, _CPU_BATCH = 256, 64


def silent(_what: str, _done: int, _of: int) -> None:
    """Ignore progress reports."""


class SlideSurroundings:
    """Surroundings of places on one slide, for a model that needs them.

    Parameters
    ----------
    slide, model
        The slide, and the model whose frozen encoder is used.
    predictor
        The model on its device.
    keep
        Store features on disk, for other runs and models with the same encoder.
    context
        Plan and tokens of the slide, if already known.

    Attributes
    ----------
    plan
        Positions of tokens and neighbours.
    store
        Frozen features by place.
    failed
        Keys of patches that cannot be read; they are treated as absent.
    progress
        Callback while features are computed.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.models import build_model
    >>> from napari_cpnn.prediction import Predictor, SlideSurroundings
    >>> settings = nc.TrainingSettings(
    ...     backbone="triplex", target="squeezenet", weights="none", encoder="squeezenet", encoder_weights="none",
    ...     context_pitch_um=200.0,
    ... )
    >>> triplex = build_model(settings, protos.genes, protos.cell_types, protos.profiles, np.ones(len(protos.genes)))
    >>> SlideSurroundings(slide, triplex, Predictor(triplex), keep=False).plan.spacing_um
    224.0
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
        """Context that another process needs to predict on this slide."""
        return self.plan, self.tokens

    @property
    def tokens(self) -> SlideTokens:
        """Tokens of the slide; computed on first access.

        Raises
        ------
        MappingError
            If none of their patches can be read.
        """
        if self._tokens is None:
            places = self.plan.tokens_um
            self.compute(places)
            self._tokens = slide_tokens(self.plan, self.store, self._usable(keys_of(places)), self._name)
            self.store.flush()
        return self._tokens

    def at(self, centers_um: npt.ArrayLike) -> Surroundings:
        """Surroundings of places ``(N, 2)`` in slide micrometres, on the CPU."""
        places, present = self.plan.blocks(centers_um)
        keys = keys_of(places)
        self.compute(places[present])
        present = self._present(keys, present)
        return as_surroundings(self.store.get(keys), present, np.asarray(centers_um), self.tokens)

    def compute(self, places_um: FloatArray) -> None:
        """Compute missing features at places ``(M, 2)``."""
        keys, first = np.unique(keys_of(places_um), return_index=True)
        new = ~(self.store.known(keys) | np.isin(keys, list(self.failed)))
        places = places_um[np.sort(first[new])]  # in the given order, in which neighbours are adjacent
        for start in range(0, len(places), _CHUNK):
            self.progress("surroundings", start, len(places))
            part = places[start : start + _CHUNK]
            images, ok = self._reader.read(part)
            self.add(part, ok, self._predictor.features(images[ok]) if ok.any() else None)

    def add(self, places_um: FloatArray, ok: npt.NDArray[np.bool_], features: Float32Array | None) -> None:
        """Add features ``(n, F)`` of those places ``(M, 2)`` that are ``ok (M,)``; record the others as failed."""
        keys = keys_of(places_um)
        if features is not None:
            self.store.add(keys[ok], features)
        self.failed.update(keys[~ok].tolist())

    def flush(self) -> None:
        """Write new features to disk."""
        self.store.flush()

    def _usable(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return self.store.known(keys)

    def _present(self, keys: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return present & self.store.known(keys) if self.failed else present


def slide_tokens(plan: ContextPlan, store: FeatureStore, usable: npt.NDArray[np.bool_], name: str) -> SlideTokens:
    """Assemble the ``usable (T,)`` tokens of a plan from the features of a store."""
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
    """Convert arrays to `Surroundings` on one slide."""
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
    """Predict with a model at places on one slide.

    Parameters
    ----------
    slide, model
        Slide and model, as for a map.
    device, precision, symmetries
        As for :class:`~napari_cpnn.prediction.predictor.Predictor`.
    keep
        Store frozen features on disk.

    Examples
    --------
    >>> from napari_cpnn.prediction import PlacePredictor
    >>> prediction, ok = PlacePredictor(slide, model).predict([[1200.0, 1200.0]])
    >>> prediction.weights.shape, ok.tolist()
    ((1, 8), [True])
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
        """Create from a model on its device and the slide's context (``None`` for a model without surroundings)."""
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
        """Predict at places ``(N, 2)``; return predictions of readable patches, and which are readable ``(N,)``.

        The prediction is None if no patch is readable. Each place's own patch is read once; surrounding patches are
        read only if their features are unknown.
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
