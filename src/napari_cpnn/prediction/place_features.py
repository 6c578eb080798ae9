"""Features of a frozen encoder at places on a slide: computed once, kept by the feature store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, IntArray
from napari_cpnn.prediction.context import keys_of
from napari_cpnn.prediction.feature_store import FeatureStore
from napari_cpnn.prediction.predictor import Predictor
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.slides import PatchReader

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN
    from napari_cpnn.slides import Slide

#: Patches read at a time, and written to disk after.
_CHUNK = 256


class PlaceFeatures:
    """Features of patches at places on one slide, in the precision of the store, whether they are kept or not.

    Parameters
    ----------
    slide, model
        Slide, and a model whose encoder is frozen; the features are those before they are standardised.
    predictor
        The model on its device.
    keep
        Keep features in the user's cache.

    Examples
    --------
    >>> from napari_cpnn.models import build_model
    >>> from napari_cpnn.prediction import PlaceFeatures, Predictor
    >>> settings = nc.TrainingSettings(backbone="frozen", encoder="colour", patch=nc.PatchSpec(48, 0.5), head="linear")
    >>> built = build_model(settings, ["A"], [], None, [0.0])
    >>> features, ok = PlaceFeatures(slide, built, Predictor(built), keep=False).at([[1200.0, 1200.0]])
    >>> features.shape, ok.tolist()
    ((1, 21), [True])
    """

    def __init__(self, slide: Slide, model: CPNN, predictor: Predictor, keep: bool = True) -> None:
        self._slide = slide
        self._predictor = predictor
        self._reader = PatchReader(slide, model.patch)
        self.store = FeatureStore.of(slide, model, predictor.arithmetic) if keep else None
        self._n_features = model.n_own_features

    def at(self, centers_um: npt.ArrayLike, progress: Progress = no_progress) -> tuple[Float32Array, BoolArray]:
        """Return the features ``(n, F)`` of the readable patches at places ``(N, 2)``, and which are readable ``(N,)``.

        Patches are read in strips across the slide, so that neighbours share what is read; ``progress`` is called with
        a text and the share of the new ones.
        """
        places = np.asarray(centers_um, dtype=np.float64).reshape(-1, 2)
        values = np.zeros((len(places), self._n_features), dtype=np.float16)
        keys = keys_of(places)
        ok = np.zeros(len(places), dtype=bool) if self.store is None else self.store.known(keys)
        if self.store is not None:
            values[ok] = self.store.get(keys[ok])
        new = _in_strips(places, np.flatnonzero(~ok), self._reader.spec.size_um)
        for start in range(0, len(new), _CHUNK):
            progress(f"{self._slide.name}: {start:,} of {len(new):,} patches", start / len(new))
            rows = new[start : start + _CHUNK]
            images, readable = self._reader.read(places[rows])
            rows = rows[readable]
            if not len(rows):
                continue
            values[rows] = self._predictor.patch_features(images[readable])
            ok[rows] = True
            if self.store is not None:
                self.store.add(keys[rows], values[rows])
                self.store.flush()
        return values[ok].astype(np.float32), ok


def _in_strips(places: npt.NDArray[np.float64], rows: IntArray, side_um: float) -> IntArray:
    """Order rows in strips across the slide."""
    y, x = places[rows].T
    return rows[np.lexsort((x, np.floor(y / (4 * side_um))))]
