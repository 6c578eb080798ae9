"""State of a run after an epoch, from which it can be resumed without any difference in the result.

Stored as one ``.safetensors`` file with the model, the optimiser's moments and the weight average, and JSON for the
rest. Learning rates follow from the number of steps, and random numbers from seed and epoch, so neither is stored.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from napari_cpnn.errors import SettingsError, TrainingError
from napari_cpnn.models import require_whole_file
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.untrusted import parse_json, reason_of, to_path

FORMAT = 1
_KEY = "napari_cpnn_run"

#: Settings that change where a run is computed but not its result (up to the device's arithmetic).
FREE = ("device", "patch_cache")


@dataclass(frozen=True)
class RunState:
    """State of a run after an epoch.

    Attributes
    ----------
    epoch
        Number of complete epochs.
    best, best_epoch
        The best held-out score so far and its epoch, counted from 1.
    history
        Rows of ``metrics.csv``.
    settings
        Settings of the run, as plain JSON.
    data_key
        Hash of the training data.
    tensors
        Tensors of model, optimiser and weight average, by name.
    """

    epoch: int
    best: float
    best_epoch: int
    history: list[dict[str, float]]
    settings: dict[str, Any]
    data_key: str
    tensors: Mapping[str, Tensor]

    def to_bytes(self) -> bytes:
        """Serialise to the content of a file."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        facts = {"format": FORMAT, **vars(self), "crc32": _checksum(tensors)}
        del facts["tensors"]
        return bytes(save(tensors, {_KEY: json.dumps(facts)}))

    @classmethod
    def read(cls, path: Path) -> RunState:
        """Read a file written from :meth:`to_bytes`; raise a :class:`TrainingError` if it is damaged."""
        to_path(path, TrainingError)
        try:
            require_whole_file(path)
            with safe_open(path, framework="pt") as file:
                facts = parse_json(file.metadata()[_KEY], path, TrainingError)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
            version, checksum = facts.pop("format"), facts.pop("crc32", None)
            state = cls(**facts, tensors=tensors).checked() if version == FORMAT else None
            is_whole = checksum is None or checksum == _checksum(tensors)  # missing in earlier versions
        except SettingsError as error:
            raise TrainingError(f"{path} was written by another version of napari-cpnn: {error}") from error
        except Exception as error:  # damaged files may raise anything
            raise _damaged(path, reason_of(error)) from error
        if state is None:
            raise TrainingError(f"{path} was written by another version of napari-cpnn; start the run again.")
        if not is_whole:
            raise _damaged(path, "its numbers are not the ones that were written")
        return state

    def checked(self) -> RunState:
        """Return the state if it is consistent; raise ValueError or TypeError otherwise."""
        epochs = (self.epoch, self.best_epoch)
        if any(type(n) is not int for n in epochs) or not 0 <= self.best_epoch <= self.epoch:
            raise ValueError("its epochs make no sense")
        if type(self.best) not in (int, float) or not isinstance(self.data_key, str):
            raise TypeError("its scores make no sense")
        if not isinstance(self.settings, dict) or not isinstance(self.history, list):
            raise TypeError("it has no settings or no history")
        TrainingSettings.from_written(self.settings)
        if len(self.history) != self.epoch or not all(isinstance(row, dict) for row in self.history):
            raise ValueError("it has not a row for each epoch")
        return self

    def require_same(self, settings: TrainingSettings, folder: Path) -> None:
        """Refuse to resume with other settings; the :class:`TrainingError` names the differences."""
        try:
            before = TrainingSettings.from_written(self.settings).to_dict()
        except SettingsError as error:
            raise TrainingError(
                f"The run in {folder} was started by another version of napari-cpnn: {error}"
            ) from error
        now = settings.to_dict()
        changed = [name for name in now if now[name] != before[name] and name not in FREE]
        if changed:
            then = " and ".join(f"{name} {_in_words(before[name])}" for name in changed)
            raise TrainingError(
                f"The run in {folder} was started with {then}, not {' and '.join(_in_words(now[n]) for n in changed)}; "
                "resume it with the settings it was started with, or choose another folder."
            )

    def require_same_data(self, data_key: str, folder: Path) -> None:
        """Refuse to resume with other slides, spots, genes or prototypes."""
        if data_key != self.data_key:
            raise TrainingError(
                f"The run in {folder} was started on other slides, spots or prototypes; resume it with those, "
                "or choose another folder."
            )

    def is_finished(self, settings: TrainingSettings, held_out: bool) -> bool:
        """Return whether no epoch is left to run."""
        return self.epoch >= settings.max_epochs or (held_out and self.epoch - self.best_epoch >= settings.patience)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _damaged(path: Path, reason: str) -> TrainingError:
    return TrainingError(f"{path} is damaged ({reason}), so the run cannot go on; start it again in another folder.")


def _in_words(value: Any) -> str:
    return str(value) if not isinstance(value, dict) else " ".join(f"{k} {v}" for k, v in value.items())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments of an optimiser by ``<parameter index>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the moments from :func:`optimizer_tensors` in an optimiser over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
