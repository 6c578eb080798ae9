"""Run a model on a device in batches: precision, memory format, and halving of batches that exceed the memory."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.errors import CpnnWarning, MappingError
from napari_cpnn.models import (
    Engine,
    Precision,
    Prediction,
    choose_device,
    choose_engine,
    choose_precision,
    is_out_of_memory,
)

if TYPE_CHECKING:
    import torch

    from napari_cpnn.models import CPNN, Surroundings

    _Step = Callable[[torch.Tensor, slice], Sequence[torch.Tensor]]

#: Largest loss of correlation with the measurement that int8 may cost a gene.
MAX_DRIFT = 0.002

_LEAST_PATCHES = 32
_LEAST_SD = 1e-3


class Predictor:
    """Model on a device, for batch prediction.

    Parameters
    ----------
    model
        The model; it is copied and not modified.
    device, precision, engine
        As in :class:`~napari_cpnn.settings.MappingSettings`. Only the backbone is computed in bfloat16 and by another
        engine than torch; the head and everything after it stay in float32.
    symmetries
        Average over the eight symmetries of each patch.

    Attributes
    ----------
    max_batch
        Largest batch that fits into memory, ``None`` as long as no batch has failed.
    model_bytes
        Memory of the weights.

    Examples
    --------
    >>> from napari_cpnn.prediction import Predictor
    >>> from napari_cpnn.slides import read_patches
    >>> images = read_patches(slide, [[1200.0, 1200.0]], model.patch)
    >>> Predictor(model).predict(images).weights.shape
    (1, 8)
    """

    def __init__(
        self,
        model: CPNN,
        device: str = "auto",
        precision: str = "auto",
        symmetries: bool = False,
        engine: str = "auto",
    ) -> None:
        self.device = choose_device(device)
        self.engine: Engine = choose_engine(self.device, engine)
        self.precision: Precision = choose_precision(self.device, precision)
        self.symmetries = symmetries
        self.is_quantized = False
        self.max_batch: int | None = None
        share = 0.5 if self.precision in ("bfloat16", "float16") else 1.0
        self.model_bytes = int(share * sum(p.numel() * p.element_size() for p in model.parameters()))
        self.model = self._ready(model, engine)

    def _ready(self, model: CPNN, wanted: str) -> CPNN:
        """Copy the model to the device and optimise it for prediction."""
        import torch

        from napari_cpnn.models import CPNN, compile_with_openvino, fuse_for_inference

        if self.engine == "openvino" and isinstance(model, CPNN):
            try:
                return compile_with_openvino(model, bfloat16=self.precision == "bfloat16")
            except MappingError as error:
                if wanted == "openvino":
                    raise
                warnings.warn(f"{error} It was chosen by itself, and torch is used instead.", CpnnWarning, stacklevel=4)
                self.engine = "torch"
        if self.device.type == "cpu" and isinstance(model, CPNN):
            return fuse_for_inference(model, bfloat16=self.precision == "bfloat16")
        ready = copy.deepcopy(model).eval().to(self.device).requires_grad_(False)
        return ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def description(self) -> str:
        """Device and arithmetic for display, such as ``"CPU bfloat16"``."""
        import torch

        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type.upper()
        return f"{name} {self.arithmetic}"

    @property
    def arithmetic(self) -> str:
        """Precision and, where it is not torch, engine: what features depend on beside the model."""
        precision = "int8" if self.is_quantized else self.precision
        return precision if self.engine == "torch" else f"{precision} (OpenVINO)"

    def quantize(self, images: npt.NDArray[np.uint8]) -> float:
        """Compute the image networks in int8 from now on, or say why not with a :class:`CpnnWarning`.

        One half of the patches sets the ranges of the networks. Over the other half, the predictions of each gene are
        compared with those of before: with a correlation r, its held-out PCC p is expected to drift by p (1 - r). If
        the worst gene of the model drifts by more than 0.002, all is taken back. Genes that hardly vary over these
        patches, and those whose p is not known in a model that knows others, do not count.

        Parameters
        ----------
        images
            ``(N, S, S, 3)`` uint8, patches of the slide; 128 are enough.

        Returns
        -------
        Drift of the worst gene; NaN if it was not tried.

        Raises
        ------
        MappingError
            Without OpenVINO, or if a network cannot be quantised.
        """
        from napari_cpnn.models import quantize_with_openvino

        if self.engine != "openvino":
            raise MappingError('int8 needs a CPU and OpenVINO: pip install "napari-cpnn[fast]", or another precision.')
        if len(images) < _LEAST_PATCHES:
            warnings.warn(
                f"{len(images)} patches are too few to choose the ranges of int8; {self.description} is used.",
                CpnnWarning,
                stacklevel=2,
            )
            return float("nan")
        half = len(images) // 2
        before = self.predict(images[half:])
        take_back = quantize_with_openvino(self.model, lambda: self.predict(images[:half]))
        drift = _drift(self.model, before, self.predict(images[half:]))
        self.is_quantized = drift <= MAX_DRIFT
        if not self.is_quantized:
            take_back()
            warnings.warn(
                f"In int8 the worst gene would lose {drift:.3f} of its correlation, more than {MAX_DRIFT:g}; "
                f"{self.description} is used.",
                CpnnWarning,
                stacklevel=2,
            )
        return drift

    def predict(
        self, images: npt.NDArray[np.uint8], surroundings: Surroundings | None = None
    ) -> Prediction[Float32Array]:
        """Predict compositions, programs and out-of-domain scores of patches.

        Parameters
        ----------
        images
            ``(N, S, S, 3)`` uint8.
        surroundings
            For a model that needs them (:class:`~napari_cpnn.prediction.inputs.SlideSurroundings`); without, each patch
            is treated as the only tissue of its slide.

        Returns
        -------
        Weights ``(N, C)``, programs ``(N, R)`` and out-of-domain scores ``(N,)``, float32.

        Raises
        ------
        MappingError
            If not even a single patch fits into the memory of the device.
        """
        around = None if surroundings is None else self.model.encode(surroundings.to(self.device))
        return Prediction(
            *self._in_batches(images, lambda x, rows: self._forward(x, None if around is None else around[rows]))
        )

    def patch_and_own_features(self, images: npt.NDArray[np.uint8]) -> tuple[Float32Array, Float32Array]:
        """:meth:`CPNN.patch_features` and :meth:`CPNN.features` of patches ``(N, S, S, 3)``, both float32."""
        patch_features, features = self._in_batches(
            images, lambda x, _: (self.model.patch_features(x), self.model.features(x))
        )
        return patch_features, features

    def patch_features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        """:meth:`CPNN.patch_features` of patches ``(N, S, S, 3)``, float32."""
        (patch_features,) = self._in_batches(images, lambda x, _: (self.model.patch_features(x),))
        return patch_features

    def features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        """:meth:`CPNN.features` of patches ``(N, S, S, 3)``: ``(N, F)`` float32; no symmetries."""
        (features,) = self._in_batches(images, lambda x, _: (self.model.features(x),))
        return features

    def _in_batches(self, images: npt.NDArray[np.uint8], function: _Step) -> tuple[Float32Array, ...]:
        from napari_cpnn.models import CHUNK

        parts: list[tuple[Float32Array, ...]] = []
        # The model on a CPU takes chunks of a batch; each is prepared just before, so that it is in the cache then.
        most = CHUNK if self.device.type == "cpu" else len(images)
        start = 0
        while start < len(images):
            step = min(len(images) - start, self.max_batch or most, most)
            try:
                parts.append(self._run(images, slice(start, start + step), function))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if step == 1:
                    raise self.has_no_room() from error
                self.max_batch = step // 2
                self.free_memory()
                continue
            start += step
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _run(self, images: npt.NDArray[np.uint8], rows: slice, function: _Step) -> tuple[Float32Array, ...]:
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images[rows]))
            if self.device.type == "cuda":
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            else:
                batch = batch.to(self.device)
            results = self._computed(batch, rows, function)
            return tuple(values.float().cpu().numpy() for values in results)

    def compute(self, images: torch.Tensor) -> Prediction[torch.Tensor]:
        """Predict patches ``(N, S, S, 3)`` uint8 that are on the device already; results stay there, float32.

        For models without surroundings, in a block of ``torch.inference_mode``. Nothing waits for the device.
        """
        return Prediction(
            *(part.float() for part in self._computed(images, slice(None), lambda x, _: self._forward(x)))
        )

    def _computed(self, batch: torch.Tensor, rows: slice, function: _Step) -> Sequence[torch.Tensor]:
        import torch

        x = self.model.normalize(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return function(x, rows)

    def _forward(self, x: torch.Tensor, surroundings: Surroundings | None = None) -> Prediction[torch.Tensor]:
        if not self.symmetries:
            return self.model.predict(x) if surroundings is None else self.model.predict(x, surroundings)
        from napari_cpnn.models import predict_symmetric

        return predict_symmetric(self.model, x, surroundings)

    def has_no_room(self) -> MappingError:
        """What is raised if not even one patch fits into the memory of the device."""
        return MappingError(
            f"{self.description}: not enough memory for one patch; close other programs or use the CPU."
        )

    def free_memory(self) -> None:
        """Give memory that nothing uses back to the device."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()


def _drift(model: CPNN, before: Prediction[Float32Array], after: Prediction[Float32Array]) -> float:
    """Expected loss of held-out PCC of the worst gene."""
    from napari_cpnn.models import held_out_pcc

    scores = held_out_pcc(model)
    genes = list(scores) or list(model.genes)
    old, new = (model.decoder().expression(one.weights, one.programs, genes).astype(float) for one in (before, after))
    old, new = old - old.mean(axis=0), new - new.mean(axis=0)
    varies = old.std(axis=0) > _LEAST_SD
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (old * new).sum(axis=0) / np.sqrt((old**2).sum(axis=0) * (new**2).sum(axis=0))
    weight = np.array([max(scores[gene], 0.0) for gene in genes]) if scores else np.ones(len(genes))
    return float(np.max((weight * (1 - np.nan_to_num(r)))[varies], initial=0.0))
