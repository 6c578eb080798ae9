"""Pre-trained weights: locate the file, read it without executing its content, load it into a network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from napari_cpnn.errors import WeightsError
from napari_cpnn.models.backbones.consent import may_download
from napari_cpnn.models.backbones.sources import PRETRAINED, Weighted, WeightsSource
from napari_cpnn.storage import cache_folder, check_hdf5
from napari_cpnn.untrusted import reason_of, require_memory, to_path


class _Renames(Protocol):
    """Network that can rename the parameters of other libraries to its own."""

    architecture: str

    @staticmethod
    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def load_weights(network: nn.Module, info: Weighted, weights: str) -> None:
    """Load the encoder's pre-trained weights, or those of a file, into ``network``.

    Parameters
    ----------
    weights
        ``"pretrained"`` (or ``"imagenet"``) or a path: safetensors, a PyTorch state dictionary, Keras HDF5, or a
        napari-cpnn model, whose backbone is taken.

    Raises
    ------
    WeightsError
        If the file is missing, unreadable or of another network; nothing is loaded then.
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


def download(info: Weighted) -> Path:
    """Path of an encoder's pre-trained weights, in the package or in the user's cache.

    Those in the cache are downloaded on first use and verified each time.
    """
    source = info.source
    if source is None:
        raise WeightsError(f"Encoder {info.name!r} has no pre-trained weights; give the path of a file.")
    if source.is_packaged:
        return Path(__file__).with_name(source.file_name)
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
    otherwise = f"{_by_hand(source)}, or choose weights 'none' to start from random ones"
    return source.retrieve(folder, f"The weights of encoder {info.name!r}", otherwise, WeightsError)


def _by_hand(source: WeightsSource) -> str:
    return f"get {source.file_name} by other means and give its path as weights"


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file, by name; the format is detected from its first bytes."""
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
    except Exception as error:  # damaged files may raise anything
        raise WeightsError(f"The weights file {path} is damaged: {reason_of(error)}; get it again.") from error


def read_torch(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch state dictionary; a file with anything but tensors is refused, and none of it is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of torch about the content of the file
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's restricted unpickler may raise almost any exception on other files
        raise WeightsError(
            f"{path} cannot be read as weights; give a .safetensors, .h5 or .pth file that holds tensors only."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} holds no dictionary of weights; save the network's state_dict().")
    return {str(k): v for k, v in content.items()}


#: Arrays of a layer in Keras's order: of convolutions and dense layers, and of batch normalisations.
_KERAS_LAYER = ("kernel", "bias")
_KERAS_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read a Keras HDF5 file as ``<layer>.kernel``, ``<layer>.bias`` and so on, in Keras's axis order."""
    import h5py

    check_hdf5(path, WeightsError)
    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)
            state = {}
            for layer in (_text(v) for v in root.attrs["layer_names"]):
                group = root[layer]
                # Keras stores the arrays of a layer in a fixed order, whatever their names.
                names = [_text(v) for v in group.attrs["weight_names"]]
                for kind, name in zip(_KERAS_NORM if len(names) == 4 else _KERAS_LAYER, names, strict=False):
                    state[f"{layer}.{kind}"] = torch.from_numpy(group[name][()])
            return state
    except Exception as error:  # HDF5 may raise anything on damaged files
        raise WeightsError(f"{path} cannot be read as a Keras weights file: {reason_of(error)}.") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip prefixes that wrappers add to all names; of a napari-cpnn model, keep the image network.

    TRIPLEX has two image networks, which is ambiguous: its names are left unchanged, and do not match.
    """
    for prefix in ("module.", "model.", "backbone.", "encoder."):
        is_triplex = prefix == "encoder." and any(name.startswith("target.") for name in state)
        if not is_triplex and any(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    return dict(state)
