"""What a live mapper says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapProgress:
    """Where a mapper stands.

    Attributes
    ----------
    done, wanted
        Patches of the present view (or slide) that are computed, and all of them.
    failed
        Patches of the whole map that could not be read or computed.
    patches_per_second
        Over the last three seconds.
    running
        Neither paused nor stopped by an error.
    idle
        Nothing is left to do for the present view.
    message
        What the user should know, or an empty string.
    """

    done: int
    wanted: int
    failed: int
    patches_per_second: float
    running: bool
    idle: bool
    message: str
