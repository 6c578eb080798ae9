"""Model inputs at places on a slide: what a prediction needs besides the image of its own patch.

There is one class per kind of input, chosen once by :func:`inputs_at` from what the model declares. Evaluation, tasks
on a cluster and the live mapper use it without reference to the kind. Its counterpart in training is
:mod:`napari_cpnn.training.data.inputs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.errors import MappingError
from napari_cpnn.models import Prediction
from napari_cpnn.prediction.context import ContextPlan, keys_of
from napari_cpnn.prediction.feature_store import FeatureStore
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.slides import PatchReader, Slide

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN, SlideTokens, Surroundings

Context: TypeAlias = "tuple[ContextPlan, SlideTokens]"
"""Slide-level context of a model that needs surroundings: its plan and tokens."""

#: Surrounding patches read at a time.
_CHUNK = 256


class PlaceInputs(ABC):
    """Inputs of a model at places on one slide.

    Parameters
    ----------
    slide, model
        The slide and the model.
    predictor
        The model on its device.
    keep
        Store reusable results on disk.
    context
        :attr:`context` of another process, if already known.

    Attributes
    ----------
    progress
        Callback while inputs besides the patches are computed.

    Examples
    --------
    >>> from napari_cpnn.prediction import INPUTS, PlaceInputs
    >>> all(issubclass(kind, PlaceInputs) for kind in INPUTS.values())
    True
    """

    def __init__(
        self,
        slide: Slide,  # noqa: ARG002
        model: CPNN,  # noqa: ARG002
        predictor: Predictor,
        keep: bool = True,  # noqa: ARG002
        context: Any = None,  # noqa: ARG002
    ) -> None:
        self._predictor = predictor
        self.progress: Progress = no_progress

    @property
    def context(self) -> Any:
        """Slide-level results that another process needs to predict on this slide; ``None`` for none."""
        return None

    @abstractmethod
    def predict(self, images: npt.NDArray[np.uint8], centers_um: FloatArray) -> Prediction[Float32Array]:
        """Predict from patches ``(n, S, S, 3)`` at places ``(n, 2)``, slide micrometres."""

    @abstractmethod
    def flush(self) -> None:
        """Write reusable results to disk."""


class PatchAlone(PlaceInputs):
    """No input besides the patch; see :class:`PlaceInputs`."""

    def predict(self, images: npt.NDArray[np.uint8], centers_um: FloatArray) -> Prediction[Float32Array]:  # noqa: ARG002
        return self._predictor.predict(images)

    def flush(self) -> None:
        """Do nothing: there are no reusable results."""


class SlideSurroundings(PlaceInputs):
    """Neighbours of places, and the tokens of their slide (TRIPLEX); see :class:`PlaceInputs`.

    Features are kept for other runs, and for models with the same frozen encoder; the context is plan and tokens.

    Attributes
    ----------
    plan
        Positions of tokens and neighbours.
    store
        Frozen features by place.
    failed
        Keys of patches that cannot be read; they are treated as absent.

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
        super().__init__(slide, model, predictor)
        self.plan = ContextPlan.of(slide, model) if context is None else context[0]
        self.store = FeatureStore.of(slide, model, predictor.arithmetic, keep)
        self.failed: set[int] = set()
        self._reader = PatchReader(slide, model.patch)
        self._name = slide.name
        self._tokens: SlideTokens | None = None if context is None else context[1]

    @property
    def context(self) -> Context:
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
            self._tokens = slide_tokens(self.plan, self.store, self.store.known(keys_of(places)), self._name)
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
            self.progress(f"{start:,} of {len(places):,} patches", start / len(places))
            part = places[start : start + _CHUNK]
            images, ok = self._reader.read(part)
            self.add(part, ok, self._predictor.features(images[ok]) if ok.any() else None)

    def add(self, places_um: FloatArray, ok: npt.NDArray[np.bool_], features: Float32Array | None) -> None:
        """Add features ``(n, F)`` of those places ``(M, 2)`` that are ``ok (M,)``; record the others as failed."""
        keys = keys_of(places_um)
        if features is not None:
            self.store.add(keys[ok], features)
        self.failed.update(keys[~ok].tolist())

    def predict(self, images: npt.NDArray[np.uint8], centers_um: FloatArray) -> Prediction[Float32Array]:
        new = ~self.store.known(keys_of(centers_um))
        if new.any():
            self.add(centers_um[new], new[new], self._predictor.features(images[new]))
        return self._predictor.predict(images, self.at(centers_um))

    def flush(self) -> None:
        self.store.flush()

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


#: Kinds of input, as declared by :attr:`CPNN.input_kind`. To add one, define a class above and register it here.
INPUTS: dict[str, type[PlaceInputs]] = {"patch": PatchAlone, "surroundings": SlideSurroundings}


def inputs_at(slide: Slide, model: CPNN, predictor: Predictor, keep: bool = True, context: Any = None) -> PlaceInputs:
    """Create the inputs of a model at places on a slide; parameters as of :class:`PlaceInputs`.

    Raises
    ------
    MappingError
        For a model of single cells (:func:`require_patches`).
    """
    require_patches(model)
    return INPUTS[model.input_kind](slide, model, predictor, keep, context)


def require_patches(model: CPNN) -> None:
    """Raise a :class:`MappingError` for a model of single cells, which can be asked about nuclei only."""
    if model.input_kind == "nucleus":
        raise MappingError(
            f"The model {model.title or 'given'} was trained on single nuclei and has no map of patches; it predicts "
            "single cells, in the Cells dock or by the command 'napari-cpnn cells'."
        )
