"""Train a model on spots, and measure it on others.

Names are imported when they are first used, because they load torch and Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "train": "fit",
    "evaluate": "evaluation",
    "summarise": "evaluation",
    "predict_spots": "predictions",
    "predict_expression": "predictions",
    "cross_validate": "cross_validation",
}

__all__ = [*_HOMES]

if TYPE_CHECKING:
    from napari_cpnn.training.cross_validation import cross_validate as cross_validate
    from napari_cpnn.training.evaluation import evaluate as evaluate
    from napari_cpnn.training.evaluation import summarise as summarise
    from napari_cpnn.training.fit import train as train
    from napari_cpnn.training.predictions import predict_expression as predict_expression
    from napari_cpnn.training.predictions import predict_spots as predict_spots


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
