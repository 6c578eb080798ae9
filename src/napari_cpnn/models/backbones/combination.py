"""Encoders side by side, named ``"nic+squeezenet"``: their features are concatenated. Without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_cpnn.errors import SettingsError
from napari_cpnn.models.backbones.encoder import EncoderInfo
from napari_cpnn.models.backbones.foundation import PREFIXES
from napari_cpnn.models.backbones.sources import PRETRAINED

if TYPE_CHECKING:
    from torch import nn

#: Normalisation of the images that a combination is given; each part converts them to its own.
_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

#: Largest number of encoders in a combination.
_MOST = 8


def split_names(name: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names of the encoders in ``name``, joined by ``+``.

    A plus sign in the name of a folder or repository (``hf:``, ``timm:``) does not separate, unless the name of an
    encoder follows.
    """
    names: list[str] = []
    for piece in name.split("+"):
        if names and names[-1].startswith(PREFIXES) and piece not in known and not piece.startswith(PREFIXES):
            names[-1] = f"{names[-1]}+{piece}"
        else:
            names.append(piece)
    return tuple(names)


def split_weights(name: str, weights: str, n_parts: int) -> tuple[str, ...]:
    """Weights of each of ``n_parts`` encoders: the same word for all, or one file for each.

    Parameters
    ----------
    name
        Name of the combination, for messages.
    weights
        ``"pretrained"`` or ``"none"``, for all; or a file or ``"pretrained"`` for each, in the order of the names,
        joined by :data:`os.pathsep` (``:``, on Windows ``;``), since a path may contain plus signs.

    Raises
    ------
    SettingsError
        If they are not as many as the encoders, or some of several are ``"none"``.
    """
    if n_parts == 1 or weights in (*PRETRAINED, "none"):
        return (weights,) * n_parts
    pieces = tuple(weights.split(os.pathsep))
    if len(pieces) != n_parts or not all(pieces):
        raise SettingsError(
            f"Encoder {name!r} has {n_parts} parts, and the encoder weights {weights!r} name {sum(map(bool, pieces))}; "
            f"give 'pretrained' or 'none' for all, or a file or 'pretrained' for each, joined by {os.pathsep!r}."
        )
    if "none" in pieces:
        raise SettingsError(
            f"The encoder weights {weights!r} of {name!r} are random for some parts only; give 'none' for all or for "
            "no part."
        )
    return pieces


def combination(parts: Sequence[EncoderInfo]) -> EncoderInfo:
    """Metadata of encoders side by side.

    Raises
    ------
    SettingsError
        If an encoder is named twice, or there are more than eight.
    """
    names = [part.name for part in parts]
    name = "+".join(names)
    if len(parts) > _MOST:
        raise SettingsError(f"A combination has at most {_MOST} encoders, not {len(parts)}.")
    if twice := [one for i, one in enumerate(names) if one in names[:i]]:
        raise SettingsError(f"Encoder {name!r} names {twice[0]} twice; name each encoder once.")
    scales = {part.trained_mpp for part in parts}
    return EncoderInfo(
        name=name,
        description=f"side by side: {'; '.join(f'{part.name}: {part.description}' for part in parts)}",
        n_features=sum(part.n_features for part in parts),
        min_px=max(part.min_px for part in parts),
        trained_px=max(part.trained_px for part in parts),
        trained_mpp=scales.pop() if len(scales) == 1 else None,
        mean=_MEAN,
        std=_STD,
        licence="; ".join(f"{part.name}: {part.licence}" for part in parts),
        commercial_use=all(part.commercial_use for part in parts),
        embed=all(part.embed for part in parts),
        source=None,
        network=lambda: _side_by_side(parts, [part.network() for part in parts]),
        load=lambda weights: _side_by_side(
            parts,
            [part.build(one) for part, one in zip(parts, split_weights(name, weights, len(parts)), strict=True)],
        ),
        frozen_only=True,
        parts=tuple(parts),
    )


def _side_by_side(parts: Sequence[EncoderInfo], networks: Sequence[nn.Module]) -> nn.Module:
    from napari_cpnn.models.backbones.side_by_side import Part, SideBySide

    # (v - mean) / std of v = _STD x + _MEAN
    scales = [tuple(s / own for s, own in zip(_STD, part.std, strict=True)) for part in parts]
    shifts = [tuple((m - own) / s for m, own, s in zip(_MEAN, part.mean, part.std, strict=True)) for part in parts]
    return SideBySide([Part(*one) for one in zip(networks, scales, shifts, strict=True)])
