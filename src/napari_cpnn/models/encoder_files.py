"""Locate and verify frozen encoders whose weights are not stored in model files."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from napari_cpnn.errors import CheckpointError, CpnnError, SettingsError, WeightsError
from napari_cpnn.models.backbones import PRETRAINED, get_encoder, named_parts
from napari_cpnn.models.backbones.build import encoder_fingerprint, joined_weights
from napari_cpnn.models.backbones.consent import downloads
from napari_cpnn.storage import cache_folder, whole_file

log = logging.getLogger(__name__)

#: Fingerprint of weights -> location where this process found them.
_FOUND: dict[str, str] = {}

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")

#: Prefix of a stored location for weights that the user requested by encoder name.
_ASKED = "pretrained "


def encoder_of(path: Path, card: Mapping[str, Any], weights: str | Path | None) -> nn.Module:
    """Load the frozen encoder of a model file that does not contain its weights.

    Parameters
    ----------
    path
        The model file, for messages.
    card
        Entry ``encoder`` of its card.
    weights
        File or folder of the weights, or ``"pretrained"``, which may download them; ``None``: their last known
        location, else a local copy from the encoder's authors. Nothing is downloaded then, since this could reveal to
        the author of the model file who opens it.

    Raises
    ------
    WeightsError
        If they are unavailable.
    CheckpointError
        If they differ from those that the model was trained with.
    """
    name, expected = str(card["name"]), str(card["fingerprint"])
    if not _FINGERPRINT.fullmatch(expected):
        raise CheckpointError(f"The model card in {path} cannot be used: it names no fingerprint of its encoder.")
    known = str(weights or known_place(expected, name) or "")
    place = known or "pretrained"
    try:
        with downloads(allowed=bool(known) and any(w in PRETRAINED for _, w in named_parts(name, known))):
            network = _built(named_parts(name, place))
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


def _built(parts: Sequence[tuple[str, str]]) -> nn.Module:
    """Build the encoder of these names and weights."""
    # A transformers folder is self-describing, whatever the origin of its encoder.
    is_folder = [name.startswith("hf:") and Path(place).expanduser().is_dir() for name, place in parts]
    names = [f"hf:{place}" if folder else name for (name, place), folder in zip(parts, is_folder, strict=True)]
    weights = ["pretrained" if folder else place for (_, place), folder in zip(parts, is_folder, strict=True)]
    return get_encoder("+".join(names)).build(joined_weights(weights))


def remember_place(fingerprint: str, place: str, name: str) -> None:
    """Record where weights were found, so that models that need them can be opened without specifying it.

    For weights requested by the encoder's ``name`` this is recorded too: they may be downloaded again.
    """
    places = [one for _, one in named_parts(name, place)]
    if "none" in places or not _FINGERPRINT.fullmatch(fingerprint):
        return
    where = joined_weights([one if one in PRETRAINED else str(Path(one).expanduser().absolute()) for one in places])
    if set(places) <= set(PRETRAINED):
        where = f"{_ASKED}{name}"
    elif set(places) & set(PRETRAINED):
        where = f"{_ASKED}{name}\n{where}"
    _FOUND[fingerprint] = where
    try:
        with whole_file(_note(fingerprint)) as note:
            note.write_text(_FOUND[fingerprint], encoding="utf-8")
    except CpnnError as error:
        log.warning("The place of an encoder's weights cannot be noted: %s", error)


def known_place(fingerprint: str, name: str) -> str | None:
    """Location recorded by :func:`remember_place`, if the weights are still there."""
    place = _FOUND.get(fingerprint)
    if place is None:
        try:
            place = _note(fingerprint).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
    if place.startswith(_ASKED):
        asked, _, place = place.removeprefix(_ASKED).partition("\n")
        if asked != name or not place:
            return "pretrained" if asked == name else None
    try:
        places = [one for _, one in named_parts(name, place) if one not in PRETRAINED]
        return place if all(Path(one).exists() for one in places) else None
    except (OSError, ValueError, SettingsError):
        return None


def _note(fingerprint: str) -> Path:
    return cache_folder() / "weights" / f"{fingerprint[:32]}.place"
