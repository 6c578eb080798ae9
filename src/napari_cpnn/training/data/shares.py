"""Deconvolved composition of the spots of a run, cached next to their patches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_cpnn._version import __version__
from napari_cpnn.arrays import Float32Array, IntArray
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.progress import Progress, no_progress
from napari_cpnn.prototypes import Prototypes, deconvolve
from napari_cpnn.settings import DeconvolutionSettings, TrainingSettings
from napari_cpnn.storage import find_array, key_of, write_array
from napari_cpnn.training.data.spot_samples import SpotSample


def deconvolved_shares(
    parts: Sequence[SpotSample],
    rows: Sequence[IntArray],
    prototypes: Prototypes,
    settings: TrainingSettings,
    folder: Path,
    progress: Progress = no_progress,
) -> Float32Array:
    """Deconvolve the selected spots of each slide to compositions ``(N, C)`` float32; NaN if undefined.

    Results in ``folder`` for the same counts, prototypes and settings are reused.
    """
    how = DeconvolutionSettings(method=settings.deconvolution, device=settings.device)
    n_types = len(prototypes.cell_types)
    tables = [np.zeros((0, n_types), dtype=np.float32)]
    for number, (part, chosen) in enumerate(zip(parts, rows, strict=True)):
        if not len(chosen):
            continue
        progress(f"deconvolving the spots of {part.slide.name}", number / len(parts))
        place = folder / _key(part, chosen, prototypes, how)
        shares = find_array(place, 0, (len(chosen), n_types), np.float32, f"shares of {part.slide.name}")
        if shares is None:
            with warnings.catch_warnings():  # shared genes were already reported when they were selected
                warnings.filterwarnings("ignore", ".* share only ", CpnnWarning)
                table = deconvolve(part.spots[chosen], prototypes, how)[list(prototypes.cell_types)]
            shares = write_array(place, 0, table.to_numpy(dtype=np.float32))
        tables.append(shares)
    return np.concatenate(tables)


def _key(part: SpotSample, chosen: IntArray, prototypes: Prototypes, how: DeconvolutionSettings) -> str:
    counts = part.counts[chosen]
    counts.sort_indices()
    settings = {**how.to_dict(), "device": ""}
    facts = [__version__, settings, list(part.spots.var_names), prototypes.genes, prototypes.cell_types, counts.shape]
    arrays = [counts.data, counts.indices, counts.indptr, prototypes.profiles]
    if prototypes.dispersion is not None:
        arrays.append(prototypes.dispersion)
    return key_of(facts, *arrays)
