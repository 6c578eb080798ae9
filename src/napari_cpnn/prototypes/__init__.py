"""Single cells -> prototypes of cell types, and the composition of spots in terms of them."""

from __future__ import annotations

from napari_cpnn.prototypes.cells import read_cells
from napari_cpnn.prototypes.deconvolution import Deconvolution, deconvolve, deconvolve_with_uncertainty
from napari_cpnn.prototypes.estimate import estimate_prototypes
from napari_cpnn.prototypes.prototypes import Prototypes

__all__ = [
    "Deconvolution", "Prototypes", "deconvolve", "deconvolve_with_uncertainty", "estimate_prototypes", "read_cells",
]  # fmt: skip
