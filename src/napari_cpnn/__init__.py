"""See molecular maps on an H&E slide: lazy, patch-level CPNN predictions in napari, Python and the terminal.

The names below are the public API; each is imported when it is first used, so that importing the package loads
neither torch nor napari nor Qt.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_cpnn._version import __version__

# OpenMP's threads spin while they wait. Beside a viewer's own threads, or on shared cores, two spinning threads of
# torch are slower than one (docs/performance.md). It must be said before torch is loaded; the user's own word counts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "open_slide": "slides",
    "Slide": "slides",
    "read_spots": "spots",
    "read_cells": "prototypes",
    "estimate_prototypes": "prototypes",
    "deconvolve": "prototypes",
    "deconvolve_with_uncertainty": "prototypes",
    "Deconvolution": "prototypes",
    "Prototypes": "prototypes",
    "train": "training",
    "evaluate": "training",
    "cross_validate": "training",
    "load_model": "models",
    "CPNN": "models",
    "predict_map": "mapping",
    "CompositionMap": "mapping",
    "to_anndata": "export",
    "to_h5ad": "export",
    "to_spatialdata": "export",
    "to_geojson": "export",
    "to_ome_zarr": "export",
    "to_csv": "export",
    "export_map": "export",
    "PatchSpec": "geometry",
    "PrototypeSettings": "settings",
    "DeconvolutionSettings": "settings",
    "TrainingSettings": "settings",
    "EvaluationSettings": "settings",
    "MappingSettings": "settings",
    "ExportSettings": "settings",
    "TissueSettings": "settings",
    "CpnnError": "errors",
    "fetch_her2st": "samples",
    "sample_folder": "samples",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from napari_cpnn.errors import CpnnError as CpnnError
    from napari_cpnn.export import export_map as export_map
    from napari_cpnn.export import to_anndata as to_anndata
    from napari_cpnn.export import to_csv as to_csv
    from napari_cpnn.export import to_geojson as to_geojson
    from napari_cpnn.export import to_h5ad as to_h5ad
    from napari_cpnn.export import to_ome_zarr as to_ome_zarr
    from napari_cpnn.export import to_spatialdata as to_spatialdata
    from napari_cpnn.geometry import PatchSpec as PatchSpec
    from napari_cpnn.mapping import CompositionMap as CompositionMap
    from napari_cpnn.mapping import predict_map as predict_map
    from napari_cpnn.models import CPNN as CPNN
    from napari_cpnn.models import load_model as load_model
    from napari_cpnn.prototypes import Deconvolution as Deconvolution
    from napari_cpnn.prototypes import Prototypes as Prototypes
    from napari_cpnn.prototypes import deconvolve as deconvolve
    from napari_cpnn.prototypes import deconvolve_with_uncertainty as deconvolve_with_uncertainty
    from napari_cpnn.prototypes import estimate_prototypes as estimate_prototypes
    from napari_cpnn.prototypes import read_cells as read_cells
    from napari_cpnn.samples import fetch_her2st as fetch_her2st
    from napari_cpnn.samples import sample_folder as sample_folder
    from napari_cpnn.settings import DeconvolutionSettings as DeconvolutionSettings
    from napari_cpnn.settings import EvaluationSettings as EvaluationSettings
    from napari_cpnn.settings import ExportSettings as ExportSettings
    from napari_cpnn.settings import MappingSettings as MappingSettings
    from napari_cpnn.settings import PrototypeSettings as PrototypeSettings
    from napari_cpnn.settings import TissueSettings as TissueSettings
    from napari_cpnn.settings import TrainingSettings as TrainingSettings
    from napari_cpnn.slides import Slide as Slide
    from napari_cpnn.slides import open_slide as open_slide
    from napari_cpnn.spots import read_spots as read_spots
    from napari_cpnn.training import cross_validate as cross_validate
    from napari_cpnn.training import evaluate as evaluate
    from napari_cpnn.training import train as train


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
