"""Progress of a live mapper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: What limits the throughput: the network, reading the slide, or unknown.
Limit = Literal["network", "reading", ""]

#: The network limits the throughput if it computes for at least this share of the time.
_BUSY = 0.85


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
    network_share
        Throughput as a share of what the network alone reaches on this computer, which is its limit: the share of the
        last three seconds in which the network computed. NaN if it is not known.
    limited_by
        What limits the throughput: ``"network"`` if it computed for most of the last three seconds, ``"reading"`` if it
        waited for patches; empty if it is not known.
    seconds_left
        Time until the current view is complete, at the present throughput; NaN if it is not known.

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
    network_share: float = float("nan")

    @property
    def limited_by(self) -> Limit:
        if math.isnan(self.network_share):
            return ""
        return "network" if self.network_share >= _BUSY else "reading"

    @property
    def seconds_left(self) -> float:
        if self.idle:
            return 0.0
        return (self.wanted - self.done) / self.patches_per_second if self.patches_per_second > 0 else float("nan")
