"""Adaptive batch size, throughput, and what limits it."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

#: Duration in seconds over which the displayed throughput is averaged.
_SECONDS = 3.0
_LEAST = 8


class Pace:
    """Adapt the batch size so that a batch takes about ``seconds``.

    Sizes are powers of two, so that few shapes are compiled.

    Parameters
    ----------
    batch_size
        Initial batch size.
    seconds
        Target duration of a batch.

    Attributes
    ----------
    batch_size
        Number of patches of the next batch.
    n_patches
        Number of patches computed so far.
    """

    def __init__(self, batch_size: int, seconds: float) -> None:
        self.batch_size = batch_size
        self._seconds = seconds
        self._rate = 0.0
        self._n_batches = self.n_patches = 0
        self._finished: deque[tuple[float, int, float]] = deque()

    def note(self, n: int, seconds: float, limit: int) -> None:
        """Record that a batch of ``n`` patches took ``seconds``; the next has at most ``limit`` patches."""
        self._n_batches += 1
        self.n_patches += n
        now = time.monotonic()
        self._finished.append((now, n, seconds))
        while now - self._finished[0][0] > _SECONDS:
            self._finished.popleft()
        if self._n_batches == 1:  # the first batch includes start-up time
            return
        rate = n / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.7 * self._rate + 0.3 * rate
        wanted = max(1.0, self._rate * self._seconds)
        self.batch_size = max(1, min(limit, max(_LEAST, 2 ** int(np.log2(wanted)))))

    def restart(self) -> None:
        """Leave the time since the last batch out of the throughput, since nothing was to be done."""
        self._finished.clear()

    def patches_per_second(self) -> float:
        """Throughput over the last few seconds; 0 if nothing was computed."""
        now, recent = time.monotonic(), self._recent()
        span = max(now - recent[0][0], 0.2) if recent else 0.0
        return sum(n for _, n, _ in recent[1:]) / span if span else 0.0

    def network_share(self) -> float:
        """Share of the last few seconds in which the network computed; NaN if too little was computed to say."""
        recent = self._recent()
        span = recent[-1][0] - recent[0][0] if recent else 0.0
        return min(sum(seconds for *_, seconds in recent[1:]) / span, 1.0) if span else float("nan")

    def _recent(self) -> list[tuple[float, int, float]]:
        """Batches of the last seconds: time of their end, patches, seconds in the network; none if there is but one."""
        now = time.monotonic()
        recent = [batch for batch in self._finished if now - batch[0] < _SECONDS]
        return recent if len(recent) > 1 else []
