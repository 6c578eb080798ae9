"""Save and load models: one ``.safetensors`` file with a JSON card (:mod:`napari_cpnn.models.card`), never pickle."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from napari_cpnn.errors import CheckpointError, SettingsError
from napari_cpnn.models.backbones import BACKBONES, PRETRAINED, require_backbone
from napari_cpnn.models.backbones.backbone import n_features_of
from napari_cpnn.models.backbones.build import (
    empty_backbone,
    encoder_facts,
    encoder_is_elsewhere,
    frozen_encoder,
    is_trained,
    patch_encoder,
    weights_fingerprint,
)
from napari_cpnn.models.backbones.consent import downloads
from napari_cpnn.models.card import FORMAT_VERSION, METADATA_KEY, ModelSpec, card_text, plain, read_card
from napari_cpnn.models.cpnn import CPNN, fingerprint
from napari_cpnn.models.domain import Domain
from napari_cpnn.models.encoder_files import encoder_of
from napari_cpnn.models.provenance import model_title
from napari_cpnn.models.trust import Trust
from napari_cpnn.models.trust_ranges import implausible
from napari_cpnn.models.zoo import model_file
from napari_cpnn.palette import type_colors
from napari_cpnn.storage import staged
from napari_cpnn.untrusted import parse_json, reading, reason_of, require_memory, to_path

#: Name prefix of the frozen encoder's tensors.
_ENCODER = "backbone.encoder."

#: Name prefix of the tensors of the calibration.
_TRUST = "trust."


def save_model(model: CPNN, path: str | Path, half: bool = False) -> None:
    """Write a model to ``path`` atomically: if interrupted, either the old or the new file remains.

    The weights of a frozen encoder that must not be redistributed, or is very large, are not stored; the card
    identifies them.

    Parameters
    ----------
    half
        Store the convolution and linear weights of the network, the axes of its domain and its calibration in float16,
        which halves the file size; scales, biases, prototypes and decoder stay in float32. Loading converts to float32.

    Raises
    ------
    CheckpointError
        If the file cannot be written.

    Examples
    --------
    >>> from napari_cpnn.models import save_model
    >>> save_model(model, "copy.safetensors", half=True)
    >>> nc.load_model("copy.safetensors").genes == model.genes
    True
    """
    from safetensors.torch import save

    path = to_path(path, CheckpointError)
    try:  # do not write a card that could not be read again
        ModelSpec.from_dict(model.spec.to_dict())
    except (ValueError, TypeError, SettingsError) as error:
        raise CheckpointError(f"The model cannot be written to {path}: {str(error).rstrip('.')}.") from error
    _check_trust(model, path)
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    left_out = {name for name in state if name.startswith(_ENCODER)} if encoder_is_elsewhere(model.spec) else set()
    if half:
        state = {name: t if name in left_out else _halved(name, t) for name, t in state.items()}
    memory = _in_memory(state)
    card = {
        "format_version": _format_version(model),
        "written_by": f"napari-cpnn {version('napari-cpnn')}",
        "fingerprint": fingerprint(model.spec, memory),
        "model": model.spec.to_dict(),
        "backbone": _backbone_card(model),
        "encoder": _encoder_card(model, memory),
        "domain": None if model.domain is None else {"n_axes": len(model.domain.axes)},
        "trust": _trust_card(memory),
        "colors": type_colors(model.cell_types, model.hierarchy),
        "provenance": _plain_provenance(model, path),
    }
    state = {name: t for name, t in state.items() if name not in left_out}
    _write_atomically(path, save(state, {METADATA_KEY: card_text(card)}))


def load_model(path: str | Path, encoder_weights: str | Path | None = None) -> CPNN:
    """Load a model written by :func:`save_model`, on the CPU, in float32 and in eval mode.

    Parameters
    ----------
    path
        The file, or the name of a model of the package, such as ``"breast-her2st"`` (``napari-cpnn models``).
    encoder_weights
        For a model file without the weights of its frozen encoder: their file or folder, or ``"pretrained"`` to
        download them. By default they are read from their last known location, and nothing is downloaded.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, damaged, not a napari-cpnn model or of a newer version; or if the encoder's
        weights differ from those of the training.
    WeightsError
        If the encoder's weights are not in the file and are unavailable.

    Examples
    --------
    >>> model = nc.load_model(folder / "model.safetensors")
    >>> model.cell_types[:2], len(model.genes), model.patch
    (('B-cells', 'CAFs'), 1707, PatchSpec(size_px=224, mpp=0.5))
    """
    path = to_path(model_file(path), CheckpointError)
    # A download would reveal to the author of the file that it is opened here.
    with reading(path, CheckpointError, "get the file again"), downloads(allowed=str(encoder_weights) in PRETRAINED):
        return _load(path, read_card(path), encoder_weights)


def _load(path: Path, card: dict[str, Any], encoder_weights: str | Path | None) -> CPNN:
    from safetensors.torch import load_file

    try:
        spec = ModelSpec.from_dict(card["model"])
        elsewhere = encoder_is_elsewhere(spec)
        _check_names(spec)
        n_axes = None if card.get("domain") is None else int(card["domain"]["n_axes"])
        trust = None if card.get("trust") is None else str(card["trust"]["fingerprint"])
        provenance = dict(card["provenance"])
        expected = str(card["fingerprint"])
        encoder_card = dict(card["encoder"]) if elsewhere else {}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, SettingsError) as error:
        reason = str(error).rstrip(".")
        raise CheckpointError(f"The model card in {path} cannot be used: {reason}; get the file again.") from error
    require_memory(2 * path.stat().st_size, path, CheckpointError)
    try:
        state = _in_memory(load_file(path))
    except Exception as error:  # damaged files may raise anything
        raise CheckpointError(f"{path} is damaged: {reason_of(error)}; get the file again.") from error
    encoder = encoder_of(path, encoder_card, encoder_weights) if elsewhere else None
    if encoder is not None:
        state.update({f"{_ENCODER}{name}": t for name, t in encoder.state_dict().items()})
    try:
        with torch.device("meta"), _WithoutNumbers():  # skip the initialisation of weights that are replaced anyway
            model = CPNN(spec, empty_backbone(spec, encoder), provenance)
            model.domain = None if n_axes is None else Domain(model.n_own_features, n_axes)
            model.trust = None if trust is None else Trust(len(spec.genes) + len(spec.cell_types))
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:  # impossible tensor sizes
        raise CheckpointError(
            f"The model card in {path} cannot be used: {reason_of(error)}; get the file again."
        ) from error
    calibration = {name: t for name, t in state.items() if name.startswith(_TRUST)}
    if model.trust is not None:
        state |= {f"{_TRUST}{name}": t for name, t in model.trust.not_known(calibration).items()}
    _check_tensors(path, model.state_dict(), state)
    if fingerprint(spec, state) != expected or (trust is not None and weights_fingerprint(calibration) != trust):
        raise CheckpointError(f"{path} is damaged: its tensors are not the ones that were saved; get the file again.")
    model.load_state_dict(state, assign=True)
    model.title = model_title(provenance, path.stem, str(card.get("written_by") or ""))
    return model.eval()


class _WithoutNumbers(TorchFunctionMode):
    """Compute no numbers: on the meta device torch would import its compiler for these, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.mul_):
            return args[0]
        if func is torch.linspace:
            return torch.empty(args[2])
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


def _check_names(spec: ModelSpec) -> None:
    """Raise a :class:`SettingsError` if the backbone or encoder of the file is unknown."""
    require_backbone(spec.backbone)
    if not encoder_is_elsewhere(spec):
        frozen_encoder(spec.backbone, spec.backbone_args)
        patch_encoder(spec.backbone, spec.backbone_args)


def _format_version(model: CPNN) -> int:
    if model.spec.sees == "nucleus":
        return FORMAT_VERSION
    if model.spec.scale == "count":
        return 5
    if model.trust is not None:
        return 4
    if model.spec.backbone_args:
        return 3
    return 1 if model.domain is None else 2


def _encoder_card(model: CPNN, memory: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Card entry of the frozen encoder: its metadata and the fingerprint of its weights as loaded from the file."""
    if not model.spec.backbone_args:
        return None
    weights = {name.removeprefix(_ENCODER): t for name, t in memory.items() if name.startswith(_ENCODER)}
    facts = model.provenance.get("encoder") or encoder_facts(
        frozen_encoder(model.spec.backbone, model.spec.backbone_args)
    )
    return {**facts, "fingerprint": weights_fingerprint(weights)}


def _plain_provenance(model: CPNN, path: Path) -> Any:
    """Return the provenance in plain JSON types; :class:`CheckpointError` if no card could be read with it."""
    try:
        found = plain(model.provenance)
        parse_json(card_text({"provenance": {"of": {"a": found}}}), path, CheckpointError)
    except (RecursionError, CheckpointError) as error:
        raise CheckpointError(
            f"The model cannot be written to {path}: its provenance is nested too deeply, or contains itself."
        ) from error
    return found


def _check_trust(model: CPNN, path: Path) -> None:
    """Raise a :class:`CheckpointError` if the calibration could not be read again."""
    if model.trust is None:
        return
    wanted = Trust(len(model.genes) + len(model.cell_types))
    for name, values in model.trust.named_buffers():
        if values.shape != wanted.get_buffer(name).shape or not bool(torch.isfinite(values).all()):
            raise CheckpointError(
                f"The model cannot be written to {path}: its calibration is of another model, or has values that are "
                "not numbers; calibrate it again."
            )
    if name := implausible(_as_arrays(dict(model.trust.named_buffers()))):
        raise CheckpointError(f"The model cannot be written to {path}: {name} of its calibration makes no sense.")


def _trust_card(memory: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Card entry of the calibration, which the model's own fingerprint leaves out."""
    tensors = {name: t for name, t in memory.items() if name.startswith(_TRUST)}
    return {"fingerprint": weights_fingerprint(tensors)} if tensors else None


def _backbone_card(model: CPNN) -> dict[str, Any]:
    spec = model.spec
    facts = [encoder_facts(patch_encoder(spec.backbone, spec.backbone_args))] if is_trained(spec.backbone) else []
    if (frozen := _encoder_card(model, {})) is not None:
        facts.append(frozen)
    return {
        "name": spec.backbone,
        "description": BACKBONES[spec.backbone],
        "n_features": n_features_of(model.backbone),
        "licence": "; ".join(dict.fromkeys(str(f["licence"]) for f in facts)),
        "commercial_use": all(bool(f["commercial_use"]) for f in facts),
    }


def _halved(name: str, tensor: Tensor) -> Tensor:
    """Convert a weight matrix of the network to float16; tensors that need full precision are returned unchanged."""
    is_network = name.startswith(
        ("backbone.", "head.composition.", "head.mixture.", "head.programs.", "domain.", _TRUST)
    )
    if not is_network or tensor.ndim < 2 or tensor.dtype != torch.float32:
        return tensor
    halved = tensor.half()
    return halved if bool(torch.isfinite(halved).all()) else tensor


def _in_memory(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to float32 memory, so that the file may be replaced while the model is in use."""
    return {
        name: t.to(torch.float32, copy=True) if t.dtype == torch.float16 else t.clone() for name, t in state.items()
    }


def _check_tensors(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} is not part of the model"
        raise CheckpointError(f"{path} does not hold the model that its card describes: {what}; get the file again.")
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            raise CheckpointError(
                f"{path} does not hold the model that its card describes: {name} has shape "
                f"{tuple(found[name].shape)}, not {tuple(tensor.shape)}; get the file again."
            )
        if tensor.dtype != found[name].dtype:
            raise CheckpointError(
                f"{path} does not hold the model that its card describes: {name} is of {found[name].dtype}, not of "
                f"{tensor.dtype}; get the file again."
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise CheckpointError(f"{path} is damaged: {name} has values that are not numbers; get the file again.")
        if name == "backbone.spread" and not bool((found[name] > 1e-20).all()):
            raise CheckpointError(f"{path} is damaged: {name} has values that are not positive; get the file again.")
    trust = {name.removeprefix("trust."): values for name, values in found.items() if name.startswith("trust.")}
    if name := implausible(_as_arrays(trust)):
        raise CheckpointError(f"{path} is damaged: {name} of its calibration makes no sense; calibrate it again.")


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: values.detach().cpu().numpy() for name, values in tensors.items()}


def _write_atomically(path: Path, content: bytes) -> None:
    to_path(path, CheckpointError)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with staged(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"The model cannot be written to {path}: {error.strerror or error}.") from error
