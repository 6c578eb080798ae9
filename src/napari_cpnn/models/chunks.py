"""Batches cut into pieces of one size, so that what is said of a patch does not depend on the others in its batch."""

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

    Matrix products of other shapes may sum in another order, and then differ in the last bits. Pieces of one shape do
    not, on a processor, so that two predictions of a patch are equal to the bit whatever comes with it.
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
