"""Adapters for encoders of timm and transformers."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_cpnn.errors import WeightsError
from napari_cpnn.models.backbones.consent import may_download
from napari_cpnn.models.backbones.sources import PRETRAINED
from napari_cpnn.untrusted import read_json

#: Serialises changes to the offline mode of the hub's library.
_OFFLINE = threading.RLock()


@dataclass(frozen=True)
class HubFacts:
    """Metadata from an encoder's configuration; fields as in :class:`EncoderInfo`."""

    n_features: int
    min_px: int
    trained_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    trained_mpp: float | None = None


class TransformersFeatures(nn.Module):
    """Vision model of transformers: ``(N, 3, S, S)`` -> ``(N, F)`` float32, its class token or pooled output.

    Position encodings are interpolated for other patch sizes, if the model supports that.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        from inspect import signature

        self.model = model
        self.n_features = _n_features(model.config)
        forward = signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in forward else {}

    def forward(self, images: Tensor) -> Tensor:
        result = self.model(images, **self._options)
        # The pooler of a ViT belongs to the classifier, and is untrained if the checkpoint has none.
        states: Tensor = result.last_hidden_state
        features = states[:, 0] if states.ndim == 3 else result.pooler_output.flatten(1)
        return features.float()


class TimmFeatures(nn.Module):
    """Model of timm without its classifier: ``(N, 3, S, S)`` -> ``(N, F)`` float32.

    Parameters
    ----------
    prefix_tokens
        Number of tokens before the image tokens, for a model that returns tokens: the features are then the first
        (class) token and the mean image token. 0: the model returns features.
    """

    def __init__(self, model: nn.Module, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.model, self._prefix_tokens = model, prefix_tokens
        width = int(model.num_features)  # type: ignore[arg-type]
        self.n_features = 2 * width if prefix_tokens else width

    def forward(self, images: Tensor) -> Tensor:
        seen: Tensor = self.model(images)
        if self._prefix_tokens:
            seen = torch.cat([seen[:, 0], seen[:, self._prefix_tokens :].mean(dim=1)], dim=-1)
        return seen.float()


def load_transformers(name: str, weights: str) -> TransformersFeatures:
    """Load a model of transformers from the hub or a folder.

    Parameters
    ----------
    weights
        ``"pretrained"``, ``"none"`` (random), or a folder written by :meth:`save_pretrained`, or a file in it.

    Raises
    ------
    WeightsError
        If the library, the configuration or the weights are unavailable.
    """
    library = _library("transformers")
    place = Path(weights).expanduser()
    source = name if weights in (*PRETRAINED, "none") else str(place if place.is_dir() else place.parent)
    with _sentence(name, source), _quiet(library), _network():
        config = _config(library, name, source)
        if weights == "none":
            return TransformersFeatures(library.AutoModel.from_config(config, trust_remote_code=False))
        model, report = library.AutoModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, weights_only=True, **_safely()
        )
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise WeightsError(f"{source} does not hold the weights of {name}: it misses {', '.join(missing[:3])}.")
    return TransformersFeatures(model)


def load_timm(name: str, weights: str, arguments: Mapping[str, Any], prefix_tokens: int) -> TimmFeatures:
    """Load a model of timm, with weights from the hub or a file.

    Parameters
    ----------
    weights
        ``"pretrained"``, ``"none"`` (random), a folder laid out as on the hub, or a file: safetensors, or a PyTorch
        state dictionary. Models of the hub need their ``config.json`` next to the file, or access to the hub.
    arguments
        Arguments of ``timm.create_model``; ``mlp_layer`` and ``act_layer`` as class names.
    prefix_tokens
        As in :class:`TimmFeatures`.

    Raises
    ------
    WeightsError
        If the library, the configuration or the weights are unavailable.
    """
    library = _library("timm")
    options = dict(arguments)
    if "mlp_layer" in options:
        options["mlp_layer"] = getattr(import_module("timm.layers"), options["mlp_layer"])
    if "act_layer" in options:
        options["act_layer"] = getattr(nn, options["act_layer"])
    place = None if weights in (*PRETRAINED, "none") else Path(weights).expanduser()
    source = name
    if place is not None:
        folder = place if place.is_dir() else place.parent
        source = f"local-dir:{folder}" if (folder / "config.json").is_file() else name
    whole = weights in PRETRAINED or (place is not None and place.is_dir())
    if place is not None and place.is_dir():
        _require_tensors(place)
    with _sentence(name, source), _network():
        if whole and place is None and not may_download() and not _is_of_hub(library, name):
            raise WeightsError(f"The weights of {name} are not downloaded unasked; give their file or folder.")
        model = library.create_model(source, pretrained=whole, num_classes=0, **options)
    if place is not None and not whole:
        _fill(model, name, place)
    return TimmFeatures(model, prefix_tokens)


def _fill(model: nn.Module, name: str, path: Path) -> None:
    from napari_cpnn.models.backbones.weights import read_state

    state = read_state(path)
    wanted = model.state_dict()
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    if wrong:
        raise WeightsError(f"{path} does not hold the weights of {name}: {wrong[0]} is missing or of another shape.")
    model.load_state_dict({key: state[key] for key in wanted})


def describe_transformers(name: str) -> HubFacts:
    """Read the metadata in the configuration of a model on the hub or in a folder.

    Raises
    ------
    WeightsError
        If it is unavailable or does not specify the image normalisation.
    """
    library = _library("transformers")
    place = Path(name).expanduser()
    source = str(place) if place.is_dir() else name
    with _sentence(name, source), _network():
        config = _config(library, name, source)
        said = _json_beside(library, source, "preprocessor_config.json")
    if "image_mean" not in said or "image_std" not in said:
        raise WeightsError(
            f"{name} does not say how images are normalised; put a preprocessor_config.json with image_mean and "
            "image_std beside its config.json."
        )
    patch = getattr(config, "patch_size", 32)
    with _sentence(name, source):
        return HubFacts(
            n_features=_n_features(config),
            min_px=int(patch) if isinstance(patch, int) else 32,
            trained_px=int(getattr(config, "image_size", 224)),
            mean=_colours(said["image_mean"]),
            std=_colours(said["image_std"]),
        )


def _colours(said: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in said)
    if not all(math.isfinite(value) for value in (red, green, blue)):
        raise ValueError("its normalisation is not of finite numbers")
    return red, green, blue


def _config(library: Any, name: str, source: str) -> Any:
    """Configuration of a model implemented in transformers itself; code that comes with a model is never run."""
    said = _json_beside(library, source, "config.json")
    kernel = next((v for k, v in said.items() if "attn_implementation" in k and "/" in str(v)), None)
    if kernel is not None or _json_beside(library, source, "adapter_config.json"):
        raise WeightsError(f"Encoder {name} brings code or weights of others with it, which are never loaded.")
    try:
        return library.AutoConfig.from_pretrained(source, **_safely())
    except ValueError as error:
        if "auto_map" not in said:
            raise
        raise WeightsError(
            f"Encoder {name} comes with code of its own, which is never run; use one whose code is in transformers."
        ) from error


def _json_beside(library: Any, source: str, file_name: str) -> dict[str, Any]:
    """Content of a JSON file of a model on the hub or in a folder; empty if missing."""
    file = library.utils.cached_file(
        source,
        file_name,
        local_files_only=not may_download(),
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=file_name == "config.json",
    )
    said = read_json(Path(file), WeightsError) if file else {}
    if not isinstance(said, dict):
        raise WeightsError(f"{file} describes no encoder.")
    return said


def _safely() -> dict[str, Any]:
    """Options for every call to transformers: no remote code, no prompt to run it, no download without permission."""
    return {"trust_remote_code": False, "local_files_only": not may_download()}


def _require_tensors(folder: Path) -> None:
    """Refuse a folder with a PyTorch file of anything but tensors, before the library loads it."""
    from napari_cpnn.models.backbones.weights import read_torch

    for file in sorted(folder.iterdir()):
        if file.suffix in (".bin", ".pth", ".pt", ".tar", ".ckpt"):
            read_torch(file)


def _is_of_hub(library: Any, name: str) -> bool:
    """Return whether timm takes a model's weights from the hub, which supports an offline mode."""
    if name.startswith("hf-hub:"):
        return True
    known = library.get_pretrained_cfg(name)
    return bool(known is not None and known.hf_hub_id)


@contextmanager
def _network() -> Iterator[None]:
    """Keep the hub's library off the network unless downloads are allowed."""
    if may_download():
        yield
        return
    constants: Any = import_module("huggingface_hub.constants")
    with _OFFLINE:
        before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def describe_timm(name: str) -> HubFacts:
    """Read the metadata of a timm model, without its weights.

    Raises
    ------
    WeightsError
        If the library or the configuration is unavailable.
    """
    library = _library("timm")
    with _sentence(name, name), _network(), torch.device("meta"):
        model = library.create_model(name, pretrained=False, num_classes=0)
    said = model.pretrained_cfg
    return HubFacts(
        n_features=int(model.num_features),
        min_px=32,
        trained_px=int(said["input_size"][-1]),
        mean=tuple(said["mean"]),
        std=tuple(said["std"]),
    )


def _n_features(config: Any) -> int:
    if hasattr(config, "hidden_size"):
        return int(config.hidden_size)
    return int(config.hidden_sizes[-1])  # convolutional ones, by stage


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:  # the latter from a torchvision that was built for another torch
        raise WeightsError(
            f"Encoders of {name} need libraries that are not installed, or not for this torch "
            f"({str(error).splitlines()[0]}); install them with: "
            'pip install "napari-cpnn[foundation]".'
        ) from error


@contextmanager
def _sentence(name: str, source: str) -> Iterator[None]:
    """Translate a library's errors about an unavailable model into a :class:`WeightsError`."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # libraries may raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not may_download() and not Path(source).is_dir():
            raise WeightsError(f"Encoder {name} is not on this computer, and is not downloaded unasked.") from error
        raise WeightsError(
            f"Encoder {name} cannot be loaded from {source}: {reason.rstrip('.')}; go online once, log in where its "
            "makers ask for it, or give the file or folder of its weights."
        ) from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Silence the library's progress bars and log messages."""
    logs = library.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()
