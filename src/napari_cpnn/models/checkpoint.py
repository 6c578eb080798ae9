"""Models on disk: one ``.safetensors`` file with a JSON card (see :mod:`napari_cpnn.models.card`). Never pickle."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_cpnn.errors import CheckpointError, SettingsError
from napari_cpnn.models.backbones import BACKBONES
from napari_cpnn.models.backbones.build import empty_backbone, frozen_encoder, n_features_of, patch_encoder
from napari_cpnn.models.card import FORMAT_VERSION, METADATA_KEY, ModelSpec, plain, read_card
from napari_cpnn.models.cpnn import CPNN, fingerprint
from napari_cpnn.models.domain import Domain
from napari_cpnn.palette import type_colors


def save_model(model: CPNN, path: str | Path, half: bool = False) -> None:
    """Write a model to ``path``, all or nothing: a kill at any moment leaves the old file or the new one.

    Parameters
    ----------
    half
        Store the convolution and linear weights of the network, and the axes of its domain, in float16, for a file of
        half the size; scales, biases, prototypes and all that decodes stay in float32. It is read back as float32.

    Raises
    ------
    CheckpointError
        When the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    if half:
        state = {name: _halved(name, t) for name, t in state.items()}
    card = {
        "format_version": 1 if model.domain is None else FORMAT_VERSION,
        "written_by": f"napari-cpnn {version('napari-cpnn')}",
        "fingerprint": fingerprint(model.spec, _in_memory(state)),
        "model": model.spec.to_dict(),
        "backbone": _backbone_card(model.spec, n_features_of(model.backbone)),
        "domain": None if model.domain is None else {"n_axes": len(model.domain.axes)},
        "colors": type_colors(model.cell_types),
        "provenance": plain(model.provenance),
    }
    _write_atomically(path, save(state, {METADATA_KEY: json.dumps(card, allow_nan=False)}))


def load_model(path: str | Path) -> CPNN:
    """Read a model that :func:`save_model` wrote; it comes on the CPU, in float32 and in eval mode.

    Raises
    ------
    CheckpointError
        When the file is missing, truncated, damaged, not one of ours or of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    card = read_card(path)
    try:
        spec = ModelSpec.from_dict(card["model"])
        patch_encoder(spec.backbone, spec.backbone_args)
        n_axes = None if card.get("domain") is None else int(card["domain"]["n_axes"])
        provenance = dict(card["provenance"])
        expected = str(card["fingerprint"])
    except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as error:
        reason = str(error).rstrip(".")
        raise CheckpointError(f"The model card in {path} cannot be used: {reason}; get the file again.") from error
    try:
        state = _in_memory(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; get the file again.") from error
    try:
        with torch.device("meta"):  # no time for random weights that are replaced at once
            model = CPNN(spec, empty_backbone(spec), provenance)
            model.domain = None if n_axes is None else Domain(model.n_own_features, n_axes)
    except (RuntimeError, ValueError) as error:  # sizes that no tensor can have
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"The model card in {path} cannot be used: {reason}; get the file again.") from error
    _check_tensors(path, model.state_dict(), state)
    if fingerprint(spec, state) != expected:
        raise CheckpointError(f"{path} is damaged: its tensors are not the ones that were saved; get the file again.")
    model.load_state_dict(state, assign=True)
    return model.eval()


def _backbone_card(spec: ModelSpec, n_features: int) -> dict[str, Any]:
    seen, frozen = patch_encoder(spec.backbone, spec.backbone_args), frozen_encoder(spec.backbone, spec.backbone_args)
    encoders = [seen] if frozen is None or frozen is seen else [seen, frozen]
    return {
        "name": spec.backbone,
        "description": BACKBONES[spec.backbone],
        "n_features": n_features,
        "licence": "; ".join(dict.fromkeys(info.licence for info in encoders)),
        "commercial_use": all(info.commercial_use for info in encoders),
    }


def _halved(name: str, tensor: Tensor) -> Tensor:
    """The float16 copy of a matrix of the network; itself where half precision would change what a value means."""
    is_network = name.startswith(("backbone.", "head.composition.", "head.mixture.", "head.programs.", "domain."))
    if not is_network or tensor.ndim < 2 or tensor.dtype != torch.float32:
        return tensor
    halved = tensor.half()
    return halved if bool(torch.isfinite(halved).all()) else tensor


def _in_memory(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a loaded model holds them: float32, and copies, so that the file may be replaced meanwhile."""
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


def _write_atomically(path: Path, content: bytes) -> None:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # a temporary file is private; a model is meant to be read
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise CheckpointError(f"The model cannot be written to {path}: {error.strerror or error}.") from error
