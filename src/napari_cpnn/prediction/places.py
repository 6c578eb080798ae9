"""Predict at arbitrary places on a slide.

Used by evaluation and by tasks on a cluster; the live mapper does the same in the order that a view requires
(:mod:`napari_cpnn.mapping.patch_predictor`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array
from napari_cpnn.models import Prediction
from napari_cpnn.prediction.inputs import inputs_at
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.slides import PatchReader, Slide

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN

#: Patches read at a time, and patches per batch on a CPU, where a batch of 256 would delay progress reports.
_CHUNK, _CPU_BATCH = 256, 64


class PlacePredictor:
    """Predict with a model at places on one slide.

    Parameters
    ----------
    slide, model, predictor, keep, context
        As for :class:`~napari_cpnn.prediction.inputs.PlaceInputs`.

    Examples
    --------
    >>> from napari_cpnn.prediction import PlacePredictor, Predictor
    >>> prediction, ok = PlacePredictor(slide, model, Predictor(model)).predict([[1200.0, 1200.0]])
    >>> prediction.weights.shape, ok.tolist()
    ((1, 8), [True])
    """

    def __init__(self, slide: Slide, model: CPNN, predictor: Predictor, keep: bool = True, context: Any = None) -> None:
        self.predictor = predictor
        self.inputs = inputs_at(slide, model, predictor, keep, context)
        self._reader = PatchReader(slide, model.patch)

    def predict(
        self, centers_um: npt.ArrayLike, progress: Progress = no_progress, what: str = "places"
    ) -> tuple[Prediction[Float32Array] | None, npt.NDArray[np.bool_]]:
        """Predict at places ``(N, 2)``; return predictions of readable patches, and which are readable ``(N,)``.

        The prediction is None if no patch is readable. Each place's own patch is read once; surrounding patches are
        read only if their features are unknown. ``progress`` is called between batches, with a text that calls the
        places ``what``; the share is constant while surroundings are computed.
        """
        centers = np.asarray(centers_um, dtype=np.float64).reshape(-1, 2)
        share = 0.0

        def report(done: int) -> None:
            nonlocal share
            share = done / max(len(centers), 1)
            progress(f"{done:,} of {len(centers):,} {what}", share)

        self.inputs.progress = lambda text, _: progress(f"{text} around the {what}", share)
        oks, parts = [], []
        step = _CPU_BATCH if self.predictor.device.type == "cpu" else _CHUNK
        for start in range(0, len(centers), _CHUNK):
            report(start)
            part = centers[start : start + _CHUNK]
            images, ok = self._reader.read(part)
            oks.append(ok)
            images, part = images[ok], part[ok]
            for first in range(0, len(part), step):
                if first:
                    report(start + first)
                parts.append(self.inputs.predict(images[first : first + step], part[first : first + step]))
        report(len(centers))
        self.inputs.flush()
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Prediction(*columns) if parts else None, np.concatenate(oks) if oks else np.zeros(0, dtype=bool)
