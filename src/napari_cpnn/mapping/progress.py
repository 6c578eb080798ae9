"""Progress of a live mapper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapProgress:
    """Progress of a mapper.

    Attributes
    ----------
    done, wanted
        Computed and total number of patches of the current view (or slide).
    failed
        Number of patches of the whole map that could not be read or computed.
    patches_per_second
        Throughput over the last three seconds.
    running
        True unless paused or stopped by an error.
    idle
        True if the current view is complete.
    message
        Message for the user, or an empty string.

    Examples
    --------
    >>> from napari_cpnn.mapping import LiveMapper
    >>> with LiveMapper(slide, model) as mapper:
    ...     mapper.progress().failed
    0
    """

    done: int
    wanted: int
    failed: int
    patches_per_second: float
    running: bool
    idle: bool
    message: str
