"""Frozen encoders whose weights do not travel in our model files.

Where they are on this computer, and whether these are the ones that a model was trained on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from napari_cpnn.errors import CheckpointError, CpnnError, WeightsError
from napari_cpnn.models.backbones import PRETRAINED, get_encoder
from napari_cpnn.models.backbones.build import encoder_fingerprint
from napari_cpnn.models.backbones.consent import downloads
from napari_cpnn.storage import cache_folder, whole_file

log = logging.getLogger(__name__)

#: Fingerprint of weights -> where this process has found them.
_FOUND: dict[str, str] = {}

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")

#: How a note begins that the user has asked for the weights of an encoder by its name.
_ASKED = "pretrained "


def encoder_of(path: Path, card: Mapping[str, Any], weights: str | Path | None) -> nn.Module:
    """The encoder of a model file that does not hold it.

    Parameters
    ----------
    path
        The model file, for messages.
    card
        Its entry ``encoder``.
    weights
        File or folder of the weights, or ``"pretrained"``, which may download them; ``None``: where they were found
        before, else what is on this computer of the encoder's makers. Nothing is downloaded then: whoever wrote the
        file might learn from it who opens it.

    Raises
    ------
    WeightsError
        They cannot be had.
    CheckpointError
        They are others than the model was trained on.
    """
    name, expected = str(card["name"]), str(card["fingerprint"])
    if not _FINGERPRINT.fullmatch(expected):
        raise CheckpointError(f"The model card in {path} cannot be used: it names no fingerprint of its encoder.")
    known = str(weights or known_place(expected, name) or "")
    place = known or "pretrained"
    try:
        with downloads(allowed=known in PRETRAINED):
            # A folder of transformers says by itself what is in it, wherever its encoder came from.
            is_folder = name.startswith("hf:") and Path(place).expanduser().is_dir()
            network = get_encoder(f"hf:{place}").build("pretrained") if is_folder else get_encoder(name).build(place)
    except CpnnError as error:
        ask = "" if known else "; 'pretrained' downloads them, where their makers offer that"
        raise WeightsError(
            f"{path.name} needs the weights of encoder {name!r}, which it does not hold: {str(error).rstrip('.')}"
            f"{ask}; then give them as encoder_weights."
        ) from error
    if encoder_fingerprint(network) != expected:
        where = f"the weights in {place}" if place not in PRETRAINED else "the present weights"
        raise CheckpointError(
            f"{path.name} was trained on other weights of encoder {name!r} than {where}; give the file that it was "
            "trained with as encoder_weights."
        )
    if known:
        remember_place(expected, place, name)
    return network


def remember_place(fingerprint: str, place: str, name: str) -> None:
    """Note where weights were found, so that a model that needs them opens without being told.

    Of weights that were asked for by the encoder's ``name``, that is noted: they may be downloaded again.
    """
    if place == "none" or not _FINGERPRINT.fullmatch(fingerprint):
        return
    _FOUND[fingerprint] = f"{_ASKED}{name}" if place in PRETRAINED else str(Path(place).expanduser().absolute())
    try:
        with whole_file(_note(fingerprint)) as note:
            note.write_text(_FOUND[fingerprint], encoding="utf-8")
    except CpnnError as error:
        log.warning("The place of an encoder's weights cannot be noted: %s", error)


def known_place(fingerprint: str, name: str) -> str | None:
    """Where :func:`remember_place` has seen weights, if they are still there."""
    place = _FOUND.get(fingerprint)
    if place is None:
        try:
            place = _note(fingerprint).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
    if place.startswith(_ASKED):
        return "pretrained" if place == f"{_ASKED}{name}" else None
    try:
        return place if Path(place).exists() else None
    except (OSError, ValueError):
        return None


def _note(fingerprint: str) -> Path:
    return cache_folder() / "weights" / f"{fingerprint[:32]}.place"
