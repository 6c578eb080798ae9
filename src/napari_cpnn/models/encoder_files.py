"""Frozen encoders whose weights do not travel in our model files.

Where they are on this computer, and whether these are the ones that a model was trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from napari_cpnn.caches import cache_folder
from napari_cpnn.errors import CheckpointError, CpnnError, WeightsError
from napari_cpnn.models.backbones import PRETRAINED, get_encoder
from napari_cpnn.models.backbones.build import encoder_fingerprint

log = logging.getLogger(__name__)

#: Fingerprint of weights -> where this process has found them.
_FOUND: dict[str, str] = {}


def encoder_of(path: Path, card: Mapping[str, Any], weights: str | Path | None) -> nn.Module:
    """The encoder of a model file that does not hold it.

    Parameters
    ----------
    path
        The model file, for messages.
    card
        Its entry ``encoder``.
    weights
        File or folder of the weights, or ``"pretrained"``; ``None``: where they were found before, else that.

    Raises
    ------
    WeightsError
        They cannot be had.
    CheckpointError
        They are others than the model was trained on.
    """
    name, expected = str(card["name"]), str(card["fingerprint"])
    place = str(weights or known_place(expected) or "pretrained")
    try:
        # A folder of transformers says by itself what is in it, wherever its encoder came from.
        is_folder = name.startswith("hf:") and Path(place).expanduser().is_dir()
        network = get_encoder(f"hf:{place}").build("pretrained") if is_folder else get_encoder(name).build(place)
    except CpnnError as error:
        raise WeightsError(
            f"{path.name} needs the weights of encoder {name!r}, which it does not hold: {str(error).rstrip('.')}; "
            "then give them as encoder_weights."
        ) from error
    if encoder_fingerprint(network) != expected:
        where = f"the weights in {place}" if place not in PRETRAINED else "the present weights"
        raise CheckpointError(
            f"{path.name} was trained on other weights of encoder {name!r} than {where}; give the file that it was "
            "trained with as encoder_weights."
        )
    remember_place(expected, place)
    return network


def remember_place(fingerprint: str, place: str) -> None:
    """Note where weights were found, so that a model that needs them opens without being told."""
    if place in (*PRETRAINED, "none"):
        return
    _FOUND[fingerprint] = str(Path(place).expanduser().absolute())
    note = _note(fingerprint)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(_FOUND[fingerprint], encoding="utf-8")
    except OSError as error:
        log.warning("The place of an encoder's weights cannot be noted in %s: %s", note, error)


def known_place(fingerprint: str) -> str | None:
    """Where :func:`remember_place` has seen weights, if they are still there."""
    place = _FOUND.get(fingerprint)
    if place is None:
        try:
            place = _note(fingerprint).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
    return place if Path(place).exists() else None


def _note(fingerprint: str) -> Path:
    return cache_folder() / "weights" / f"{fingerprint[:32]}.place"
