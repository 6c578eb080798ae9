"""Spots of Visium and Spatial Transcriptomics: files -> AnnData, expression, pixel size from the array's pitch."""

from __future__ import annotations

from napari_cpnn.spots.array import ArrayFit, fit_array
from napari_cpnn.spots.fit import SpotFit, SpotFix, check_fit
from napari_cpnn.spots.pairs import open_sample
from napari_cpnn.spots.quality import estimate_mpp, expression
from napari_cpnn.spots.readers import read_spots

__all__ = [
    "ArrayFit",
    "SpotFit",
    "SpotFix",
    "check_fit",
    "estimate_mpp",
    "expression",
    "fit_array",
    "open_sample",
    "read_spots",
]
