"""The state of a run after an epoch: all that it needs to go on as if it had never stopped.

One ``.safetensors`` with the model, the optimiser's moments and the average of the weights, and JSON for the rest.
Learning rates follow from the number of steps, and every random choice from the seed and the epoch, so neither is
stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_cpnn.errors import SettingsError, TrainingError
from napari_cpnn.settings import TrainingSettings

FORMAT = 1
_KEY = "napari_cpnn_run"

#: Settings that change where a run takes place, but not what comes out of it (up to the arithmetic of a device).
FREE = ("device", "patch_cache")


@dataclass(frozen=True)
class RunState:
    """A run after some epochs.

    Attributes
    ----------
    epoch
        Number of epochs that are complete.
    best, best_epoch
        The best held-out score so far and its epoch, counted from 1.
    history
        Rows of ``metrics.csv``.
    settings
        What the run was started with, as plain JSON.
    data_key
        Hash of the data that the run learns from.
    tensors
        Everything else, by name.
    """

    epoch: int
    best: float
    best_epoch: int
    history: list[dict[str, float]]
    settings: dict[str, Any]
    data_key: str
    tensors: Mapping[str, Tensor]

    def to_bytes(self) -> bytes:
        """The content of a file."""
        facts = {
            "format": FORMAT,
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "settings": self.settings,
            "data_key": self.data_key,
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return bytes(save(tensors, {_KEY: json.dumps(facts)}))

    @classmethod
    def read(cls, path: Path) -> RunState:
        """Read what :meth:`to_bytes` made; a :class:`TrainingError` when it is damaged."""
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()[_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
            if facts.pop("format") != FORMAT:
                raise TrainingError(f"{path} was written by another version of napari-cpnn; start the run again.")
            return cls(**facts, tensors=tensors)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{path} is damaged ({error}), so the run cannot go on; start it again in another folder."
            ) from error

    def require_same(self, settings: TrainingSettings, folder: Path) -> None:
        """Refuse to go on with other settings; the :class:`TrainingError` names what differs."""
        try:
            before = TrainingSettings.from_dict(self.settings).to_dict()
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
        """Refuse to go on with other slides, spots, genes or prototypes."""
        if data_key != self.data_key:
            raise TrainingError(
                f"The run in {folder} was started on other slides, spots or prototypes; resume it with those, "
                "or choose another folder."
            )

    def is_finished(self, settings: TrainingSettings, held_out: bool) -> bool:
        """Whether there is no epoch left to run."""
        return self.epoch >= settings.max_epochs or (held_out and self.epoch - self.best_epoch >= settings.patience)


def _in_words(value: Any) -> str:
    return str(value) if not isinstance(value, dict) else " ".join(f"{k} {v}" for k, v in value.items())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of an optimiser by ``<number of the parameter>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser over the same parameters the moments that :func:`optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
