"""The card of a checkpoint: metadata stored in a model file, readable without torch.

A model is a single ``.safetensors`` file. Its header is JSON with the offset of every tensor; the header's metadata
contain the card, itself JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import struct
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_cpnn.errors import CheckpointError, CpnnError, CpnnWarning, SettingsError
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models.decoder import Scale
from napari_cpnn.models.provenance import unusable, usable
from napari_cpnn.models.zoo import model_file
from napari_cpnn.untrusted import parse_json, reading, to_path

#: Key of the card in the metadata of the safetensors header.
METADATA_KEY = "napari_cpnn"

#: Version of the file format; readers refuse newer ones. For older readers, a model of patches is written as version
#: 5, one that predicts log1p CP10k as version 4, one without calibrated intervals as version 3, one without a frozen
#: encoder as version 2, and one without a domain as version 1.
FORMAT_VERSION = 6

#: Longer headers are rejected; the names of 60,000 genes take 2 MB.
_MAX_HEADER = 32 * 2**20

#: Bytes per element of the safetensors data types.
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
    "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

#: Limits on the length of gene and cell type names, and on the number of either.
MAX_NAME = 256
_MAX_SIZE = 100_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class ModelSpec:
    """Specification of a model: the shapes of its tensors and the meaning of its inputs and outputs.

    Parameters
    ----------
    genes, cell_types
        Names of the G genes and C cell types (none for a linear head).
    patch
        Input patch of the network.
    backbone
        A name in ``BACKBONES``.
    head
        ``"cpnn"`` or ``"linear"``.
    n_programs
        The number of residual gene programs (``"cpnn"`` only).
    hidden
        Width of the two hidden layers of the composition head (``"cpnn"`` only).
    mean, std
        Normalisation of the RGB channels, on a scale of 0 to 1.
    program_net
        ``"mlp"``: the programs have two hidden layers of their own; ``"linear"``: they are linear in the features.
    free_mixture
        Share of the free mixture in ``alpha``, see :class:`~napari_cpnn.models.heads.PrototypeHead`; 0: there is none.
    program_gain
        Factor on the residual programs outside of training.
    backbone_args
        Arguments that the backbone's name does not determine: ``encoder``, the frozen encoder's name; ``embedded``,
        whether its weights are in the file; and the arguments of TRIPLEX.
    scale
        ``"log"``: the decoder is linear in log1p CP10k; ``"count"``: in relative counts, as of models of bulk RNA-seq
        (``"cpnn"`` without residual programs only); see :class:`~napari_cpnn.models.Decoder`.
    sees
        What an image shows: ``"patch"``, a patch of a grid, or ``"nucleus"``, the surroundings of one nucleus.
    """

    genes: tuple[str, ...]
    cell_types: tuple[str, ...]
    patch: PatchSpec
    backbone: str
    head: Literal["cpnn", "linear"]
    n_programs: int
    hidden: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    program_net: Literal["mlp", "linear"] = "linear"
    free_mixture: float = 0.0
    program_gain: float = 1.0
    backbone_args: dict[str, Any] = field(default_factory=dict)
    scale: Scale = "log"
    sees: Literal["patch", "nucleus"] = "patch"

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Create from the output of :meth:`to_dict`; unknown keys are ignored.

        Raises
        ------
        KeyError, TypeError, ValueError, SettingsError
            If a value is missing or of the wrong type.
        """
        if data["head"] not in ("cpnn", "linear"):
            raise SettingsError(f"There is no head {data['head']!r}.")
        program_net = data.get("program_net", "linear")  # absent in the first version
        if program_net not in ("mlp", "linear"):
            raise SettingsError(f"There is no network of programs {program_net!r}.")
        spec = cls(
            genes=checked_names(data["genes"], "its genes"),
            cell_types=checked_names(data["cell_types"], "its cell types"),
            patch=PatchSpec(_size(data["patch"]["size_px"]), float(data["patch"]["mpp"])),
            backbone=str(data["backbone"]),
            head=data["head"],
            n_programs=_size(data["n_programs"]),
            hidden=_size(data["hidden"]),
            mean=_triple(data["mean"]),
            std=_triple(data["std"]),
            program_net=program_net,
            free_mixture=_finite(data.get("free_mixture", 0.0)),
            program_gain=_finite(data.get("program_gain", 1.0)),
            backbone_args=dict(data.get("backbone_args", {})),
            scale=data.get("scale", "log"),  # absent before models of bulk RNA-seq
            sees=data.get("sees", "patch"),  # absent before models of nuclei
        )
        if spec.sees not in ("patch", "nucleus"):
            raise SettingsError(f"There is no input {str(spec.sees)[:40]!r}.")
        if spec.scale not in ("log", "count"):
            raise SettingsError(f"There is no scale of expression {str(spec.scale)[:40]!r}.")
        if spec.scale == "count" and (spec.head != "cpnn" or spec.n_programs):
            raise SettingsError("On the count scale, a model has prototypes and no residual programs.")
        if min(spec.std) <= 0:
            raise SettingsError(f"Its normalisation divides by {min(spec.std)}.")
        return spec


def checked_names(names: Any, what: str) -> tuple[str, ...]:
    """Validate names of genes or cell types: unique, without control characters, not only dots.

    Raises
    ------
    ValueError
        If they are not; the message is a clause.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{what} are not a list of names")
    for name in names:
        if not 0 < len(name) <= MAX_NAME or _CONTROL.search(name) or not name.strip(". "):
            raise ValueError(f"{what} have the name {name[:40]!r}, which is none")
    if len(set(names)) < len(names):
        twice = next(name for name, n in Counter(names).items() if n > 1)
        raise ValueError(f"{what} have the name {twice!r} twice")
    return tuple(names)


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:
        raise ValueError(f"a size of {str(value)[:40]}")
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a number that is {number}")
    return number


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (_finite(v) for v in values)
    return red, green, blue


def plain(value: Any) -> Any:
    """Convert ``value`` to plain JSON types; non-finite numbers become ``None``."""
    if type(value) in (str, int, bool):  # nearly all values of a card
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def read_card(path: str | Path) -> dict[str, Any]:
    """Read the card of a model, given its file or its name; only the header is read.

    Returns
    -------
    dict
        ``format_version``, ``written_by``, ``fingerprint``, ``model`` (see :class:`ModelSpec`), ``backbone`` (name,
        description, licence, ...), ``encoder`` (the frozen one, or none: name, licence, source, ``fingerprint`` of its
        weights), ``domain`` (its sizes, or none), ``trust`` (``fingerprint`` of the calibration, or none), ``colors``
        (``#RRGGBB`` per cell type) and ``provenance`` (settings, training data, metrics, licence notes).

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, not a napari-cpnn model or of a newer version.
    """
    path = to_path(model_file(path), CheckpointError)
    metadata = require_whole_file(path)
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file but not a napari-cpnn model; it has no model card.")
    try:
        card = parse_json(text, path, CheckpointError)
        version = _size(card["format_version"])
    except (CpnnError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"The model card in {path} is damaged; get the file again.") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has model format {version}, and this napari-cpnn reads up to {FORMAT_VERSION}; "
            "update napari-cpnn (pip install -U napari-cpnn)."
        )
    with reading(path, CheckpointError, "get the file again"):  # a card may be nested as deep as anybody likes
        if "digest" in card and card.pop("digest") != _digest(card):
            raise CheckpointError(f"The model card in {path} is damaged: it is not the one that was written.")
        _check_entries(card, path)
    return dict(card)


def _check_entries(card: dict[str, Any], path: Path) -> None:
    """Make the provenance usable, with a warning where it was not; :class:`CheckpointError` for no table."""
    provenance, encoder = card.get("provenance"), card.get("encoder")
    if not isinstance(provenance, dict) or not isinstance(card.get("model"), dict):
        raise CheckpointError(f"The model card in {path} cannot be used: it has no model and provenance; get it again.")
    if encoder is not None and not (isinstance(encoder, dict) and {"name", "fingerprint"} <= encoder.keys()):
        raise CheckpointError(f"The model card in {path} cannot be used: its encoder has no name; get the file again.")
    if odd := unusable(provenance):
        warnings.warn(
            f"The model card in {path} has entries that cannot be used ({', '.join(odd)}); they count as unknown.",
            CpnnWarning,
            stacklevel=3,
        )
    card["provenance"] = usable(provenance)


def card_text(card: Mapping[str, Any]) -> str:
    """Serialise a card, with a digest that :func:`read_card` verifies."""
    plain_card = plain(card)
    return json.dumps({**plain_card, "digest": _digest(plain_card)}, allow_nan=False)


def _digest(card: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()


def require_whole_file(path: Path) -> dict[str, Any]:
    """Return the ``__metadata__`` of a safetensors header after checking that the file contains all its tensors.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated or damaged.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= _MAX_HEADER:
                raise CheckpointError(f"{path} is not a napari-cpnn model; one is a .safetensors file.")
            raw = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not raw.startswith(b"{"):
        raise CheckpointError(f"{path} is not a napari-cpnn model; one is a .safetensors file.")
    if len(raw) < length:
        raise CheckpointError(f"{path} is truncated; get the file again.")
    try:
        header = parse_json(raw, path, CheckpointError)
        metadata = dict(header.pop("__metadata__", {}))
        end = _end_of_tensors(header)
    except (CpnnError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise CheckpointError(f"The header of {path} is damaged; get the file again.") from error
    if size != 8 + length + end:
        raise CheckpointError(f"{path} is truncated or damaged: it has {size} bytes, not {8 + length + end}.")
    return metadata


def _end_of_tensors(header: Mapping[str, Any]) -> int:
    """End offset of the last tensor; ValueError unless tensors are contiguous and match their shapes."""
    end = 0
    for start, stop, n_bytes in sorted(_extent(entry) for entry in header.values()):
        if start != end or stop - start != n_bytes:
            raise ValueError("tensors that do not follow one another")
        end = stop
    return end


def _extent(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    start, stop = entry["data_offsets"]
    shape = entry["shape"]
    if not all(type(n) is int and n >= 0 for n in (start, stop, *shape)):
        raise ValueError("sizes that are no numbers")
    return start, stop, math.prod(shape) * _BYTES[entry["dtype"]]
