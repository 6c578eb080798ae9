"""The card of a checkpoint: what a model file says about itself, readable without torch.

A model file is one ``.safetensors``. Its header is a JSON text with the place of every tensor, and in its metadata
our own JSON: the card.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_cpnn.errors import CheckpointError, SettingsError
from napari_cpnn.geometry import PatchSpec

#: Key of the card in the metadata of the safetensors header.
METADATA_KEY = "napari_cpnn"

#: Version of the file format; a reader refuses newer ones. A model without a frozen encoder is written as version 2,
#: and one without what tells its domain as version 1, which older readers know.
FORMAT_VERSION = 3

#: A header longer than this is not one of ours (the safetensors library itself allows 100 MB).
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class ModelSpec:
    """Everything that fixes the shape of a model and the meaning of its inputs and outputs.

    Parameters
    ----------
    genes, cell_types
        Names of the G genes and C cell types (none for a linear head).
    patch
        What the network sees.
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
        How much the residual programs count outside of training.
    backbone_args
        What the name of the backbone leaves open: ``encoder``, the frozen encoder's name; ``embedded``, whether its
        weights are in the file; and what TRIPLEX needs.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Read what :meth:`to_dict` wrote; names it does not know are passed over.

        Raises
        ------
        KeyError, TypeError, ValueError, SettingsError
            When something is missing or of the wrong kind.
        """
        if data["head"] not in ("cpnn", "linear"):
            raise SettingsError(f"There is no head {data['head']!r}.")
        program_net = data.get("program_net", "linear")  # the only one of the first models
        if program_net not in ("mlp", "linear"):
            raise SettingsError(f"There is no network of programs {program_net!r}.")
        return cls(
            genes=_names(data["genes"]),
            cell_types=_names(data["cell_types"]),
            patch=PatchSpec(int(data["patch"]["size_px"]), float(data["patch"]["mpp"])),
            backbone=str(data["backbone"]),
            head=data["head"],
            n_programs=int(data["n_programs"]),
            hidden=int(data["hidden"]),
            mean=_triple(data["mean"]),
            std=_triple(data["std"]),
            program_net=program_net,
            free_mixture=float(data.get("free_mixture", 0.0)),
            program_gain=float(data.get("program_gain", 1.0)),
            backbone_args=dict(data.get("backbone_args", {})),
        )


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise TypeError("a list of names was expected")
    return tuple(values)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def plain(value: Any) -> Any:
    """``value`` in plain JSON types; a number that JSON does not have (NaN, infinity) becomes ``None``."""
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
    """The card of a model file; reads its header only.

    Returns
    -------
    dict
        ``format_version``, ``written_by``, ``fingerprint``, ``model`` (see :class:`ModelSpec`), ``backbone`` (name,
        description, licence, ...), ``encoder`` (the frozen one, or none: name, licence, source, ``fingerprint`` of its
        weights), ``domain`` (its sizes, or none), ``colors`` (``#RRGGBB`` per cell type) and ``provenance`` (settings,
        training data, metrics, licence notes).

    Raises
    ------
    CheckpointError
        When the file is missing, truncated, not one of ours or of a newer version.
    """
    path = Path(path)
    metadata = _read_metadata(path)
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file but not a napari-cpnn model; it has no model card.")
    try:
        card = json.loads(text)
        version = int(card["format_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"The model card in {path} is damaged; get the file again.") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has model format {version}, and this napari-cpnn reads up to {FORMAT_VERSION}; "
            "update napari-cpnn (pip install -U napari-cpnn)."
        )
    return dict(card)


def _read_metadata(path: Path) -> dict[str, Any]:
    """The ``__metadata__`` of a safetensors header, after a check that all tensors are in the file."""
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
        header = json.loads(raw)
        metadata = header.pop("__metadata__", {})
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(f"The header of {path} is damaged; get the file again.") from error
    if size != 8 + length + end:
        raise CheckpointError(f"{path} is truncated or damaged: it has {size} bytes, not {8 + length + end}.")
    return dict(metadata)
