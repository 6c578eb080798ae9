"""Sentences of the Align dock. No Qt here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_cpnn.registration import Registration

#: Lengths that differ by more speak for a wrong pixel size.
_SCALE = 0.1


def hint(*, has_slide: bool, has_moving: bool, n_pairs: int, open_side: str, least: int) -> str:
    """Return what to do next."""
    if not has_slide:
        return "No slide yet: open one, and choose it in the Explore dock."
    if not has_moving:
        return "Open the spots, or the other slide, that shall come to lie on this one."
    if open_side == "fixed":
        return "Now click the same place on the slide."
    if open_side == "moving":
        return "Now click the same place in the small picture."
    if n_pairs < least:
        more = least - n_pairs
        return f"Click a place in the small picture and the same on the slide ({more} more), or take a first guess."
    return ""


def said_of(found: Registration | None) -> str:
    """Return what a registration does, and how well it fits."""
    if found is None:
        return ""
    parts = [f"turned {found.turn_deg:+z.1f}°"]
    if found.mirrored:
        parts.append("mirrored")
    if found.moving_mpp != (1.0, 1.0):
        parts.append(f"scale {found.scale:.3f}")
    if len(found.moving):
        parts.append(f"residual {found.rms_um:.0f} µm")
        if math.isfinite(found.left_out_rms_um):
            parts.append(f"left out {found.left_out_rms_um:.0f} µm")
    if found.evidence is not None:
        parts.append(f"overlap {found.evidence.dice:.2f}")
        if math.isfinite(found.evidence.correlation):
            parts.append(f"correlation {found.evidence.correlation:.2f}")
    return " · ".join(parts) + _caution(found)


def _caution(found: Registration) -> str:
    """Return what is to be thought of a registration; empty for nothing."""
    if not found.trusted:
        return f". Not to be believed without a look: {found.why}"
    if found.how_far:
        return f". {found.how_far[:1].upper()}{found.how_far[1:]}."
    if found.moving_mpp != (1.0, 1.0) and abs(math.log(found.scale)) > _SCALE:
        return ". Lengths differ: is the pixel size of both right?"
    return ""


def micrometres(value: float) -> str:
    """Return a distance for the table."""
    return f"{value:.0f}" if math.isfinite(value) else "–"
