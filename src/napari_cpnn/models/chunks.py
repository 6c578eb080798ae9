"""Batches cut into pieces of one size, so that what is said of a patch hardly depends on the others in its batch.

What is promised, on a processor (CPU) and in float32: the same call gives the same bits, on one machine and with one
number of threads. In another batch, or at another place in it, a patch gets the same numbers within 1e-5. They are the
same bits wherever we could measure (``make test-isa``), but that is up to libraries of which each processor runs other
code, and is no promise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from napari_cpnn.models.triplex import Surroundings

#: Patches that go through a network at a time on a processor. Measured with DenseNet-121 at 224 px: 8 is the fastest,
#: 32 takes half as long again, since its maps no longer fit into the cache.
CHUNK = 8

Inputs = Tensor | Surroundings | None


def in_chunks(function: Callable[..., Sequence[Tensor]], *inputs: Inputs) -> tuple[Tensor, ...]:
    """``function(*inputs)`` in pieces of `CHUNK` rows, of which the last is filled up by repeating its first row.

    Matrix products of other shapes may sum in another order, and then differ in the last bits. In pieces of one shape
    the order is the same, unless a library sums the rows of one product in several ways. Two such places are known and
    avoided: layers of very few outputs (:mod:`napari_cpnn.models.heads`), and attention of a single query
    (:mod:`napari_cpnn.models.triplex.attention`).
    """
    n = next(len(values) for values in inputs if values is not None)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, max(n, 1), CHUNK):
        size = min(CHUNK, n - start)
        rows = torch.arange(start, start + CHUNK)
        rows[size:] = start
        piece = [values if values is None or not n else _rows(values, start, size, rows) for values in inputs]
        parts.append(tuple(values[:size] for values in function(*piece)))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _rows(values: Tensor | Surroundings, start: int, size: int, rows: Tensor) -> Tensor | Surroundings:
    # A whole piece is a view, which keeps its memory format.
    return values[start : start + CHUNK] if size == CHUNK else values[rows]
