"""Tissue like a chosen patch: cosine similarity of image features over the patches of a map."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, IntArray
from napari_cpnn.errors import MappingError
from napari_cpnn.geometry import Grid
from napari_cpnn.prediction import FeatureStore, Predictor, keys_of
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.settings import MappingSettings
from napari_cpnn.slides import PatchReader, Slide

if TYPE_CHECKING:
    from napari_cpnn.mapping.composition_map import CompositionMap
    from napari_cpnn.models import CPNN

#: Patches read at a time, at first and at least; then as many as take the seconds between two reports of the progress.
_CHUNK, _REPORT_SECONDS = 8, 2.0
#: Most patches read at a time, and seconds between two writes of the store.
_MOST, _FLUSH_SECONDS = 256, 20.0
#: Least number of patches of which the mean says what the slide has in common.
LEAST_PATCHES = 8


@dataclass(frozen=True, eq=False)
class SimilarTissue:
    """How much the tissue of a slide is like one patch.

    Parameters
    ----------
    at
        The chosen patch (row, col).
    values
        ``(rows, cols)`` float32, cosine similarity, -1 to 1; NaN where there is no tissue.
    places
        ``(k, 2)``, row and column of the most similar patches that overlap neither each other nor the chosen one, the
        most similar first.
    scores
        ``(k,)``, their similarity.
    """

    at: tuple[int, int]
    values: Float32Array
    places: IntArray
    scores: Float32Array


class TissueFeatures:
    """Features of the patches of a map, centred and of length 1.

    The mean over the slide is subtracted: all patches share much (stain, scanner, tissue as such), and without it all
    cosines would be close to 1.

    Parameters
    ----------
    grid
        Grid of the map.
    patches
        ``(n,)`` flat indices in the grid, increasing.
    features
        ``(n, F)``.
    size_um
        Side of a patch.

    Raises
    ------
    MappingError
        For fewer than eight patches.
    """

    def __init__(self, grid: Grid, patches: IntArray, features: npt.NDArray[np.floating], size_um: float) -> None:
        if len(patches) < LEAST_PATCHES:
            raise MappingError(f"{len(patches)} patches are too few to compare tissue; {LEAST_PATCHES} are needed.")
        self.grid, self.patches = grid, patches
        self._reach = size_um / grid.stride_um
        unit = np.asarray(features, dtype=np.float32)
        unit -= unit.mean(axis=0, dtype=np.float64).astype(np.float32)
        length = np.linalg.norm(unit, axis=1, keepdims=True)
        unit /= np.maximum(length, np.float32(1e-12))
        self._unit = unit

    def like(self, at_um: Sequence[float], n: int = 20) -> SimilarTissue:
        """Compare with the patch at a point (y, x), slide micrometres.

        Parameters
        ----------
        n
            Number of most similar patches.

        Raises
        ------
        MappingError
            If the point is not on tissue of the map.
        """
        patch = self.grid.cell_at(float(at_um[0]), float(at_um[1]))
        flat = -1 if patch is None else int(np.ravel_multi_index(patch, self.grid.shape))
        row = int(np.searchsorted(self.patches, flat))
        if patch is None or row >= len(self.patches) or self.patches[row] != flat:
            raise MappingError("There is no tissue of the map at this place; choose a place on tissue.")
        scores = self._unit @ self._unit[row]
        values = np.full(self.grid.shape, np.nan, dtype=np.float32)
        values.ravel()[self.patches] = scores
        places = self._best(scores, row, n)
        return SimilarTissue(patch, values, places, values[tuple(places.T)])

    def _best(self, scores: Float32Array, row: int, n: int) -> IntArray:
        """Most similar patches ``(k, 2)`` that do not overlap."""
        at = np.stack(np.unravel_index(self.patches, self.grid.shape), axis=1)
        free = np.abs(at - at[row]).max(axis=1) >= self._reach - 1e-6
        found: list[IntArray] = []
        for i in np.argsort(-scores, kind="stable"):
            if len(found) >= n:
                break
            if free[i]:
                found.append(at[i])
                free &= np.abs(at - at[i]).max(axis=1) >= self._reach - 1e-6
        return np.array(found, dtype=np.intp).reshape(-1, 2)


def tissue_features(
    slide: Slide,
    model: CPNN,
    cmap: CompositionMap,
    settings: MappingSettings | None = None,
    predictor: Predictor | None = None,
    progress: Progress = no_progress,
) -> TissueFeatures:
    """Return the features of all patches of a map, from the store of kept features or computed.

    Features are of the image network of the model (of TRIPLEX: its frozen encoder), from the pixels of the patch alone,
    and are kept in the user's cache (``settings.cache``): they are computed once per slide and network, at about the
    speed of mapping.

    Parameters
    ----------
    slide, model, cmap
        The slide, the model, and its map of the slide, which need not be computed.
    settings
        Device, precision, and whether features are kept on disk.
    predictor
        The model on its device, if there is one already.
    progress
        Called with a text and the share done; what it raises ends the computation, and what is done is kept.

    Raises
    ------
    MappingError
        If hardly any patch can be read.
    """
    settings = settings or MappingSettings()
    predictor = predictor or Predictor(model, settings.device, settings.precision, engine=settings.engine)
    slide = slide.with_reduced_levels() if settings.reduced_tiles else slide
    store = FeatureStore.of(slide, model, predictor.arithmetic, settings.cache)
    patches = np.flatnonzero(cmap.tissue)
    centers = cmap.grid.centers_um(cmap.unravel(patches))
    keys = keys_of(centers)
    missing, reader = np.flatnonzero(~store.known(keys)), PatchReader(slide, model.patch)
    flushed = began = time.monotonic()
    start, size = 0, _CHUNK
    try:
        while start < len(missing):
            progress(f"{start:,} of {len(missing):,} patches", start / len(missing))
            part = missing[start : start + size]
            images, ok = reader.read(centers[part])
            if ok.any():
                store.add(keys[part[ok]], predictor.features(images[ok]))
            start, now = start + len(part), time.monotonic()
            if now - flushed > _FLUSH_SECONDS:
                store.flush()
                flushed = now
            size, began = _next_size(size, now - began), now
    finally:
        store.flush()
    known = store.known(keys)
    return TissueFeatures(cmap.grid, patches[known], store.get(keys[known]), model.patch.size_um)


def _next_size(size: int, seconds: float) -> int:
    """Return how many patches to read next, when these took some seconds: twice as many, as many, or half of them."""
    factor = 2.0 if seconds < _REPORT_SECONDS / 2 else 0.5 if seconds > 2 * _REPORT_SECONDS else 1.0
    return int(min(max(size * factor, _CHUNK), _MOST))


def similar_tissue(
    slide: Slide,
    model: CPNN,
    cmap: CompositionMap,
    at_um: Sequence[float],
    n: int = 20,
    *,
    settings: MappingSettings | None = None,
) -> SimilarTissue:
    """Find the tissue of a slide that looks like the patch at a point.

    Similarity is the cosine between image features, from which the mean over the slide was subtracted. It says what
    looks alike to the network, not what is the same tissue.

    Parameters
    ----------
    slide, model, cmap, settings
        As for :func:`tissue_features`.
    at_um
        The point (y, x), slide micrometres.
    n
        Number of most similar patches to list.

    Raises
    ------
    MappingError
        If the point is not on tissue of the map.

    Examples
    --------
    >>> found = nc.similar_tissue(slide, model, cmap, (1200.0, 1200.0), n=3)
    >>> found.values.shape == cmap.state.shape, len(found.places)
    (True, 3)
    >>> round(float(found.values[found.at]), 3)
    1.0
    """
    return tissue_features(slide, model, cmap, settings).like(at_um, n)
