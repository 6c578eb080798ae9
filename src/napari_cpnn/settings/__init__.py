"""Frozen settings, one dataclass per task.

They are the one source of truth for GUI defaults, command-line options (``help`` is in the field's metadata) and
what is written into a checkpoint or a run folder. ``to_dict`` and ``from_dict`` go through plain JSON types.
"""

from __future__ import annotations

from napari_cpnn.settings.base import DeviceName, Settings
from napari_cpnn.settings.mapping import (
    ExportSettings,
    FigureSettings,
    MappingSettings,
    RegionSettings,
    TissueSettings,
)
from napari_cpnn.settings.training import (
    TRAINING_PRESETS,
    DeconvolutionSettings,
    EvaluationSettings,
    PrototypeSettings,
    TrainingSettings,
)

__all__ = [
    "TRAINING_PRESETS",
    "DeconvolutionSettings",
    "DeviceName",
    "EvaluationSettings",
    "ExportSettings",
    "FigureSettings",
    "MappingSettings",
    "PrototypeSettings",
    "RegionSettings",
    "Settings",
    "TissueSettings",
    "TrainingSettings",
]
