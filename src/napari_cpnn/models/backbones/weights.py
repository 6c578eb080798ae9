"""Pre-trained weights: find the file, read it without running anything in it, fit it to a network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from napari_cpnn.errors import WeightsError
from napari_cpnn.models.backbones import PRETRAINED, EncoderInfo, WeightsSource
from napari_cpnn.models.backbones.consent import may_download
from napari_cpnn.storage import cache_folder, check_hdf5
from napari_cpnn.untrusted import reason_of, require_memory, to_path


class _Renames(Protocol):
    """A network that knows its parameters under the names of other libraries."""

    architecture: str

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def load_weights(network: nn.Module, info: EncoderInfo, weights: str) -> None:
    """Fill ``network`` with the encoder's pre-trained weights or those of a file.

    Parameters
    ----------
    weights
        ``"pretrained"`` (or ``"imagenet"``) or a path: safetensors, a PyTorch state dictionary, Keras HDF5, or a
        napari-cpnn model, whose backbone is taken.

    Raises
    ------
    WeightsError
        When the file is missing, unreadable or of another network; nothing is loaded then.
    """
    path = download(info) if weights in PRETRAINED else Path(weights).expanduser()
    named = cast(_Renames, network)
    state = named.rename(_without_prefix(read_state(path)))
    target = network.state_dict()
    # Files of old torchvision have no batch counters; they only matter for a cumulative average, which is not used.
    required = {name for name in target if not name.endswith("num_batches_tracked")}
    missing, unexpected = required - set(state), set(state) - set(target)
    if missing or unexpected:
        what = f"misses {_some(missing)}" if missing else f"also has {_some(unexpected)}"
        such_as = "" if info.source is None else f", such as {info.source.file_name}"
        raise WeightsError(
            f"{path} does not hold the weights of {named.architecture}: it {what}; choose a file for encoder "
            f"{info.name!r}{such_as}."
        )
    for name, tensor in state.items():
        if tensor.shape != target[name].shape:
            raise WeightsError(
                f"{path} does not hold the weights of {named.architecture}: {name} has shape {tuple(tensor.shape)}, "
                f"not {tuple(target[name].shape)}; choose a file for encoder {info.name!r}."
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path} is damaged: {name} has values that are not numbers; get the file again.")
    network.load_state_dict(state, strict=False)


def _some(names: set[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def download(info: EncoderInfo) -> Path:
    """The pre-trained weights of an encoder in the user's cache, downloaded on first use and checked each time."""
    import pooch

    source = info.source
    if source is None:
        raise WeightsError(f"Encoder {info.name!r} has no pre-trained weights; give the path of a file.")
    if source.sha256 is None:
        raise WeightsError(
            f"The weights of encoder {info.name!r} are not downloaded, since no checksum of them is published; "
            f"get {source.url} yourself and give the path of the file as encoder_weights (or weights)."
        )
    folder = cache_folder() / "weights"
    if not may_download() and not (folder / source.file_name).is_file():
        raise WeightsError(
            f"The weights of encoder {info.name!r} are not on this computer and are not downloaded unasked; ask for "
            f"'pretrained' weights, or {_by_hand(source)}."
        )
    try:
        return Path(pooch.retrieve(source.url, f"sha256:{source.sha256}", source.file_name, folder))
    except ValueError as error:
        raise WeightsError(
            f"{source.file_name} from {source.url} arrived damaged (its checksum is wrong); try again, or "
            f"{_by_hand(source)}."
        ) from error
    except OSError as error:  # what requests raises without a network is one, too
        raise WeightsError(
            f"The weights of encoder {info.name!r} could not be downloaded from {source.url}; go online once, or "
            f"{_by_hand(source)}, or choose weights 'none' to start from random ones."
        ) from error


def _by_hand(source: WeightsSource) -> str:
    return f"get {source.file_name} by other means and give its path as weights"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name. The kind of file is told by its first bytes, not by its name."""
    to_path(path, WeightsError)
    try:
        with path.open("rb") as file:
            head = file.read(16)
        require_memory(path.stat().st_size, path, WeightsError)
    except OSError as error:
        raise WeightsError(f"The weights file {path} cannot be read: {error.strerror or error}.") from error
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return read_keras(path)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    return read_torch(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:  # whatever damaged bytes may raise
        raise WeightsError(f"The weights file {path} is damaged: {reason_of(error)}; get it again.") from error


def read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch state dictionary; a file that holds anything else is refused, and nothing in it runs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on what is in the file
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's restricted unpickler raises nearly anything on files that are something else
        raise WeightsError(
            f"{path} cannot be read as weights; give a .safetensors, .h5 or .pth file that holds tensors only."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} holds no dictionary of weights; save the network's state_dict().")
    return {str(k): v for k, v in content.items()}


def read_keras(path: Path) -> dict[str, Tensor]:
    """A Keras HDF5 file as ``<layer>.kernel`` and ``<layer>.bias``, in Keras's own axis order."""
    import h5py

    check_hdf5(path, WeightsError)
    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)
            state = {}
            for layer in (_text(v) for v in root.attrs["layer_names"]):
                group = root[layer]
                # By Keras's rule, the kernel comes first and the bias second, whatever they are called.
                names = [_text(v) for v in group.attrs["weight_names"]]
                for kind, name in zip(("kernel", "bias"), names, strict=False):
                    state[f"{layer}.{kind}"] = torch.from_numpy(group[name][()])
            return state
    except Exception as error:  # whatever HDF5 raises on damaged bytes
        raise WeightsError(f"{path} cannot be read as a Keras weights file: {reason_of(error)}.") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what wrappers put before every name; of one of our own models, keep the image network.

    TRIPLEX has two of them, and which one is meant nobody can say: its names stay, and do not fit.
    """
    for prefix in ("module.", "model.", "backbone.", "encoder."):
        is_triplex = prefix == "encoder." and any(name.startswith("target.") for name in state)
        if not is_triplex and any(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    return dict(state)
