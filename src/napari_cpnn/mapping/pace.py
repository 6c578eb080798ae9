"""How large the next batch should be, and how fast the last ones were."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

#: The speed that is shown is that of this last while.
_SECONDS = 3.0
_LEAST = 8


class Pace:
    """Batch sizes that keep a batch near ``seconds``, from how long the batches so far took.

    Sizes are powers of two, so that few shapes are ever compiled.

    Parameters
    ----------
    batch_size
        The first.
    seconds
        How long a batch should take.

    Attributes
    ----------
    batch_size
        Patches of the next batch.
    n_patches
        How many have been computed.
    """

    def __init__(self, batch_size: int, seconds: float) -> None:
        self.batch_size = batch_size
        self._seconds = seconds
        self._rate = 0.0
        self._n_batches = self.n_patches = 0
        self._finished: deque[tuple[float, int]] = deque()

    def note(self, n: int, seconds: float, limit: int) -> None:
        """A batch of ``n`` patches took ``seconds``; the next has at most ``limit``."""
        self._n_batches += 1
        self.n_patches += n
        now = time.monotonic()
        self._finished.append((now, n))
        while now - self._finished[0][0] > _SECONDS:
            self._finished.popleft()
        if self._n_batches == 1:  # the first batch pays for start-up
            return
        rate = n / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.7 * self._rate + 0.3 * rate
        wanted = max(1.0, self._rate * self._seconds)
        self.batch_size = max(1, min(limit, max(_LEAST, 2 ** int(np.log2(wanted)))))

    def patches_per_second(self) -> float:
        """Over the last few seconds; 0 when nothing was computed in them."""
        now = time.monotonic()
        recent = [(t, n) for t, n in self._finished if now - t < _SECONDS]
        span = max(now - recent[0][0], 0.2) if len(recent) > 1 else 0.0
        return sum(n for _, n in recent[1:]) / span if span else 0.0
