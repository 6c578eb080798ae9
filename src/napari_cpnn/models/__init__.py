"""Torch modules, losses and the checkpoint format: tensors in, tensors out.

Names are imported when they are first used: the decoder, the card of a checkpoint and the list of backbones need no
torch, and importing them must not load it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "BACKBONES": "backbones",
    "ENCODERS": "backbones",
    "EncoderInfo": "backbones",
    "get_encoder": "backbones",
    "CPNN": "cpnn",
    "build_model": "build",
    "predict_symmetric": "cpnn",
    "Decoder": "decoder",
    "Domain": "domain",
    "ModelSpec": "card",
    "read_card": "card",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
    "fuse_for_inference": "inference",
    "composition_penalty": "losses",
    "mse_loss": "losses",
    "pcc_loss": "losses",
    "prototype_penalty": "losses",
    "Prediction": "prediction",
    "SlideTokens": "triplex",
    "Surroundings": "triplex",
    "Triplex": "triplex",
}

__all__ = [*_HOMES]

if TYPE_CHECKING:
    from napari_cpnn.models.backbones import BACKBONES as BACKBONES
    from napari_cpnn.models.backbones import ENCODERS as ENCODERS
    from napari_cpnn.models.backbones import EncoderInfo as EncoderInfo
    from napari_cpnn.models.backbones import get_encoder as get_encoder
    from napari_cpnn.models.build import build_model as build_model
    from napari_cpnn.models.card import ModelSpec as ModelSpec
    from napari_cpnn.models.card import read_card as read_card
    from napari_cpnn.models.checkpoint import load_model as load_model
    from napari_cpnn.models.checkpoint import save_model as save_model
    from napari_cpnn.models.cpnn import CPNN as CPNN
    from napari_cpnn.models.cpnn import predict_symmetric as predict_symmetric
    from napari_cpnn.models.decoder import Decoder as Decoder
    from napari_cpnn.models.domain import Domain as Domain
    from napari_cpnn.models.inference import fuse_for_inference as fuse_for_inference
    from napari_cpnn.models.losses import composition_penalty as composition_penalty
    from napari_cpnn.models.losses import mse_loss as mse_loss
    from napari_cpnn.models.losses import pcc_loss as pcc_loss
    from napari_cpnn.models.losses import prototype_penalty as prototype_penalty
    from napari_cpnn.models.prediction import Prediction as Prediction
    from napari_cpnn.models.triplex import SlideTokens as SlideTokens
    from napari_cpnn.models.triplex import Surroundings as Surroundings
    from napari_cpnn.models.triplex import Triplex as Triplex


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
