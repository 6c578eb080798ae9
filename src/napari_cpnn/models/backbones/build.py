"""Build the image network of a model, either initialised or empty for loading a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_cpnn.errors import SettingsError
from napari_cpnn.models.backbones import PRETRAINED, EncoderInfo, get_encoder, named_parts, require_backbone
from napari_cpnn.models.backbones.frozen import frozen_backbone
from napari_cpnn.models.card import ModelSpec
from napari_cpnn.settings import TrainingSettings


@dataclass(frozen=True)
class StartBackbone:
    """The image network of a new model.

    Attributes
    ----------
    network
        The initialised network; frozen parameters have no gradients.
    args
        What a checkpoint must store to rebuild it: :attr:`~napari_cpnn.models.card.ModelSpec.backbone_args`.
    random_state
        State of torch's random generator after the weights were drawn; the head is initialised from it.
    """

    network: nn.Module
    args: dict[str, Any]
    random_state: Tensor


def start_backbone(settings: TrainingSettings) -> StartBackbone:
    """Build the image network of a new model; deterministic for given settings.

    Raises
    ------
    SettingsError
        If the backbone or encoder is unknown.
    WeightsError
        If its weights are unavailable or belong to another network.
    """
    args, names = backbone_args(settings), chosen_names(settings)
    frozen = frozen_encoder(settings.backbone, names)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        network = _network(
            settings.backbone,
            names,
            lambda info: info.build(settings.weights),
            lambda: _named(names, "encoder").build(settings.encoder_weights),
            frozen,
        )
        return StartBackbone(network, args, torch.get_rng_state())


@dataclass(frozen=True)
class _Kind:
    """A backbone with a frozen encoder.

    Attributes
    ----------
    patch
        Argument of the backbone that names the encoder of the patch: ``"encoder"``, the frozen one, or one that is
        trained.
    assemble
        Function of the network of the patch, the frozen encoder, and ``(scale, shift)`` from the normalised images of
        the former to those of the latter.
    args
        Function of the settings that returns further arguments of the backbone.
    """

    patch: str
    assemble: Callable[[nn.Module, nn.Module, Any], nn.Module]
    args: Callable[[TrainingSettings], dict[str, Any]] = lambda _: {}


def _triplex(target: nn.Module, encoder: nn.Module, renormalise: Any) -> nn.Module:
    from napari_cpnn.models.triplex import Triplex

    return Triplex(target, encoder, renormalise)


def _triplex_args(settings: TrainingSettings) -> dict[str, Any]:
    if settings.context_pitch_um is None:
        raise SettingsError("TRIPLEX needs the pitch of the spots' array: set context_pitch_um.")
    target = _trainable(get_encoder(settings.target)).name
    if get_encoder(settings.encoder).frozen_only:
        raise SettingsError(f"TRIPLEX sees the surroundings by one network, not by {settings.encoder!r}; choose one.")
    return {"target": target, "pitch_um": settings.context_pitch_um, "max_tokens": settings.max_tokens}


#: Backbones that are more than the encoder of their name.
_KINDS = {
    "frozen": _Kind("encoder", lambda network, *_: frozen_backbone(network)),
    "triplex": _Kind("target", _triplex, _triplex_args),
}


def _network(
    backbone: str,
    args: dict[str, Any],
    build: Callable[[EncoderInfo], nn.Module],
    build_frozen: Callable[[], nn.Module],
    frozen: EncoderInfo | None = None,
) -> nn.Module:
    """Assemble a network; without the metadata of the ``frozen`` encoder, its normalisation is left to a checkpoint."""
    if backbone not in _KINDS:
        return build(patch_encoder(backbone, args))
    encoder = build_frozen()  # first: the order in which random weights are drawn
    if not is_trained(backbone):
        return _KINDS[backbone].assemble(encoder, encoder, None)
    seen = patch_encoder(backbone, args)
    frozen = frozen or seen
    # (v - mean') / std' of v = std x + mean
    scale = tuple(s / f for s, f in zip(seen.std, frozen.std, strict=True))
    shift = tuple((m - f) / s for m, f, s in zip(seen.mean, frozen.mean, frozen.std, strict=True))
    return _KINDS[backbone].assemble(build(seen), encoder, (scale, shift))


def empty_backbone(spec: ModelSpec, encoder: nn.Module | None = None) -> nn.Module:
    """Build an image network to load a checkpoint into; works under ``torch.device("meta")``.

    Parameters
    ----------
    encoder
        The frozen encoder, if the file does not contain it.

    Raises
    ------
    SettingsError
        If the backbone or encoder is unknown.
    """

    def frozen() -> nn.Module:
        return encoder or _named(spec.backbone_args, "encoder").network()

    return _network(require_backbone(spec.backbone), spec.backbone_args, lambda info: info.network(), frozen)


def backbone_args(settings: TrainingSettings) -> dict[str, Any]:
    """Backbone arguments that its name does not determine."""
    kind = _KINDS.get(require_backbone(settings.backbone))
    if kind is None:
        return {}
    info = get_encoder(settings.encoder)
    # Random weights have no licence and cannot be obtained again, so they are always embedded.
    embedded = info.embed or settings.encoder_weights == "none"
    return {"encoder": info.name, "embedded": embedded, **kind.args(settings)}


def is_trained(backbone: str) -> bool:
    """Return whether the network of the patch is trained, from its initial weights ``settings.weights``."""
    return backbone not in _KINDS or _KINDS[backbone].patch != "encoder"


def chosen_names(settings: TrainingSettings) -> dict[str, Any]:
    """Encoder names as given in the settings (full paths included), for `patch_encoder` and `frozen_encoder`."""
    return {"encoder": settings.encoder, "target": settings.target}


def encoder_place(settings: TrainingSettings) -> str:
    """Source of the frozen encoder's weights: a file or folder, ``"pretrained"`` or ``"none"``; several are joined."""
    places = []
    for name, weights in named_parts(settings.encoder, settings.encoder_weights):
        folder = Path(name.removeprefix("hf:")).expanduser()
        is_folder = name.startswith("hf:") and folder.is_dir()
        places.append(str(folder) if is_folder and weights in PRETRAINED else weights)
    return joined_weights(places)


def joined_weights(weights: Sequence[str]) -> str:
    """Weights of one or several encoders as one text, as in ``settings.encoder_weights``."""
    return weights[0] if set(weights) in ({"pretrained"}, {"none"}) else os.pathsep.join(weights)


def patch_encoder(backbone: str, args: dict[str, Any]) -> EncoderInfo:
    """Encoder applied to the patch; it determines the normalisation and minimum patch size of the model."""
    kind = _KINDS.get(require_backbone(backbone))
    return get_encoder(backbone) if kind is None else _named(args, kind.patch)


def frozen_encoder(backbone: str, args: dict[str, Any]) -> EncoderInfo | None:
    """Frozen encoder of a backbone (``network.encoder``), or None if there is none."""
    return _named(args, "encoder") if require_backbone(backbone) in _KINDS else None


def _named(args: dict[str, Any], role: str) -> EncoderInfo:
    if not isinstance(args.get(role), str):
        raise SettingsError(f"The {role} network is not named.")
    info = get_encoder(args[role])
    return _trainable(info) if role == "target" else info


def _trainable(info: EncoderInfo) -> EncoderInfo:
    if info.frozen_only:
        raise SettingsError(f"{info.name!r} cannot be trained, it serves as encoder of backbone 'frozen' only.")
    return info


def encoder_is_elsewhere(spec: ModelSpec) -> bool:
    """Return whether the frozen encoder's weights are stored outside the model file."""
    return not spec.backbone_args.get("embedded", True)


def encoder_facts(info: EncoderInfo | None) -> dict[str, Any]:
    """Metadata of an encoder for the model card."""
    if info is None:
        raise SettingsError("The backbone has no frozen encoder.")
    return {
        "name": info.name,
        "description": info.description,
        "licence": info.licence,
        "commercial_use": info.commercial_use,
        "source": "; ".join(part.source.url for part in info.parts or (info,) if part.source is not None) or None,
    }


def encoder_fingerprint(network: nn.Module) -> str:
    """Hash of an encoder's weights; identifies features that were computed with it."""
    return weights_fingerprint(network.state_dict())


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """Hash of the names, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if name.endswith("num_batches_tracked"):  # counts, and is not used
            continue
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
