"""Choose device and precision, and recognise out-of-memory errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_cpnn.errors import MappingError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]


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
    """Select a precision; ``"auto"``: bfloat16 if the hardware supports it natively, else float32."""
    import torch

    if name in ("float32", "bfloat16"):
        return name  # type: ignore[return-value]
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
        return "bfloat16" if native else "float32"
    return "float32"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports exhausted memory of a device or of the machine."""
    import torch

    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
