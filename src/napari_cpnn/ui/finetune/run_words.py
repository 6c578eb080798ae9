"""Texts about a training run. No Qt here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_cpnn.texts import duration

if TYPE_CHECKING:
    from napari_cpnn.training.jobs import RunStatus

WEIGHTS_ENTRY = "A file of weights ..."
"""Entry of *Start from* for weights of an image network from elsewhere."""


def progress_words(status: RunStatus) -> str:
    """Describe a run: ``epoch 3 of 30 · held-out PCC 0.213, best 0.220 at epoch 2 · at most 4 min left``."""
    if not status.history:
        return status.text or ("Starting ..." if status.running else "no epoch is complete")
    parts = [f"epoch {status.epoch}" + (f" of {status.max_epochs}" if status.max_epochs else "")]
    best, pcc = status.best, status.history[-1].get("held_out_pcc", math.nan)
    if best is not None and math.isfinite(pcc):
        parts.append(f"held-out PCC {pcc:z.3f}, best {best['held_out_pcc']:z.3f} at epoch {best['epoch']:.0f}")
    if status.running and math.isfinite(status.seconds_left):
        parts.append(f"at most {duration(status.seconds_left)} left")
    elif not status.running:
        parts.append("stopped, can be resumed" if status.resumable else "finished")
    return " · ".join(parts)


def step_words(status: RunStatus | None) -> str:
    """Describe what a run is doing: ``Cutting patches: 40 %, 12 s``; empty while it is not known."""
    if status is None or not status.running or not status.step:
        return ""
    parts = [f"{100 * status.step_done:.0f} %"] if math.isfinite(status.step_done) and status.step_done > 0 else []
    if math.isfinite(status.step_seconds) and status.step_seconds >= 1:
        parts.append(duration(status.step_seconds))
    text = f"{status.step[:1].upper()}{status.step[1:]}"
    return f"{text}: {', '.join(parts)}" if parts else f"{text} ..."


def in_dock_words(error: str) -> str:
    """Say in an error what to choose in the dock instead of which argument to give."""
    for said, here in (
        ("give its path as weights", f"choose it at Start from > {WEIGHTS_ENTRY}"),
        (
            "give the path of the file as encoder_weights (or weights)",
            f"choose the file at More > Weights of the encoder (or Start from > {WEIGHTS_ENTRY})",
        ),
        ("or choose weights 'none' to start from random ones", "or choose random weights there"),
    ):
        error = error.replace(said, here)
    return error
