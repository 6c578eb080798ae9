"""Adaptive batch size, and throughput."""

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
        self._finished: deque[tuple[float, int]] = deque()

    def note(self, n: int, seconds: float, limit: int) -> None:
        """Record that a batch of ``n`` patches took ``seconds``; the next has at most ``limit`` patches."""
        self._n_batches += 1
        self.n_patches += n
        now = time.monotonic()
        self._finished.append((now, n))
        while now - self._finished[0][0] > _SECONDS:
            self._finished.popleft()
        if self._n_batches == 1:  # the first batch includes start-up time
            return
        rate = n / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.7 * self._rate + 0.3 * rate
        wanted = max(1.0, self._rate * self._seconds)
        self.batch_size = max(1, min(limit, max(_LEAST, 2 ** int(np.log2(wanted)))))

    def patches_per_second(self) -> float:
        """Throughput over the last few seconds; 0 if nothing was computed."""
        now = time.monotonic()
        recent = [(t, n) for t, n in self._finished if now - t < _SECONDS]
        span = max(now - recent[0][0], 0.2) if len(recent) > 1 else 0.0
        return sum(n for _, n in recent[1:]) / span if span else 0.0
