"""Spots of Visium and Spatial Transcriptomics: files -> AnnData, expression, pixel size from the array's pitch."""

from __future__ import annotations

from napari_cpnn.spots.affine import parse_affine, read_affine
from napari_cpnn.spots.array import ArrayFit, fit_array
from napari_cpnn.spots.fit import SpotFit, SpotFix, check_fit, given_fix, move_back, move_of
from napari_cpnn.spots.folders import SpotsSource, find_slide, find_spots
from napari_cpnn.spots.pairs import open_sample
from napari_cpnn.spots.quality import estimate_mpp, expression
from napari_cpnn.spots.readers import read_spots

__all__ = [
    "ArrayFit",
    "SpotFit",
    "SpotFix",
    "SpotsSource",
    "check_fit",
    "estimate_mpp",
    "expression",
    "find_slide",
    "find_spots",
    "fit_array",
    "given_fix",
    "move_back",
    "move_of",
    "open_sample",
    "parse_affine",
    "read_affine",
    "read_spots",
]
