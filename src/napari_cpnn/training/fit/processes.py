"""Training on several devices: one process each, of which only the first writes files.

Lightning starts the other processes (by running the program again, unless a cluster's scheduler has started them), and
keeps their weights equal by averaging gradients (distributed data parallel).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_cpnn.errors import SettingsError
from napari_cpnn.settings import TrainingSettings

if TYPE_CHECKING:
    import torch


def is_first_process(settings: TrainingSettings) -> bool:
    """Return whether this process writes the results; always true on a single device."""
    if settings.devices == "1":
        return True
    from lightning.fabric.utilities.rank_zero import rank_zero_only  # seconds

    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def trainer_options(settings: TrainingSettings, device: torch.device) -> dict[str, Any]:
    """Accelerator, devices and strategy for Lightning's ``Trainer``.

    Raises
    ------
    SettingsError
        If ``devices`` is invalid or contradicts ``device``.
    """
    options: dict[str, Any] = {
        "accelerator": "gpu" if device.type == "cuda" else device.type,
        # Our sampler distributes whole batches over processes, since a correlation cannot be split.
        "use_distributed_sampler": False,
    }
    if settings.devices == "1":
        return {**options, "devices": [device.index or 0] if device.type == "cuda" else 1}
    if ":" in settings.device:
        raise SettingsError(
            f"The setting device names one device, {settings.device}, and devices asks for {settings.devices}; "
            "set one of them."
        )
    return {**options, "devices": _devices(settings.devices, device), "strategy": settings.strategy}


def _devices(text: str, device: torch.device) -> int | str | list[int]:
    if text == "auto":
        return text
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or (len(numbers) == 1 and numbers[0] == 0 and "," not in text):
        raise SettingsError(f"devices is a number, a list such as 0,2 or auto, not {text!r}.")
    if "," not in text:
        return numbers[0]
    if device.type == "cpu":
        raise SettingsError(f"The processor has no numbered devices; set devices to how many processes, not {text!r}.")
    return numbers


def wait_for_all() -> None:
    """Wait until all processes of the run have reached this point."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
