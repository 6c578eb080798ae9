"""Choose device and precision, and recognise out-of-memory errors."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from napari_cpnn.errors import MappingError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
Engine = Literal["torch", "openvino"]


def choose_device(name: str = "auto") -> torch.device:
    """Select a device; ``"auto"``: CUDA, then MPS, then CPU. :class:`MappingError` if it is unavailable."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:  # torch lists some twenty kinds of device in its message
        raise MappingError(f"There is no device {name!r}; use 'auto', 'cpu', 'cuda' or 'mps'.") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise MappingError(f"There is no device {name!r}; use 'auto', 'cpu', 'cuda' or 'mps'.")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise MappingError(f"The device {name!r} cannot be used here ({reason}); choose 'auto' or 'cpu'.") from error
    return device


def choose_precision(device: torch.device, name: str = "auto") -> Precision:
    """Select a precision; ``"auto"`` and ``"int8"``: bfloat16 if the hardware supports it natively, else float32."""
    import torch

    if name == "int8":  # what it starts from
        name = "auto"
    if name in ("float32", "bfloat16"):
        return name  # type: ignore[return-value]
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
        return "bfloat16" if native else "float32"
    return "float32"


def choose_engine(device: torch.device, name: str = "auto") -> Engine:
    """Select what computes image networks; ``"auto"``: OpenVINO on a CPU if it is installed, else torch.

    The environment variable ``NAPARI_CPNN_ENGINE`` is what ``"auto"`` means where it is set.

    Raises
    ------
    MappingError
        If the engine is unknown or cannot be used.
    """
    chosen = name if name != "auto" else os.environ.get("NAPARI_CPNN_ENGINE") or "auto"
    if chosen not in ("auto", "torch", "openvino"):
        raise MappingError(f"There is no engine {chosen!r}; use 'auto', 'torch' or 'openvino'.")
    is_here = find_spec("openvino") is not None
    if chosen == "auto":
        return "openvino" if device.type == "cpu" and is_here else "torch"
    if chosen == "openvino" and name == "openvino":
        if device.type != "cpu":
            raise MappingError(f"OpenVINO is for the CPU, and the device is {device}; choose the engine 'torch'.")
        if not is_here:
            raise MappingError(
                "OpenVINO is not installed; pip install \"napari-cpnn[fast]\", or choose the engine 'torch'."
            )
    return "openvino" if chosen == "openvino" and device.type == "cpu" and is_here else "torch"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports exhausted memory of a device or of the machine."""
    import torch

    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def choose_devices(name: str = "auto", n_gpus: int = 1) -> list[torch.device]:
    """Select the devices that map a slide together: that of :func:`choose_device` and, on CUDA, those after it.

    Parameters
    ----------
    name
        As for :func:`choose_device`; with a number (``"cuda:2"``), the first of them.
    n_gpus
        How many; 0: all that are visible. Without CUDA there is one device, and the number is not used.

    Raises
    ------
    MappingError
        If there are fewer.
    """
    import torch

    first = choose_device(name)
    if first.type != "cuda":
        return [first]
    indices = list(range(torch.cuda.device_count()))
    if ":" in str(first):
        indices = indices[first.index :]
    else:
        indices.insert(0, indices.pop(torch.cuda.current_device()))
    if n_gpus > len(indices):
        raise MappingError(
            f"{n_gpus} GPUs are asked for, and from {first} on there are {len(indices)}; choose fewer (n_gpus)."
        )
    return [torch.device("cuda", index) for index in indices[: n_gpus or None]]


def n_visible_gpus() -> int:
    """Number of GPUs that this program may use, at least one."""
    import torch

    return max(1, torch.cuda.device_count())


def is_device_lost(error: BaseException) -> bool:
    """Return whether an exception reports that a GPU can no longer be used by this program.

    After such an error (a fault of the card or driver, a card that fell off the bus) everything else that is asked of
    this device fails, too. Lack of memory is none (:func:`is_out_of_memory`).
    """
    import torch

    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    known = ("cuda error", "cudnn error", "cublas error", "cuda driver error", "device-side assert", "gpu is lost")
    accelerator = getattr(torch, "AcceleratorError", None)  # of torch 2.8 and later
    return (accelerator is not None and isinstance(error, accelerator)) or any(words in text for words in known)
