"""Composition maps: filled live around what is in view, or for a whole slide at once."""

from napari_cpnn.mapping.composition_map import BACKGROUND, DONE, FAILED, SKETCH, UNKNOWN, UNLIKE, CompositionMap
from napari_cpnn.mapping.live import LiveMapper
from napari_cpnn.mapping.progress import MapProgress
from napari_cpnn.mapping.scheduler import Scheduler, Viewport
from napari_cpnn.mapping.whole_slide import predict_map
from napari_cpnn.prediction.predictor import Predictor

__all__ = [
    "BACKGROUND",
    "DONE",
    "FAILED",
    "SKETCH",
    "UNKNOWN",
    "UNLIKE",
    "CompositionMap",
    "LiveMapper",
    "MapProgress",
    "Predictor",
    "Scheduler",
    "Viewport",
    "predict_map",
]
